from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from voc_files import picture, text, xml

from frcnn.data.formats.pairing import PictureFolders, PictureIndex, by_base_name, split_of, stated_pictures
from frcnn.data.open import open_dataset, read_dataset

PICTURES = ["train/1.jpg", "val/1.jpg", "images/2.jpg", "a/b/3.jpg", "b/3.jpg", "val/4.jpg", "train/5.jpg"]
KNOWN, FOLDERS = by_base_name(PICTURES), PictureFolders(PICTURES)


def test_nothing() -> None:
    assert by_base_name([]) == {}
    assert stated_pictures([], KNOWN, FOLDERS) == []
    nothing = PictureFolders([])
    assert stated_pictures(["1.jpg"], {}, nothing) == [("", '"1.jpg" is not a picture here')]
    assert not nothing.splits and not nothing.other_folder("train/1.jpg", "2.jpg")
    assert PictureIndex([], ["a"]).elsewhere("a") == []


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        ([], ""),
        (["images"], ""),
        (["train"], "train"),
        (["images", "Valid"], "val"),
        (["train", "x", "test", "y"], "test"),
        (["val2017"], "val"),
        (["train_2014"], "train"),
        (["training"], ""),
        (["my-train"], ""),
    ],
)
def test_the_split_of_folders(folders: list[str], split: str) -> None:
    assert split_of(folders) == split


@pytest.mark.parametrize(
    ("name", "near", "picture"),
    [
        ("2.jpg", [], "images/2.jpg"),
        (" ./images/2.jpg ", [], "images/2.jpg"),
        ("/home/me/set/2.jpg", [], "images/2.jpg"),
        ("C:\\set\\2.jpg", [], "images/2.jpg"),
        ("val/1.jpg", [], "val/1.jpg"),
        ("1.jpg", ["val"], "val/1.jpg"),
        ("/home/me/train/1.jpg", ["train"], "train/1.jpg"),
        ("a/b/3.jpg", [], "a/b/3.jpg"),
        ("2.JPG", [], ""),
        ("../../etc/passwd", [], ""),
        ("", [], ""),
        ("..", [], ""),
        ("4.jpg", [], "val/4.jpg"),
        ("train/4.jpg", [], ""),  # train/ is here without it, and val/4.jpg is another picture
        ("set/train/4.jpg", ["val"], ""),
        ("/home/me/train/4.jpg", [], ""),
        ("test/4.jpg", [], ""),  # no such folder is left here
        ("/home/me/test/4.jpg", [], "val/4.jpg"),  # test is a folder of that machine
        ("https://x.org/test/4.jpg", [], "val/4.jpg"),
        ("valid/images/4.jpg", [], ""),  # images/ is here without it
        ("validation/4.jpg", [], "val/4.jpg"),
        ("b/2.jpg", [], ""),
        ("c/2.jpg", [], "images/2.jpg"),
    ],
)
def test_paths(name: str, near: list[str], picture: str) -> None:
    found, reason = stated_pictures([name], KNOWN, FOLDERS, near)[0]
    assert found == picture and bool(reason) is not bool(picture)


@pytest.mark.parametrize(
    ("file", "names", "found"),
    [
        ("", ["4.jpg"], ["val/4.jpg"]),
        ("labels/boxes.csv", ["4.jpg"], ["val/4.jpg"]),
        ("train/boxes.csv", ["4.jpg", "2.jpg"], ["", "images/2.jpg"]),
        ("train/boxes.csv", ["val/4.jpg"], ["val/4.jpg"]),  # that is what it says
        ("train/val.csv", ["4.jpg"], ["val/4.jpg"]),  # the file's folder and name disagree
        ("train.csv", ["4.jpg"], ["val/4.jpg"]),  # a choice of any pictures
        ("train.csv", ["4.jpg", "1.jpg", "2.jpg"], ["", "train/1.jpg", "images/2.jpg"]),  # numbers come twice
        ("annotations/instances_train2017.json", ["4.jpg", "1.jpg"], ["", "train/1.jpg"]),
        ("trainval.csv", ["4.jpg", "5.jpg"], ["val/4.jpg", "train/5.jpg"]),
        ("test.csv", ["4.jpg", "5.jpg"], ["val/4.jpg", "train/5.jpg"]),
    ],
)
def test_names_in_a_file_of_a_split(file: str, names: list[str], found: list[str]) -> None:
    assert [p for p, _ in stated_pictures(names, KNOWN, FOLDERS, [], file)] == found


