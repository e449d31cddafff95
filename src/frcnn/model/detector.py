"""Room 1: the map of the detector. One picture walks through ``stages`` from pixels to detections.

Letters: N images, L levels, A anchors, G padded objects, P proposals, R sampled RoIs, K classes.
Paper: Faster R-CNN (Ren, He, Girshick, Sun 2015); with a pyramid, FPN (Lin et al. 2017).

Mode comes from the arguments, never from ``self.training``: with targets the network returns losses (and,
when asked, detections too), without them detections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from frcnn.config import Config
from frcnn.model.anchors import Anchors
from frcnn.model.backbones import Backbone
from frcnn.model.cascade import RoiStage, move_boxes, next_samples, stage_configs
from frcnn.model.fpn import FeaturePyramid, SingleLevel
from frcnn.model.heads import BoxHead
from frcnn.model.losses import LossInputs, default_losses
from frcnn.model.matching import match_anchors, match_rois
from frcnn.model.parts import Parts
from frcnn.model.pooling import pool_rois
from frcnn.model.postprocess import Limits, postprocess
from frcnn.model.preprocess import normalise
from frcnn.model.proposals import limits as proposal_limits
from frcnn.model.proposals import select_proposals
from frcnn.model.rpn import RpnHead
from frcnn.model.sampling import roi_samples, rpn_targets, sample, with_objects
from frcnn.structures import (
    Detections,
    ImageBatch,
    Noise,
    Output,
    RpnOutput,
    Targets,
    Trace,
)

if TYPE_CHECKING:
    from frcnn.model.compiled import Compiled

Classify = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(M, C, 7, 7) -> class logits (M, K + 1), deltas (M, K or 1, 4): the box head of a stage."""
ALL_CANDIDATES = 2**31 - 1
"""More (RoI, class) pairs than there are."""


class Seen(NamedTuple):
    """What the network makes of the pictures alone, before anything is selected."""

    batch: ImageBatch
    features: tuple[Tensor, ...]
    logits: Tensor
    deltas: Tensor


class Regions(NamedTuple):
    """The two parts of the path that are network only; ``frcnn.model.compiled`` puts compiled ones here."""

    see: Callable[[ImageBatch], Seen]
    classify: tuple[Classify, ...]


