from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from voc_files import picture, text

from frcnn.config import Config, DataConfig
from frcnn.data.check import load_checked
from frcnn.data.findings import Finding
from frcnn.data.formats.layout import scan
from frcnn.data.formats.yolo import detects
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError

CENTRE = "0 0.5 0.5 0.25 0.5"  # of 80 x 60: 30, 15, 50, 45
NAMES = "names: [cat, dog]\n"


def make(
    root: Path, files: Mapping[str, Sequence[str] | None], setup: str = "", name: str = "data.yaml"
) -> Path:
    """Pictures (``images/a``) with the rows of their labels; None: no label file."""
    for number, (file, rows) in enumerate(files.items()):
        picture(root / f"{file}.jpg", colour=10 * number)
        if rows is not None:
            text(root / f"{file.replace('images', 'labels')}.txt", "".join(f"{row}\n" for row in rows))
    if setup:
        text(root / name, setup)
    return root


def splits(root: Path) -> dict[str, list[str]]:
    data = read_dataset(root)[0]
    paths = list(data.pictures.paths)
    return {name: [paths[i] for i in rows] for name, rows in data.splits.items()}


def brief(findings: Sequence[Finding]) -> set[tuple[str, str, str, int]]:
    return {(f.code, f.severity, Path(f.path).name, f.line) for f in findings}


def test_pictures_without_labels_are_background(tmp_path: Path) -> None:
    make(tmp_path, {"images/a": None, "images/b": []}, "train: images\nnames: [cat]\n")
    data = open_dataset(tmp_path)
    assert (len(data), data.classes, data.format) == (2, (), "YOLO")
    assert list(data.pictures.annotations) == ["", "labels/b.txt"]


def test_shares_become_pixels(tmp_path: Path) -> None:
    make(tmp_path, {"images/a": [CENTRE, "", "1 0.1 0.1 0.2 0.1 0.2 0.3"]}, f"train: images\n{NAMES}")
    data, found = read_dataset(tmp_path)
    assert data[0].boxes.ravel() == pytest.approx([30, 15, 50, 45, 8, 6, 16, 18])
    assert data.classes == ("cat", "dog") and data[0].labels.tolist() == [0, 1]
    assert data.objects.lines.tolist() == [1, 3] and data.source_ids == {"cat": "0", "dog": "1"}
    assert [(f.code, f.severity, f.message) for f in found] == [("D16", "note", "1 rows are polygons")]


def test_rounding_reaches_no_farther_than_the_border(tmp_path: Path) -> None:
    rows = ["0 0.0987655 0.5 0.197532 1.000001", "0 0.5 0.9 0.2 0.21"]
    make(tmp_path, {"images/a": rows}, f"train: images\n{NAMES}")
    first, second = open_dataset(tmp_path)[0].boxes.tolist()
    assert first[:2] == [0, 0] and first[3] == 60
    assert second[3] == pytest.approx(60.3)  # for the check to report


def test_boxes_of_pictures_that_cannot_be_read_are_no_second_error(tmp_path: Path) -> None:
    make(tmp_path, {"images/a": [CENTRE], "images/b": [CENTRE]}, f"train: images\n{NAMES}")
    (tmp_path / "images/a.jpg").write_bytes(b"no picture")
    assert [f.code for f in load_checked(tmp_path, config=Config(), clean=False)[1].errors] == ["D13"]


@pytest.mark.parametrize(
    ("pictures", "setup", "expected"),
    [
        (["images/train/a", "images/val/a"], "train: images/train\nval: images/val\n",
         {"train": [0], "val": [1]}),
        (["train/images/a", "valid/images/a"], "train: ../train/images\nval: ../valid/images\n",
         {"train": [0], "val": [1]}),
        (["images/x/a", "images/y/b", "images/z/c"], "path: ../datasets/set\ntrain: [images/x, images/y]\n"
         "val: images/z\n", {"train": [0, 1], "val": [2]}),
        (["images/train/a", "images/val/b"], "path: /home/me/set\ntrain: /home/me/set/images/train\nvalid: "
         "C:\\data\\images\\val\n", {"train": [0], "val": [1]}),
        (["images/a", "images/b"], "train: images\ntest:\n", {"train": [0, 1]}),
        (["images/a", "images/b"], "train: .\n", {"train": [0, 1]}),
    ],
)  # fmt: skip
def test_splits_of_a_data_file(
    tmp_path: Path, pictures: list[str], setup: str, expected: dict[str, list[int]]
) -> None:
    make(tmp_path, {name: [CENTRE] for name in pictures}, setup + NAMES)
    assert splits(tmp_path) == {k: [f"{pictures[i]}.jpg" for i in v] for k, v in expected.items()}
    assert all(len(sample.boxes) == 1 for sample in open_dataset(tmp_path))


