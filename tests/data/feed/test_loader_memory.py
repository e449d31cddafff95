"""Host memory of a loader with workers: it does not grow, whatever shapes pass."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from loader_memory import measure

SETTLED, ROOM = 2, 48.0
"""Epochs after which most workers have had their largest pictures, and the MiB that five processes together
may gain from there to the last: 24 KB for each picture that passes, which takes 650 KB on average."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells it so exactly")
@pytest.mark.parametrize("preset", ["light", "strong"])
def test_memory_stays_flat(tmp_path: Path, preset: str, record_property: pytest.RecordProperty) -> None:
    """The least of an epoch counts: how many batches wait at a moment is chance, and each is megabytes.

    It is measured in a fresh process, because workers of this one would copy, at times of their own, what
    other tests left in memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        epochs = pool.submit(measure, tmp_path, preset).result()
    growth = min(epochs[-1]) - min(epochs[SETTLED])
    text = "; ".join(" ".join(f"{mark:.0f}" for mark in marks) for marks in epochs)
    record_property("growth", growth)
    print(f"{preset}: {text} MiB; {growth:+.1f} MiB from the third epoch to the last")
    assert growth < ROOM, text
