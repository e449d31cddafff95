"""What is measured: a task on pictures of one size, and who takes part in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from frcnn.precision import choose_precision

Format = Literal["fp32", "tf32", "bf16"]
Compilation = Literal["", "regional", "step"]
Side = Literal["frcnn", "torchvision"]
Task = Literal["train", "infer"]
Network = Literal["lite0", "r50"]
"""``lite0``: EfficientNet-Lite0 with torchvision's pyramid (256), RPN and heads; ``r50``:
``fasterrcnn_resnet50_fpn``."""

ROIS, SMALL_ROIS = 512, 16
"""Trained with in each picture; 512 is torchvision's default."""


@dataclass(frozen=True)
class Contender:
    """Who takes a turn.

    Attributes:
        side: ours or torchvision's.
        format: convolutions and matrix products compute in this.
        channels_last: torchvision's weights and pictures in channels-last memory; ours always are.
        compiled: by ``torch.compile``, ``regional`` or the whole ``step``; "": not.
        recipe: one of ours as it is, another network than the other contenders'; "": the workload's network.
    """

    side: Side
    format: Format
    channels_last: bool = False
    compiled: Compilation = ""
    recipe: str = ""

    @property
    def name(self) -> str:
        """As it stands in the tables."""
        words = [self.side, self.recipe, self.format]
        words.append("channels-last" if self.channels_last else "")
        words.append(f"compiled ({self.compiled})" if self.compiled else "")
        return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Workload:
    """One task on one batch of pictures.

    Attributes:
        task: a training step or an inference.
        network: the one architecture of both sides.
        height, width: pictures are resized to fit; generated ones fill it.
        batch: pictures.
        device: as torch names it.
        threads: of a process on the CPU; 0: as torch chooses.
        data: folder of a data set; "": generated pictures.
        weights: state dict of torchvision's ``fasterrcnn_resnet50_fpn``; "": random ones.
        small: few proposals and RoIs, to try the benchmark itself.
    """

    task: Task
    network: Network
    height: int
    width: int
    batch: int
    device: str = "cpu"
    threads: int = 0
    data: str = ""
    weights: str = ""
    small: bool = False

    @property
    def title(self) -> str:
        """One line."""
        what = {"train": "training step", "infer": "inference"}[self.task]
        name = {"lite0": "EfficientNet-Lite0, FPN 256", "r50": "r50-fpn"}[self.network]
        name += f", {SMALL_ROIS if self.small else ROIS} RoIs" if self.task == "train" else ""
        return f"{what}, {name}, {self.height}x{self.width}, batch {self.batch}, {self.device}"

    @property
    def torch_device(self) -> torch.device:
        """Where it runs."""
        return torch.device(self.device)

    @property
    def pixels(self) -> int:
        """Of the padded batch."""
        sides = [-(-side // 32) * 32 for side in (self.height, self.width)]
        return self.batch * sides[0] * sides[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def contenders(workload: Workload, bf16: bool, compiled: bool) -> list[Contender]:
    """Who takes part, in the order of their turns: ours and torchvision's alternate.

    Args:
        workload: for its task and device.
        bf16: whether the device computes in it.
        compiled: ours by ``torch.compile``, too.
    """
    formats: list[Format] = ["fp32"]
    if workload.device.startswith("cuda"):
        formats.append("tf32")
    if bf16:
        formats.append("bf16")
    found: list[Contender] = []
    for name in formats:
        found += [Contender("frcnn", name), Contender("torchvision", name)]
        found.append(Contender("torchvision", name, channels_last=True))  # which is faster differs
        if compiled:
            modes: tuple[Compilation, ...] = ("regional", "step")
            found += [Contender("frcnn", name, compiled=mode) for mode in modes]
    if workload.task == "train" and workload.network == "lite0":
        found.append(Contender("frcnn", formats[-1], recipe="lite0-fpn"))
    return found


def without_bf16(device: torch.device) -> str:
    """Why a device is not measured in bf16; "" where it is."""
    chosen = choose_precision("auto", device)
    return "" if chosen.format == "bf16" else f"no rows in bf16 on {device}: {chosen.reason}"


@contextlib.contextmanager
def computing_in(name: Format, device: torch.device) -> Iterator[None]:
    """Autocast for bf16; on a GPU also whether matrix products and convolutions may round to tf32."""
    backends: tuple[Any, Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = name == "tf32"
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16"):
            yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
