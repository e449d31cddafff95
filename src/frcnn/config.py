"""The configuration: one frozen, typed tree, written once.

A recipe (``recipes.py``) is a function that returns a ``Config``; a checkpoint stores the ``Config`` it was
made with; ``settings.py`` reads and changes it. Neither imports torch, so that the command line can read a
configuration in milliseconds.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

IgnorePolicy = Literal["ignore", "object", "background"]
IgnoreRule = Literal["ioa", "iou", "by_kind"]
BoxLoss = Literal["smooth_l1", "l1", "giou", "ciou"]
Normaliser = Literal["sampled", "positives", "batch_size"]
Sampling = Literal["per_image", "per_batch"]
Positive = Annotated[float, Field(gt=0)]
Pixels = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weights4 = tuple[Positive, Positive, Positive, Positive]
Factor = Annotated[float, Field(ge=0)]
Factors4 = tuple[Factor, Factor, Factor, Factor]
MAX_LOG_SCALE = math.log(1000 / 16)


class Section(BaseModel):
    """Base of all sections: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which pictures and boxes take part, and how training varies them."""

    val: float = Field(0.2, ge=0, lt=1)
    """Share of the pictures held out where the data set names no validation split."""
    difficult: IgnorePolicy = "ignore"
    """VOC ``difficult`` objects."""
    crowd: IgnorePolicy = "ignore"
    """COCO ``iscrowd`` regions."""
    dontcare: IgnorePolicy = "ignore"
    """KITTI ``DontCare`` regions; they have no class, so ``object`` is refused."""
    rename: dict[str, str] = {}
    """Other names for classes; ``*`` stands for all that are not named: ``{"*": person}`` merges all."""
    bad_boxes: Literal["error", "drop"] = "error"
    """Boxes without area, not finite or fully outside."""
    on_bad_image: Literal["error", "skip"] = "error"
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    scale_jitter: tuple[Positive, Positive] = (1.0, 1.0)
    """The short side is multiplied by a number drawn between the two."""
    brightness: float = Field(0.0, ge=0, lt=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    saturation: float = Field(0.0, ge=0, lt=1)
    workers: int = Field(-1, ge=-1)
    """Loader processes; -1: one for every core but one, at most 8."""

    @model_validator(mode="after")
    def _range(self) -> DataConfig:
        if self.scale_jitter[0] > self.scale_jitter[1]:
            raise ValueError(f"scale_jitter {self.scale_jitter} must be (smallest, largest)")
        return self


class PreprocessConfig(Section):
    """From the picture file to the network's pixels; stored in the checkpoint and used by every command."""

    min_size: int = Field(800, gt=0)
    """The short side is resized to this ..."""
    max_size: int = Field(1333, gt=0)
    """... unless the long side would pass this."""
    fixed_size: tuple[Pixels, Pixels] | None = None
    """(height, width): stretch every picture to exactly this instead."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    pad_multiple: int = Field(32, gt=0)
    method: Literal["pillow", "torchvision"] = "pillow"
    """``pillow``: decode at reduced size, antialiased 8-bit resize, normalise on the device. ``torchvision``:
    normalise, then bilinear resize in float without antialias, exactly as torchvision's detectors do."""

    @model_validator(mode="after")
    def _sides(self) -> PreprocessConfig:
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        return self


class BackboneConfig(Section):
    """The feature extractor."""

    name: str = "tf_efficientnet_lite0"
    """A timm model name, ``vgg16``, or ``torchvision/mobilenet_v3_large``."""
    levels: tuple[int, ...] = (1, 2, 3, 4)
    """Feature indices taken from timm (1 = stride 4 for most), or torchvision's ``features``."""
    norm: Literal["auto", "frozen", "batch", "group"] = "auto"
    """What becomes of the backbone's batch norm; ``auto``: frozen where pretrained weights are loaded, else
    trained."""
    norm_eps: float | None = Field(None, ge=0)
    """Epsilon of the batch norm; None: the backbone's own."""
    freeze: int = Field(0, ge=0)
    """Everything up to stride 2^freeze keeps its pretrained weights (0: nothing; no effect from scratch)."""
    weights: str = "none"
    """``package``: the ImageNet weights that an installed package carries; ``none``; or a file."""

    @property
    def resolved_norm(self) -> Literal["frozen", "batch", "group"]:
        """The norm that is really built."""
        if self.norm == "auto":
            return "batch" if self.weights == "none" else "frozen"
        return self.norm


