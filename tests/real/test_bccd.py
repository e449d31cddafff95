"""Real pictures, end to end: blood cells (BCCD), with the defects that its authors published it with."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

import frcnn

DATA = Path(os.environ.get("FRCNN_DATA", Path(__file__).parents[3] / "shared" / "data")) / "bccd"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not DATA.is_dir(), reason="BCCD is not here: set FRCNN_DATA to the folder that holds bccd/"
    ),
]


def losses(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv, numbers only."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_the_default_recipe_learns_in_two_epochs(tmp_path: Path) -> None:
    run = frcnn.train(
        DATA, epochs=2, train="trainval", val="none", bad_boxes="drop", runs=tmp_path, forecast=False
    )
    report = frcnn.evaluate(run.detector, DATA, "test")
    # two epochs instead of ten; the whole schedule's figures are in benchmarks/results
    assert report["AP50"] is not None and report["AP50"] > 0.55
    again = frcnn.evaluate(run.folder / "best.safetensors", DATA, "test")
    assert again["AP"] == report["AP"]
    picture = sorted((DATA / "JPEGImages").glob("*.jpg"))[0]
    result = run.detector.predict(picture, score=0.3)[0]
    assert len(result) > 3 and set(result.names) <= {"Platelets", "RBC", "WBC"}
    assert (result.boxes[:, 2:] <= np.array([640, 480])).all() and (result.boxes >= 0).all()


def test_vgg16_from_scratch_learns_in_100_steps(tmp_path: Path) -> None:
    few = frcnn.open_dataset(DATA, "trainval").subset(list(range(0, 100, 4)))
    settings = ("preprocess.min_size=240", "preprocess.max_size=400", "train.warmup=10")
    run = frcnn.train(
        few, "vgg16", epochs=4, train="trainval", val="none", settings=settings, runs=tmp_path, forecast=False
    )
    rows = losses(run.folder)
    assert int(rows[-1]["step"]) == 100
    for name in ("train_total", "train_rpn_objectness"):
        first, last = (np.mean([r[name] for r in rows if r["epoch"] == epoch]) for epoch in (1, 4))
        assert last < 0.9 * first, f"{name}: {first:.3f} -> {last:.3f}"
