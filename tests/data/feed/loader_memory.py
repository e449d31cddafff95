"""Measures a loader's memory; a module of its own, so that a fresh process can import and run it."""

from __future__ import annotations

import gc
import multiprocessing
import os
from pathlib import Path

import numpy as np
from PIL import Image
from test_loader import make_dataset

from frcnn.config import Config
from frcnn.data.feed.loader import Loader, train_loader
from frcnn.model.preprocess import pad_batch, prepare
from frcnn.settings import with_settings

SHAPES, EPOCHS, WORKERS, MARKS = 500, 7, 4, 8


def used() -> float:
    """MiB of this process and its workers, shared pages divided among those that share them.

    Pages of files are left out: other processes that come and go change what falls to these.
    """
    total = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kept = (line for line in text.splitlines() if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
        total += sum(int(line.split()[1]) for line in kept)
    return total / 1024


def one_epoch(loader: Loader, epoch: int) -> list[float]:
    """Memory after each part of an epoch."""
    loader.set_epoch(epoch)
    marks, step = [], len(loader) // MARKS
    for i, _ in enumerate(loader, 1):
        if i % step == 0:
            gc.collect()
            marks.append(used())
    return marks


def measure(folder: Path, preset: str) -> list[list[float]]:
    """MiB in use, several times in each of several epochs over pictures that all differ in shape."""
    rng = np.random.default_rng(0)
    shapes = [(int(h), int(w)) for h, w in rng.integers(40, 900, (SHAPES, 2))]
    small = rng.integers(0, 255, (30, 40, 3), np.uint8)
    for i, (height, width) in enumerate(shapes):
        Image.fromarray(small).resize((width, height)).save(folder / f"{i}.jpg")
    boxes = [[[5.0, 5.0, width / 2, height / 2]] for height, width in shapes]
    dataset = make_dataset(folder, [f"{i}.jpg" for i in range(SHAPES)], shapes, boxes)
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
        return [one_epoch(loader, epoch) for epoch in range(EPOCHS)]
    finally:
        loader.close()
