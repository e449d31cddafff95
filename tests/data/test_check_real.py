"""The defects that the real data sets are known to have are all found, and nothing else is an error."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from voc_files import bccd, real

from frcnn.config import Config
from frcnn.data.check import load_checked
from frcnn.data.sample import DataError, Dataset
from frcnn.data.split import TrainVal

ZERO_AREA = [("BloodImage_00338.xml", 158), ("BloodImage_00343.xml", 50)]
TWICE = {"00020", "00100", "00104", "00251", "00284", "00331", "00403"}
NO_RBC = set(
    "00134 00147 00150 00152 00224 00249 00250 00258 00267 00268 00303 00322 00327 00330 00350".split()
)


def numbers(paths: list[str]) -> list[str]:
    return [path[-9:-4] for path in paths]


def test_bccd() -> None:
    data, report = load_checked(bccd(), clean=False)
    assert len(data) == 364
    assert [(f.code, Path(f.path).name, f.line) for f in report.errors] == [("D01", *at) for at in ZERO_AREA]
    near = numbers([f.path for f in report.with_code("D21")])
    assert len(near) == 7 and set(near) == TWICE
    forgotten = [f for f in report.with_code("D23") if f.severity == "warn"]
    assert len(forgotten) == 15 and set(numbers([f.path for f in forgotten])) == NO_RBC
    assert all(
        'has no "RBC"; 95.9 % of the pictures show "RBC", 12 at the median' in f.message for f in forgotten
    )
    assert Counter(f.code for f in report.findings if f.severity == "warn") == {"D21": 7, "D23": 15}
    assert {f.code for f in report.of("note")} == {"D23"}


def test_bccd_has_two_pictures_of_one_field_in_train_and_val() -> None:
    report = load_checked(bccd(), clean=False, decode=True)[1]
    assert [f.code for f in report.errors] == ["D01", "D01"]
    (pair,) = report.with_code("D22")
    assert (pair.severity, *numbers([pair.path, pair.other])) == ("warn", "00037", "00038")


def test_bccd_is_trained_without_the_boxes_without_area() -> None:
    with pytest.raises(DataError) as caught:
        load_checked(bccd(), TrainVal("trainval", "none"))
    message = str(caught.value)
    assert re.search(r"BloodImage_00338\.xml:158: box \(504, 337, 504, 337\) of \"RBC\"", message)
    assert "BloodImage_00343.xml:50" in message and "--bad-boxes drop" in message
    drop = Config.model_validate({"data": {"bad_boxes": "drop"}})
    cleaned: Dataset = load_checked(bccd(), TrainVal("trainval", "none"), config=drop)[0]
    assert (len(cleaned), cleaned.class_counts().tolist()) == (292, [292, 3348, 301])
    assert len(load_checked(bccd(), "test")[0].objects.boxes) == 945


def test_penn_fudan_has_one_box_that_is_off_its_mask() -> None:
    data, report = load_checked(real("pennfudan"), clean=False)
    assert len(data) == 170 and len(data.objects.boxes) == 423
    assert report.findings == ()
    (off,) = load_checked(real("pennfudan"), clean=False, decode=True)[1].findings
    assert (off.code, off.severity, Path(off.path).name) == ("D24", "warn", "PennPed00027.txt")
    assert "(125, 92, 218, 363)" in off.message and "within (125, 92, 212, 363), by 6 px" in off.message


def test_kitti_has_four_regions_to_ignore() -> None:
    data, report = load_checked(real("kitti-sample"), clean=False, decode=True)
    assert len(data) == 3 and report.counts["ignored"] == 4
    assert [(f.code, f.severity, Path(f.path).name, f.line) for f in report.findings] == [
        ("D20", "note", "000001.txt", line) for line in (4, 5, 6, 7)
    ]
