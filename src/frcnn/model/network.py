"""What every detector is: backbone, pyramid, a path from pictures to losses and detections, and noise.

Letters: N images, L levels, A anchors (or points), K classes.

``FasterRCNN`` (detector.py), ``ProposalNetwork`` (proposer.py) and ``Fcos`` (fcos.py) are the three, and this
is all that training, prediction and evaluation know of them. Mode comes from the arguments, never from
``self.training``: with targets a network returns losses (and, when asked, detections too), without them
detections.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from frcnn.config import Config
from frcnn.model.backbones import Backbone
from frcnn.model.fpn import FeaturePyramid, SingleLevel
from frcnn.model.parts import Parts
from frcnn.model.postprocess import Limits
from frcnn.model.preprocess import normalise
from frcnn.structures import Detections, ImageBatch, LossRecord, Noise, Output, Targets, Trace

if TYPE_CHECKING:
    from frcnn.model.anchors import Grids
    from frcnn.model.compiled import Compiled

Stage = Literal["backbone", "rpn", "roi"]
Classify = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(M, C, 7, 7) -> class logits (M, K + 1), deltas (M, K, 1 or 0, 4): the box head of a stage."""


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


class Network(nn.Module):
    """Base of the detectors.

    Attributes:
        losses: the record of losses that training gets.
        config: the configuration.
        num_classes: K.
        parts: replaced parts.
        anchors: anchors, or points, of a padded picture size.
        heads: the box head of every stage; none where there is no second stage.
        compiled: the compiled functions, or None.
        frozen: stages that keep their weights.
    """

    losses: ClassVar[type[LossRecord]]
    anchors: Grids
    heads: tuple[nn.Module, ...] = ()

    def __init__(self, config: Config, num_classes: int, parts: Parts | None = None) -> None:
        """Backbone and pyramid with random weights.

        Raises:
            ValueError: when the configuration does not fit the backbone, or there is no class.
        """
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"a detector needs at least one class, got {num_classes}")
        self.config, self.num_classes, self.parts = config, num_classes, parts or Parts()
        self.backbone = Backbone(config.backbone, config.preprocess.channels)
        channels, strides = self.backbone.channels, self.backbone.strides
        single = config.fpn.channels == 0
        self.fpn = SingleLevel(channels, strides) if single else FeaturePyramid(channels, strides, config.fpn)
        self.strides, self.pooled_levels = self.fpn.strides, len(strides)
        self.looked_at = slice(0, None)  # levels that have anchors or points
        self.compiled: Compiled | None = None
        self.frozen: tuple[Stage, ...] = ()
        self._still: list[nn.Module] = []

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
        return Output(trace.losses, trace.detections, trace.counts)

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

    @abstractmethod
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

    @abstractmethod
    def see(self, batch: ImageBatch) -> Seen:
        """Normalised pictures, their maps, and logits and deltas of every anchor: network only."""

    @abstractmethod
    def draw_noise(self, batch: ImageBatch, targets: Targets, seed: int) -> Noise:
        """Uniform numbers for one step, on the batch's device; the same seed gives the same numbers there."""

    @abstractmethod
    def stage_modules(self) -> dict[Stage, tuple[nn.Module, ...]]:
        """The modules of each stage that ``train.freeze`` names."""

    def extract(self, batch: ImageBatch) -> tuple[ImageBatch, tuple[Tensor, ...]]:
        """Normalised pictures (N, C, H, W) float32 (room 2) and their L maps (rooms 3, 4)."""
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

    def freeze(self, stages: Sequence[Stage]) -> None:
        """Stop training of whole stages: their weights, and the statistics of their batch norm.

        Raises:
            ValueError: for a stage that this detector does not have.
        """
        modules = self.stage_modules()
        for stage in stages:
            if stage not in modules:
                raise ValueError(
                    f"recipe {self.config.recipe!r} has no stage {stage!r} to freeze; "
                    f"it has {', '.join(modules)}"
                )
            for module in modules[stage]:
                self.hold(module)
        self.frozen = tuple(dict.fromkeys((*self.frozen, *stages)))

    def hold(self, module: nn.Module) -> None:
        """Keep a part of the network as it is, also when the network is put into training mode."""
        module.requires_grad_(False)
        module.eval()
        self._still.append(module)

    def train(self, mode: bool = True) -> Self:
        """As that of every module; what is frozen stays in evaluation mode, or its batch norm would move."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    @property
    def trained_losses(self) -> tuple[str, ...]:
        """Names of the losses that training lowers; those of a stage that is frozen are shown only."""
        starts = tuple(f"{stage}_" for stage in self.frozen)
        return tuple(name for name in self.losses.names() if not name.startswith(starts))

    def total(self, losses: LossRecord) -> Tensor:
        """Scalar: the sum of the losses that training lowers."""
        return torch.stack([getattr(losses, name) for name in self.trained_losses]).sum()

    def everything(self, trace: Trace, limits: Limits | None) -> Detections:
        """The detections of a trace once more, without the candidate limit before NMS."""
        assert trace.detections is not None
        return trace.detections


def detect(model: Network, batch: ImageBatch, limits: Limits | None = None) -> Detections:
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
    assert trace.detections is not None
    if bool(trace.detections.exact.all()):
        return trace.detections
    return model.everything(trace, limits)
