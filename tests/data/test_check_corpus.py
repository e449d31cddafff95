"""Every code of the data check, in every format that can have it; and nothing else is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from corpus import FORMATS, Ability, Box, Format, Shot, Splits, put
from PIL import Image

from frcnn.config import Config
from frcnn.data.check import load_checked
from frcnn.data.checks.locate import locate
from frcnn.data.findings import TITLES, CheckReport, Severity
from frcnn.data.sample import Dataset

CAT: Box = ("cat", 5, 5, 30, 40)
DOG: Box = ("dog", 40, 10, 70, 50)
GOOD = {"a": Shot((CAT, DOG), noise=1), "b": Shot((DOG, CAT), noise=2)}
TRAIN_VAL: Splits = {"train": ["a"], "val": ["b"]}


@dataclass(frozen=True)
class Case:
    """Pictures with a defect.

    Attributes:
        code: that is to be found ...
        severity: ... with this severity,
        picture: on this picture; "" for none in particular.
        shots: the pictures.
        splits: of them.
        needs: what a format must be able to do.
        decode: whether pictures are to be decoded.
        row: position of the box in question; -1: none.
    """

    code: str
    severity: Severity
    picture: str
    shots: Mapping[str, Shot]
    splits: Splits = field(default_factory=dict)
    needs: frozenset[Ability] = frozenset()
    decode: bool = False
    row: int = -1


def with_box(*boxes: Box) -> dict[str, Shot]:
    """The good pictures, and c with other boxes."""
    return {**GOOD, "c": Shot(boxes, noise=3)}


HERD = tuple(("cat", 2.0 + 12 * i, 2.0, 12.0 + 12 * i, 30.0) for i in range(5))
"""Objects of a picture that has many."""
CASES = {
    "no area": Case("D01", "error", "c", with_box(CAT, ("cat", 20, 5, 20, 30)), row=5),
    "tiny": Case("D02", "warn", "c", with_box(CAT, ("cat", 20, 5, 21.4, 30)), row=5),
    "over the border": Case("D03", "note", "c", with_box(("cat", 60, 5, 81, 30)), row=4),
    "far over the border": Case("D03", "warn", "c", with_box(("cat", 60, 5, 90, 30)), row=4),
    "outside": Case(
        "D03", "error", "c", with_box(("cat", 85, 5, 95, 30)), needs=frozenset({"beyond"}), row=4
    ),
    "twice": Case("D06", "warn", "c", with_box(CAT, DOG, CAT), row=6),
    "nearly twice": Case("D21", "warn", "c", with_box(CAT, DOG, ("cat", 5, 5, 30, 41)), row=6),
    "spelling": Case("D07", "warn", "c", with_box(("Cat", 5, 5, 30, 40), CAT), row=4),
    "class not in train": Case(
        "D08",
        "error",
        "",
        {**GOOD, "b": Shot((DOG, CAT, ("cow", 5, 5, 20, 20)), noise=2)},
        TRAIN_VAL,
        frozenset({"splits"}),
    ),
    "background": Case("D11", "note", "c", with_box()),
    "stated size": Case(
        "D14",
        "error",
        "c",
        {**GOOD, "c": Shot((CAT,), stated=(60, 81), noise=3)},
        needs=frozenset({"size"}),
    ),
    "nothing left": Case("D17", "error", "", {"a": Shot(noise=1), "b": Shot(noise=2)}),
    "same file": Case(
        "D18", "warn", "b", {**GOOD, "b": Shot((CAT, DOG), noise=1)}, TRAIN_VAL, frozenset({"splits"})
    ),
    "looks alike": Case(
        "D22",
        "warn",
        "b",
        {**GOOD, "b": Shot((CAT, DOG), (66, 88), noise=1)},
        TRAIN_VAL,
        frozenset({"splits"}),
        decode=True,
    ),
    "looks alike, no splits": Case(
        "D22", "note", "b", {**GOOD, "b": Shot((CAT, DOG), (66, 88), noise=1)}, decode=True
    ),
    "long": Case("D19", "note", "c", {**GOOD, "c": Shot((CAT,), (60, 301), noise=3)}),
    "flagged": Case(
        "D20",
        "note",
        "c",
        {**GOOD, "c": Shot((CAT,), flagged=("cat", 40, 5, 70, 20), noise=3)},
        needs=frozenset({"flag"}),
        row=5,
    ),
    "forgotten": Case(
        "D23",
        "warn",
        "p07",
        {f"p{i:02}": Shot((DOG,) if i == 7 else (*HERD, DOG), noise=i) for i in range(21)},
    ),
}
SETTINGS = Config.model_validate({"preprocess": {"min_size": 40, "max_size": 200}})


def check(root: Path, decode: bool = False) -> tuple[Dataset, CheckReport]:
    data, report = load_checked(root, config=SETTINGS, clean=False, decode=decode)
    assert all(f.code in TITLES and f.action and f.message for f in report.findings)
    return data, report


def expect(data: Dataset, report: CheckReport, case: Case) -> None:
    """The defect is found, at its picture and box, and no error of another code."""
    found = [f for f in report.with_code(case.code) if f.severity == case.severity]
    assert found, report.format()
    assert {f.code for f in report.errors} <= {case.code}, report.format()
    place = locate(data, found)[0]
    if case.picture:
        assert Path(data.pictures.paths[place.picture]).stem == case.picture
        names = [name for name, members in case.splits.items() if case.picture in members]
        assert not names or set(names) <= set(place.splits)
    if case.row >= 0:
        assert place.rows[:1] == (case.row,)


@pytest.mark.parametrize("name", FORMATS)
def test_good_data_have_no_findings(tmp_path: Path, name: str) -> None:
    form = FORMATS[name]
    form.write(tmp_path, GOOD, {})
    data, report = check(tmp_path, decode=True)
    assert report.findings == () and len(data.objects.boxes) == 4
    if "splits" in form.can:
        form.write(tmp_path / "split", GOOD, TRAIN_VAL)
        data, report = check(tmp_path / "split", decode=True)
        assert report.findings == () and set(data.splits) == {"train", "val"}


@pytest.mark.parametrize(
    ("name", "defect"),
    [
        (name, title)
        for name, form in FORMATS.items()
        for title, case in CASES.items()
        if case.needs <= form.can
    ],
)
def test_every_defect_in_every_format(tmp_path: Path, name: str, defect: str) -> None:
    case = CASES[defect]
    FORMATS[name].write(tmp_path, case.shots, case.splits)
    expect(*check(tmp_path, case.decode), case)


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_are_broken_or_missing(tmp_path: Path, name: str) -> None:
    form, shots = FORMATS[name], with_box(CAT, DOG)
    form.write(tmp_path / "gray", shots, {})
    with Image.open(form.picture(tmp_path / "gray", "c")) as image:
        image.convert("L").save(form.picture(tmp_path / "gray", "c"))
    expect(*check(tmp_path / "gray"), Case("D15", "warn", "c", shots))
    form.write(tmp_path / "cut", shots, {})
    cut = form.picture(tmp_path / "cut", "c")
    cut.write_bytes(cut.read_bytes()[:-30])
    expect(*check(tmp_path / "cut", decode=True), Case("D13", "error", "c", shots))
    form.write(tmp_path / "gone", shots, {})
    form.picture(tmp_path / "gone", "c").unlink()
    report = check(tmp_path / "gone")[1]
    assert {f.code for f in report.errors} == {"D12"}
    form.write(tmp_path / "syntax", shots, {})
    broken = form.annotation(tmp_path / "syntax", "c")
    text = broken.read_text()
    broken.write_text(text[:-20] if "own file" in form.can else text[:-20].replace("[", "{", 1))
    report = check(tmp_path / "syntax")[1]
    assert {f.code for f in report.errors} - {"D17"} == {"D16"}
    assert any(f.path == str(broken) for f in report.errors)


@pytest.mark.parametrize("name", ["voc", "kitti", "pennfudan"])  # elsewhere the file's place decides
def test_two_annotations_for_one_picture(tmp_path: Path, name: str) -> None:
    form: Format = FORMATS[name]
    form.write(tmp_path, GOOD, {})
    file = form.annotation(tmp_path, "a")
    put(file.with_name(f"a.png{file.suffix}"), file.read_text())
    assert [f.code for f in check(tmp_path)[1].errors] == ["D09"]


def test_corners_and_strangers_in_a_coco_file(tmp_path: Path) -> None:
    form = FORMATS["coco"]
    form.write(tmp_path, GOOD, {})
    file = form.annotation(tmp_path, "a")
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:  # x1, y1, x2, y2, as many a converter writes them
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x, y, x + width, y + height]
    file.write_text(json.dumps(content))
    report = check(tmp_path)[1]
    assert {f.code for f in report.errors} == {"D05"}
    assert [f.rows for f in report.errors] == [(1,), (2,)]  # the others fit either way
    assert (
        'box (40, 10, 70, 50) of "dog" fits only as x1, y1, x2, y2 in the picture' in report.errors[0].message
    )
    content["annotations"][0]["bbox"] = [40, 10, 30, 40]  # not all of them can be corners
    content["annotations"][3]["image_id"] = 99
    content["annotations"][2]["id"] = 1
    file.write_text(json.dumps(content))
    report = check(tmp_path)[1]
    assert {f.code for f in report.errors} == {"D10"}
    assert [(f.code, f.severity, f.line) for f in report.with_code("D09")] == [("D09", "warn", -3)]
    assert {f.code for f in report.of("warn")} == {"D03", "D09"}


def test_pixels_in_a_yolo_file(tmp_path: Path) -> None:
    form = FORMATS["yolo"]
    form.write(tmp_path, GOOD, {})
    put(form.annotation(tmp_path, "a"), "0 0.2 0.3 0.1 0.1\n1 40 10 30 40\n")
    report = check(tmp_path)[1]
    assert [(f.code, f.severity, f.line) for f in report.errors] == [("D04", "error", 2)]
