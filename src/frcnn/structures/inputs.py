"""What enters a step: pictures, objects and noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frcnn.structures.record import TensorRecord


@dataclass(frozen=True)
class ImageBatch(TensorRecord):
    """A padded batch of pictures.

    Attributes:
        pixels: (N, 3, H, W), uint8 (not yet normalised) or float32 (normalised, padding 0).
        sizes: (N, 2) float32, true (height, width) after resizing, before padding.
        scales: (N, 2) float32, resized / original per axis (y, x).
        original_sizes: (N, 2) float32, (height, width) of the picture as the user knows it.
        given: (N, P, 4) float32, proposals from elsewhere in pixels of the resized pictures, best first,
            padded with boxes without area; the second stage then looks there and not where the RPN points.
    """

    pixels: Tensor
    sizes: Tensor
    scales: Tensor
    original_sizes: Tensor
    given: Tensor | None = None

    def __len__(self) -> int:
        """Number of images."""
        return self.pixels.shape[0]


@dataclass(frozen=True)
class Targets(TensorRecord):
    """Objects of a batch in pixels of the resized pictures, padded to the same G.

    Attributes:
        boxes: (N, G, 4) float32.
        labels: (N, G) int64, -1 = padding or a region without a class.
        ignore: (N, G) bool: no object to learn, and nothing found there is wrong.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor

    @property
    def real(self) -> Tensor:
        """(N, G) bool: objects to learn."""
        return (self.labels >= 0) & ~self.ignore


@dataclass(frozen=True)
class Noise(TensorRecord):
    """Uniform numbers in [0, 1) that decide what is sampled, drawn by the caller (a generator cannot enter a
    graph).

    Attributes:
        rpn: (N, A).
        roi: (N, P + G): proposals, then objects.
        jitter: (N, G, 4): moves the sides of the objects' copies among the proposals; None: exact copies.
    """

    rpn: Tensor
    roi: Tensor
    jitter: Tensor | None = None