class FpnConfig(Section):
    """The feature pyramid. ``channels`` 0 means none: the backbone's single level is used as it is."""

    channels: int = Field(256, ge=0)
    norm: Literal["none", "batch"] = "none"
    smooth_from: int = Field(0, ge=0)
    """Levels before this one go without the pyramid's 3x3 convolution, which costs most on fine maps."""
    extra_pool: bool = True
    """One more level, the last one max-pooled by 2, for the RPN only."""


class AnchorConfig(Section):
    """Anchor boxes of every cell."""

    sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    """Square root of the area, pixels, for every level."""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height / width."""
    rounding: Literal["none", "torchvision", "pyfrcnn"] = "none"
    centre: float = Field(0.5, ge=0, le=1)
    """Where in its cell an anchor is centred, as a share of the stride."""
    stride: Literal["declared", "from_padding"] = "declared"

    @model_validator(mode="after")
    def _not_empty(self) -> AnchorConfig:
        if not self.sizes or not all(self.sizes) or not self.ratios:
            raise ValueError("sizes and ratios need at least one value for every level")
        if min(min(s) for s in self.sizes) <= 0 or min(self.ratios) <= 0:
            raise ValueError("sizes and ratios must be above 0")
        if len({len(s) for s in self.sizes}) > 1:
            raise ValueError("every level needs the same number of sizes, because the RPN head is shared")
        return self


class RpnConfig(Section):
    """The region proposal network and its training."""

    first_level: int = Field(0, ge=0)
    """Finest level that has anchors; RoIs are pooled from all."""
    output_kernel: Literal[1, 3] = 1
    """Side of the output convolutions; 3 in reference system S2."""
    objectness: Literal["sigmoid", "softmax"] = "sigmoid"
    channel_order: Literal["interleaved", "grouped"] = "interleaved"
    """Of the two-way softmax's channels: per anchor, or all background then all foreground."""
    hidden_channels: int = Field(0, ge=0)
    """0: as many as the features have."""
    depth: int = Field(1, gt=0)
    """Number of 3x3 convolutions before the outputs."""
    positive_iou: float = Field(0.7, ge=0, le=1)
    negative_iou: float = Field(0.3, ge=0, le=1)
    negative_at_edge: bool = False
    """An IoU of exactly ``negative_iou`` is background (S2), not neutral (the paper)."""
    best_anchor: bool = True
    """The anchors with an object's best overlap are positive whatever that is (above 0)."""
    inside_only: bool = False
    """Only anchors inside the picture are trained."""
    batch_size: int = Field(256, gt=0)
    positive_fraction: float = Field(0.5, gt=0, le=1)
    sampling: Sampling = "per_image"
    """``per_batch``: ``batch_size`` times the pictures are drawn from all pictures together (S2)."""
    class_normaliser: Literal["sampled", "batch_size"] = "sampled"
    """The losses are divided by what was drawn, by the positives, or by what should have been drawn (S2)."""
    box_loss: Literal["smooth_l1", "l1"] = "smooth_l1"
    beta: float = Field(1 / 9, ge=0)
    box_normaliser: Normaliser = "sampled"
    box_weight: float = Field(1.0, ge=0)
    inside_weights: Factors4 = (1.0, 1.0, 1.0, 1.0)
    """On the difference of each delta to its target, before the loss (Fast R-CNN's reference code) ..."""
    outside_weights: Factors4 = (1.0, 1.0, 1.0, 1.0)
    """... and on each delta's loss."""
    delta_weights: Weights4 = (1.0, 1.0, 1.0, 1.0)
    max_log_scale: Positive = MAX_LOG_SCALE
    """Largest logarithm by which a decoded side grows; log(224 / 8) in S2."""
    ignore_rule: IgnoreRule = "ioa"
    """Which anchors ignored boxes take out: those that lie in them by more than half (``ioa``, for regions),
    those that they would make positive (``iou``, for hard objects), or each box by what it is (``by_kind``).
    """
    ignore_wins: bool = False
    """An anchor that is positive and in a region to ignore is ignored (S1), not trained as an object."""

    @model_validator(mode="after")
    def _order(self) -> RpnConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou {self.negative_iou} is above positive_iou {self.positive_iou}")
        return self


