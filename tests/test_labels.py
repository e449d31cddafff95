from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.formats.vocxml import from_one_based, parse
from frcnn.data.formats.yolotext import parse_labels
from frcnn.labels import (
    CocoTable,
    Labelled,
    one_based,
    picture_file,
    voc_holds,
    voc_xml,
    yolo_text,
    yolo_yaml,
)

CLASSES = ("cell", 'odd & "name"')
NONE = Labelled(np.zeros((0, 4)), np.zeros(0, np.int64), CLASSES, (48, 64), "a.png")
BOXES = np.array([[0.25, 1.5, 20.12341, 30], [3, 4, 64, 48]])


def flagged(**flags: list[bool]) -> Labelled:
    arrays = {name: np.asarray(values) for name, values in flags.items()}
    return Labelled(BOXES, np.array([0, 1]), CLASSES, (48, 64), "a.png", "in", **arrays)


def test_no_boxes() -> None:
    assert parse(voc_xml(NONE).encode()).names == () and parse(voc_xml(NONE).encode()).size == (48, 64)
    assert yolo_text(NONE) == ""
    table = CocoTable(())
    assert json.loads(table.text()) == {"images": [], "annotations": [], "categories": []}
    table.add(NONE)
    assert json.loads(table.text())["images"] == [{"id": 1, "file_name": "a.png", "height": 48, "width": 64}]
    assert voc_holds(np.zeros((0, 4))).shape == (0,) and one_based(np.zeros((0, 4))).shape == (0, 4)
    assert yaml.safe_load(yolo_yaml((), {})) == {"path": ".", "names": {}}
    assert picture_file(None) == ("", "")


def test_voc() -> None:
    found = parse(
        voc_xml(flagged(difficult=[True, False], crowd=[False, True], truncated=[False, True]), 4).encode()
    )
    assert (found.names, found.filename, found.problems) == (CLASSES, "a.png", ())
    assert found.corners.tolist() == [[1.25, 2.5, 20.1234, 30], [4, 5, 64, 48]]
    assert found.difficult.tolist() == [True, True]  # a crowd is the nearest that VOC has
    assert (found.truncated.tolist(), found.occluded.tolist()) == ([False, True], [False, False])
    assert "<xmax>20.12</xmax>" in voc_xml(flagged()) and "<folder>in</folder>" in voc_xml(flagged())


def test_yolo() -> None:
    found = parse_labels(yolo_text(flagged(), 9).splitlines())
    assert found.ids.tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes * [64, 48, 64, 48], BOXES, atol=1e-6)
    assert yaml.safe_load(yolo_yaml(CLASSES, {"train": "images/train"})) == {
        "path": ".",
        "train": "images/train",
        "names": dict(enumerate(CLASSES)),
    }


def test_coco() -> None:
    table = CocoTable(CLASSES, 4)
    table.add(NONE)
    table.add(flagged(crowd=[True, False], difficult=[True, True]))
    data = json.loads(table.text())
    assert [c["id"] for c in data["categories"]] == [1, 2] and [i["id"] for i in data["images"]] == [1, 2]
    first, second = data["annotations"]
    assert first["bbox"] == [0.25, 1.5, 19.8734, 28.5] and second["bbox"] == [3, 4, 61, 44]
    assert (first["id"], first["image_id"], first["category_id"], first["iscrowd"]) == (1, 2, 1, 1)
    assert "ignore" not in first and (second["ignore"], second["iscrowd"]) == (1, 0)


@pytest.mark.parametrize(
    ("box", "held"),
    [
        ([0, 0, 10, 10], True),
        ([5, 5, 6, 9], False),  # one pixel: its last pixel from 1 is its first
        ([5, 5, 5.5, 9], False),
        ([5, 5, 5, 9], True),  # no area stays as it is
        ([9, 5, 4, 9], True),
        ([-3, 5, -2.5, 9], True),
        ([0, 0, float("inf"), 9], False),
        ([0, float("nan"), 5, 9], False),
    ],
)
def test_what_voc_holds(box: list[float], held: bool) -> None:
    boxes = np.asarray([box], np.float32)
    assert voc_holds(boxes).tolist() == [held]
    if held:
        np.testing.assert_array_equal(from_one_based(one_based(boxes)), boxes)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-50, 3000, width=32)] * 4), max_size=5))
def test_what_is_held_comes_back_through_the_reader(rows: list[tuple[float, ...]]) -> None:
    boxes = np.asarray(rows, np.float32).reshape(-1, 4)
    boxes = boxes[voc_holds(boxes)]
    np.testing.assert_allclose(from_one_based(one_based(boxes)), boxes, atol=1e-3)
