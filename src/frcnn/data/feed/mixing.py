"""Crops and mixtures: which part of which pictures a training picture shows.

Everything is drawn from the generators of (seed, epoch, index, part), one for each part, so that switching a
part on changes no other one. A step after which a picture has lost its last object is undone.

Letters: g boxes, t trials. Sizes are (height, width); boxes are (x1, y1, x2, y2), half-open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from frcnn.config import DataConfig
from frcnn.data.feed.views import Box, Patch, View, clip_patch, joined, looked_at, plain_view, take
from frcnn.data.sample import Sample

Samples = Callable[[int], Sample]
Stream = Callable[[int], np.random.Generator]
"""Part -> its generator."""
MOSAIC, PASTE, LARGE_SCALE, ZOOM_OUT, CROP = range(5)
CROSS = (0.35, 0.65)
"""Where the four pictures of a mosaic meet, as a share of the sides."""
TRIALS = 40
LEAST_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9)
CROP_SIDES = (0.3, 1.0)
CROP_ASPECT = 4 / 3
"""A crop is wider or higher by at most this factor than its picture, whose shape it is stretched to."""
PASTED = 3
"""Most objects that are pasted into a picture ..."""
PASTE_SCALE = (0.5, 1.5)
"""... magnified by a number drawn between these ..."""
PASTE_TRIALS = 10
PASTE_COVERS = 0.3
"""... where they cover no other box by more than this share ..."""
PASTE_RIM = 0.1
"""... with a rim of this share of their sides, which fades in."""


def mixes(config: DataConfig) -> bool:
    """Whether a configuration ever shows more than one picture at a time."""
    return config.mosaic > 0 or config.copy_paste > 0


def composes(config: DataConfig) -> bool:
    """Whether a configuration ever shows anything but whole pictures."""
    parts = (config.zoom_out, config.iou_crop, config.mosaic, config.copy_paste)
    return any(parts) or config.large_scale_jitter != (1, 1)


def varied_view(
    view: View, config: DataConfig, count: int, samples: Samples, stream: Stream, mix: bool = True
) -> View:
    """Apply what was drawn for a picture.

    Args:
        view: the picture as it is.
        config: the parts and their probabilities.
        count: pictures of the data set.
        samples: gives any of them.
        stream: gives the generator of each part.
        mix: False: show no other picture.

    Returns:
        A view of the same size; the same object where nothing was drawn.
    """
    steps: list[tuple[bool, int, Callable[[View, np.random.Generator], View]]] = [
        (mix and config.mosaic > 0, MOSAIC, lambda v, g: _mosaic(v, config.mosaic, count, samples, g)),
        (mix and config.copy_paste > 0, PASTE, lambda v, g: _paste(v, config.copy_paste, count, samples, g)),
        (
            config.large_scale_jitter != (1, 1),
            LARGE_SCALE,
            lambda v, g: _large_scale(v, config.large_scale_jitter, config.min_visible, g),
        ),
        (config.zoom_out > 0, ZOOM_OUT, lambda v, g: _zoom_out(v, config.zoom_out, config.zoom_out_limit, g)),
        (config.iou_crop > 0, CROP, lambda v, g: _crop(v, config.iou_crop, config.min_visible, g)),
    ]
    for wanted, part, step in steps:
        if wanted:
            after = step(view, stream(part))
            lost = view.objects(0).any() and not after.objects(config.min_visible).any()
            view = view if lost else after
    return view


def _mosaic(view: View, chance: float, count: int, samples: Samples, generator: np.random.Generator) -> View:
    """Four pictures around a point: each fills its quarter, and what does not fit is cut off."""
    if generator.random() >= chance:
        return view
    others = [_other(int(i), samples) for i in generator.integers(0, count, 3)]
    views = [view, *(other if other is not None else view for other in others)]
    height, width = view.size
    x, y = generator.uniform(*CROSS, 2) * (width, height)
    quarters = np.array([[0, 0, x, y], [x, 0, width, y], [0, y, x, height], [x, y, width, height]])
    placed = [
        _filling(part, quarter, generator)
        for part, quarter in zip(views, generator.permutation(quarters), strict=True)
    ]
    return replace(
        view,
        patches=tuple(patch for part in placed for patch in part.patches),
        sample=joined(placed[0].sample, [part.sample for part in placed[1:]]),
        whole=np.concatenate([part.whole for part in placed]),
        given=None,
    )


def _filling(view: View, quarter: Box, generator: np.random.Generator) -> View:
    """A view that covers ``quarter`` without being stretched, from a drawn place."""
    size = np.array(view.size[::-1], np.float64)
    sides = quarter[2:] - quarter[:2]
    scale = (sides / size).max()
    corner = quarter[:2] - generator.random(2) * (size * scale - sides)
    shift = np.tile(corner, 2)

    def cut(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        return (boxes * scale + shift).clip(quarter[[0, 1, 0, 1]], quarter[[2, 3, 2, 3]]).astype(np.float32)

    moved = (replace(p, place=p.place * scale + shift, soft=p.soft * scale) for p in view.patches)
    patches = (clip_patch(patch, quarter) for patch in moved)
    return replace(
        view,
        patches=tuple(patch for patch in patches if patch is not None),
        sample=replace(view.sample, boxes=cut(view.sample.boxes)),
        whole=(view.whole * scale + shift).astype(np.float32),
    )


def _paste(view: View, chance: float, count: int, samples: Samples, generator: np.random.Generator) -> View:
    """Objects of another picture, each cut out by its box, at places where they hide little."""
    if generator.random() >= chance:
        return view
    donor = _other(index := int(generator.integers(count)), samples)
    if donor is None:
        return view
    source = donor.sample
    sides = source.boxes[:, 2:] - source.boxes[:, :2]
    fit = ~source.ignore & (source.labels >= 0) & (source.truncated == 0) & (source.occluded == 0)
    fit &= (sides >= 4).all(1) & (sides <= np.multiply(source.size[::-1], 0.5)).all(1)
    chosen = generator.permutation(np.flatnonzero(fit))[: generator.integers(1, PASTED + 1)]
    for row in chosen.tolist():
        view = _pasted(view, index, take(source, np.array([row])), generator)
    return view


def _pasted(view: View, index: int, source: Sample, generator: np.random.Generator) -> View:
    """One object of ``source``; the view as it was where it finds no place."""
    box = source.boxes[0].astype(np.float64)
    sides = box[2:] - box[:2]
    scale = generator.uniform(*PASTE_SCALE)
    room = np.array(view.size[::-1]) - sides * scale
    corners = generator.random((PASTE_TRIALS, 2)) * room
    if (room < 0).any():
        return view
    places = np.concatenate([corners, corners + sides * scale], 1)  # (t, 4)
    areas = _pair_areas(view.sample.boxes, view.sample.boxes).diagonal()
    covered = _pair_areas(places, view.sample.boxes) / np.maximum(areas, 1e-9)  # (t, g)
    free = np.flatnonzero(covered.max(1, initial=0) <= PASTE_COVERS)
    if not len(free):
        return view
    place = places[free[0]]
    rim = np.tile(sides * PASTE_RIM, 2)
    limits = np.array([0, 0, *source.size[::-1]], np.float64)
    window = np.clip(box + rim * (-1, -1, 1, 1), np.tile(limits[:2], 2), np.tile(limits[2:], 2))
    outer = place + (window - box) * scale
    patch = Patch(index, source.size, window, outer, np.abs(outer - place))
    shown = clip_patch(patch, np.array([0, 0, *view.size[::-1]], np.float64))
    boxes = place[None].astype(np.float32)
    return replace(
        view,
        patches=(*view.patches, *(() if shown is None else (shown,))),
        sample=joined(view.sample, [replace(source, boxes=boxes)]),
        whole=np.concatenate([view.whole, boxes]),
    )


def _large_scale(
    view: View, limits: tuple[float, float], least: float, generator: np.random.Generator
) -> View:
    factor = generator.uniform(*limits)
    windows = _windows(view, np.full((TRIALS, 2), 1 / factor), generator)
    first = int(np.argmax(_keeps(view, windows, least)))
    return looked_at(view, windows[first])


def _zoom_out(view: View, chance: float, limit: float, generator: np.random.Generator) -> View:
    draw, side = generator.random(2)
    sides = np.full((1, 2), 1 + side * (limit - 1))
    window = _windows(view, sides, generator)[0]
    return looked_at(view, window) if draw < chance else view


def _crop(view: View, chance: float, least: float, generator: np.random.Generator) -> View:
    """The first of ``TRIALS`` windows that overlaps an object by a drawn least IoU; another one
    is drawn where no window does, because small objects never do by much.
    """
    draw = generator.random()
    overlaps = generator.permutation(LEAST_OVERLAPS).tolist()
    sides = generator.uniform(*CROP_SIDES, (TRIALS, 2))
    windows = _windows(view, sides, generator)
    rows = view.objects(least)
    if draw >= chance or not rows.any():
        return view
    boxes = view.sample.boxes[rows]
    shared = _pair_areas(windows, boxes)  # (t, g)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    best = (shared / ((windows[:, 2:] - windows[:, :2]).prod(1)[:, None] + own - shared)).max(1)
    aspect = sides[:, 0] / sides[:, 1]
    shaped = (aspect <= CROP_ASPECT) & (aspect >= 1 / CROP_ASPECT)
    fit = shaped & _keeps(view, windows, least)
    for overlap in overlaps:
        good = np.flatnonzero(fit & (best >= overlap))
        if len(good):
            return looked_at(view, windows[good[0]])
    return view


def _windows(view: View, sides: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """(t, 4) windows of these shares of the view's sides (t, 2), at drawn places: inside it where they are
    smaller, around it where they are larger.
    """
    size = np.array(view.size[::-1], np.float64)
    corners = generator.random(sides.shape) * (1 - sides)
    return np.concatenate([corners * size, (corners + sides) * size], 1)


def _keeps(view: View, windows: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """(t,) which windows leave at least one object; all, where there is none to leave."""
    rows = view.objects(least)
    if not rows.any():
        return np.ones(len(windows), bool)
    whole = view.whole[rows]
    areas = (whole[:, 2:] - whole[:, :2]).prod(1)
    return np.asarray((_pair_areas(windows, view.sample.boxes[rows]) >= least * areas).any(1))


def _pair_areas(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """(t, g) shared area of boxes a (t, 4) and b (g, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray((high - low).clip(0).prod(-1), np.float64)


def _other(index: int, samples: Samples) -> View | None:
    """Another picture as it is; None where its header could not be read."""
    sample = samples(index)
    return None if 0 in sample.size else plain_view(index, sample)
