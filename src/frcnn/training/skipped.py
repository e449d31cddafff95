"""Pictures that could not be read in an epoch: named, counted, and too many of them end the run."""

from __future__ import annotations

from collections.abc import Iterable

import torch

MOST_SKIPPED = 0.01
"""Share of an epoch's pictures; where more cannot be read, something else is wrong. One always may."""
NAMES_SHOWN = 10


def gather_names(names: Iterable[str], world: int) -> list[str]:
    """The names of all ``world`` ranks, each once; every rank has to call it."""
    parts = [list(names)]
    if world > 1:
        parts = [[] for _ in range(world)]
        torch.distributed.all_gather_object(parts, list(names))
    return list(dict.fromkeys(name for part in parts for name in part))


def describe_skipped(
    names: list[str], pictures: int, epoch: int, validation: bool = False
) -> tuple[str, bool]:
    """What to say of an epoch.

    Args:
        names: files that could not be read; at least one.
        pictures: of the epoch, or of its validation.
        epoch: from 1.
        validation: whether they are pictures of the validation.

    Returns:
        A sentence, and whether the run should end.
    """
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    which, fate = ("validation pictures", "were left out") if validation else ("pictures", "taught nothing")
    text = f"epoch {epoch}: {len(names)} of {pictures} {which} could not be read and {fate}: "
    text += ", ".join(names[:NAMES_SHOWN]) + more
    return text, len(names) > max(MOST_SKIPPED * pictures, 1)