def test_what_is_not_clear() -> None:
    both = '"1.jpg" may be 2 pictures: train/1.jpg, val/1.jpg'
    assert stated_pictures(["1.jpg"], KNOWN, FOLDERS) == [("", both)]
    other = '"train/4.jpg" is not a picture here; val/4.jpg lies in another folder'
    assert stated_pictures(["train/4.jpg"], KNOWN, FOLDERS) == [("", other)]
    # two paths of another machine with one name: neither can be told from the other
    assert [p for p, _ in stated_pictures(["/x/2.jpg", "/y/2.jpg"], KNOWN, FOLDERS)] == ["", ""]
    same = stated_pictures(["/x/2.jpg", "/x/2.jpg"], KNOWN, FOLDERS)
    assert [p for p, _ in same] == ["images/2.jpg"] * 2


@pytest.mark.parametrize(
    ("pictures", "annotations", "path", "found"),
    [
        # a split
        (["val/1.jpg"], [], "train/1", []),
        (["test/1.jpg"], [], "train/1", []),
        (["images/valid/1.jpg"], [], "labels/val/1", ["images/valid/1.jpg"]),
        (["images/1.jpg"], [], "labels/train/1", ["images/1.jpg"]),
        (["images/train/1.jpg"], [], "labels/1", ["images/train/1.jpg"]),
        (["val2017/1.jpg"], [], "train2017/1", []),
        (["val/1.jpg"], [], "/home/me/train/1", ["val/1.jpg"]),
        (["val/1.jpg", "train/2.jpg"], [], "/home/me/train/1", []),
        # folders of any name that hold both
        (["b/1.jpg", "a/2.jpg"], ["a/1", "a/2", "a/3"], "a/1", ["b/1.jpg"]),
        (["b/1.jpg", "a/2.jpg", "a/3.jpg"], ["a/1", "a/2", "a/3"], "a/1", []),
        (["a/c/1.jpg", "a/2.jpg", "a/3.jpg"], ["a/1", "a/2", "a/3"], "a/1", ["a/c/1.jpg"]),
        (["b/1.jpg", "2.jpg"], ["1", "2"], "1", ["b/1.jpg"]),
        (["images/1.jpg", "xml/legend.jpg"], ["xml/1"], "xml/1", ["images/1.jpg"]),
        # folders side by side
        (["images/b/1.jpg", "images/a/2.jpg"], [], "labels/a/1", []),
        (["images/b/1.jpg", "images/a/1.jpg"], [], "labels/a/1", ["images/a/1.jpg"]),
        (["images/b/1.jpg"], [], "labels/a/1", ["images/b/1.jpg"]),
    ],
)
def test_pictures_of_other_folders(
    pictures: list[str], annotations: list[str], path: str, found: list[str]
) -> None:
    index = PictureIndex(pictures, annotations)
    assert index.candidates(path) == found
    named = [p for p in pictures if p.endswith("/1.jpg")]
    assert index.elsewhere(path) == [p for p in named if p not in found]


def test_the_stated_name_counts_where_that_of_the_file_is_elsewhere() -> None:
    index = PictureIndex(["train/x.jpg", "val/1.jpg"])
    assert index.candidates("train/1", "x.jpg") == ["train/x.jpg"]


def _voc(root: Path) -> None:
    text(root / "train/1.xml", xml("1.jpg", [("cat", 1, 1, 9, 9)]))


def _labelme(root: Path) -> None:
    shapes = [{"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}]
    text(root / "train/1.json", json.dumps({"shapes": shapes, "imagePath": "1.jpg"}))


def _yolo(root: Path) -> None:
    text(root / "classes.txt", "cat\n")
    text(root / "labels/train/1.txt", "0 .5 .5 .1 .1\n")


def _coco(root: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    text(root / "train/_annotations.coco.json", json.dumps(content))


def _csv(root: Path) -> None:
    text(root / "boxes.csv", "path,x1,y1,x2,y2,class\ntrain/1.jpg,1,1,9,9,cat\n")


@pytest.mark.parametrize("write", [_voc, _labelme, _yolo, _coco, _csv])
@pytest.mark.parametrize("others", [[], ["train/2.jpg"]])
def test_boxes_of_a_missing_picture_go_to_no_other(
    tmp_path: Path, write: Callable[[Path], None], others: list[str]
) -> None:
    for name in ("val/1.jpg", *others):
        picture(tmp_path / name)
    write(tmp_path)
    data, found = read_dataset(tmp_path)
    assert not len(data.objects.boxes)
    assert [f.severity for f in found if f.code == "D12" and f.severity != "note"] == ["error"]
    picture(tmp_path / "train/1.jpg", colour=9)
    data = open_dataset(tmp_path)
    boxes = dict(zip(data.pictures.paths, (len(sample.boxes) for sample in data), strict=True))
    assert boxes["train/1.jpg"] == 1 and sum(boxes.values()) == 1
