"""Operators with fixed output shapes; each has a plain, slow reference beside it for tests."""

from frcnn.ops.nms import nms_mask, nms_mask_reference
from frcnn.ops.roi_align import assign_levels, pyramid_roi_align, pyramid_roi_align_reference
from frcnn.ops.roi_pool import roi_pool, roi_pool_reference

__all__ = [
    "assign_levels",
    "nms_mask",
    "nms_mask_reference",
    "pyramid_roi_align",
    "pyramid_roi_align_reference",
    "roi_pool",
    "roi_pool_reference",
]
