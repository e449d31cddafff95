"""``last.ckpt``: everything that makes a resumed run equal to one that was never interrupted.

There is no state of a random generator in it, because none is carried from epoch to epoch: every epoch starts
all generators anew from (seed, epoch, rank), the noise of a step comes from (seed, step, rank), and the
variation of a picture from (seed, epoch, position). The file holds tensors and plain values; it is read with
``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frcnn.files import write_atomic

FORMAT = 1


class StateError(ValueError):
    """A run that cannot be resumed."""


@dataclass(frozen=True)
class TrainState:
    """A run after a whole epoch.

    Attributes:
        config: the configuration tree as plain values.
        classes: class names.
        source: what the data were: ``path``, ``choice``, and ``proposals`` where a file of them was given.
        digest: of the training pictures and boxes; another one means other data.
        schedule: the fields of ``Schedule``, with ``eval_every``.
        precision: ``fp32``, ``bf16`` or ``fp16``, so that a resumed run computes as it began.
        epoch: finished epochs.
        batches: trained batches on one device, which is also the position in the data.
        step: optimizer steps.
        network: weights under training.
        average: averaged weights.
        updates: of the average.
        optimizer: state of the optimizer.
        scheduler: state of the learning rate.
        scaler: state of the fp16 loss scaler; empty without one.
        best_ap: best validation AP (of proposals alone: AR@100) so far; None before the first.
        best_loss: its validation loss.
        best_epoch: its epoch, from 1.
        stale: validations without a better one.
        thresholds: per class, from the last validation.
        metrics: of the last validation.
        notes: lines of ``notes.txt``.
    """

    config: dict[str, Any]
    classes: list[str]
    source: dict[str, Any]
    digest: str
    schedule: dict[str, Any]
    precision: str
    epoch: int
    batches: int
    step: int
    network: dict[str, Tensor]
    average: dict[str, Tensor]
    updates: int
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    scaler: dict[str, Any]
    best_ap: float | None
    best_loss: float | None
    best_epoch: int
    stale: int
    thresholds: list[float] | None
    metrics: dict[str, float]
    notes: list[str]


def save_state(path: Path, state: TrainState) -> None:
    """Write the file in one piece."""
    content = {f.name: getattr(state, f.name) for f in fields(state)} | {"format": FORMAT}
    write_atomic(path, lambda temporary: torch.save(content, temporary))


def load_state(run: str | Path) -> TrainState:
    """Read the state of a run folder, or of a ``last.ckpt`` itself. Tensors are on the CPU.

    Raises:
        StateError: when there is none, or it cannot be read.
    """
    path = Path(run) / "last.ckpt" if Path(run).is_dir() else Path(run)
    if not path.is_file():
        raise StateError(f"{run}: no run to resume; give the folder of a run that holds last.ckpt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except Exception as error:  # whatever torch makes of other bytes; its advice is to trust them
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise
        raise StateError(
            f"{path}: cannot be read as the state of a run; give the folder of the run, or its last.ckpt, or "
            "begin a new run from a model file with --weights"
        ) from None
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise StateError(f"{path}: not a state of this version of frcnn; train anew, starting with --weights")
    names = {f.name for f in fields(TrainState)}
    if set(content) != names:
        raise StateError(f"{path}: entries differ: {sorted(set(content) ^ names)}; train anew with --weights")
    return TrainState(**content)


def mix_seed(*parts: int | str) -> int:
    """A seed in 0 .. 2^63 - 1 that is the same everywhere for the same parts and unrelated for others."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(*parts: int | str) -> None:
    """Start the generators of python, numpy and torch anew."""
    seed = mix_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def differences(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """``key: stored -> wanted`` for every leaf of two trees that differs."""
    lines: list[str] = []
    for key in sorted(set(stored) | set(wanted)):
        a, b, name = stored.get(key), wanted.get(key), f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{name}.")
        elif a != b:
            lines.append(f"{name}: {a!r} -> {b!r}")
    return lines