class ProposalConfig(Section):
    """Which anchors become proposals."""

    pre_nms_train: int = Field(2000, gt=0)
    """Best anchors of every level before NMS."""
    post_nms_train: int = Field(2000, gt=0)
    """Proposals after NMS, of a picture or of every level (``post_nms_scope``)."""
    pre_nms_test: int = Field(1000, gt=0)
    post_nms_test: int = Field(1000, gt=0)
    nms_iou: float = Field(0.7, ge=0, le=1)
    post_nms_scope: Literal["image", "level"] = "image"
    min_size: float = Field(1e-3, ge=0)
    """Smaller proposals are dropped; in pixels of the resized or the original picture (``min_size_unit``)."""
    min_size_unit: Literal["resized", "original"] = "resized"
    min_size_stage: Literal["before_topk", "after_topk"] = "after_topk"
    score_threshold: float = Field(0.0, ge=0, le=1)


class RoiConfig(Section):
    """The second stage: pooling, head, training and post-processing."""

    pool: Literal["roialign", "roipool"] = "roialign"
    pool_edges: Literal["round", "truncate"] = "round"
    """How ``roipool`` cuts boxes to whole cells: as torchvision's operator, or as reference system S3."""
    output_size: int = Field(7, gt=0)
    sampling_ratio: int = Field(2, gt=0)
    aligned: bool = False
    head: Literal["two_fc", "vgg", "conv_fc", "conv"] = "two_fc"
    hidden: int = Field(1024, gt=0)
    """Width of the fully connected layers."""
    convs: int = Field(4, ge=0)
    """Convolutions of the ``conv_fc`` head (256 channels, batch norm) and of the ``conv`` head (no norm, no
    fully connected layer)."""
    conv_channels: int = Field(64, gt=0)
    """Of the ``conv`` head."""
    dropout: float = Field(0.0, ge=0, lt=1)
    box_regression: Literal["per_class", "agnostic", "none"] = "per_class"
    """``none``: detections are the proposals' boxes (S2)."""
    cascade: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """IoU from which a RoI is positive in each further stage (Cascade R-CNN); none: one stage."""
    gt_proposals: Literal["exact", "jittered", "none"] = "exact"
    """Whether the objects themselves join the proposals in training, or copies with moved sides (S1)."""
    gt_jitter: float = Field(0.025, ge=0, lt=0.5)
    """Largest shift of a side of a jittered copy, as a share of the object's width or height."""
    positive_iou: float = Field(0.5, ge=0, le=1)
    positive_at_edge: bool = True
    """An IoU of exactly ``positive_iou`` is positive (the paper), not background (S2)."""
    negative_iou: tuple[Share, Share] = (0.0, 0.5)
    """Background RoIs have a best overlap in [low, high)."""
    batch_size: int = Field(512, gt=0)
    positive_fraction: float = Field(0.25, gt=0, le=1)
    sampling: Sampling = "per_image"
    class_weights: tuple[Factor, ...] = ()
    """Of the classes in their order, background last, in the classification loss; none: all equal."""
    background_weight: Literal["fixed", "fg_over_bg"] = "fixed"
    """``fg_over_bg``: background counts as much as there are objects for each background RoI drawn (S1)."""
    box_loss: BoxLoss = "smooth_l1"
    beta: float = Field(1 / 9, ge=0)
    box_normaliser: Normaliser = "sampled"
    box_weight: float = Field(1.0, ge=0)
    inside_weights: Factors4 = (1.0, 1.0, 1.0, 1.0)
    outside_weights: Factors4 = (1.0, 1.0, 1.0, 1.0)
    """As those of the RPN."""
    delta_weights: Weights4 = (10.0, 10.0, 5.0, 5.0)
    target_mean: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    target_std: Weights4 = (1.0, 1.0, 1.0, 1.0)
    """Mean and deviation of the (weighted) deltas in the data: the head learns normalised ones."""
    ignore_rule: IgnoreRule = "ioa"
    ignore_wins: bool = False
    score_threshold: float = Field(0.05, ge=0, le=1)
    nms_iou: float = Field(0.5, ge=0, le=1)
    max_dets: int = Field(100, gt=0)
    min_size: float = Field(1e-2, ge=0)
    candidates: int = Field(4096, gt=0)
    """(RoI, class) pairs that enter the last NMS."""

    @model_validator(mode="after")
    def _range(self) -> RoiConfig:
        if self.negative_iou[0] >= self.negative_iou[1]:
            raise ValueError(f"negative_iou {self.negative_iou} must be (low, high), low below high")
        return self


