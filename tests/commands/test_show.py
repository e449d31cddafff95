"""``frcnn show`` and the options about variation and tiles, as on a command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import PICTURES, write_voc

from frcnn.cli import run
from frcnn.config import PRESETS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc"), {"train": PICTURES, "val": PICTURES[1:4]})


def show(data: Path, out: Path, *arguments: str) -> int:
    return run(["show", str(data), "--n", "4", "--min-size", "64", "--out", str(out), *arguments])


def test_an_empty_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, tmp_path / "s.jpg") == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "s.jpg").exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_sheet(
    data: Path, tmp_path: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    assert show(data, out, "--aug", preset, "--split", "train") == 0
    text = capsys.readouterr().out
    assert f"4 of 5 pictures, recipe lite0-fpn, preset {preset}, seed 0" in text
    assert f"written to {out}" in text
    with Image.open(out) as sheet:
        assert sheet.size[0] > 300
        assert np.asarray(sheet.convert("RGB")).std() > 10


def test_a_sheet_repeats_and_follows_the_seed(data: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for file, seed in zip(files, "001", strict=True):
        assert show(data, file, "--aug", "strong", "--seed", seed) == 0
    sheets = [file.read_bytes() for file in files]
    assert sheets[0] == sheets[1] != sheets[2]


def test_more_pictures_than_there_are_and_tiles(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(data, tmp_path / "s.jpg", "--n", "7", "--split", "train", "--set", "data.mosaic=1") == 0
    assert "7 views of 5 pictures" in capsys.readouterr().out
    assert show(data, tmp_path / "t.jpg", "--tile", "48", "--overlap", "0.3", "--split", "train") == 0
    assert "tiles of 5 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--aug", "wild"], "wild"),
        (["--out", "sheet.txt"], "sheet.txt: .txt is not a picture's; use .jpg or .png"),
        (["--out", "sheet"], "no ending is not a picture's"),
        (["--tile", "9"], "tile 9 shows too little"),
        (["--overlap", "0.9"], "overlap"),
        (["--split", "tset"], "tset"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    data: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(data, tmp_path / "s.jpg", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