@pytest.mark.parametrize(
    "place", ["images/missing", "/etc", "../../etc", "/", "../test/images", "images/a.jpg"]
)
def test_places_that_are_not_here(tmp_path: Path, place: str) -> None:
    make(tmp_path, {"images/a": [CENTRE]}, f"train: images\ntest: {place}\n{NAMES}")
    data, found = read_dataset(tmp_path)
    assert [(f.code, f.line, f.splits) for f in found if f.severity == "error"] == [("D12", 2, ("test",))]
    assert f'test: "{place}" is no folder and no list here' in found[0].message
    assert len(open_dataset(tmp_path, "train")) == len(data) == 1  # another split can be used


def test_lists_of_pictures(tmp_path: Path) -> None:
    files = {"images/a": [CENTRE], "images/b": [CENTRE], "images/c": None}
    make(tmp_path, files, f"path: .\ntrain: train.txt\nval: sub/val.txt\n{NAMES}")
    text(tmp_path / "train.txt", "./images/a.jpg\n\n")
    text(tmp_path / "sub/val.txt", "/home/x/images/b.jpg\n../../etc/passwd\n")
    data, found = read_dataset(tmp_path)
    assert splits(tmp_path) == {"train": ["images/a.jpg"], "val": ["images/b.jpg"]}
    assert len(data) == 2  # c is in no list and has no label
    assert brief(found) == {
        ("D12", "error", "val.txt", 2),
        ("D12", "note", tmp_path.name, 0),
        ("D08", "note", "data.yaml", 0),
    }


def test_labelled_pictures_in_no_split_stay(tmp_path: Path) -> None:
    make(tmp_path, {"images/train/a": [CENTRE], "images/b": []}, f"train: images/train\n{NAMES}")
    assert len(open_dataset(tmp_path)) == 2 and splits(tmp_path) == {"train": ["images/train/a.jpg"]}


