"""What one stage hands to the next, in the order of the image's path."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frcnn.structures.record import TensorRecord


@dataclass(frozen=True)
class RpnOutput(TensorRecord):
    """What the region proposal network says of every anchor.

    Attributes:
        objectness_logits: (N, A) for sigmoid, (N, A, 2) for two-way softmax (background, object).
        deltas: (N, A, 4).
        anchors: (A, 4), rows first in every level, levels one after another.
        level_sizes: number of anchors of each level, sums to A.
    """

    objectness_logits: Tensor
    deltas: Tensor
    anchors: Tensor
    level_sizes: tuple[int, ...]

    @property
    def scores(self) -> Tensor:
        """(N, A) ranking logits: object minus background for softmax, which orders as the probability
        does.
        """
        logits = self.objectness_logits
        return logits[..., 1] - logits[..., 0] if logits.dim() == 3 else logits


@dataclass(frozen=True)
class FcosOutput(TensorRecord):
    """What FCOS says of every point.

    Attributes:
        class_logits: (N, A, K), a sigmoid for each class; there is no background column.
        distances: (N, A, 4) from the point to the left, top, right and bottom side, in strides.
        centerness_logits: (N, A).
        points: (A, 2) (x, y) pixels, rows first in every level, levels one after another.
        strides: (A,) pixels a cell of the level of each point.
        level_sizes: number of points of each level, sums to A.
    """

    class_logits: Tensor
    distances: Tensor
    centerness_logits: Tensor
    points: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]

    @property
    def scores(self) -> Tensor:
        """(N, A, K) float32 in [0, 1]: the geometric mean of class probability and centerness."""
        centerness = self.centerness_logits.float().sigmoid()
        return (self.class_logits.float().sigmoid() * centerness[..., None]).sqrt()


@dataclass(frozen=True)
class Proposals(TensorRecord):
    """Boxes that may hold an object, best first, padded.

    Attributes:
        boxes: (N, P, 4) float32, no gradient.
        scores: (N, P) float32, objectness probability; 0 where not valid.
        level: (N, P) int64, the pyramid level of the anchor.
        valid: (N, P) bool.
    """

    boxes: Tensor
    scores: Tensor
    level: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Matches(TensorRecord):
    """What each anchor or RoI is for training.

    Attributes:
        labels: (N, A) int64: 1 object, 0 background, -1 neither (not trained with).
        index: (N, A) int64: the object with the best overlap (0 where there is none).
    """

    labels: Tensor
    index: Tensor


@dataclass(frozen=True)
class Samples(TensorRecord):
    """A fixed number of anchors or RoIs drawn from matches.

    Attributes:
        index: (N, S) int64 into the anchors or RoIs.
        foreground: (N, S) bool.
        valid: (N, S) bool: False where the image had not enough to draw from.
    """

    index: Tensor
    foreground: Tensor
    valid: Tensor


@dataclass(frozen=True)
class RoiSamples(TensorRecord):
    """RoIs drawn for the second stage, with their targets.

    Attributes:
        boxes: (N, R, 4).
        image_index: (N, R) int64, the image each RoI belongs to.
        labels: (N, R) int64, 0..K-1 object, K background, -1 not valid.
        gt_index: (N, R) int64.
        box_targets: (N, R, 4) deltas towards the matched object; 0 where not foreground.
        foreground: (N, R) bool.
        valid: (N, R) bool.
    """

    boxes: Tensor
    image_index: Tensor
    labels: Tensor
    gt_index: Tensor
    box_targets: Tensor
    foreground: Tensor
    valid: Tensor
