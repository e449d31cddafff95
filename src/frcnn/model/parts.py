"""The places where a part of the detector can be replaced from outside the package (``docs/extend.md``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from frcnn.model.losses import LossInputs
from frcnn.structures import Losses, Matches, RpnOutput, Samples, Targets

Matcher = Callable[[RpnOutput, Tensor, Targets], Matches]
"""(rpn output with anchors and level sizes, (N, 2) picture sizes, targets) -> labels and objects of the
anchors."""
Sampler = Callable[[Tensor, Tensor, int, int], Samples]
"""((N, A) labels, (N, A) noise, count, positives) -> (N, count) samples; called for anchors and for RoIs."""
RpnHeadFactory = Callable[[int, int], nn.Module]
"""(channels, anchors per cell) -> module: maps -> logits (N, A) or (N, A, 2), deltas (N, A, 4), rows
first."""
BoxHeadFactory = Callable[[int, int], nn.Module]
"""(channels, classes K) -> module: (M, C, 7, 7) -> class logits (M, K + 1) background last, deltas (M, K or
1, 4)."""
LossFunction = Callable[[LossInputs], Losses]


@dataclass(frozen=True)
class Parts:
    """Replacements for parts of the detector, from outside; None keeps the default (``docs/extend.md``)."""

    matcher: Matcher | None = None
    sampler: Sampler | None = None
    rpn_head: RpnHeadFactory | None = None
    box_head: BoxHeadFactory | None = None
    loss: LossFunction | None = None

    @property
    def replaced(self) -> list[str]:
        """Names of the parts that are not the defaults; a run with any of them says "not compiled"."""
        return [name for name, value in vars(self).items() if value is not None]
