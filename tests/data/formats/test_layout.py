from __future__ import annotations

from pathlib import Path

import pytest
from voc_files import picture, text

from frcnn.data.formats.layout import (
    folder_splits,
    read_bytes,
    read_head,
    read_lines,
    scan,
    split_in_folders,
    split_in_name,
    split_lines,
)


def test_an_empty_folder(tmp_path: Path) -> None:
    tree = scan(tmp_path)
    assert (tree.files, tree.outward, tree.pictures, tree.folders) == ((), (), (), {""})


def test_what_is_listed(tmp_path: Path) -> None:
    for name in ("a.JPG", "x/y/b.png", ".git/c.jpg", "__MACOSX/d.jpg", "x/.e.jpg"):
        picture(tmp_path / name)
    (tmp_path / "out").symlink_to("/", target_is_directory=True)
    tree = scan(tmp_path)
    assert tree.files == tree.pictures == ("a.JPG", "x/y/b.png") and tree.outward == ("out",)
    assert tree.folders == {"", "x", "x/y"}
    below = tree.below("x")
    assert (below.files, below.outward, below.root) == (("y/b.png",), (), tmp_path / "x")


def test_links_beside_a_folder_whose_name_begins_alike(tmp_path: Path) -> None:
    picture(tmp_path / "data2/a.jpg")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jpg").symlink_to(tmp_path / "data2/a.jpg")
    assert scan(tmp_path / "data").outward == ("a.jpg",)
    assert scan(tmp_path / "data", "follow").files == ("a.jpg",)


@pytest.mark.parametrize(
    ("file", "name", "folders"),
    [
        ("", "", ""),
        ("boxes.csv", "", ""),
        ("instances_train2017.json", "train", ""),
        ("valid/_annotations.coco.json", "", "val"),
        ("test/a/my-Validation.csv", "val", "test"),
        ("train/test/trainval.json", "trainval", "test"),
        ("restrain.csv", "", ""),
    ],
)
def test_splits_in_names(file: str, name: str, folders: str) -> None:
    assert (split_in_name(file), split_in_folders(file)) == (name, folders)


def test_splits_of_folders() -> None:
    assert folder_splits([]) == {}
    assert folder_splits(["a.jpg", "Train/a.jpg", "x/valid/b.jpg", "train.jpg"]) == {
        "train": ["Train/a.jpg"],
        "val": ["x/valid/b.jpg"],
    }


def test_reading(tmp_path: Path) -> None:
    file = text(tmp_path / "a.txt", "")
    assert (read_bytes(file), read_head(file), read_lines(file)) == (b"", b"", [""])
    file.write_bytes(b"\xef\xbb\xbfGr\xc3\xbcn\r\nb\rc")
    assert read_lines(file) == ["Grün", "b", "c"] and read_head(file, 4) == b"\xef\xbb\xbfG"
    file.write_bytes(b"Gr\xfcn")
    assert read_lines(file) == ["Grün"]
    assert read_bytes(file, 4) == b"Gr\xfcn"
    with pytest.raises(OSError, match="it has 0 MB, and at most 0 MB are read"):
        read_bytes(file, 3)
    with pytest.raises(OSError, match="it is no plain file"):
        read_bytes(tmp_path)
    assert read_head(tmp_path / "gone") == b""
    assert split_lines("a\r\n\rb\n") == ["a", "", "b", ""]
