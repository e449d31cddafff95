from __future__ import annotations

import json
import time
from multiprocessing import get_start_method
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frcnn.bands import Pixels
from frcnn.bench.loading import Loading, measure_loading
from frcnn.bench.steps import make_steps
from frcnn.bench.workload import Contender, Format, Workload, without_bf16
from frcnn.cli import run
from frcnn.data.feed.examples import Examples, Size
from frcnn.data.sample import DataError, Sample
from frcnn.recipes import recipe
from frcnn.settings import with_settings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = ["path,x1,y1,x2,y2,class"]
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (120, 160, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg")
        rows.append(f"{i}.jpg,10,10,60,70,thing")
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize("preset", ["none", "strong"])
def test_every_part_has_its_time(data: Path, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, pause = Examples._decoded, 0.1

    def slowly(self: Examples, sample: Sample, least: Size | None) -> Pixels:
        time.sleep(pause)
        return decoded(self, sample, least)

    monkeypatch.setattr(Examples, "_decoded", slowly)
    config = with_settings(
        recipe("lite0-fpn"), [f"data.augment={preset}", "train.batch=2", "preprocess.min_size=64"]
    )
    found = measure_loading(data, config, pictures=8)
    assert 4 <= found.pictures <= 8  # the last batch of a small set is smaller
    parts = (found.decode, found.transform, found.resize, found.collate)
    assert all(seconds > 0 for seconds in parts)
    assert found.decode > found.pictures * pause > found.transform + found.resize + found.collate
    assert 0 < found.fed
    assert get_start_method() != "fork" or found.fed < 2 / pause  # other workers decode at once
    assert (found.data, found.size) == (data.name, 64)


def test_lines() -> None:
    lines = Loading(100, 0.5, 0.25, 0.2, 0.05, "x", 77.0, 320).lines()
    assert lines[1].split() == ["decode", "5.00", "ms", "a", "picture", "50%"]
    assert lines[5].split()[:2] == ["all", "10.00"] and "77.0 pictures a second" in lines[6]


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(data), "--batch", "2", "--set", "preprocess.min_size=64"]
    assert run(["bench", "load", *words, "--json", str(tmp_path / "l.json")]) == 0
    assert "a loader with one worker gives" in capsys.readouterr().out
    assert json.loads((tmp_path / "l.json").read_text())["size"] == 64
    assert run(["bench", "load"]) == 2
    assert "bench load needs a data set" in capsys.readouterr().err
    assert run(["bench", "ops", "--set", "data.flip=0"]) == 2
    assert "is for bench load" in capsys.readouterr().err


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is empty"):
        measure_loading(tmp_path, recipe("lite0-fpn"))


@pytest.mark.slow
def test_one_worker_feeds_three_times_what_training_consumes(tmp_path: Path) -> None:
    rows, rng = ["path,x1,y1,x2,y2,class"], np.random.default_rng(0)
    for i in range(12):
        scene = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
        scene.resize((640, 480)).save(tmp_path / f"{i}.jpg")
        corners = rng.integers(0, 400, (12, 2))
        rows += [f"{i}.jpg,{x},{y},{x + 60},{y + 70},thing" for x, y in corners.tolist()]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    config = recipe("lite0-fpn")
    fed = max(measure_loading(tmp_path, config, pictures=60).fed for _ in range(3))
    formats: list[Format] = ["fp32"] if without_bf16(torch.device("cpu")) else ["fp32", "bf16"]
    workload = Workload("train", "lite0", 320, 426, config.train.batch, data=str(tmp_path))
    contender = Contender("frcnn", formats[-1], recipe="lite0-fpn")
    step = make_steps(workload, [contender])[contender.name]
    seconds: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    assert fed > 3 * config.train.batch / min(seconds)
