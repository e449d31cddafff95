"""Room 1: the map of the detector. One picture walks through ``stages`` from pixels to detections.

Letters: N images, L levels, A anchors, G padded objects, P proposals, R sampled RoIs, K classes.
Paper: Faster R-CNN (Ren, He, Girshick, Sun 2015); with a pyramid, FPN (Lin et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from frcnn.config import Config
from frcnn.model.cascade import RoiStage, move_boxes, next_samples, stage_configs
from frcnn.model.fcos import Fcos
from frcnn.model.heads import BoxHead
from frcnn.model.losses import LossInputs, default_losses, roi_counts
from frcnn.model.matching import match_rois
from frcnn.model.network import Classify, Network, Regions, Seen, Stage, detect
from frcnn.model.parts import Parts
from frcnn.model.pooling import pool_rois
from frcnn.model.postprocess import Limits, postprocess
from frcnn.model.proposer import ProposalNetwork
from frcnn.model.sampling import jittered, roi_samples, with_objects
from frcnn.structures import Detections, ImageBatch, Losses, Noise, Proposals, RoiSamples, Targets, Trace

__all__ = ["Classify", "FasterRCNN", "Network", "Regions", "Seen", "build_network", "detect"]

ALL_CANDIDATES = 2**31 - 1
"""More (RoI, class) pairs than there are."""


class FasterRCNN(ProposalNetwork):
    """The network: backbone, pyramid, RPN and box head, with everything between them as pure functions."""

    losses: type[Losses] = Losses  # type: ignore[assignment]

    def _build(self) -> None:
        """The box head of every stage."""
        make, width = self.parts.box_head, self.fpn.channels
        self.roi_stages = stage_configs(self.config.roi)
        heads = [
            make(width, self.num_classes) if make else BoxHead(width, self.num_classes, roi)
            for roi in self.roi_stages
        ]
        self.box_head, self.later_heads = heads[0], nn.ModuleList(heads[1:])
        weights = self.config.roi.class_weights
        if weights and len(weights) != self.num_classes + 1:
            raise ValueError(
                f"roi.class_weights has {len(weights)} numbers for {self.num_classes} classes; "
                f"give {self.num_classes + 1}: one for each class and the background's last"
            )

    @property
    def heads(self) -> tuple[nn.Module, ...]:  # type: ignore[override]
        """The box head of every stage."""
        return (self.box_head, *self.later_heads)

    def stage_modules(self) -> dict[Stage, tuple[nn.Module, ...]]:
        """The modules of each stage that ``train.freeze`` names."""
        return {**super().stage_modules(), "roi": self.heads}

    def stages(
        self,
        batch: ImageBatch,
        anchors: Tensor,
        targets: Targets | None = None,
        noise: Noise | None = None,
        detect: bool = False,
        limits: Limits | None = None,
        regions: Regions | None = None,
    ) -> Trace:
        """The image's path; anchors and noise come from outside, so this part compiles as one graph."""
        classify = regions.classify if regions else self.heads
        trace = self._look(batch, anchors, regions)  # rooms 2 to 6: maps, every anchor's numbers
        if targets is not None and noise is not None:
            trace = self._learn(trace, targets, noise, classify)  # rooms 7 to 12: losses
        if targets is None or detect:
            trace = self._find(trace, limits, classify)  # rooms 7, 10, 11, 13: detections
        return trace

    def _find(self, trace: Trace, limits: Limits | None, classify: tuple[Classify, ...]) -> Trace:
        """Detections under the test limits."""
        sizes, proposals = trace.batch.sizes, self._propose(trace, training=False)
        boxes = proposals.boxes
        pooled, logits, deltas = self._second_stage(trace.features, boxes, classify[0])
        total = logits
        for before, head in zip(self.roi_stages, classify[1:], strict=False):  # stages of a cascade
            boxes = move_boxes(boxes, logits, deltas, sizes, before)
            pooled, logits, deltas = self._second_stage(trace.features, boxes, head)
            total = total + logits
        logits = total / len(classify)
        last = self.roi_stages[-1]
        detections = postprocess(replace(proposals, boxes=boxes), logits, deltas, trace.batch, last, limits)
        return replace(
            trace,
            proposals=proposals,
            moved=boxes,
            pooled=pooled,
            class_logits=logits,
            deltas=deltas,
            detections=detections,
        )

    def _learn(self, trace: Trace, targets: Targets, noise: Noise, classify: tuple[Classify, ...]) -> Trace:
        """Losses under the training limits."""
        sizes, rpn = trace.batch.sizes, trace.rpn
        proposals = self._propose(trace, training=True)
        trace, box_targets = self._assign(trace, targets, noise)  # first stage: which anchors, and where to
        assert rpn is not None and trace.rpn_samples is not None
        candidates = self._candidates(proposals, targets, noise, sizes)  # second stage: which RoIs
        draw = self._sampler(self.config.roi.sampling == "per_batch")
        keys = noise.roi[:, : candidates.boxes.shape[1]]
        rois = self._draw_rois(candidates, targets, keys)
        _, logits, deltas = self._second_stage(trace.features, rois.boxes, classify[0])
        stages = [RoiStage(rois, logits, deltas)]
        for i, head in enumerate(classify[1:]):  # stages of a cascade
            now, (before, after) = stages[-1], self.roi_stages[i : i + 2]
            boxes = move_boxes(now.rois.boxes, now.class_logits, now.deltas, sizes, before)
            more = next_samples(now, boxes, targets, after, keys, draw)
            stages.append(RoiStage(more, *self._second_stage(trace.features, more.boxes, head)[1:]))
        inputs = LossInputs(rpn, trace.rpn_samples, box_targets, rois, logits, deltas, tuple(stages[1:]))
        losses = (
            self.parts.loss(inputs)
            if self.parts.loss
            else default_losses(inputs, self.config.rpn, self.config.roi, self.roi_stages[1:])
        )
        return replace(
            trace,
            train_proposals=proposals,
            rois=rois,
            train_class_logits=logits,
            train_deltas=deltas,
            losses=losses,
            counts=roi_counts(rois, logits),
        )

    def _candidates(self, proposals: Proposals, targets: Targets, noise: Noise, sizes: Tensor) -> Proposals:
        """Proposals, and the objects or moved copies of them where the recipe wants that."""
        config = self.config.roi
        if config.gt_proposals == "none":
            return proposals
        if config.gt_proposals == "exact":
            return with_objects(proposals, targets)
        assert noise.jitter is not None
        copies = jittered(targets.boxes, noise.jitter, config.gt_jitter, sizes)
        return with_objects(proposals, targets, copies)

    def _draw_rois(self, candidates: Proposals, targets: Targets, keys: Tensor) -> RoiSamples:
        """Rooms 8 and 9 for the second stage: RoIs (N, R) with their targets."""
        config = self.config.roi
        matches = match_rois(candidates, targets, config)
        draw = self._sampler(config.sampling == "per_batch")
        count = config.batch_size
        samples = draw(matches.labels, keys, count, int(count * config.positive_fraction))
        return roi_samples(candidates, matches, samples, targets, config, self.num_classes)

    def _second_stage(
        self, features: Sequence[Tensor], boxes: Tensor, classify: Classify
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pool and classify RoIs (N, R, 4) -> pooled (N, R, C, 7, 7), logits (N, R, K + 1), deltas (N, R, K,
        1 or 0, 4).
        """
        n, r = boxes.shape[:2]
        pooled = pool_rois(features, boxes, self.strides, self.config.roi, self.pooled_levels)
        logits, deltas = classify(pooled.flatten(0, 1))
        return pooled, logits.view(n, r, -1), deltas.view(n, r, deltas.shape[1], 4)

    @property
    def _jitters(self) -> bool:
        return self.config.roi.gt_proposals == "jittered"

    def everything(self, trace: Trace, limits: Limits | None) -> Detections:
        """The detections of a trace once more, without the candidate limit before NMS."""
        assert trace.proposals is not None and trace.moved is not None
        assert trace.class_logits is not None and trace.deltas is not None
        unlimited = replace(limits or Limits(), candidates=ALL_CANDIDATES)
        boxes = replace(trace.proposals, boxes=trace.moved)
        stages = (boxes, trace.class_logits, trace.deltas, trace.batch)
        return postprocess(*stages, self.roi_stages[-1], unlimited)


def build_network(config: Config, num_classes: int, parts: Parts | None = None) -> Network:
    """The network that ``config.detector`` names, with random weights for K classes.

    Raises:
        ValueError: when the configuration does not fit the backbone, or there is no class.
    """
    if config.detector == "fcos":
        return Fcos(config, num_classes, parts)
    if config.detector == "rpn":
        return ProposalNetwork(config, num_classes, parts)
    return FasterRCNN(config, num_classes, parts)
