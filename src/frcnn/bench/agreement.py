"""Whether two detectors found the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from frcnn.results import Result

PIXELS, SCORE = 0.1, 1e-3
"""Detections this close are the same; torchvision's NMS by class moves boxes by up to 0.014 pixels."""


def share_matched(ours: Sequence[Result], theirs: Sequence[Mapping[str, Tensor]]) -> tuple[float, int]:
    """Share of the detections of both sides that have one of the other's, one to one, and how many there are.

    Args:
        ours: a result for each picture.
        theirs: torchvision's for the same pictures; labels from 1.
    """
    pairs, total = 0, 0
    for mine, other in zip(ours, theirs, strict=True):
        boxes, scores = other["boxes"].float().numpy(), other["scores"].float().numpy()
        labels = other["labels"].numpy() - 1
        total += len(mine.boxes) + len(boxes)
        free = np.ones(len(boxes), bool)
        for box, score, label in zip(mine.boxes, mine.scores, mine.labels, strict=True):
            near = np.abs(boxes - box).max(1, initial=0) <= PIXELS
            same = np.flatnonzero(free & near & (labels == label) & (np.abs(scores - score) <= SCORE))
            if len(same):
                free[same[0]] = False
                pairs += 2
    return (pairs / total if total else 1.0), total
