"""Host memory of a loader with workers: it does not grow, whatever shapes pass."""

from __future__ import annotations

import gc
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_loader import make_dataset

from frcnn.config import Config
from frcnn.data.feed.loader import Loader, train_loader
from frcnn.model.preprocess import pad_batch, prepare
from frcnn.settings import with_settings

SHAPES, EPOCHS, WORKERS = 500, 2, 4
ROOM = 24.0
"""MiB that five processes together may gain after the first epoch."""


def used() -> float:
    """MiB of this process and its workers, shared pages divided among those that share them."""
    total = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def one_epoch(loader: Loader, epoch: int) -> list[float]:
    """Memory after each quarter of an epoch."""
    loader.set_epoch(epoch)
    marks, step = [], len(loader) // 4
    for i, _ in enumerate(loader, 1):
        if i % step == 0:
            gc.collect()
            marks.append(used())
    return marks


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells it so exactly")
@pytest.mark.parametrize("preset", ["light", "strong"])
def test_memory_stays_flat(tmp_path: Path, preset: str, record_property: pytest.RecordProperty) -> None:
    rng = np.random.default_rng(0)
    shapes = [(int(h), int(w)) for h, w in rng.integers(40, 900, (SHAPES, 2))]
    small = rng.integers(0, 255, (30, 40, 3), np.uint8)
    for i, (height, width) in enumerate(shapes):
        Image.fromarray(small).resize((width, height)).save(tmp_path / f"{i}.jpg")
    boxes = [[[5.0, 5.0, width / 2, height / 2]] for height, width in shapes]
    dataset = make_dataset(tmp_path, [f"{i}.jpg" for i in range(SHAPES)], shapes, boxes)
    config = with_settings(
        Config(),
        [
            f"data.augment={preset}",
            f"data.workers={WORKERS}",
            "train.batch=4",
            "preprocess.min_size=320",
            "preprocess.max_size=640",
        ],
    )
    loader = train_loader(dataset, config, prepare, pad_batch, seed=0)
    try:
        marks = [one_epoch(loader, epoch) for epoch in range(EPOCHS)]
    finally:
        loader.close()
    growth = marks[1][-1] - marks[0][-1]
    text = "; ".join(" ".join(f"{mark:.0f}" for mark in epoch) for epoch in marks)
    record_property("growth", growth)
    print(f"{preset}: {text} MiB; {growth:+.1f} MiB in the second epoch")
    assert growth < ROOM, text
