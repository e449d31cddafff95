"""Boxes that repeat another one: which are left out where the user says so; no picture goes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frcnn.cli import run
from frcnn.config import Config
from frcnn.data.check import load_checked
from frcnn.data.checks.repeats import duplicates
from frcnn.data.open import open_dataset
from frcnn.settings import with_settings

DEDUPE = with_settings(Config(), ["data.dedupe=true"])


def write(root: Path, rows: list[str]) -> Path:
    Image.new("RGB", (2000, 1000)).save(root / "a.png")
    Image.new("RGB", (2000, 1000)).save(root / "b.png")
    (root / "boxes.csv").write_text("\n".join(["path,x1,y1,x2,y2,class", *rows]) + "\n")
    return root


@pytest.mark.parametrize(
    ("rows", "left_out"),
    [
        (["a.png,,,,,"], []),
        (["a.png,10,10,900,900,x", "a.png,10,10,900,900,x"], [1]),
        (["a.png,10,10,900,900,x", "a.png,10,10,900,900,y"], []),
        (["a.png,10,10,900,900,x", "b.png,10,10,900,900,x"], []),
        (["a.png,10,10,900,900,x", "a.png,10,10,904,900,x", "a.png,10,10,900,900,x"], [1, 2]),
        (["a.png,10,10,900,900,x", "a.png,10,10,920,900,x"], []),
        # each is like the one before it, but the third is unlike the first, which stays
        (["a.png,0,0,1000,900,x", "a.png,0,0,1008,900,x", "a.png,0,0,1016,900,x"], [1]),
        (["a.png,10,10,10,900,x", "a.png,10,10,10,900,x"], []),
    ],
)
def test_which_boxes_are_left_out(tmp_path: Path, rows: list[str], left_out: list[int]) -> None:
    data = open_dataset(write(tmp_path, rows))
    usable = (data.objects.boxes[:, 2:] > data.objects.boxes[:, :2]).all(1)
    assert np.flatnonzero(duplicates(data, usable)).tolist() == left_out


def test_ignored_boxes_take_no_part(tmp_path: Path) -> None:
    data = open_dataset(write(tmp_path, ["a.png,10,10,900,900,x"] * 3))
    data.objects.ignore[:] = [True, False, False]
    assert duplicates(data, np.ones(3, bool)).tolist() == [False, False, True]


def test_a_picture_is_never_left_out_for_a_box(tmp_path: Path) -> None:
    rows = ["a.png,10,10,900,900,x", "a.png,10,10,900,900,x", "b.png,5,5,5,9,x", "b.png,5,5,5,9,x"]
    write(tmp_path, rows)
    config = with_settings(DEDUPE, ["data.bad_boxes=drop"])
    data, report = load_checked(tmp_path, config=config)
    assert len(data) == 2 and [len(s.boxes) for s in data] == [1, 0]
    (found,) = report.with_code("D06")
    assert found.action == "left out (--dedupe)"
    kept, report = load_checked(tmp_path, config=with_settings(Config(), ["data.bad_boxes=drop"]))
    assert [len(s.boxes) for s in kept] == [2, 0]
    assert report.with_code("D06")[0].action.endswith("or leave such boxes out with --dedupe")


def test_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, ["a.png,10,10,900,900,x"] * 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2000, 1000)).save(tmp_path / "a.png", exif=exif)
    frames = [Image.new("RGB", (9, 9), (i, i, i)) for i in (0, 200)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    with open(tmp_path / "boxes.csv", "a") as file:
        file.write("c.gif,1,1,5,5,x\n")
    assert run(["check", str(tmp_path), "--dedupe", "--exif", "ignore"]) == 0
    said = capsys.readouterr().out
    assert "left out (--dedupe)" in said and "EXIF" not in said
    assert "is animated, of which the first frame is used" in said
    assert open_dataset(tmp_path).pictures.sizes[0].tolist() == [2000, 1000]
    ignored = with_settings(Config(), ["data.exif=ignore"]).data
    assert open_dataset(tmp_path, config=ignored).pictures.sizes[0].tolist() == [1000, 2000]
