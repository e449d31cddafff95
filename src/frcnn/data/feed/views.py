"""What a training picture is made of: rectangles of picture files, and the boxes that come along.

A view has the size of its own picture, whatever it shows: the shapes of batches stay what the sampler
planned. Geometry is done on numbers; pixels are cut and resized once, straight to the size that the network
gets.

Letters: g boxes, p proposals. Sizes are (height, width); boxes are (x1, y1, x2, y2), half-open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frcnn.bands import Bands, Pixels, blank
from frcnn.data.sample import Bools, Floats, Sample

Size = tuple[int, int]
Box = NDArray[np.float64]
COLUMNS = ("boxes", "labels", "ignore", "truncated", "occluded", "crowd")
"""Of a ``Sample``: what belongs to a box."""
Read = Callable[[int, Size], Pixels]
"""(position in the data set, least size) -> the picture, possibly reduced but not below that size."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A rectangle of a picture file and where it goes.

    Attributes:
        index: position of the picture in the data set.
        source: its size.
        window: (4,) the rectangle, in its pixels.
        place: (4,) where it lies in the view.
        soft: (4,) widths at its left, top, right and bottom side over which it fades in; in the view.
    """

    index: int
    source: Size
    window: Box
    place: Box
    soft: Box


@dataclass(frozen=True, eq=False)
class View:
    """A training picture before it has pixels.

    Attributes:
        size: of the view.
        patches: from the bottom to the top; what they leave free is a plain ground.
        sample: the boxes as far as they are seen, in pixels of the view.
        whole: (g, 4) the same boxes, were nothing of them cut.
        given: (p, 4) proposals from elsewhere, or None.
    """

    size: Size
    patches: tuple[Patch, ...]
    sample: Sample
    whole: Floats
    given: Floats | None = None

    def visible(self) -> Floats:
        """(g,) share of each box that is seen."""
        areas = _areas(self.whole)
        nothing = np.zeros(len(areas), np.float32)
        return np.divide(_areas(self.sample.boxes), areas, out=nothing, where=areas > 0).clip(0, 1)

    def objects(self, least: float) -> Bools:
        """(g,) bool: objects to learn of which at least this share is seen."""
        return ~self.sample.ignore & (self.visible() >= least)


def plain_view(index: int, sample: Sample, given: Floats | None = None) -> View:
    """A picture as it is."""
    height, width = sample.size
    everything = np.array([0, 0, width, height], np.float64)
    patch = Patch(index, sample.size, everything, everything, np.zeros(4))
    sample = replace(sample, boxes=_cut(sample.boxes, everything))
    return View(sample.size, (patch,), sample, sample.boxes, given)


def take(sample: Sample, rows: NDArray[np.generic]) -> Sample:
    """The chosen boxes (a mask or positions) with their flags."""
    columns: dict[str, Any] = {name: getattr(sample, name)[rows] for name in COLUMNS}
    return replace(sample, **columns)


def joined(first: Sample, others: Sequence[Sample]) -> Sample:
    """The first picture with the boxes of all."""
    every = [first, *others]
    columns: dict[str, Any] = {n: np.concatenate([getattr(s, n) for s in every]) for n in COLUMNS}
    return replace(first, **columns)


def looked_at(view: View, window: Box) -> View:
    """What is seen through a window of the view (which may reach beyond it), stretched to the view's size."""
    height, width = view.size
    factor = np.divide([width, height], window[2:] - window[:2])
    scale, shift = np.tile(factor, 2), np.tile(window[:2], 2)
    frame = np.array([0, 0, width, height], np.float64)

    def carry(boxes: Floats) -> Floats:
        return ((boxes - shift) * scale).astype(np.float32)

    patches = tuple(
        Patch(p.index, p.source, p.window, (p.place - shift) * scale, p.soft * scale) for p in view.patches
    )
    kept = (clip_patch(patch, frame) for patch in patches)
    return View(
        view.size,
        tuple(patch for patch in kept if patch is not None),
        replace(view.sample, boxes=_cut(carry(view.sample.boxes), frame)),
        carry(view.whole),
        None if view.given is None else _cut(carry(view.given), frame),
    )


