from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from corpus import FORMATS, Box, Shot

from frcnn.cli import run

CAT: Box = ("cat", 5, 5, 30, 40)
DOG: Box = ("dog", 40, 10, 70, 50)
GOOD = {"a": Shot((CAT, DOG), noise=1), "b": Shot((DOG, CAT), noise=2)}
TWICE = {**GOOD, "c": Shot((CAT, CAT, DOG), noise=3)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRCNN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def twice(tmp_path: Path) -> str:
    """A data set with a warning and no error."""
    FORMATS["coco"].write(tmp_path / "data", TWICE, {})
    return str(tmp_path / "data")


def test_clean_data_and_what_its_objects_are_like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FORMATS["kitti"].write(tmp_path, GOOD, {})
    assert run(["check", str(tmp_path), "--decode", "--strict"]) == 0
    shown = capsys.readouterr().out
    assert "short sides at training size, pixels (4 objects):" in shown
    assert re.search(r"best anchor IoU: median 0\.\d\d; \d+% of 4 boxes < 0\.5", shown)
    assert "advice: 100% of the objects have 12 px or more" in shown
    assert "errors 0, warnings 0, notes 0" in shown


def test_strict_makes_warnings_errors(twice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", twice]) == 0
    assert "D06 warn: duplicate box (1)" in capsys.readouterr().out
    assert run(["check", twice, "--strict"]) == 2
    shown = capsys.readouterr().out
    assert "D06 error: duplicate box (1)" in shown and "errors 1, warnings 0" in shown
    assert run(["check", twice, "--strict", "--json", "-"]) == 2
    assert json.loads(capsys.readouterr().out)["counts"]["errors"] == 1


def test_anchors_are_fitted_and_can_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tall = tuple(("cat", 2.0 + 15 * i, 2.0, 12.0 + 15 * i, 38.0 + 3 * i) for i in range(5))
    FORMATS["voc"].write(tmp_path, {"a": Shot(tall, noise=1)}, {})
    assert run(["check", str(tmp_path), "--anchors", "auto"]) == 0
    shown = capsys.readouterr().out
    words = re.search(r"train with: --set '(anchors\.sizes=\S+)' --set '(anchors\.ratios=\S+)'", shown)
    assert words is not None
    after = re.search(r"^  all +5 +(\S+) +\S+ +(\S+) ", shown, re.MULTILINE)
    assert after is not None and float(after[2]) > float(after[1])
    assert run(["check", str(tmp_path), "--set", words[1], "--set", words[2]]) == 0
    assert f"best anchor IoU: median {after[2]};" in capsys.readouterr().out


def test_objects_are_measured_in_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small: Box = ("cat", 10, 10, 15, 40)
    FORMATS["voc"].write(tmp_path, {"a": Shot((small,), (400, 600), noise=1)}, {})
    assert run(["check", str(tmp_path), "--tile", "192"]) == 0
    assert "--tile 128" in capsys.readouterr().out
    assert run(["check", str(tmp_path), "--tile", "128", "--overlap", "0.3", "--json", "-"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["tile"] == 128 and values["survey"]["advice"]["kind"] == "enough"
    assert values["survey"]["short_side"]["median"] == pytest.approx(5 * 320 / 128)
    assert run(["check", str(tmp_path), "--tile", "7"]) == 2


def test_a_detector_without_anchors(twice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", twice, "--recipe", "fcos-regnetx400mf", "--anchors", "auto"]) == 2
    assert "has points instead of anchors; leave it out" in capsys.readouterr().err
    assert run(["check", twice, "--recipe", "fcos-regnetx400mf"]) == 0
    assert run(["check", twice, "--anchors", "mine"]) == 2


def test_files_are_written(twice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, found = tmp_path / "out" / "page.html", tmp_path / "out" / "found.json"
    assert run(["check", twice, "--html", str(page), "--json", str(found)]) == 0
    said = capsys.readouterr()
    assert "D06 warn" in said.out and f"page with pictures: {page}" in said.err
    assert page.read_text().startswith("<!doctype html>") and "D06" in page.read_text()
    values = json.loads(found.read_text())
    assert [f["code"] for f in values["findings"]] == ["D06"] and values["recipe"] == "lite0-fpn"
    assert run(["check", twice, "--html", str(tmp_path)]) == 2
