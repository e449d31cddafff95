"""The values that pass between the stages: frozen dataclasses of padded tensors.

Letters: N images, H, W padded picture, L levels, A anchors, G padded objects, P proposals, R sampled RoIs,
D detections, K classes, S sampled anchors, C channels.

Every value has a fixed shape for a given padded picture size, whatever the data says: what is missing is
marked by a mask (``valid``) or by label -1, never left out. All values are registered as pytrees, so
``torch.compile`` and ``torch.export`` take them as arguments, and they can be moved with ``to`` and pinned
with ``pin_memory``.

Boxes are (x1, y1, x2, y2), float32, absolute pixels, half-open (width = x2 - x1). Sizes are (height, width).
Labels are 0..K-1; -1 marks padding (with ``ignore`` False) or a region without a class (with ``ignore``
True).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class TensorRecord:
    """Base of the dataclasses below: moves and maps all their tensors at once."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``function`` to every tensor (also those inside tuples) and return a new record."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, TensorRecord):
                return value.map(function)
            if isinstance(value, tuple):
                return tuple(apply(v) for v in value)
            return value

        return replace(self, **{f.name: apply(getattr(self, f.name)) for f in fields(self)})  # type: ignore[type-var]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Move every tensor to ``device``."""
        return self.map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Pin every tensor, so that the copy to a GPU can run beside the step."""
        return self.map(lambda t: t.pin_memory())

    def detach(self) -> Self:
        """Cut every tensor from the graph."""
        return self.map(lambda t: t.detach())


@dataclass(frozen=True)
class ImageBatch(TensorRecord):
    """A padded batch of pictures.

    Attributes:
        pixels: (N, 3, H, W), uint8 (not yet normalised) or float32 (normalised, padding 0).
        sizes: (N, 2) float32, true (height, width) after resizing, before padding.
        scales: (N, 2) float32, resized / original per axis (y, x).
        original_sizes: (N, 2) float32, (height, width) of the picture as the user knows it.
        given: (N, P, 4) float32, proposals from elsewhere in pixels of the resized pictures, best first,
            padded with boxes without area; the second stage then looks there and not where the RPN points.
    """

    pixels: Tensor
    sizes: Tensor
    scales: Tensor
    original_sizes: Tensor
    given: Tensor | None = None

    def __len__(self) -> int:
        """Number of images."""
        return self.pixels.shape[0]


@dataclass(frozen=True)
class Targets(TensorRecord):
    """Objects of a batch in pixels of the resized pictures, padded to the same G.

    Attributes:
        boxes: (N, G, 4) float32.
        labels: (N, G) int64, -1 = padding or a region without a class.
        ignore: (N, G) bool: no object to learn, and nothing found there is wrong.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor

    @property
    def real(self) -> Tensor:
        """(N, G) bool: objects to learn."""
        return (self.labels >= 0) & ~self.ignore


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


@dataclass(frozen=True)
class Noise(TensorRecord):
    """Uniform numbers in [0, 1) that decide what is sampled, drawn by the caller (a generator cannot enter a
    graph).

    Attributes:
        rpn: (N, A).
        roi: (N, P + G): proposals, then objects.
        jitter: (N, G, 4): moves the sides of the objects' copies among the proposals; None: exact copies.
    """

    rpn: Tensor
    roi: Tensor
    jitter: Tensor | None = None


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


@dataclass(frozen=True)
class Detections(TensorRecord):
    """Found objects in original pixels, best first, padded.

    Attributes:
        boxes: (N, D, 4) float32.
        scores: (N, D) float32, 0 where not valid.
        labels: (N, D) int64, 0..K-1.
        valid: (N, D) bool.
        roi_index: (N, D) int64, the RoI (proposal; with FCOS the point) each came from.
        exact: (N,) bool: False where the candidate limit before NMS may have cost a detection.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    roi_index: Tensor
    exact: Tensor

    def per_image(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Plain variable-length (boxes (n, 4), scores (n,), labels (n,)) of every image, on the host."""
        boxes, scores, labels, valid = (t.cpu() for t in (self.boxes, self.scores, self.labels, self.valid))
        return [(b[v], s[v], k[v]) for b, s, k, v in zip(boxes, scores, labels, valid, strict=True)]


@dataclass(frozen=True)
class Trace(TensorRecord):
    """Everything that passed between the stages for one batch, in image order; None where a stage did not
    run.

    Attributes:
        batch: the normalised pictures.
        features: one map (N, C, H_l, W_l) for each pyramid level.
        rpn: what the RPN says of every anchor; None with FCOS.
        rpn_matches, rpn_samples: what anchors (with FCOS points, which are all used) were trained as, and
            which (training).
        train_proposals: proposals under the training limits (training).
        rois: the RoIs that the second stage, the first of a cascade, was trained with (training).
        train_class_logits, train_deltas: (N, R, K + 1) and (N, R, K or 1, 4) of those RoIs (training).
        losses: the losses (training).
        counts: how many RoIs the (first) box head got right (training).
        proposals: proposals under the test limits (detection).
        moved: (N, P, 4) where the last stage looked: the proposals' boxes, or what a cascade made of them
            (detection).
        pooled: (N, P, C, 7, 7) features of the last stage's boxes (detection).
        class_logits: (N, P, K + 1), background last, mean over the stages (detection).
        deltas: (N, P, K or 1, 4) of the last stage (detection).
        detections: what was found, in original pixels (detection).
        fcos: what FCOS says of every point; None with anchors.
    """

    batch: ImageBatch
    features: tuple[Tensor, ...]
    rpn: RpnOutput | None
    rpn_matches: Matches | None = None
    rpn_samples: Samples | None = None
    train_proposals: Proposals | None = None
    rois: RoiSamples | None = None
    train_class_logits: Tensor | None = None
    train_deltas: Tensor | None = None
    losses: LossRecord | None = None
    counts: RoiCounts | None = None
    proposals: Proposals | None = None
    moved: Tensor | None = None
    pooled: Tensor | None = None
    class_logits: Tensor | None = None
    deltas: Tensor | None = None
    detections: Detections | None = None
    fcos: FcosOutput | None = None


@dataclass(frozen=True)
class Output(TensorRecord):
    """What a call of the network answers: losses where targets were given, detections where they were not or
    both.
    """

    losses: LossRecord | None
    detections: Detections | None
    counts: RoiCounts | None = None


for _record in (
    ImageBatch,
    Targets,
    RpnOutput,
    FcosOutput,
    Proposals,
    Matches,
    Samples,
    RoiSamples,
    Noise,
    Losses,
    RpnLosses,
    FcosLosses,
    RoiCounts,
    Detections,
    Trace,
    Output,
):
    torch.export.register_dataclass(_record)
