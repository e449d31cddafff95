"""How the second stage writes down boxes: deltas, weighted (Fast R-CNN, appendix) or normalised.

The two ways are the same up to a factor; normalising by mean and deviation is what the paper's own code and
reference system S1 do, weights are what later detectors do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.boxes import decode_deltas, encode_deltas
from frcnn.config import RoiConfig


def encode_targets(rois: Tensor, boxes: Tensor, config: RoiConfig) -> Tensor:
    """What a head should say of rois (..., 4) whose objects are boxes (..., 4) -> (..., 4) float32."""
    deltas = encode_deltas(rois, boxes, config.delta_weights)
    if not normalised(config):
        return deltas
    columns = zip(deltas.unbind(-1), config.target_mean, config.target_std, strict=True)
    return torch.stack([(column - mean) / std for column, mean, std in columns], -1)


def decode_boxes(rois: Tensor, deltas: Tensor, config: RoiConfig) -> Tensor:
    """Boxes (..., 4) float32 from rois (..., 4) and what a head says of them (..., 4): the inverse."""
    if normalised(config):
        columns = zip(deltas.float().unbind(-1), config.target_mean, config.target_std, strict=True)
        deltas = torch.stack([column * std + mean for column, mean, std in columns], -1)
    return decode_deltas(rois, deltas, config.delta_weights)


def normalised(config: RoiConfig) -> bool:
    """Whether mean and deviation change anything."""
    return any(config.target_mean) or config.target_std != (1.0, 1.0, 1.0, 1.0)
