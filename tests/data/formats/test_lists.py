from __future__ import annotations

from pathlib import Path

import pytest
from voc_files import picture, text

from frcnn.data.formats.layout import scan
from frcnn.data.formats.lists import list_of_paths, lists_of_names, read_listed
from frcnn.data.formats.pairing import PictureIndex, by_base_name
from frcnn.data.sample import DataError


def test_no_list_and_an_empty_one(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "train.txt", "\n")
    tree = scan(tmp_path)
    assert lists_of_names(tree, [], PictureIndex(tree.pictures)) == ({}, [])
    assert lists_of_names(tree, ["train.txt"], PictureIndex(tree.pictures)) == ({"train": []}, [])
    assert list_of_paths(tree, "train.txt", "train", {}) == ([], [])


def test_names(tmp_path: Path) -> None:
    for name in ("x/a.jpg", "x/b.v1.png"):
        picture(tmp_path / name)
    text(tmp_path / "l/train.txt", "a \nb.v1.png\na\nc\n")
    text(tmp_path / "l/val.txt", "c\r\nb.v1\r\n")
    tree = scan(tmp_path)
    splits, found = lists_of_names(tree, ["l/train.txt", "l/val.txt"], PictureIndex(tree.pictures))
    assert splits == {"train": ["x/a.jpg", "x/b.v1.png"], "val": ["x/b.v1.png"]}
    assert [(f.path, f.line, f.splits) for f in found] == [
        (str(tmp_path / "l/train.txt"), 4, ("train", "val"))
    ]
    only = lists_of_names(
        tree, ["l/train.txt", "l/val.txt"], PictureIndex(tree.pictures), lambda file, lines: "c" == lines[0]
    )
    assert list(only[0]) == ["train"]


def test_paths(tmp_path: Path) -> None:
    for name in ("train/a.jpg", "val/a.jpg", "b.jpg"):
        picture(tmp_path / name)
    text(tmp_path / "l/v.txt", "val/a.jpg\n\n/home/x/b.jpg\nval/a.jpg\n../../etc/passwd\na.jpg\n")
    tree = scan(tmp_path)
    members, found = list_of_paths(tree, "l/v.txt", "val", by_base_name(tree.pictures))
    assert members == ["val/a.jpg", "b.jpg"]  # "a.jpg" is that of the folder of the split's name
    assert [(f.code, f.line, f.splits) for f in found] == [("D12", 5, ("val",))]


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "train.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(DataError, match=r"train\.txt: cannot be read"):
        read_listed(scan(tmp_path), "train.txt")
