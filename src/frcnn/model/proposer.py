"""Rooms 2 to 9: the region proposal network (Faster R-CNN, section 3.1), alone or as the first stage.

Letters: N images, L levels, A anchors, G padded objects, P proposals, D detections.

Alone (reference system S0) its detections are its proposals, their scores the objectness, and there is one
class. ``FasterRCNN`` adds the second stage to this class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from frcnn.config import Config
from frcnn.model.anchors import Anchors
from frcnn.model.losses import rpn_losses
from frcnn.model.matching import match_anchors
from frcnn.model.network import Network, Regions, Seen, Stage
from frcnn.model.parts import Parts, Sampler
from frcnn.model.postprocess import Limits, propose
from frcnn.model.proposals import given_proposals, select_proposals
from frcnn.model.proposals import limits as proposal_limits
from frcnn.model.rpn import RpnHead
from frcnn.model.sampling import rpn_targets, sample, sample_batch
from frcnn.structures import (
    Detections,
    ImageBatch,
    Noise,
    Proposals,
    RpnLosses,
    RpnOutput,
    Samples,
    Targets,
    Trace,
)

CLASS = "object"
"""The one class of a network that only proposes."""


class ProposalNetwork(Network):
    """Backbone, pyramid and RPN."""

    losses: type[RpnLosses] = RpnLosses  # type: ignore[assignment, misc]

    def __init__(self, config: Config, num_classes: int, parts: Parts | None = None) -> None:
        """Build with random weights.

        Raises:
            ValueError: when the configuration does not fit the backbone, or there is no class.
        """
        super().__init__(config, num_classes, parts)
        self.looked_at = slice(config.rpn.first_level, None)
        self.anchors = Anchors(config.anchors, self.strides[self.looked_at])
        width, per_cell, make = self.fpn.channels, self.anchors.per_cell, self.parts.rpn_head
        self.rpn_head = make(width, per_cell) if make else RpnHead(width, per_cell, config.rpn)
        self._build()
        self.to(memory_format=torch.channels_last)
        self.freeze(config.train.freeze)

    def _build(self) -> None:
        """What comes after the RPN."""
        if self.num_classes != 1:
            raise ValueError(f"proposals have the one class {CLASS!r}, not {self.num_classes} classes")

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
        trace = self._look(batch, anchors, regions)
        if targets is not None and noise is not None:
            trace, box_targets = self._assign(trace, targets, noise)  # rooms 8, 9
            assert trace.rpn is not None and trace.rpn_samples is not None
            losses = RpnLosses(*rpn_losses(trace.rpn, trace.rpn_samples, box_targets, self.config.rpn))
            trace = replace(trace, losses=losses)
        if targets is None or detect:
            proposals = self._propose(trace, training=False, least=(limits or Limits()).max_dets)
            found = propose(proposals, trace.batch, self.config.roi.max_dets, limits)
            trace = replace(trace, proposals=proposals, moved=proposals.boxes, detections=found)
        return trace

    def see(self, batch: ImageBatch) -> Seen:
        """Normalised pictures, their maps, and logits and deltas of every anchor: network only."""
        batch, features = self.extract(batch)
        return Seen(batch, features, *self.rpn_head(features[self.looked_at]))  # room 6

    def suggest(self, batch: ImageBatch) -> Detections:
        """The proposals under the test limits as detections of one class; no second stage runs."""
        height, width = batch.pixels.shape[-2:]
        trace = self._look(batch, self.anchors(height, width, batch.pixels.device), None)
        found = self._propose(trace, training=False)
        return propose(found, trace.batch, found.scores.shape[1])

    def stage_modules(self) -> dict[Stage, tuple[nn.Module, ...]]:
        """The modules of each stage that ``train.freeze`` names."""
        return {"backbone": (self.backbone, self.fpn), "rpn": (self.rpn_head,)}

    def _look(self, batch: ImageBatch, anchors: Tensor, regions: Regions | None) -> Trace:
        """Rooms 2 to 6: maps, and every anchor's numbers."""
        batch, features, logits, deltas = (regions.see if regions else self.see)(batch)
        sizes = self.anchors.level_sizes(*batch.pixels.shape[-2:])
        return Trace(batch, features, RpnOutput(logits, deltas, anchors, sizes))

    def _propose(self, trace: Trace, training: bool, least: int | None = None) -> Proposals:
        """Room 7: proposals of the RPN, or those that came with the pictures; ``least``: not fewer than so
        many.
        """
        if trace.batch.given is not None:
            return given_proposals(trace.batch.given)
        assert trace.rpn is not None
        config = self.config.proposals
        counts = proposal_limits(config, training)
        if least is not None and counts.post_nms < least and not counts.per_level:
            counts = replace(counts, pre_nms=max(counts.pre_nms, least), post_nms=least)
        return select_proposals(
            trace.rpn, trace.batch.sizes, config, self.config.rpn, counts, trace.batch.scales
        )

    def _assign(self, trace: Trace, targets: Targets, noise: Noise) -> tuple[Trace, Tensor]:
        """Rooms 8 and 9 for the first stage: which anchors learn, and (N, S, 4) where they should go."""
        rpn, sizes, config, matcher = trace.rpn, trace.batch.sizes, self.config.rpn, self.parts.matcher
        assert rpn is not None
        if matcher:
            matches = matcher(rpn, sizes, targets)
        else:
            matches = match_anchors(rpn.anchors, sizes, targets, config)
        draw = self._sampler(config.sampling == "per_batch")
        samples: Samples = draw(
            matches.labels, noise.rpn, config.batch_size, int(config.batch_size * config.positive_fraction)
        )
        box_targets = rpn_targets(rpn.anchors, matches, samples, targets, config.delta_weights)
        return replace(trace, rpn_matches=matches, rpn_samples=samples), box_targets

    def _sampler(self, per_batch: bool) -> Sampler:
        return self.parts.sampler or (sample_batch if per_batch else sample)

    def draw_noise(self, batch: ImageBatch, targets: Targets, seed: int) -> Noise:
        """Uniform numbers for one step, on the batch's device; the same seed gives the same numbers there."""
        sizes = self.anchors.level_sizes(*batch.pixels.shape[-2:])
        proposals = proposal_limits(self.config.proposals, True).count(sizes)
        if batch.given is not None:
            proposals = batch.given.shape[1]
        return noise_of(batch, targets, seed, (sum(sizes), proposals), self._jitters)

    @property
    def _jitters(self) -> bool:
        return False


def noise_of(
    batch: ImageBatch, targets: Targets, seed: int, counts: Sequence[int], jitter: bool = False
) -> Noise:
    """Noise for so many anchors and proposals."""
    n, device = len(batch), batch.pixels.device
    objects = targets.labels.shape[1]
    generator = torch.Generator(device).manual_seed(seed)
    rpn = torch.rand(n, counts[0], generator=generator, device=device)
    roi = torch.rand(n, counts[1] + objects, generator=generator, device=device)
    moves = torch.rand(n, objects, 4, generator=generator, device=device) if jitter else None
    return Noise(rpn, roi, moves)
