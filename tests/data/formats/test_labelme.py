from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voc_files import picture, text

from frcnn.config import DataConfig
from frcnn.data.formats.labelme import parse
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError

RECTANGLE = {"label": "cat", "points": [[30, 40.5], [10, 20]], "shape_type": "rectangle"}


def shape(kind: str | None, points: list[Any], label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **more}


def content(*shapes: object, **more: Any) -> str:
    keys = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg", "imageData": None}
    return json.dumps(keys | {"imageHeight": 60, "imageWidth": 80} | more, indent=1)


def write(root: Path, *shapes: object, name: str = "a", **more: Any) -> Path:
    picture(root / f"{name}.jpg")
    text(root / f"{name}.json", content(*shapes, **more))
    return root


def test_without_shapes_a_picture_is_background(tmp_path: Path) -> None:
    data, found = read_dataset(write(tmp_path))
    assert (len(data), data.classes, data.format, found) == (1, (), "LabelMe", [])
    assert data[0].boxes.shape == (0, 4) and data.pictures.declared.tolist() == [[60, 80]]


@pytest.mark.parametrize(
    ("one", "box"),
    [
        (RECTANGLE, [10, 20, 30, 40.5]),
        (shape("polygon", [[1, 1], [5, 2], [3, 9]]), [1, 1, 5, 9]),
        (shape(None, [[1, 1], [5, 2], [3, 9]]), [1, 1, 5, 9]),  # as older versions have it
        (shape("circle", [[20, 20], [23, 24]]), [15, 15, 25, 25]),
        (shape("mask", [[1, 2], [3, 4]], mask="iVBOR"), [1, 2, 3, 4]),
    ],
)
def test_shapes(tmp_path: Path, one: dict[str, Any], box: list[float]) -> None:
    data, found = read_dataset(write(tmp_path, one))
    assert data[0].boxes.tolist() == [box] and data.classes == ("cat",)
    assert [f.severity for f in found] == ([] if one is RECTANGLE else ["note"])


@pytest.mark.parametrize(
    ("one", "severity", "reason"),
    [
        (3, "error", "shape: expected {...}, got int"),
        ({"label": "cat"}, "error", "shape: has no points"),
        (shape("rectangle", [[1, 2]]), "error", 'rectangle of "cat" has 1 points'),
        (shape("polygon", [[1, 2], [3, 4]]), "error", 'polygon of "cat" has 2 points'),
        (shape("circle", [[1, 2], [3, 4], [5, 6]]), "error", 'circle of "cat" has 3 points'),
        (shape("rectangle", [[1, "x"], [3, 4]]), "error", "shape: points[0][1]: expected float, got str"),
        (shape("rectangle", [[1, 2], [3, 4]], " "), "error", 'shape without a class: ""'),
        (shape("line", [[1, 2], [3, 4]]), "warn", 'shape of "cat" is a line, which has no area'),
        (shape("point", [[1, 2]]), "warn", 'shape of "cat" is a point, which has no area'),
    ],
)
def test_shapes_that_are_no_boxes(tmp_path: Path, one: object, severity: str, reason: str) -> None:
    write(tmp_path, RECTANGLE, one)
    data, found = read_dataset(tmp_path)
    assert [(f.code, f.severity, f.message) for f in found] == [("D16", severity, reason)]
    lines = (tmp_path / "a.json").read_text().splitlines()
    start = lines[found[0].line - 1].strip()
    assert start in ("{", "3") and found[0].line > 4 and len(data[0].boxes) == 1


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, RECTANGLE, RECTANGLE, flags={"shapes": 1})
    lines = open_dataset(tmp_path).objects.lines.tolist()
    whole = (tmp_path / "a.json").read_text().splitlines()
    assert [i for i, line in enumerate(whole, 1) if line == "  {"] == lines


