"""What all sections share: frozen, typed, and the types that several of them use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

IgnorePolicy = Literal["ignore", "object", "background"]
IgnoreRule = Literal["ioa", "iou", "by_kind"]
BoxLoss = Literal["smooth_l1", "l1", "giou", "ciou"]
Normaliser = Literal["sampled", "positives", "batch_size"]
Sampling = Literal["per_image", "per_batch"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Positive = Annotated[float, Field(gt=0)]
Pixels = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weights4 = tuple[Positive, Positive, Positive, Positive]
Factor = Annotated[float, Field(ge=0)]
Factors4 = tuple[Factor, Factor, Factor, Factor]


class Section(BaseModel):
    """Base of all sections: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
