from __future__ import annotations

import os
from pathlib import Path

import pytest
from voc_files import devkit, picture

from frcnn.conversion.run import convert
from frcnn.data.open import open_dataset

TARGETS = ("voc", "coco", "yolo")


@pytest.mark.parametrize(
    ("lists", "target", "lost", "splits"),
    [
        (("train", "val"), "coco", (), {"train": 1, "val": 1}),
        (
            ("train_a", "train_b"),
            "coco",
            (
                'split "train_a": instances_train_a.json is read as split "train"',
                'split "train_b": instances_train_b.json is read as split "train"',
            ),
            {"train": 2},
        ),
        (
            ("test-dev", "mini"),
            "coco",
            ('split "test-dev": instances_test-dev.json is read as split "test"',),
            {"mini": 1, "test": 1},
        ),
        (("a b", "a_b"), "coco", ('split "a b": instances_a_b.json is read as split "a_b"',
                                  'split "a_b": instances_a_b_2.json is read as split "a_b_2"'),
         {"a_b": 1, "a_b_2": 1}),
        (("a b", "a_b"), "voc", ('split "a b": its list is a_b.txt', 'split "a_b": its list is a_b_2.txt'),
         {"a_b": 1, "a_b_2": 1}),
        (("train_a", "test-dev"), "voc", (), {"train_a": 1, "test-dev": 1}),
    ],
)  # fmt: skip
def test_names_of_splits(
    tmp_path: Path, lists: tuple[str, str], target: str, lost: tuple[str, ...], splits: dict[str, int]
) -> None:
    boxes = [("cat", 1, 1, 9, 9)]
    source = devkit(tmp_path / "in", {"a": boxes, "b": boxes}, dict(zip(lists, "ab", strict=True)))
    done = convert(source, tmp_path / "out", target)  # type: ignore[arg-type]
    assert done.lost == lost
    assert {name: len(rows) for name, rows in open_dataset(tmp_path / "out").splits.items()} == splits


def test_a_split_of_another_name_alone(tmp_path: Path) -> None:
    source = devkit(tmp_path / "in", {"a": [("cat", 1, 1, 9, 9)]}, {"mini": ["a"]})
    assert convert(source, tmp_path / "out", "coco").lost == (
        'split "mini": instances_mini.json alone is read as no split',
    )
    assert not open_dataset(tmp_path / "out").splits


@pytest.mark.parametrize("target", TARGETS)
def test_file_names_that_are_no_text(tmp_path: Path, target: str) -> None:
    source = tmp_path / "in"
    picture(source / "caf%E9.jpg")
    for name, colour in ((b"caf\xe9", 50), (b"caf\xe8", 99)):
        try:
            picture(source / os.fsdecode(name + b".jpg"), colour=colour)
        except (OSError, UnicodeError) as error:
            pytest.skip(f"file names are text here ({error})")
        (source / os.fsdecode(name + b".xml")).write_text(
            "<annotation><object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax>"
            "<ymax>9</ymax></bndbox></object></annotation>"
        )
    done = convert(source, tmp_path / "out", target)  # type: ignore[arg-type]
    assert "2 pictures with bytes in their names that are no UTF-8: written as %E9 and the like" in done.lost
    again = open_dataset(tmp_path / "out")
    names = sorted(Path(p).name for p in again.pictures.paths)
    assert len(again) == len(set(names)) == 3 and {"caf%E8.jpg", "caf%E9.jpg"} < set(names)
    assert len(again.objects.boxes) == 2
    assert all(str(path).isascii() for path in (tmp_path / "out").rglob("*"))
