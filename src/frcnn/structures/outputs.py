"""What leaves the network: detections, and everything on the way to them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frcnn.structures.inputs import ImageBatch
from frcnn.structures.losses import LossRecord, RoiCounts
from frcnn.structures.record import TensorRecord
from frcnn.structures.stages import FcosOutput, Matches, Proposals, RoiSamples, RpnOutput, Samples


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
