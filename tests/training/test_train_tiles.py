"""Training on tiles and with presets, from beginning to end, and again from the stored model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import tiny_config

import frcnn
from frcnn.config import Config
from frcnn.data.sample import DataError
from frcnn.evaluation.run import evaluate
from frcnn.settings import with_settings
from frcnn.training.state import StateError
from frcnn.training.validation import COLUMNS, merged

TILES = ("preprocess.tile=48", "preprocess.overlap=0.3")


def train(voc: Path, runs: Path, *settings: str, **options: object) -> frcnn.Run:
    config: Config = with_settings(tiny_config(epochs=1), settings)
    return frcnn.train(voc, config=config, runs=runs, forecast=False, progress=False, **options)


def test_a_run_on_tiles_is_measured_and_used_on_tiles(voc: Path, tmp_path: Path) -> None:
    run = train(voc, tmp_path, *TILES)
    log = (run.folder / "log.txt").read_text()
    assert "tiles of 48 px, overlap 0.3: 5 training pictures give" in log
    assert run.detector.config.preprocess.tile == 48
    assert run.report is not None
    again = evaluate(run.folder / "best.safetensors", voc, "val")
    assert again.to_json() == run.report.to_json(), "validation merges as evaluation does"
    assert len(list((run.folder / "samples").glob("train-*.jpg"))) == 8
    with pytest.raises(StateError, match=r"preprocess\.tile: 48 -> 0"):
        train(voc, tmp_path, "preprocess.overlap=0.3", resume=run.folder)


def test_a_run_with_a_preset_says_so_and_repeats(voc: Path, tmp_path: Path) -> None:
    runs = [train(voc, tmp_path, "data.augment=strong", f"data.workers={n}") for n in (0, 1)]
    assert "mosaic 0.25" in (runs[0].folder / "log.txt").read_text()
    weights = [run.detector.model.state_dict() for run in runs]
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))


def test_merged_rows() -> None:
    none = torch.zeros(0, COLUMNS, dtype=torch.float64)
    assert merged(none, 0.5).shape == (0, 7)
    whole = torch.tensor([[3.0, 1, 0.5, 1, 2, 3, 4, 0, 0, 0, 0]], dtype=torch.float64)
    assert merged(whole, 0.5).tolist() == [[3, 1, 0.5, 1, 2, 3, 4]]
    left = [7.0, 0, 0.4, 50, 40, 200, 100, 0, 0, 200, 200]
    right = [7.0, 0, 0.9, 0, 40, 140, 100, 160, 0, 360, 200]
    other = [8.0, 0, 0.2, 0, 40, 140, 100, 160, 0, 360, 200]
    rows = merged(torch.tensor([left, *whole.tolist(), right, other], dtype=torch.float64), 0.5)
    assert rows[:, 0].tolist() == [3, 7, 8]
    assert rows[1].tolist() == pytest.approx([7, 0, 0.9, 50, 40, 300, 100])
    assert rows[2, 3:].tolist() == [160, 40, 300, 100]


def test_a_data_set_without_training_pictures(voc: Path, tmp_path: Path) -> None:
    with pytest.raises((DataError, ValueError)):
        train(voc, tmp_path, *TILES, train="nowhere")


@pytest.mark.slow
def test_two_ranks_merge_the_tiles_of_one_picture(voc: Path, tmp_path: Path) -> None:
    run = train(voc, tmp_path, *TILES, "train.batch=1", devices=2)
    stored = json.loads((run.folder / "evaluation.json").read_text())["metrics"]
    assert stored == json.loads(evaluate(run.folder / "best.safetensors", voc, "val").to_json())["metrics"]
