"""The sizes of objects as the network sees them, and counts of them in steps.

Letters: m objects, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frcnn.config import PreprocessConfig
from frcnn.data.sample import Bools, Dataset, Floats, Ints
from frcnn.model.preprocess import target_size

SIDE_EDGES = (0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Steps of the short side in pixels; the last one is open."""
ASPECT_EDGES = (0, 0.125, 0.177, 0.25, 0.354, 0.5, 0.707, 1, 1.414, 2, 2.828, 4, 5.657, 8)
"""Steps of width / height; the last one is open."""


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each step.

    Attributes:
        edges: B lower edges; the last step is open.
        counts: (B, K) int64, by class.
        middle: the median; 0 without values.
        low: 5 % are below it.
        high: 5 % are above it.
    """

    edges: tuple[float, ...]
    counts: Ints
    middle: float
    low: float
    high: float

    def to_dict(self) -> dict[str, object]:
        """As plain values, all classes together and by class."""
        return {
            "edges": list(self.edges),
            "counts": self.counts.sum(1).tolist(),
            "by_class": self.counts.T.tolist(),
            "median": self.middle,
            "p5": self.low,
            "p95": self.high,
        }


def histogram(values: Floats, labels: Ints, classes: int, edges: Sequence[float]) -> Histogram:
    """Count values (m,) by step and class (m,)."""
    steps = np.clip(np.searchsorted(np.asarray(edges), values, "right") - 1, 0, len(edges) - 1)
    counts = np.bincount(steps * classes + labels, minlength=len(edges) * classes)
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist() if len(values) else (0.0, 0.0, 0.0)
    return Histogram(tuple(edges), counts.reshape(len(edges), classes), middle, low, high)


def seen_sizes(sizes: NDArray[np.int32], spec: PreprocessConfig) -> NDArray[np.int32]:
    """(n, 2) what is resized of pictures of ``sizes`` (n, 2): all of them, or tiles."""
    return np.minimum(sizes, spec.tile).astype(np.int32) if spec.tile else sizes


def resize_factors(sizes: NDArray[np.int32], spec: PreprocessConfig) -> Floats:
    """(n, 2) factors for height and width of pictures of ``sizes`` (n, 2), or of their tiles; 1 where a size
    is not known.
    """
    factors = np.ones((len(sizes), 2), np.float32)
    known, which = np.unique(seen_sizes(sizes, spec), axis=0, return_inverse=True)
    for i, (height, width) in enumerate(known.tolist()):  # sets have few sizes
        if height and width:
            new = target_size(height, width, spec)
            factors[which.reshape(-1) == i] = new[0] / height, new[1] / width
    return factors


def resized_boxes(dataset: Dataset, spec: PreprocessConfig, chosen: Bools | None = None) -> Floats:
    """(m, 4) the objects to learn, in pixels after resizing.

    Args:
        dataset: whose boxes are taken.
        spec: how pictures are resized.
        chosen: which boxes; None: all but the ignored ones.
    """
    rows = ~dataset.objects.ignore if chosen is None else chosen
    ratios = resize_factors(dataset.pictures.sizes, spec)[dataset.objects.owners()[rows]]
    return np.asarray(dataset.objects.boxes[rows] * ratios[:, [1, 0, 1, 0]], np.float32)


def heights_widths(boxes: Floats) -> Floats:
    """(m, 2) height and width of boxes (m, 4)."""
    return boxes[:, [3, 2]] - boxes[:, [1, 0]]
