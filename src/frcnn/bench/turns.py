"""Times taken in turn: A B C A B C ..., so that a machine that slows down slows all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

WARM_UP_SECONDS = 1.0
"""A quick call is repeated this long before the first round."""
WARM_UP_CALLS = 5
LONG_CALL = 2.0
"""Seconds after which one call is warm-up enough."""
LEAST_ROUNDS, MOST_ROUNDS = 3, 7
"""Where nobody says how many: as many as the time allows, within these."""


@dataclass(frozen=True)
class Times:
    """Seconds of one contender.

    Attributes:
        rounds: one value for each round.
        first: of the very first call, compilation and allocation included.
    """

    rounds: tuple[float, ...]
    first: float

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one."""
        return quartiles(self.rounds)


def quartiles(values: tuple[float, ...]) -> tuple[float, float]:
    """The lower and the upper quartile, between neighbours where they fall between two values."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def take_turns(
    calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: int | None, seconds: float
) -> dict[str, Times]:
    """Time every call once a round, after a warm-up.

    In each turn a call is made twice, and the second one is timed: in use a call follows one of its own kind.
    After one in bf16, r50-fpn in fp32 takes 1.05 s instead of 0.72 s, though nothing is packed anew.

    Args:
        calls: by name, in the order of the turns.
        device: waited for before and after each call.
        rounds: so many, however long that takes; None: as many as the time allows, from ``LEAST_ROUNDS``
            to ``MOST_ROUNDS``.
        seconds: without ``rounds``, no further round begins after this much time, warm-up left out.
    """
    first = {name: warm_up(call, device) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    gc.freeze()  # what is there already need not be searched before every call
    try:
        for done in range(MOST_ROUNDS if rounds is None else rounds):
            if rounds is None and done >= LEAST_ROUNDS and time.perf_counter() > end:
                break
            for name, call in calls.items():
                gc.collect()
                call()
                taken[name].append(timed(call, device))
    finally:
        gc.unfreeze()
    return {name: Times(tuple(values), first[name]) for name, values in taken.items()}


def warm_up(call: Callable[[], object], device: torch.device) -> float:
    """Call until buffers and kernels are there.

    Returns:
        Seconds of the first call.
    """
    first = timed(call, device)
    end = time.perf_counter() + WARM_UP_SECONDS - first
    for done in range(1, WARM_UP_CALLS):
        if (done > 1 and time.perf_counter() > end) or first > LONG_CALL:
            break
        call()
    return first


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the device's work included."""
    wait(device)
    began = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