class TrainConfig(Section):
    """The schedule."""

    epochs: int = Field(10, gt=0)
    batch: int = Field(4, gt=0)
    """Pictures of a step on one device."""
    accumulate: int = Field(1, gt=0)
    steps: int = Field(0, ge=0)
    """Length in optimizer steps; 0: ``epochs`` decides. The last epoch may end early."""
    save_every: int = Field(0, ge=0)
    """Keep a model file of every so many epochs beside the best and the last; 0: none."""
    parameters: str = "all"
    """Which tensors the optimizer holds: ``all``, ``last:8`` for the last eight, or a pattern of names."""
    freeze: tuple[Literal["backbone", "rpn", "roi"], ...] = ()
    """Stages that keep their weights; with ``backbone`` also the pyramid."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.02, gt=0)
    """For 16 pictures a step; scaled by the real number."""
    backbone_lr: float = Field(1.0, ge=0)
    """Factor on the learning rate of the backbone."""
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    warmup: int = Field(200, ge=0)
    """Steps; at most a tenth of the run."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    clip: float = Field(10.0, ge=0)
    """Largest norm of the gradient; 0: no limit."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Largest decay of the averaged weights; 0: none."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    patience: int = Field(0, ge=0)
    """Stop after this many epochs without a better validation AP; 0: never."""
    compile: Literal["none", "regional", "step"] = "none"
    """``torch.compile``: ``regional`` makes one graph of backbone, pyramid, RPN head and one of the box head,
    ``step`` one of everything. Pictures are then padded to at most six sizes."""
    seed: int = 0
    deterministic: bool = False


class FcosConfig(Section):
    """FCOS, which S2 is compared with (Tian et al. 2019); read only where ``detector`` is ``fcos``."""

    size_ranges: tuple[tuple[Factor, Factor | None], ...] = ((0, 64), (64, 128), (128, None))
    """Of every level: a point is positive where its largest distance to the object's sides lies in
    [low, high]; None: no limit."""
    convs: int = Field(2, ge=0)
    """3x3 convolutions of the class branch and of the box branch."""
    channels: int = Field(64, gt=0)
    norm: Literal["none", "group"] = "none"
    """After these convolutions; ``group`` in the paper."""
    centre_radius: float = Field(0.0, ge=0)
    """Only points within so many strides of an object's centre are positive; 0: all points inside it."""
    focal_alpha: Share = 0.25
    focal_gamma: float = Field(2.0, ge=0)
    distances: Literal["clip", "exp"] = "clip"
    """How the head says distances: as they are, cut at 0 when boxes are made (S2), or as exp(s x) with a
    learnt s for each level (the paper)."""
    box_loss: Literal["l1", "giou"] = "l1"
    """On the distances in strides (S2), or on boxes (the paper's is an IoU loss), which needs ``exp``."""
    box_weight: float = Field(1.0, ge=0)
    centerness_weight: float = Field(1.0, ge=0)
    pre_nms: int = Field(1000, gt=0)
    """Best (point, class) pairs of every level before NMS."""
    score_threshold: float = Field(0.05, ge=0, le=1)
    """Of the geometric mean of class probability and centerness."""
    nms_iou: float = Field(0.6, ge=0, le=1)
    max_dets: int = Field(100, gt=0)
    min_size: float = Field(1e-2, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> FcosConfig:
        for low, high in self.size_ranges:
            if high is not None and low >= high:
                raise ValueError(f"size range ({low:g}, {high:g}) must be (low, high), low below high")
        if self.box_loss == "giou" and self.distances == "clip":
            raise ValueError(
                "box_loss 'giou' learns nothing from distances that are cut at 0; set distances 'exp' too"
            )
        return self


class EvalConfig(Section):
    """Evaluation."""

    batch: int = Field(4, gt=0)
    max_dets: int = Field(100, gt=0)
    """Detections of a picture that count (COCO's largest maxDets)."""
    score_threshold: float = Field(0.05, ge=0, le=1)
    """Floor of the scores that enter the evaluation."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of evaluation and prediction; ``auto``: bf16 where it is faster on the device. fp32 where numbers must
    equal those of another program."""


class Config(Section):
    """Everything that decides what a run does."""

    recipe: str = "custom"
    detector: Literal["two_stage", "rpn", "fcos"] = "two_stage"
    """``rpn``: proposals alone (S0); ``fcos``: points instead of anchors, one stage."""
    data: DataConfig = DataConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    backbone: BackboneConfig = BackboneConfig()
    fpn: FpnConfig = FpnConfig()
    anchors: AnchorConfig = AnchorConfig()
    rpn: RpnConfig = RpnConfig()
    proposals: ProposalConfig = ProposalConfig()
    roi: RoiConfig = RoiConfig()
    fcos: FcosConfig = FcosConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _levels(self) -> Config:
        levels = len(self.backbone.levels) + (self.fpn.channels > 0 and self.fpn.extra_pool)
        names = [f"level {i}" for i in range(self.rpn.first_level, levels)]
        if self.detector == "fcos":
            if len(self.fcos.size_ranges) != levels:
                raise ValueError(
                    f"fcos.size_ranges for {len(self.fcos.size_ranges)} levels, the features have {levels}; "
                    "give a (low, high) for each"
                )
        elif len(self.anchors.sizes) != len(names):
            raise ValueError(
                f"anchors.sizes for {len(self.anchors.sizes)} levels, the features have {len(names)}: {names}"
            )
        if not self.fpn.channels and len(self.backbone.levels) != 1:
            raise ValueError(
                f"without a pyramid (fpn.channels 0) one backbone level is used, not {self.backbone.levels}"
            )
        if self.detector != "two_stage":
            return self
        if self.roi.pool == "roipool" and levels != 1:
            raise ValueError("roi.pool 'roipool' works on a single level; use 'roialign' with a pyramid")
        if self.roi.box_regression == "none" and self.roi.cascade:
            raise ValueError(
                "roi.cascade moves boxes and roi.box_regression 'none' has nothing to move them with; "
                "leave one of the two out"
            )
        return self

    @property
    def max_dets(self) -> int:
        """Most detections of a picture, from the section that the detector reads."""
        return self.fcos.max_dets if self.detector == "fcos" else self.roi.max_dets

    @property
    def score_threshold(self) -> float:
        """Least score of a detection, from the section that the detector reads."""
        return self.fcos.score_threshold if self.detector == "fcos" else self.roi.score_threshold

    def with_limits(self, max_dets: int, score_threshold: float | None = None) -> Config:
        """The same with other limits of detection; None: the threshold stays."""
        name = "fcos" if self.detector == "fcos" else "roi"
        threshold = self.score_threshold if score_threshold is None else score_threshold
        limits = {"max_dets": max_dets, "score_threshold": threshold}
        section: Section = getattr(self, name)
        return self.model_copy(update={name: section.model_copy(update=limits)})
