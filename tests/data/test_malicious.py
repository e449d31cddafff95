"""Files that lead out of the folder, or are made to hurt, are refused by every reader."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from one_set import PLAIN, WRITERS
from voc_files import picture, text

from frcnn.config import DataConfig
from frcnn.data.findings import Finding
from frcnn.data.formats.layout import LARGE, SMALL, read_bytes, scan
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError

BOMB = (
    '<?xml version="1.0"?>\n<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>\n<annotation><object><name>&c;</name></object></annotation>'
)
OUTSIDE_FILE = (
    '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>\n<annotation><folder>&a;</folder></annotation>'
)


def errors(root: Path) -> list[Finding]:
    return [f for f in read_dataset(root)[1] if f.severity == "error"]


@pytest.mark.parametrize("content", [BOMB, OUTSIDE_FILE])
def test_xml_entities(tmp_path: Path, content: str) -> None:
    WRITERS["voc"](tmp_path, PLAIN)
    text(tmp_path / "Annotations/b.xml", content)
    assert [(f.code, Path(f.path).name, f.message) for f in errors(tmp_path)] == [
        ("D16", "b.xml", "declares XML entities, which are not allowed")
    ]


def _voc(root: Path, path: str) -> Path:
    (root / "Annotations/b.xml").rename(root / "Annotations/z.xml")
    file = root / "Annotations/z.xml"
    return text(file, file.read_text().replace("<annotation>", f"<annotation><filename>{path}</filename>"))


def _replace(name: str, old: str, new: str = "{}") -> Callable[[Path, str], Path]:
    def change(root: Path, path: str) -> Path:
        content = (root / name).read_text()
        assert old in content
        return text(root / name, content.replace(old, new.format(path)))

    return change


def _labelme(root: Path, path: str) -> Path:
    (root / "train/b.json").rename(root / "train/z.json")
    return _replace("train/z.json", "b.jpg")(root, path)


STATED = {
    "voc": _voc,
    "coco": _replace("annotations/instances_train2017.json", "b.jpg"),
    "yolo": _replace("data.yaml", "images/val"),
    "kitti": _replace("ImageSets/val.txt", "c"),
    "labelme": _labelme,
    "csv": _replace("boxes.csv", "b.jpg"),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "../out.jpg", "{out}"])
def test_stated_paths_never_lead_out_of_the_folder(tmp_path: Path, kind: str, path: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    outside = picture(tmp_path / "out.jpg")
    WRITERS[kind](root, PLAIN)
    file = STATED[kind](root, path.format(out=outside))
    data, findings = read_dataset(root)
    found = [f for f in findings if f.code == "D12" and f.severity != "note"]
    assert [f.path for f in found if str(file) == f.path], findings
    assert all("passwd" not in p and "out" not in p for p in data.pictures.paths)
    assert all((root / p).resolve().is_relative_to(root) for p in data.pictures.paths)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "other"
    for kind in (root, outside):
        kind.mkdir()
        WRITERS["voc"](kind, PLAIN)
    for name in ("JPEGImages/b.jpg", "Annotations/a.xml"):
        (root / name).unlink()
        (root / name).symlink_to(outside / name)
    (root / "more").symlink_to(outside, target_is_directory=True)
    (root / "README").symlink_to("/etc/passwd")  # neither a picture nor an annotation: nobody reads it
    assert scan(root).outward == ("Annotations/a.xml", "JPEGImages/b.jpg", "more")
    found = [f for f in errors(root) if "is a link to" in f.message]
    assert [os.path.relpath(f.path, root) for f in found] == list(scan(root).outward)
    assert str(outside / "JPEGImages/b.jpg") in found[1].message and "data.links=follow" in found[1].action
    (root / "more").unlink()
    assert len(open_dataset(root, config=DataConfig(links="follow"))) == 3


def test_links_inside_the_folder_and_to_it_are_fine(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    WRITERS["yolo"](root, PLAIN)
    (root / "store").mkdir()
    (root / "images/train/a.jpg").rename(root / "store/real")
    (root / "images/train/a.jpg").symlink_to(root / "store/real")
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert len(open_dataset(root)) == len(open_dataset(tmp_path / "link")) == 3


def test_a_folder_of_nothing_but_links(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    picture(tmp_path / "pictures/a.jpg")
    (tmp_path / "data/pictures").symlink_to(tmp_path / "pictures", target_is_directory=True)
    with pytest.raises(
        DataError, match=r"data/pictures: is a link to .*, outside the data set; copy it here"
    ):
        open_dataset(tmp_path / "data")


def test_what_is_no_plain_file_is_left_out(tmp_path: Path) -> None:
    WRITERS["csv"](tmp_path, PLAIN)
    os.mkfifo(tmp_path / "pictures/pipe.jpg")  # opening it would wait for ever
    os.mkfifo(tmp_path / "pipe.csv")
    assert len(open_dataset(tmp_path)) == 3


HUGE = {
    "voc": ("Annotations/b.xml", SMALL),
    "coco": ("annotations/instances_train2017.json", LARGE),
    "yolo": ("labels/train/b.txt", SMALL),
    "kitti": ("training/label_2/b.txt", SMALL),
    "labelme": ("train/b.json", SMALL),
    "csv": ("boxes.csv", LARGE),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_of_gigabytes_are_not_read(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path, PLAIN)
    name, most = HUGE[kind]
    os.truncate(tmp_path / name, 2_100_000_000)  # sparse: it takes no room
    found = [f for f in errors(tmp_path) if "MB are read" in f.message]
    assert [(f.code, f.path) for f in found] == [("D16", str(tmp_path / name))]
    assert f"cannot be read (it has 2,100 MB, and at most {most // 10**6:,} MB" in found[0].message
    with pytest.raises(OSError, match="MB are read"):
        read_bytes(tmp_path / name, most)


def test_a_data_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    WRITERS["yolo"](tmp_path, PLAIN)
    os.truncate(tmp_path / "data.yaml", 2_100_000_000)
    assert [(f.code, f.message) for f in errors(tmp_path)] == [
        ("D16", "cannot be read (it has 2,100 MB, and at most 1 MB are read)")
    ]


SIZES = {
    "voc": _replace(
        "Annotations/b.xml", "<annotation>", "<annotation><size><width>{0}</width><height>{0}</height></size>"
    ),
    "coco": _replace(
        "annotations/instances_train2017.json", '"b.jpg"', '"b.jpg", "width": {0}, "height": {0}'
    ),
    "labelme": _replace("train/b.json", '"b.jpg"', '"b.jpg", "imageWidth": {0}, "imageHeight": {0}'),
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_stated_size_that_no_picture_has(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path, PLAIN)
    file = SIZES[kind](tmp_path, "2147483648")
    found = errors(tmp_path)
    assert [(f.code, f.path) for f in found] == [("D16", str(file))] and "which no picture has" in found[
        0
    ].message


def test_missing_pictures_behind_links_are_told_from_missing_ones(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "other"
    for kind in (root, outside):
        kind.mkdir()
        WRITERS["voc"](kind, PLAIN)
    for place in sorted((root / "JPEGImages").iterdir()):
        place.unlink()
        place.symlink_to(outside / "JPEGImages" / place.name)
    with pytest.raises(
        DataError, match=r"no pictures.*\n\d links lead out of it, the first .*data\.links=follow"
    ):
        open_dataset(root)
