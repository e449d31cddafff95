"""How often the host waits for the device in one step."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

SAYING = "synchroniz"


def count_syncs(call: Callable[[], object], device: torch.device) -> int | None:
    """Synchronising CUDA calls in ``call``; None where there is no CUDA device to ask."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum(SAYING in str(each.message) for each in said)
