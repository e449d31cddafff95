"""Pictures of a batch differ in objects and proposals: both are padded to the same number.

Letters: N pictures, G padded objects, P padded proposals.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from frcnn.data.sample import Floats, Sample
from frcnn.structures import Targets

MULTIPLE = 8
"""G and P are rounded up to a multiple of this, and at least this."""


def pad_targets(samples: list[Sample]) -> Targets:
    """Objects of N pictures as (N, G, ...); label -1 and ``ignore`` False where a picture has fewer.

    An ignored crowd loses its class here (label -1): to training it is a region like any other.
    """
    most = max([len(s.boxes) for s in samples], default=0)
    size = max(-(-most // MULTIPLE), 1) * MULTIPLE
    boxes = np.zeros((len(samples), size, 4), np.float32)
    labels = np.full((len(samples), size), -1, np.int64)
    ignore = np.zeros((len(samples), size), bool)
    for i, sample in enumerate(samples):
        count = len(sample.boxes)
        boxes[i, :count], ignore[i, :count] = sample.boxes, sample.ignore
        labels[i, :count] = np.where(sample.crowd & sample.ignore, -1, sample.labels)
    return Targets(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(ignore))


def pad_given(proposals: list[Floats]) -> Tensor:
    """Proposals of N pictures, best first, as (N, P, 4); boxes without area where a picture has fewer."""
    most = max(len(boxes) for boxes in proposals)
    size = max(-(-most // MULTIPLE), 1) * MULTIPLE
    padded = np.zeros((len(proposals), size, 4), np.float32)
    for row, boxes in zip(padded, proposals, strict=True):
        row[: len(boxes)] = boxes
    return torch.from_numpy(padded)