def test_darknet(tmp_path: Path) -> None:
    setup = (
        "classes = 2\ntrain = data/train.txt\nvalid = data/test.txt\nnames = data/obj.names\nbackup = b/\n"
    )
    make(tmp_path, {"data/obj/a": [CENTRE], "data/obj/b": ["1 .5 .5 .1 .1"]}, setup, "data/obj.data")
    text(tmp_path / "data/obj.names", "cat\ndog\n\n")
    text(tmp_path / "data/train.txt", "data/obj/a.jpg\n")
    text(tmp_path / "data/test.txt", "data/obj/b.jpg\n")
    assert splits(tmp_path) == {"train": ["data/obj/a.jpg"], "val": ["data/obj/b.jpg"]}
    assert open_dataset(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize("folder", ["", "labels/"])
def test_without_a_data_file(tmp_path: Path, folder: str) -> None:
    make(tmp_path, {"images/train/a": [CENTRE], "images/valid/b": ["1 .5 .5 .1 .1"]})
    found = read_dataset(tmp_path)[1]
    assert [(f.code, f.severity) for f in found] == [("D07", "warn")]
    assert open_dataset(tmp_path).classes == ("0", "1")
    text(tmp_path / f"{folder}classes.txt", "cat\ndog\n")
    assert open_dataset(tmp_path).classes == ("cat", "dog")
    assert splits(tmp_path) == {"train": ["images/train/a.jpg"], "val": ["images/valid/b.jpg"]}


def test_labels_beside_pictures_and_lists(tmp_path: Path) -> None:
    make(tmp_path, {"a": [CENTRE], "b": [CENTRE], "train": [CENTRE]})
    text(tmp_path / "classes.txt", "cat\n")
    text(tmp_path / "readme.txt", "of cats\n")
    text(tmp_path / "train.txt", "a.jpg\nb.jpg\n")  # a list, and no label of train.jpg
    data, found = read_dataset(tmp_path)
    assert not found and splits(tmp_path) == {"train": ["a.jpg", "b.jpg"]}
    assert [len(sample.boxes) for sample in data] == [1, 1, 0]


def test_equal_names_in_folders(tmp_path: Path) -> None:
    make(tmp_path, {"images/a": [CENTRE], "images/x/a": [CENTRE] * 2}, f"train: .\n{NAMES}")
    data = read_dataset(tmp_path)[0]
    assert dict(zip(data.pictures.paths, data.pictures.annotations, strict=True)) == {
        "images/a.jpg": "labels/a.txt",
        "images/x/a.jpg": "labels/x/a.txt",
    }


@pytest.mark.parametrize("folders", [("train", "val"), ("a", "b")])
def test_a_label_without_a_picture_takes_none_from_another(tmp_path: Path, folders: tuple[str, str]) -> None:
    first, second = folders
    make(
        tmp_path, {f"images/{first}/1": [CENTRE] * 2, f"images/{first}/2": [], f"images/{second}/1": [CENTRE]}
    )
    text(tmp_path / "classes.txt", "cat\n")
    (tmp_path / f"images/{first}/1.jpg").unlink()
    data, found = read_dataset(tmp_path)
    assert brief(found) == {("D12", "error", "1.txt", 0)}
    assert found[0].path == str(tmp_path / f"labels/{first}/1.txt")
    assert found[0].message == f"has no picture; images/{second}/1.jpg lies in another folder"
    assert [len(sample.boxes) for sample in data] == [0, 1]


def test_the_label_in_its_place_comes_first(tmp_path: Path) -> None:
    make(tmp_path, {"images/b/1": [CENTRE]})
    text(tmp_path / "labels/1.txt", f"{CENTRE}\n{CENTRE}\n")  # sorts before labels/b/1.txt
    text(tmp_path / "classes.txt", "cat\n")
    data, found = read_dataset(tmp_path)
    assert list(data.pictures.annotations) == ["labels/b/1.txt"]
    assert [(f.code, f.message, f.path) for f in found] == [
        ("D09", "annotates images/b/1.jpg, as labels/b/1.txt does", str(tmp_path / "labels/1.txt"))
    ]


def test_endings_in_upper_case(tmp_path: Path) -> None:
    picture(tmp_path / "pictures/a.JPG")
    text(tmp_path / "labels/a.TXT", CENTRE)
    assert len(open_dataset(tmp_path)[0].boxes) == 1


def test_everything_wrong_is_found_at_once(tmp_path: Path) -> None:
    rows = [CENTRE, "2 .5 .5 .1 .1", "-1 .5 .5 .1 .1", "0 40 30 9 9", "0 .5"]
    make(tmp_path, {"images/a": rows, "images/b": [f"{CENTRE} 0.8"]}, f"train: images\n{NAMES}")
    text(tmp_path / "labels/gone.txt", CENTRE)
    data, found = read_dataset(tmp_path)
    assert brief(found) == {
        ("D07", "error", "a.txt", 2),
        ("D07", "error", "a.txt", 3),
        ("D04", "error", "a.txt", 4),
        ("D16", "error", "a.txt", 5),
        ("D16", "error", "b.txt", 1),
        ("D12", "error", "gone.txt", 0),
        ("D08", "note", "data.yaml", 0),
    }
    assert "class 2 has no name: data.yaml has 2, 0 to 1" in [f.message for f in found]
    assert all(f.action for f in found) and [len(s.boxes) for s in data] == [1, 0]
    left = read_dataset(tmp_path, config=DataConfig(bad_boxes="drop"))[1]
    assert [(f.severity, f.action) for f in left if f.code == "D04"] == [
        ("warn", "left out (--bad-boxes drop)")
    ]


def test_class_names_that_cannot_be_used(tmp_path: Path) -> None:
    make(tmp_path, {"images/a": [CENTRE, "2 .5 .5 .1 .1"]})
    text(tmp_path / "classes.txt", "cat\n\ncat\n")
    text(tmp_path / "labels/classes.txt", "dog\n")
    data, found = read_dataset(tmp_path)
    assert [(f.severity, f.message) for f in found if f.code == "D07"] == [
        ("error", "has other class names than classes.txt"),
        ("error", "class 1 has an empty name"),
        ("warn", 'class 2 has the name "cat" of class 0'),
    ]
    assert data.source_ids["cat"] == "0, 2" and data[0].labels.tolist() == [0, 0]


def test_two_data_files(tmp_path: Path) -> None:
    make(tmp_path, {"images/a": [CENTRE]}, f"train: images\n{NAMES}", "one.yaml")
    make(tmp_path, {"images/a": [CENTRE]}, f"train: images\n{NAMES}", "two.yaml")
    with pytest.raises(DataError, match=r"2 files name classes and splits \(one\.yaml, two\.yaml\)"):
        open_dataset(tmp_path)
    make(tmp_path, {"images/a": [CENTRE]}, "train: images\nnames: [dog]\n")
    assert open_dataset(tmp_path).classes == ("dog",)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, False),
        ({"data.yaml": f"train: x\n{NAMES}"}, True),
        ({"config.yaml": "train:\n  batch: 2\nmodel: {names: 3}\n"}, False),
        ({"obj.data": "train = x\n"}, True),
        ({"labels/a.txt": ""}, False),
        ({"labels/a.txt": CENTRE}, True),
        ({"images/a.txt": CENTRE}, True),
        ({"images/a.txt": "a cat on a mat, asleep"}, False),
        ({"notes.txt": CENTRE}, False),
    ],
)
def test_what_is_taken_for_yolo(tmp_path: Path, files: dict[str, str], expected: bool) -> None:
    for name, content in files.items():
        text(tmp_path / name, content)
    assert not detects(scan(tmp_path))  # without a picture
    picture(tmp_path / "images/a.jpg")
    assert detects(scan(tmp_path)) is expected