def test_flags(tmp_path: Path) -> None:
    flags = {"Difficult": True, "occluded": True, "truncated": False, "blurry": True}
    write(
        tmp_path, RECTANGLE | {"flags": flags}, RECTANGLE | {"difficult": True}, RECTANGLE | {"flags": None}
    )
    sample = open_dataset(tmp_path)[0]
    assert sample.ignore.tolist() == [True, True, False] and sample.occluded.tolist() == [1, 0, 0]
    assert not sample.truncated.any() and not sample.crowd.any()
    assert not open_dataset(tmp_path, config=DataConfig(difficult="object"))[0].ignore.any()
    write(tmp_path, RECTANGLE | {"flags": {"iscrowd": True}})
    assert open_dataset(tmp_path)[0].crowd.tolist() == [True]


@pytest.mark.parametrize("stated", ["b.jpg", "..\\images\\b.jpg", "/home/x/b.jpg"])
def test_the_picture_is_found_by_the_files_name_or_the_stated_one(tmp_path: Path, stated: str) -> None:
    picture(tmp_path / "images/b.jpg")
    text(tmp_path / "labels/other.json", content(RECTANGLE, imagePath=stated))
    assert list(open_dataset(tmp_path).pictures.annotations) == ["labels/other.json"]


def test_the_copy_of_the_picture_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, RECTANGLE, imageData="A" * 5000, name="a")  # no base64 of a picture
    assert len(open_dataset(tmp_path)) == 1
    text(tmp_path / "z.json", content(RECTANGLE, imagePath="../../etc/passwd"))
    with pytest.raises(DataError, match=r"z\.json: has no picture \(it names 'passwd'\)"):
        open_dataset(tmp_path)


def test_folders_of_splits_and_other_files(tmp_path: Path) -> None:
    write(tmp_path, RECTANGLE, name="train/a")
    write(tmp_path, RECTANGLE, name="valid/a")
    text(tmp_path / "notes.json", "{}")
    data, found = read_dataset(tmp_path)
    assert {k: v.tolist() for k, v in data.splits.items()} == {"train": [0], "val": [1]}
    assert [f.message for f in found] == ["1 other JSON files: notes.json"]


@pytest.mark.parametrize(
    ("raw", "line", "reason"),
    [
        (b"", 1, "is empty"),
        (b'{"shapes": [}', 1, "is not JSON"),
        (b'{"shapes":\n [\n', 3, "is not JSON"),
        (b'{"shapes": 3}', 1, "is not a LabelMe file: shapes: expected list, got int"),
        (b"[]", 1, "is not a LabelMe file: expected {...}, got list"),
        (b'{"shapes": [], "imageWidth": 4e9, "imageHeight": 2e9}', 1, "states a size of 4e+09 x 2e+09"),
        (b'{"shapes": ' + b"[" * 100_000, 1, "is not JSON"),
    ],
)
def test_files_that_cannot_be_read(raw: bytes, line: int, reason: str) -> None:
    problems = parse(raw).problems
    assert [p.line for p in problems] == [line] and reason in problems[0].reason


@pytest.mark.parametrize("damage", ["", "{}", "[1, 2]", "shapes"])
def test_a_file_too_damaged_to_be_told_is_an_error(tmp_path: Path, damage: str) -> None:
    write(tmp_path, RECTANGLE, name="a")
    write(tmp_path, RECTANGLE, name="b")
    text(tmp_path / "b.json", damage)
    found = read_dataset(tmp_path)[1]
    assert [(f.code, f.severity, Path(f.path).name, f.line) for f in found] == [("D16", "error", "b.json", 1)]


def test_no_pictures(tmp_path: Path) -> None:
    text(tmp_path / "a.json", content(RECTANGLE))
    with pytest.raises(DataError, match="holds LabelMe files and no pictures"):
        open_dataset(tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nothing_in_a_file_makes_the_parser_fail(data: st.DataObject) -> None:
    raw = bytearray(content(RECTANGLE, shape("circle", [[1, 2], [3, 4]], flags={"crowd": 1})).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        stop = at + data.draw(st.integers(0, 12))
        odd = st.sampled_from([b"null", b"[", b"1e400", b'"', b"-1", b"{}", b'"shapes":', b"\n"])
        raw[at:stop] = data.draw(st.binary(max_size=6) | odd)
        raw = raw or bytearray(b" ")
    found = parse(bytes(raw))
    assert len(found.names) == len(found.boxes) == len(found.lines) == len(found.flags.flagged)
    assert all(p.line >= 1 and p.reason for p in [*found.problems, *found.left_out])
