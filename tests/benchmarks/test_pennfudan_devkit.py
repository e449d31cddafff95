"""Penn-Fudan as a VOC data set: the same boxes, the stated splits."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pennfudan
import pytest
from devkits import pedestrians, record

import frcnn

REAL = Path(os.environ.get("FRCNN_DATA", Path(__file__).parents[3] / "shared" / "data")) / "pennfudan"


def test_record_without_objects() -> None:
    assert pennfudan.parse_record(record("a", []), "a") == pennfudan.Record((80, 60), ())


def test_record_with_both_labels() -> None:
    boxes = [(1, 2, 3, 4), (5, 6, 80, 60)]
    assert pennfudan.parse_record(record("a", boxes), "a") == pennfudan.Record((80, 60), tuple(boxes))


@pytest.mark.parametrize(
    "text", ["", "Objects with ground truth : 0\n", "Image size (X x Y x C) : 3 x 3 x 3\n"]
)
def test_not_a_record(text: str) -> None:
    with pytest.raises(ValueError, match=r"a\.txt: not a Penn-Fudan record"):
        pennfudan.parse_record(text, "a.txt")


def test_record_that_lost_a_box() -> None:
    text = record("a", [(1, 2, 3, 4), (5, 6, 7, 8)]).rsplit("Bounding box", 1)[0]
    with pytest.raises(ValueError, match="states 2 objects, holds 1"):
        pennfudan.parse_record(text, "a.txt")


def test_splits_of_nothing() -> None:
    assert pennfudan.make_splits([]) == {"train": [], "val": [], "trainval": [], "test": []}


def test_splits_are_the_stated_ones() -> None:
    names = [f"{i:03}" for i in range(170)]
    splits = pennfudan.make_splits(names[::-1])  # sorted before they are shuffled
    shuffled = list(names)
    random.Random(0).shuffle(shuffled)
    assert splits["trainval"] == shuffled[:119] and splits["test"] == shuffled[119:]
    assert splits["train"] == shuffled[:95] and splits["val"] == shuffled[95:119]


def test_no_records(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Penn-Fudan records"):
        pennfudan.prepare(tmp_path / "none", tmp_path / "voc")
    assert not (tmp_path / "voc").exists()


def test_record_without_picture(tmp_path: Path) -> None:
    source = pedestrians(tmp_path / "source", {"a": [(1, 1, 9, 9)]})
    (source / "PNGImages" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"its picture .* is not there"):
        pennfudan.prepare(source, tmp_path / "voc")
    assert not (tmp_path / "voc").exists()  # what was begun does not pass for a data set


def test_four_pictures_as_frcnn_reads_them(tmp_path: Path) -> None:
    boxes = {"d": [(1, 1, 80, 60)], "b": [], "a": [(11, 6, 40, 45), (46, 10, 70, 50)], "c": [(2, 3, 4, 5)]}
    source = pedestrians(tmp_path / "source", boxes)
    counts = pennfudan.prepare(source, tmp_path / "voc")
    assert counts == {"train": 1, "val": 1, "trainval": 2, "test": 2}
    dataset = frcnn.open_dataset(tmp_path / "voc")
    assert dataset.classes == ("person",)
    found = {sample.path.stem: sample for sample in dataset}
    assert {name: sample.size for name, sample in found.items()} == dict.fromkeys("abcd", (60, 80))
    for name, objects in boxes.items():
        expected = np.array([(x1 - 1, y1 - 1, x2, y2) for x1, y1, x2, y2 in objects]).reshape(-1, 4)
        assert np.array_equal(found[name].boxes, expected)
    shuffled = list("abcd")
    random.Random(0).shuffle(shuffled)
    assert {s.path.stem for s in dataset.subset("trainval")} == set(shuffled[:2])
    assert pennfudan.prepare(tmp_path / "gone", tmp_path / "voc") == counts  # made once


@pytest.mark.skipif(
    not REAL.is_dir(), reason="Penn-Fudan is not here: set FRCNN_DATA to the folder that holds pennfudan/"
)
def test_the_real_ones(tmp_path: Path) -> None:
    counts = pennfudan.prepare(REAL, tmp_path / "voc")
    assert counts == {"train": 95, "val": 24, "trainval": 119, "test": 51}
    dataset = frcnn.open_dataset(tmp_path / "voc")
    assert len(dataset.objects.boxes) == 423 and len(dataset) == 170
    box = next(s for s in dataset if s.path.stem == "FudanPed00001").boxes[0]
    assert box.tolist() == [159, 181, 302, 431]
