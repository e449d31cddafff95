from __future__ import annotations

import json
from pathlib import Path

import pytest
from one_set import FLAGGED, WRITERS
from voc_files import picture, text

from frcnn.config import DataConfig
from frcnn.conversion.lost import lost_in_reading
from frcnn.conversion.run import convert
from frcnn.data.findings import CheckReport
from frcnn.data.open import open_dataset

TARGETS = ("voc", "coco", "yolo")


def test_nothing_was_found() -> None:
    assert lost_in_reading(CheckReport("", ())) == []


@pytest.mark.parametrize("target", TARGETS)
def test_classes_without_boxes(tmp_path: Path, target: str) -> None:
    source = tmp_path / "in"
    for split, rows in (("train", "2 .5 .5 .1 .1\n"), ("val", "0 .5 .5 .1 .1\n")):
        picture(source / f"images/{split}/{split}.jpg")
        text(source / f"labels/{split}/{split}.txt", rows)
    text(source / "data.yaml", "train: images/train\nval: images/val\nnames: [a, b, c]\n")
    done = convert(source, tmp_path / "out", target)  # type: ignore[arg-type]
    again = open_dataset(tmp_path / "out")
    assert again.classes == ("a", "c") and [int(s.labels[0]) for s in again] in ([0, 1], [1, 0])
    numbers = {"coco": {"a": "1", "b": "2", "c": "3"}, "yolo": {"a": "0", "b": "1", "c": "2"}, "voc": {}}
    assert again.source_ids == numbers[target]
    assert done.lost == (("1 classes without a box: b: not named any more",) if target == "voc" else ())
    one = convert(source, tmp_path / "one", target, split="train")  # type: ignore[arg-type]
    assert one.lost == (("2 classes without a box: a, b: not named any more",) if target == "voc" else ())


def test_chosen_and_renamed_classes_are_all_there_are(tmp_path: Path) -> None:
    source = tmp_path / "in"
    picture(source / "images/1.jpg")
    text(source / "labels/1.txt", "2 .5 .5 .1 .1\n0 .2 .2 .1 .1\n")
    text(source / "data.yaml", "train: images\nnames: [a, b, c]\n")
    chosen = convert(source, tmp_path / "c", "coco", config=DataConfig(classes=("c",)))
    assert open_dataset(tmp_path / "c").source_ids == {"c": "1"}
    assert chosen.lost == (
        'D07 class name (1): class "a" with 1 boxes is not in data.classes; left out, their pixels count as '
        "background; merge a class into another with data.rename",
    )
    convert(source, tmp_path / "r", "coco", config=DataConfig(rename={"*": "thing"}))
    assert open_dataset(tmp_path / "r").source_ids == {"thing": "1"}


def test_what_reading_left_out_is_named(tmp_path: Path) -> None:
    shapes = [
        {"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"},
        {"label": "eye", "points": [[3, 3]], "shape_type": "point"},
        {"label": "eye", "points": [[5, 3]], "shape_type": "point"},
    ]
    for name in "ab":
        picture(tmp_path / f"in/{name}.jpg")
        text(tmp_path / f"in/{name}.json", json.dumps({"shapes": shapes, "imagePath": f"{name}.jpg"}))
    (tmp_path / "in/b.jpg").write_bytes(b"no picture")
    done = convert(tmp_path / "in", tmp_path / "out", "coco", config=DataConfig(on_bad_image="skip"))
    assert [line.split(": ")[0] for line in done.lost] == [
        "D13 picture cannot be read (1)",
        "D16 annotation cannot be read (4)",
    ]
    assert done.lost[1].endswith('shape of "eye" is a point, which has no area; left out')
    assert "left out or changed:" in done.format() and done.lost[0] in done.format()


def test_flagged_boxes_are_named_where_they_are_not_kept(tmp_path: Path) -> None:
    source = tmp_path / "in"
    WRITERS["voc"](source, FLAGGED)
    assert convert(source, tmp_path / "ignore", "voc").lost == ()
    lost = convert(source, tmp_path / "out", "voc", config=DataConfig(difficult="background")).lost
    assert len(lost) == 1 and lost[0].startswith("D20 ")
    assert lost[0].endswith("1 difficult boxes: left out, their pixels count as background "
                            "(data.difficult=background)")  # fmt: skip
