"""Schedule of training, and evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from frcnn.config.section import Precision, Section

Stage = Literal["backbone", "rpn", "roi"]


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
    freeze: tuple[Stage, ...] = ()
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
    precision: Precision = "auto"
    patience: int = Field(0, ge=0)
    """Stop after this many epochs without a better validation AP; 0: never."""
    compile: Literal["none", "regional", "step"] = "none"
    """``torch.compile``: ``regional`` makes one graph of backbone, pyramid, RPN head and one of the box head,
    ``step`` one of everything. Pictures are then padded to at most six sizes."""
    seed: int = 0
    deterministic: bool = False


class EvalConfig(Section):
    """Evaluation."""

    batch: int = Field(4, gt=0)
    max_dets: int = Field(100, gt=0)
    """Detections of a picture that count (COCO's largest maxDets)."""
    score_threshold: float = Field(0.05, ge=0, le=1)
    """Floor of the scores that enter the evaluation."""
    precision: Precision = "auto"
    """Of evaluation and prediction; ``auto``: bf16 where it is faster on the device. fp32 where numbers must
    equal those of another program."""
