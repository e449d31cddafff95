"""What training reads: the losses of a step, and what the second stage got right."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from frcnn.structures.record import TensorRecord


@dataclass(frozen=True)
class LossRecord(TensorRecord):
    """Base of the losses of a step, weighted as they enter the total. Scalars, float32."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the losses, in order."""
        return tuple(f.name for f in fields(cls))

    def parts(self) -> tuple[Tensor, ...]:
        """The losses, in order."""
        return tuple(getattr(self, name) for name in self.names())

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return torch.stack(self.parts()).sum()

    def as_dict(self) -> dict[str, Tensor]:
        """The losses and their sum by name."""
        return dict(zip(self.names(), self.parts(), strict=True)) | {"total": self.total}


@dataclass(frozen=True)
class Losses(LossRecord):
    """The four losses of a detector of two stages."""

    rpn_objectness: Tensor
    rpn_box: Tensor
    roi_class: Tensor
    roi_box: Tensor


@dataclass(frozen=True)
class RpnLosses(LossRecord):
    """The losses of a region proposal network alone."""

    rpn_objectness: Tensor
    rpn_box: Tensor


@dataclass(frozen=True)
class FcosLosses(LossRecord):
    """The losses of FCOS."""

    fcos_class: Tensor
    fcos_box: Tensor
    fcos_centerness: Tensor


@dataclass(frozen=True)
class RoiCounts(TensorRecord):
    """How many RoIs of a step the second stage got right. Scalars, float32, no gradient.

    Attributes:
        tp: foreground RoIs given their class.
        tf: background RoIs given to the background.
        fg: foreground RoIs.
        bg: background RoIs.
    """

    tp: Tensor
    tf: Tensor
    fg: Tensor
    bg: Tensor
