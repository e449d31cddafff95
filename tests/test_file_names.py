"""File names that are no UTF-8, such as those of old archives: they are kept, shown and found again."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from voc_files import picture, xml

from frcnn.cli import run
from frcnn.data.open import open_dataset
from frcnn.data.split import TrainVal, choose_training, read_splits, with_splits, write_splits
from frcnn.labels import FORMATS
from frcnn.results import Result
from frcnn.training.folder import RunFolder
from frcnn.training.journal import Journal
from frcnn.writers import ResultWriter

NAMES = [os.fsdecode(name) for name in (b"caf\xe9", b"\xff", b"na\xefve")]
SHOWN = [r"caf\udce9", r"\udcff", r"na\udcefve"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures of such names with a box each, flat in a folder."""
    folder = tmp_path / "data"
    for number, name in enumerate(NAMES):
        try:
            picture(folder / f"{name}.jpg", colour=80 * number)
        except (OSError, UnicodeError) as error:
            pytest.skip(f"file names are text here ({error})")
        (folder / f"{name}.xml").write_text(xml("", [("cat", 1, 1, 20 + number, 30)]))
    return folder


def test_the_check_goes_on(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRCNN_CACHE", str(data.parent / "cache"))
    bad = data / f"{NAMES[0]}.xml"
    bad.write_text(xml("", [("cat", 9, 9, 9, 20)]))
    (data / f"{NAMES[1]}.jpg").write_bytes(b"no picture")
    page = data.parent / "page.html"
    assert run(["check", str(data), "--decode", "--html", str(page)]) == 2
    shown = capsys.readouterr().out
    assert rf"{data}/{SHOWN[0]}.xml:6: box" in shown and f"{data}/{SHOWN[1]}.jpg: " in shown
    assert f"{SHOWN[0]}.xml" in page.read_text(encoding="utf-8")
    file = data.parent / "found.json"
    assert run(["check", str(data), "--json", str(file)]) == run(["check", str(data), "--json", "-"]) == 2
    printed = capsys.readouterr().out
    for found in (file.read_text(encoding="utf-8"), printed[printed.index("\n{\n") :]):
        assert str(bad) in [f["path"] for f in json.loads(found)["findings"] if f["code"] == "D01"]
    assert run(["convert", str(data), str(data.parent / "out"), "--to", "coco"]) == 2
    assert f"{SHOWN[1]}.jpg" in capsys.readouterr().err


def test_splits_name_the_same_pictures(data: Path, tmp_path: Path) -> None:
    whole = open_dataset(data)
    chosen = choose_training(whole, TrainVal(share=0.4))
    write_splits(tmp_path / "splits.json", chosen)
    names = read_splits(tmp_path / "splits.json")
    assert sorted(p for members in names.values() for p in members) == sorted(f"{n}.jpg" for n in NAMES)
    again = with_splits(whole, names)
    for split in ("train", "val"):
        assert list(again.subset(split).pictures.paths) == list(chosen.subset(split).pictures.paths)


def test_a_run_says_and_logs_them(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.create(data.parent / "runs", "a")
    with Journal() as journal:
        journal.say(f"early {NAMES[0]}")
        journal.open(folder)
        journal.note(f"{NAMES[1]} is left out")
    said = capsys.readouterr().err
    logged = folder.log.read_text(encoding="utf-8")
    for line in (f"early {SHOWN[0]}", f"{SHOWN[1]} is left out"):
        assert line in said and line in logged
    assert (folder.path / "notes.txt").read_text(encoding="utf-8") == f"{SHOWN[1]} is left out\n"


@pytest.mark.parametrize("save_as", FORMATS)
def test_predictions_name_them(data: Path, tmp_path: Path, save_as: str) -> None:
    paths = [data / f"{name}.jpg" for name in NAMES]
    out = tmp_path / "out"
    with ResultWriter(out, ("cat",), save_as=save_as) as writer:  # type: ignore[arg-type]
        for path in paths:
            writer.add(Result(np.array([[1.0, 2, 9, 8]]), np.ones(1), np.zeros(1, int), ("cat",), path))
    entries = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["images"]
    assert [entry["path"] for entry in entries] == [str(path) for path in paths]
    rows = list(csv.DictReader((out / "predictions.csv").open(encoding="utf-8")))
    assert [row["file"] for row in rows] == [f"{data}/{name}.jpg" for name in SHOWN]
    assert all((out / f"pictures/{name}.jpg").exists() for name in NAMES)
    if save_as == "coco":
        images = json.loads((out / "annotations.json").read_text(encoding="utf-8"))["images"]
        assert [image["file_name"] for image in images] == [f"{name}.jpg" for name in NAMES]
    else:
        folder, ending = ("annotations", "xml") if save_as == "voc" else ("labels", "txt")
        assert all((out / folder / f"{name}.{ending}").exists() for name in NAMES)