class FasterRCNN(nn.Module):
    """The network: backbone, pyramid, RPN and box head, with everything between them as pure functions."""

    def __init__(self, config: Config, num_classes: int, parts: Parts | None = None) -> None:
        """Build with random weights for K classes.

        Raises:
            ValueError: when the configuration does not fit the backbone, or there is no class.
        """
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"a detector needs at least one class, got {num_classes}")
        self.config, self.num_classes, self.parts = config, num_classes, parts or Parts()
        self.backbone = Backbone(config.backbone)
        channels, strides = self.backbone.channels, self.backbone.strides
        single = config.fpn.channels == 0
        self.fpn = SingleLevel(channels, strides) if single else FeaturePyramid(channels, strides, config.fpn)
        self.strides, self.pooled_levels = self.fpn.strides, len(strides)
        self.looked_at = slice(config.rpn.first_level, None)  # levels that the RPN sees
        self.anchors = Anchors(config.anchors, self.strides[self.looked_at])
        width, per_cell = self.fpn.channels, self.anchors.per_cell
        make_rpn, make_box = self.parts.rpn_head, self.parts.box_head
        self.rpn_head = make_rpn(width, per_cell) if make_rpn else RpnHead(width, per_cell, config.rpn)
        self.roi_stages = stage_configs(config.roi)
        heads = [
            make_box(width, num_classes) if make_box else BoxHead(width, num_classes, roi)
            for roi in self.roi_stages
        ]
        self.box_head, self.later_heads = heads[0], nn.ModuleList(heads[1:])
        self.to(memory_format=torch.channels_last)
        self.compiled: Compiled | None = None

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The box head of every stage."""
        return (self.box_head, *self.later_heads)

    def __getstate__(self) -> dict[str, Any]:
        """A copy is not compiled: what is compiled computes with the weights of the original."""
        return {**super().__getstate__(), "compiled": None}

    def forward(
        self,
        batch: ImageBatch,
        targets: Targets | None = None,
        noise: Noise | None = None,
        detect: bool = False,
    ) -> Output:
        """Losses with targets, detections without, both with targets and ``detect``."""
        path = self.trace if self.compiled is None else self.compiled.trace
        trace = path(batch, targets, noise, detect)
        return Output(trace.losses, trace.detections)

    def trace(
        self,
        batch: ImageBatch,
        targets: Targets | None = None,
        noise: Noise | None = None,
        detect: bool = False,
        limits: Limits | None = None,
        regions: Regions | None = None,
    ) -> Trace:
        """Every value that passed between the rooms; the one code path of ``forward``.

        ``limits`` replaces the configuration's for scores and the number of detections; ``regions`` holds
        compiled parts.
        """
        height, width = batch.pixels.shape[-2:]
        anchors = self.anchors(height, width, batch.pixels.device)
        if targets is not None and noise is None:
            raise ValueError("training needs noise that decides what is sampled; draw it with draw_noise()")
        return self.stages(batch, anchors, targets, noise, detect, limits, regions)

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
        see, classify = regions or (self.see, self.heads)
        batch, features, logits, deltas = see(batch)  # rooms 2 to 4 and 6: maps, every anchor's numbers
        sizes = self.anchors.level_sizes(*batch.pixels.shape[-2:])
        trace = Trace(batch, features, RpnOutput(logits, deltas, anchors, sizes))  # room 5: the anchors
        if targets is not None and noise is not None:
            trace = self._learn(trace, targets, noise, classify)  # rooms 7 to 12: losses
        if targets is None or detect:
            trace = self._find(trace, limits, classify)  # rooms 7, 10, 11, 13: detections
        return trace

    def see(self, batch: ImageBatch) -> Seen:
        """Normalised pictures, their maps, and logits and deltas of every anchor: network only."""
        batch, features = self.extract(batch)
        return Seen(batch, features, *self.rpn_head(features[self.looked_at]))  # room 6

    def extract(self, batch: ImageBatch) -> tuple[ImageBatch, tuple[Tensor, ...]]:
        """Normalised pictures (N, 3, H, W) float32 (room 2) and their L maps (rooms 3, 4)."""
        batch = normalise(batch, self.config.preprocess)
        features = tuple(self.fpn(self.backbone(batch.pixels)))
        self._check_grids(features, *batch.pixels.shape[-2:])
        return batch, features

    def _check_grids(self, features: Sequence[Tensor], height: int, width: int) -> None:
        grids = self.anchors.grids(height, width)
        found = [(f.shape[-2], f.shape[-1]) for f in features[self.looked_at]]
        if found != grids:
            raise ValueError(
                f"features of {found} cells for a padded picture of {height} x {width}, anchors for {grids}: "
                f"set preprocess.pad_multiple to a multiple of {self.strides[-1]}"
            )

    def _find(self, trace: Trace, limits: Limits | None, classify: tuple[Classify, ...]) -> Trace:
        """Detections under the test limits."""
        config, sizes = self.config, trace.batch.sizes
        counts = proposal_limits(config.proposals, False)
        proposals = select_proposals(trace.rpn, sizes, config.proposals, config.rpn, counts)
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
        config, rpn, sizes, draw = self.config, trace.rpn, trace.batch.sizes, self.parts.sampler or sample
        counts = proposal_limits(config.proposals, True)
        proposals = select_proposals(rpn, sizes, config.proposals, config.rpn, counts)
        # first stage: which anchors, and where they should go
        matcher = self.parts.matcher
        matches = (
            matcher(rpn, sizes, targets)
            if matcher
            else match_anchors(rpn.anchors, sizes, targets, config.rpn)
        )
        count = config.rpn.batch_size
        samples = draw(matches.labels, noise.rpn, count, int(count * config.rpn.positive_fraction))
        box_targets = rpn_targets(rpn.anchors, matches, samples, targets, config.rpn.delta_weights)
        # second stage: which RoIs
        candidates = with_objects(proposals, targets) if config.roi.gt_proposals == "exact" else proposals
        roi_matches = match_rois(candidates, targets, config.roi)
        count = config.roi.batch_size
        keys = noise.roi[:, : candidates.boxes.shape[1]]
        drawn = draw(roi_matches.labels, keys, count, int(count * config.roi.positive_fraction))
        rois = roi_samples(candidates, roi_matches, drawn, targets, config.roi, self.num_classes)
        _, logits, deltas = self._second_stage(trace.features, rois.boxes, classify[0])
        stages = [RoiStage(rois, logits, deltas)]
        for i, head in enumerate(classify[1:]):  # stages of a cascade
            now, (before, after) = stages[-1], self.roi_stages[i : i + 2]
            boxes = move_boxes(now.rois.boxes, now.class_logits, now.deltas, sizes, before)
            more = next_samples(now, boxes, targets, after, keys, draw)
            stages.append(RoiStage(more, *self._second_stage(trace.features, more.boxes, head)[1:]))
        inputs = LossInputs(rpn, samples, box_targets, rois, logits, deltas, tuple(stages[1:]))
        losses = (
            self.parts.loss(inputs)
            if self.parts.loss
            else default_losses(inputs, config.rpn, config.roi, self.roi_stages[1:])
        )
        return replace(
            trace,
            rpn_matches=matches,
            rpn_samples=samples,
            train_proposals=proposals,
            rois=rois,
            train_class_logits=logits,
            train_deltas=deltas,
            losses=losses,
        )

    def _second_stage(
        self, features: Sequence[Tensor], boxes: Tensor, classify: Classify
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pool and classify RoIs (N, R, 4) -> pooled (N, R, C, 7, 7), logits (N, R, K + 1), deltas (N, R, K |
        1, 4).
        """
        n, r = boxes.shape[:2]
        pooled = pool_rois(features, boxes, self.strides, self.config.roi, self.pooled_levels)
        logits, deltas = classify(pooled.flatten(0, 1))
        return pooled, logits.view(n, r, -1), deltas.view(n, r, -1, 4)

    def draw_noise(self, batch: ImageBatch, targets: Targets, seed: int) -> Noise:
        """Uniform numbers for one step, on the batch's device; the same seed gives the same numbers there."""
        n, _, height, width = batch.pixels.shape
        device = batch.pixels.device
        generator = torch.Generator(device).manual_seed(seed)
        level_sizes = self.anchors.level_sizes(height, width)
        proposals = proposal_limits(self.config.proposals, True).count(level_sizes)
        rpn = torch.rand(n, sum(level_sizes), generator=generator, device=device)
        roi = torch.rand(n, proposals + targets.labels.shape[1], generator=generator, device=device)
        return Noise(rpn, roi)


def detect(model: FasterRCNN, batch: ImageBatch, limits: Limits | None = None) -> Detections:
    """Detections under limits that may differ from those of the model's configuration.

    Where the candidate limit before NMS may have cost a detection, post-processing is repeated without it,
    the one look from the host at what the device found, outside the compiled part.

    Args:
        model: in evaluation mode.
        batch: pictures on the model's device.
        limits: of scores, detections and candidates; None: the configuration's.
    """
    path = model.trace if model.compiled is None else model.compiled.trace
    trace = path(batch, limits=limits)
    found = trace.detections
    assert found is not None and trace.proposals is not None
    assert trace.moved is not None and trace.class_logits is not None and trace.deltas is not None
    if not bool(found.exact.all()):
        everything = replace(limits or Limits(), candidates=ALL_CANDIDATES)
        boxes = replace(trace.proposals, boxes=trace.moved)
        stages = (boxes, trace.class_logits, trace.deltas, trace.batch)
        found = postprocess(*stages, model.roi_stages[-1], everything)
    return found
