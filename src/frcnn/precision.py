"""Which number format training and detection compute in: asked for, or chosen by a short test of the
processor.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

Requested = Literal["auto", "fp32", "bf16", "fp16"]
Format = Literal["fp32", "bf16", "fp16"]

TEST_SECONDS = 0.3
"""Time the test may take, after one warm-up round."""
MIN_GAIN = 1.15
"""bf16 must be this much faster in the test: the casts around it cost something in a whole network."""


@dataclass(frozen=True)
class Precision:
    """The format of a run and why.

    Attributes:
        format: convolutions and matrix products compute in this; boxes and losses always in fp32.
        reason: for the log.
    """

    format: Format
    reason: str

    @property
    def lightning(self) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
        """The name that the Trainer gives it."""
        names: dict[Format, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
            "fp32": "32-true",
            "bf16": "bf16-mixed",
            "fp16": "16-mixed",
        }
        return names[self.format]

    @property
    def dtype(self) -> torch.dtype | None:
        """Of autocast; None for fp32."""
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.format]

    def autocast(self, kind: str) -> AbstractContextManager[object]:
        """Around a forward pass on a device of ``kind`` (``cpu``, ``cuda``)."""
        return nullcontext() if self.dtype is None else torch.autocast(kind, self.dtype)

    def describe(self) -> str:
        """One line for the log."""
        return f"precision {self.format}: {self.reason}"


def choose_precision(requested: Requested, device: torch.device) -> Precision:
    """The format to compute in on ``device``.

    Raises:
        ValueError: for fp16 on a CPU, or bf16 on a GPU that cannot.
    """
    if requested == "fp16" and device.type == "cpu":
        raise ValueError("precision fp16 needs a GPU; on a CPU use --precision bf16 or fp32")
    if requested == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise ValueError("this GPU has no bf16; use --precision fp16 or fp32")
    if requested != "auto":
        return Precision(requested, "as asked")
    if device.type == "cuda":
        good = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bf16", "the GPU has it") if good else Precision("fp32", "the GPU has no bf16")
    if device.type != "cpu":
        return Precision("fp32", f"the default on {device.type}")
    gain = _measured_gain()
    if gain >= MIN_GAIN:
        return Precision("bf16", f"a test convolution is {gain:.1f}x as fast as in fp32 on this processor")
    return Precision("fp32", f"bf16 brings nothing on this processor ({gain:.1f}x in a test convolution)")


@cache
def _measured_gain() -> float:
    """Once a process: the processor stays the same."""
    return bf16_gain()


def bf16_gain(seconds: float = TEST_SECONDS) -> float:
    """How many times faster a typical convolution is under bf16 autocast on the CPU, both passes."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2, 128, 64, 80, generator=generator).to(memory_format=torch.channels_last)
    weight = nn.Parameter(torch.rand(128, 128, 3, 3, generator=generator))
    # in a network the map before is in the low format already
    maps = {False: features.clone().requires_grad_(), True: features.bfloat16().requires_grad_()}
    times: dict[bool, list[float]] = {False: [], True: []}

    def round_trip(low: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = F.conv2d(maps[low], weight, padding=1)
        out.backward(out.detach())
        return time.perf_counter() - start

    for low in times:
        round_trip(low)  # the first call builds the kernel
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[True]) < 3:
        for low, seen in times.items():  # in turn, so that another process disturbs both alike
            seen.append(round_trip(low))
    return min(times[False]) / min(times[True])  # the least disturbed round of each
