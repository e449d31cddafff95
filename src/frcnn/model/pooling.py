"""Room 10: features of every RoI (RoIAlign: Mask R-CNN, section 3; RoIPool: Fast R-CNN, section 2.1).

Letters: N images, R RoIs of an image, C channels, P output side.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from frcnn.config import RoiConfig
from frcnn.ops import pyramid_roi_align, roi_pool


def pool_rois(
    features: Sequence[Tensor], boxes: Tensor, strides: Sequence[int], config: RoiConfig, pooled_levels: int
) -> Tensor:
    """Pool RoIs (N, R, 4) -> (N, R, C, P, P).

    Args:
        features: pyramid maps, finest first.
        boxes: (N, R, 4) in pixels of the padded pictures.
        strides: of the maps.
        config: which operator, and its numbers.
        pooled_levels: only this many maps are pooled from; the extra pooled level serves the RPN alone.
    """
    if config.pool == "roipool":
        if config.pool_edges == "truncate":  # whole cells: the operator's rounding then changes nothing
            boxes = (boxes / strides[0]).floor() * strides[0]
        return roi_pool(features[0], boxes, strides[0], config.output_size)
    maps, steps = features[:pooled_levels], strides[:pooled_levels]
    return pyramid_roi_align(maps, boxes, steps, config.output_size, config.sampling_ratio, config.aligned)
