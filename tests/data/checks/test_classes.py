"""What is left to learn from: classes and pictures whose boxes all fall to a policy, a size or a flag."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_sample import make
from voc_files import Box, devkit, text, xml

from frcnn.config import Config
from frcnn.data.check import load_checked
from frcnn.data.checks.boxes import find_box_faults
from frcnn.data.checks.classes import check_split_contents, lost_boxes, tally
from frcnn.data.findings import Finding
from frcnn.data.sample import DataError
from frcnn.data.split import TrainVal

CAT: Box = ("cat", 1, 1, 10, 20)
DOG: Box = ("dog", 1, 1, 9, 9)
FLAT: Box = ("dog", 5, 5, 5, 9)
THIN: Box = ("dog", 5, 5, 6, 30)
"""Below one pixel where the short side is 20."""
OUTSIDE: Box = ("dog", 85, 5, 95, 30)


def config(size: int = 60, **data: object) -> Config:
    return Config.model_validate({"data": data, "preprocess": {"min_size": size, "max_size": 2 * size}})


def contents(root: Path, settings: Config, pick: TrainVal | None = None) -> list[Finding]:
    """D08 and D17 of everything."""
    report = load_checked(root, pick, config=settings, clean=False)[1]
    return [f for f in report.findings if f.code in ("D08", "D17")]


def test_nothing_is_lost_of_nothing() -> None:
    data = make([])
    lost = lost_boxes(data, find_box_faults(data, Config().preprocess), Config().data)
    assert all(len(mask) == 0 for mask in lost.values())
    (found,) = check_split_contents(data, lost)
    assert (found.code, found.severity, found.message) == ("D17", "error", "no object in any of 0 pictures")
    assert tally({}, 0) == tally({"to ignore": 0}, 2) == ""
    assert tally({"to ignore": 1, "flat": 0, "tiny": 2}, 3) == "of 3 boxes 1 to ignore, 2 tiny"


@pytest.mark.parametrize(
    ("box", "size", "why"),
    [
        (FLAT, 60, "1 without area"),
        (OUTSIDE, 60, "1 outside their pictures"),
        (THIN, 20, "1 below 1 pixel at the training size"),
    ],
)
def test_a_class_that_loses_all_its_training_boxes_stops(
    tmp_path: Path, box: Box, size: int, why: str
) -> None:
    splits = {"train": ["a", "b"], "val": ["c"]}
    devkit(tmp_path, {"a": [CAT], "b": [CAT, box], "c": [CAT, DOG]}, splits)
    (found,) = contents(tmp_path, config(size, bad_boxes="drop"))
    assert (found.code, found.severity, found.splits) == ("D08", "error", ("train",))
    assert found.message == f'class "dog" has no box in split "train" that counts: of 1 boxes {why}'
    with pytest.raises(DataError, match=r'^D08 class "dog" .*; it cannot be learnt'):
        load_checked(tmp_path, TrainVal(), config=config(size, bad_boxes="drop"))
    assert not contents(tmp_path, config(60)), "where bad boxes are errors, they are to be mended"


def test_a_box_below_a_pixel_still_counts_where_it_is_measured(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [CAT, DOG], "b": [CAT, THIN]}, {"train": ["a"], "val": ["b"]})
    assert contents(tmp_path, config(20)) == []
    devkit(tmp_path, {"b": [CAT, FLAT]})
    (found,) = contents(tmp_path, config(20, bad_boxes="drop"))
    assert (found.severity, found.splits) == ("warn", ("val",))
    assert found.message == 'class "dog" has no box in split "val" that counts: of 1 boxes 1 without area'


def test_the_filters_are_named_with_how_many_each_took(tmp_path: Path) -> None:
    pictures = {name: [box] for name, box in zip("abcde", (FLAT, OUTSIDE, THIN, DOG, DOG), strict=True)}
    devkit(tmp_path, {**pictures, "f": [CAT, DOG]}, {"train": list("abcde"), "val": ["f"]})
    text(tmp_path / "Annotations" / "d.xml", xml("d.jpg", [DOG], difficult=1))
    (tmp_path / "JPEGImages" / "e.jpg").write_bytes(b"")
    settings = config(20, bad_boxes="drop", on_bad_image="skip", classes=("dog",))
    (found,) = contents(tmp_path, settings, TrainVal())
    assert (found.code, found.severity, found.splits) == ("D17", "error", ("train",))
    assert found.message == (
        'no object is left to learn from in split "train": of 5 boxes 1 on pictures that cannot be read, '
        "1 without area, 1 outside their pictures, 1 below 1 pixel at the training size, 1 to ignore; "
        'class "cat" with 1 boxes is not in data.classes'
    )
    with pytest.raises(DataError, match=r"^D17 .*no object is left to learn from.*; mend these boxes"):
        load_checked(tmp_path, TrainVal(), config=settings)
    assert "D17" not in {f.code for f in contents(tmp_path, config(60), TrainVal("val", "none"))}


def test_without_splits_it_is_a_warning_because_all_may_be_measured(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [THIN], "b": [THIN]})
    (found,) = contents(tmp_path, config(20))
    assert (found.code, found.severity) == ("D17", "warn")
    assert found.message == (
        "no object is left to learn from: of 2 boxes 2 below 1 pixel at the training size"
    )
    assert len(load_checked(tmp_path, config=config(20))[0]) == 2
    with pytest.raises(DataError, match=r"D17 .*no object is left"):
        load_checked(tmp_path, TrainVal(val="none"), config=config(20))


def test_an_evaluation_on_training_pictures_may_lack_a_class(tmp_path: Path) -> None:
    devkit(tmp_path, {"a": [CAT], "b": [DOG]}, {"train": ["a"], "val": ["b"]})
    with pytest.raises(DataError, match=r'D08 class "dog" has no box in split "train"; it cannot be learnt'):
        load_checked(tmp_path, "train", config=config())
    data, report = load_checked(tmp_path, "train", config=config(), absent="warn")
    assert len(data) == 1 and [f.severity for f in report.with_code("D08")] == ["warn"]