def clip_patch(patch: Patch, frame: Box) -> Patch | None:
    """The part of a patch inside ``frame`` (of the view); None where there is nothing."""
    place = _cut(patch.place[None], frame)[0]
    if (place[2:] <= place[:2]).any():
        return None
    scale = np.tile((patch.window[2:] - patch.window[:2]) / (patch.place[2:] - patch.place[:2]), 2)
    window = patch.window + (place - patch.place) * scale
    return replace(patch, window=window, place=place, soft=np.where(place == patch.place, patch.soft, 0))


def finished(view: View, least: float) -> tuple[Sample, Floats | None]:
    """The boxes of a view, and its proposals.

    What is not seen at all is left out; what is seen by less than the share ``least`` is ignored; the share
    beyond the border grows by what was cut.
    """
    visible = view.visible()
    seen = visible > 0
    sample, visible = take(view.sample, seen), visible[seen]
    cut = visible < 1 - 1e-4
    truncated = np.where(cut, 1 - (1 - sample.truncated) * visible, sample.truncated).astype(np.float32)
    sample = replace(sample, truncated=truncated, ignore=sample.ignore | (visible < least))
    given = view.given
    return sample, given if given is None else given[_areas(given) > 0]


def paint(
    view: View,
    size: Size,
    read: Read,
    ground: Sequence[int],
    colour: Callable[[Pixels], Pixels],
) -> Pixels:
    """The pixels of a view.

    Args:
        view: what is shown.
        size: of the result; it has the view's shape.
        read: gives the pictures.
        ground: colour where there is none, a value for each channel.
        colour: varies the colours of each piece; the ground stays as it is.

    Returns:
        A picture with the channels of ``ground``.
    """
    picture = blank((size[1], size[0]), ground)
    ratio = np.tile(np.divide(size, view.size)[::-1], 2)
    for patch in view.patches:
        exact = patch.place * ratio
        x1, y1, x2, y2 = (int(v) for v in np.rint(exact))
        if x2 <= x1 or y2 <= y1:
            continue
        scale = np.tile((patch.window[2:] - patch.window[:2]) / (exact[2:] - exact[:2]), 2)
        window = patch.window + (np.array([x1, y1, x2, y2]) - exact) * scale
        height, width = patch.source
        least = (max(round(height / scale[1]), 1), max(round(width / scale[0]), 1))
        source = read(patch.index, least)
        window = window * np.tile(np.divide(source.size, (width, height)), 2)
        window = _cut(window[None], np.array([0, 0, *source.size], np.float64))[0]
        if (window[2:] <= window[:2]).any():
            continue
        left, top, right, bottom = window.tolist()
        piece = source.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, (left, top, right, bottom))
        piece, mask = colour(piece), _soft_mask((y2 - y1, x2 - x1), patch.soft * ratio)
        if isinstance(picture, Bands):
            assert isinstance(piece, Bands)
            picture.paste(piece, (x1, y1), mask)
        else:
            assert not isinstance(piece, Bands)
            picture.paste(piece, (x1, y1), mask)
    return picture


def _soft_mask(size: Size, soft: Box) -> Image.Image | None:
    if not soft.any():
        return None
    height, width = size
    across = _ramp(width, soft[0], soft[2])
    down = _ramp(height, soft[1], soft[3])
    return Image.fromarray(np.rint(255 * down[:, None] * across).astype(np.uint8))


def _ramp(length: int, start: float, end: float) -> NDArray[np.float64]:
    """(length,) from 0 up to 1 over ``start`` and down again over ``end`` pixels."""
    centre = np.arange(length) + 0.5
    return np.minimum(centre / max(start, 1e-9), (length - centre) / max(end, 1e-9)).clip(0, 1)


def _cut(boxes: NDArray[Any], frame: Box) -> NDArray[Any]:
    """Boxes (g, 4) cut to ``frame``, in their own type."""
    low, high = np.tile(frame[:2], 2), np.tile(frame[2:], 2)
    return boxes.clip(low, high).astype(boxes.dtype)


def _areas(boxes: Floats) -> Floats:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
