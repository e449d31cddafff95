"""Picture files: how they are turned, and what they are converted from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus import FORMATS, Box, Shot
from PIL import Image
from test_sample import make

from frcnn.config import Config
from frcnn.data.check import load_checked
from frcnn.data.checks.files import check_kinds, check_sizes
from frcnn.data.findings import CheckReport
from frcnn.data.sample import Dataset

CAT: Box = ("cat", 5, 5, 30, 40)
DOG: Box = ("dog", 10, 10, 50, 50)
SHOTS = {"a": Shot((CAT, DOG), noise=1), "b": Shot((DOG, CAT), noise=2), "c": Shot(noise=3)}


def check(root: Path, exif: str = "apply") -> CheckReport:
    config = Config.model_validate({"data": {"exif": exif}, "preprocess": {"min_size": 40, "max_size": 200}})
    return load_checked(root, config=config, clean=False)[1]


def turn(path: Path, orientation: int) -> None:
    """Give a picture file an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.save(path, exif=exif)


def of_kinds(*modes: str) -> Dataset:
    """Pictures of these modes, with a box each."""
    data = make([1] * len(modes))
    return replace(data, pictures=replace(data.pictures, modes=np.array(modes, "U16")))


def test_no_pictures() -> None:
    data = make([])
    assert list(check_sizes(data)) == list(check_kinds(data)) == list(check_kinds(data, 1)) == []


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("name", ["kitti", "yolo"])
def test_a_rotation_is_noted_where_no_size_is_stated(tmp_path: Path, name: str, orientation: int) -> None:
    form = FORMATS[name]
    form.write(tmp_path, SHOTS, {})
    assert check(tmp_path).with_code("D14") == ()
    for shot in "ac":  # c has no box that could be elsewhere
        turn(form.picture(tmp_path, shot), orientation)
    report = check(tmp_path)
    assert {f.code for f in report.findings} == {"D11", "D14"}
    (note,) = report.with_code("D14")
    assert (note.severity, Path(note.path).stem) == ("note", "a")
    assert note.message == f"carries an EXIF rotation ({orientation}), and its annotation states no size"
    assert "--exif ignore" in note.action
    assert check(tmp_path, "ignore").with_code("D14") == ()


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (3, {1: "gray, repeated to three channels", 2: "palette, looked up", 3: "CMYK, converted to RGB"}),
        (
            1,
            {
                0: "in colour, of which the lightness is used",
                2: "palette, looked up",
                3: "CMYK, converted to gray",
            },
        ),
        (4, {}),
    ],
)
def test_what_is_converted_depends_on_the_channels(channels: int, expected: dict[int, str]) -> None:
    found = list(check_kinds(of_kinds("RGB", "L", "P", "CMYK"), channels))
    assert [(f.path, f.message) for f in found] == [
        (str(Path("root") / f"p{i}.jpg"), f"is {text}") for i, text in expected.items()
    ]
    kind = "gray" if channels == 1 else "RGB"
    assert {(f.code, f.severity, f.action) for f in found} <= {
        ("D15", "warn", f"converted to 8-bit {kind} in every command")
    }


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L"), (1, "1")])
def test_pictures_that_are_as_the_network_reads_them_are_not_mentioned(channels: int, mode: str) -> None:
    assert list(check_kinds(of_kinds(mode, mode), channels)) == []
    other = {1: "RGB", 3: "L"}[channels]
    assert [f.severity for f in check_kinds(of_kinds(other, other), channels)] == ["note", "note"]
