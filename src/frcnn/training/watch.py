"""Stops a run whose loss is no number any more, and says which pictures it was.

On a CPU every step is looked at before the weights change. On a GPU looking means waiting, so a flag on the
device makes the optimizer skip this and all following steps, and the host reads it every ``INTERVAL`` steps.

Letters: N pictures, G padded objects, T steps between two looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from frcnn.data.feed.loader import Batch
from frcnn.structures import LossRecord, RoiCounts

INTERVAL = 20
COUNTS = tuple(f.name for f in fields(RoiCounts))


class TrainingStopped(RuntimeError):  # noqa: N818 (it says what happened)
    """A run that cannot go on; the message says why and what to change."""


@dataclass(frozen=True)
class Seen:
    """A batch that was trained with since the last look."""

    step: int
    epoch: int
    lr: float
    batch: Batch


class LossWatch:
    """Sums the losses for the progress line and watches that they are finite.

    Letters: P losses.

    Attributes:
        names: of the losses.
        trained: of those that training lowers; they are the total.
        sums: (P + 1,) on the device: the losses and the number of batches, since ``take``.
        counts: (4,) on the device: RoIs that the second stage got right and all, since ``take``.
        bad: scalar float32 on the device: 1 from the first step on that was not finite.
    """

    def __init__(
        self,
        device: torch.device,
        report: Callable[[dict[str, Any]], None],
        names: Sequence[str],
        trained: Sequence[str] | None = None,
    ) -> None:
        """``report`` gets what ``nan_step.json`` holds, before the run stops; ``trained`` None: all."""
        self.names = tuple(names)
        self.trained = self.names if trained is None else tuple(trained)
        self.interval = INTERVAL if device.type == "cuda" else 1
        self._report = report
        exact = torch.float32 if device.type == "mps" else torch.float64  # which it does not have
        self.sums = torch.zeros(len(self.names) + 1, device=device, dtype=exact)
        self.counts = torch.zeros(len(COUNTS), device=device, dtype=exact)
        self.bad = torch.zeros((), device=device)
        # (T, P + 1): the losses and the norm of the gradient, for every step since the last look
        self._rows = torch.zeros(self.interval, len(self.names) + 1, device=device)
        self._seen: list[Seen] = []
        self._scaled = False

    def losses(self, losses: LossRecord, seen: Seen, counts: RoiCounts | None = None) -> None:
        """Take the losses of a batch before its backward pass.

        Raises:
            TrainingStopped: on a CPU, when one is not finite.
        """
        if len(self._seen) == self.interval:
            self.look()
        parts = torch.stack([part.detach().float() for part in losses.parts()])  # (P,)
        if counts is not None:
            self.counts += torch.stack([getattr(counts, name) for name in COUNTS])
        self.sums[:-1] += parts
        self.sums[-1] += 1
        self._rows[len(self._seen), :-1] = parts
        self._rows[len(self._seen), -1] = 0  # no gradient yet
        self._seen.append(replace(seen, batch=_without_pixels(seen.batch)))
        self.bad.logical_or_(~parts.isfinite().all())
        if self.interval == 1:
            self._stop_if_bad()

    def gradient(self, norm: Tensor, *, scaled: bool = False) -> None:
        """Take the norm of the gradient before the optimizer's step.

        Args:
            norm: scalar on the device.
            scaled: the fp16 scaler watches gradients itself, and lowers its scale where they overflow.

        Raises:
            TrainingStopped: on a CPU, when it is not finite.
        """
        self._scaled = scaled
        self._rows[len(self._seen) - 1, -1] = norm.detach()
        if not scaled:
            self.bad.logical_or_(~norm.isfinite())
        if self.interval == 1:
            self._stop_if_bad()

    def look(self) -> None:
        """Read the flag; the one place where the host waits for the device.

        Raises:
            TrainingStopped: when a step since the last look was not finite.
        """
        self._stop_if_bad()
        self._seen.clear()

    def _stop_if_bad(self) -> None:
        if not bool(self.bad):
            return
        rows = self._rows[: len(self._seen)].cpu()
        judged = rows[:, :-1] if self._scaled else rows  # scaled gradients may overflow
        broken = (~judged.isfinite()).any(1).nonzero()
        index = int(broken[0]) if len(broken) else len(rows) - 1
        content = _describe(self._seen[index], rows[index], self.names)
        self._report(content)
        raise TrainingStopped(_sentence(content))

    def take(self) -> dict[str, float]:
        """Mean losses by name and ``total`` since the last call; starts anew, and waits for the device.

        With a second stage also ``tp``, ``tf``, ``fg`` and ``bg``: RoIs a step.
        """
        values, counts = self.sums.tolist(), self.counts.tolist()
        self.sums.zero_()
        self.counts.zero_()
        count = max(values[-1], 1.0)
        means = {name: value / count for name, value in zip(self.names, values, strict=False)}
        means["total"] = sum(means[name] for name in self.trained)
        if any(counts):
            means |= {name: value / count for name, value in zip(COUNTS, counts, strict=True)}
        return means

    @property
    def mean_total(self) -> float:
        """Mean total of the batches since ``take``; waits for the device."""
        values = dict(zip(self.names, self.sums.tolist(), strict=False))
        return sum(values[name] for name in self.trained) / float(self.sums[-1])


def _without_pixels(batch: Batch) -> Batch:
    """A message needs no pixels, and those of all steps since the last look would fill the device."""
    images = batch.images
    return replace(batch, images=replace(images, pixels=images.pixels.new_empty(0)))


def _describe(seen: Seen, row: Tensor, names: Sequence[str]) -> dict[str, Any]:
    batch, values = seen.batch, row.tolist()
    scales = batch.images.scales.cpu()[:, None, [1, 0, 1, 0]]
    boxes, real = batch.targets.boxes.cpu() / scales, batch.targets.real.cpu()
    labels = batch.targets.labels.cpu()
    pictures = [
        {"path": path, "id": image_id, "boxes": b[r].tolist(), "labels": k[r].tolist()}
        for path, image_id, b, r, k in zip(batch.paths, batch.image_ids, boxes, real, labels, strict=True)
    ]
    return {
        "step": seen.step,
        "epoch": seen.epoch,
        "lr": seen.lr,
        "losses": dict(zip(names, values, strict=False)),
        "gradient_norm": values[-1],
        "pictures": pictures,
    }


def _sentence(content: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {value:.4g}" for name, value in content["losses"].items())
    paths = ", ".join(p["path"] for p in content["pictures"])
    return (
        f"the loss stopped being a finite number at step {content['step']} (epoch {content['epoch']}): "
        f"{parts}; lr {content['lr']:.4g}, gradient norm {content['gradient_norm']:.4g}; pictures: {paths}. "
        "Look at their boxes in nan_step.json, or train with a lower rate (--set train.lr=...)"
    )
