"""The values that pass between the stages: frozen dataclasses of padded tensors.

Letters: N images, H, W padded picture, L levels, A anchors, G padded objects, P proposals, R sampled RoIs,
D detections, K classes, S sampled anchors, C channels.

Every value has a fixed shape for a given padded picture size, whatever the data says: what is missing is
marked by a mask (``valid``) or by label -1, never left out. All values are registered as pytrees, so
``torch.compile`` and ``torch.export`` take them as arguments, and they can be moved with ``to`` and pinned
with ``pin_memory``.

Boxes are (x1, y1, x2, y2), float32, absolute pixels, half-open (width = x2 - x1). Sizes are (height, width).
Labels are 0..K-1; -1 marks padding (with ``ignore`` False) or a region without a class (with ``ignore``
True).
"""

from __future__ import annotations

import torch

from frcnn.structures.inputs import ImageBatch, Noise, Targets
from frcnn.structures.losses import FcosLosses, Losses, LossRecord, RoiCounts, RpnLosses
from frcnn.structures.outputs import Detections, Output, Trace
from frcnn.structures.record import TensorRecord
from frcnn.structures.stages import FcosOutput, Matches, Proposals, RoiSamples, RpnOutput, Samples

__all__ = [
    "Detections",
    "FcosLosses",
    "FcosOutput",
    "ImageBatch",
    "LossRecord",
    "Losses",
    "Matches",
    "Noise",
    "Output",
    "Proposals",
    "RoiCounts",
    "RoiSamples",
    "RpnLosses",
    "RpnOutput",
    "Samples",
    "Targets",
    "TensorRecord",
    "Trace",
]

for _record in (
    ImageBatch,
    Targets,
    RpnOutput,
    FcosOutput,
    Proposals,
    Matches,
    Samples,
    RoiSamples,
    Noise,
    Losses,
    RpnLosses,
    FcosLosses,
    RoiCounts,
    Detections,
    Trace,
    Output,
):
    torch.export.register_dataclass(_record)
