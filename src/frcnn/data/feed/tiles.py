"""Pictures cut into tiles: large pictures with small objects are seen at their own resolution.

Tiles are squares of ``preprocess.tile`` pixels of the file that share at least ``preprocess.overlap`` of
their sides with the next one; the last one ends with the picture. A picture that is no larger than a tile
stays what it is.

Letters: n pictures, t tiles, g boxes of a picture. Sizes are (height, width); boxes are (x1, y1, x2, y2).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from frcnn.config import Config
from frcnn.data.feed.transforms import sample_generator
from frcnn.data.sample import Bools, Dataset, Ints, Objects, Pictures

Windows = NDArray[np.int32]


def tile_windows(size: tuple[int, int], tile: int, overlap: float) -> Windows:
    """Where the tiles of a picture lie, rows first.

    Args:
        size: of the picture.
        tile: side in pixels; 0: whole pictures. A picture's shorter side may be smaller than a tile.
        overlap: least share of a tile's side that is also in the next tile, below 1.

    Returns:
        (t, 4) int32; evenly spaced, all of one size, at least one.
    """
    height, width = size
    down, across = (_starts(side, tile, overlap) for side in (height, width))
    high, wide = (min(side, tile) if tile else side for side in (height, width))
    y, x = (grid.ravel() for grid in np.meshgrid(down, across, indexing="ij"))
    return np.stack([x, y, x + wide, y + high], 1).astype(np.int32)


def _starts(side: int, tile: int, overlap: float) -> Ints:
    if not tile or side <= tile:
        return np.zeros(1, np.int64)
    count = math.ceil((side - tile) / (tile * (1 - overlap))) + 1
    return np.rint(np.linspace(0, side - tile, count)).astype(np.int64)


def picture_limit(dataset: Dataset, config: Config, limit: int) -> int:
    """How many detections of a picture count where each of its tiles may give ``limit``: as many, and more
    where a picture holds more objects. Without tiles, ``limit`` itself.
    """
    if not config.preprocess.tile:
        return limit
    return max(limit, math.ceil(1.5 * np.diff(dataset.objects.offsets).max(initial=0)))


def tiled(dataset: Dataset, config: Config, *, seed: int | None) -> Dataset:
    """The same data set, a tile for each picture of it.

    A box belongs to every tile that shows some of it, cut to the tile; where less than
    ``data.min_visible`` of it is left, it is one to ignore there. Ids, class list and splits stay, so that
    several tiles have the id of their picture.

    Args:
        dataset: whole pictures.
        config: ``preprocess.tile`` and ``preprocess.overlap``, ``data.min_visible``.
        seed: for training: a picture keeps as many tiles without an object as it has tiles with one, and at
            least one, drawn by this seed. None: all tiles, in order.

    Returns:
        The same object where there is nothing to cut.

    Raises:
        ValueError: when the pictures have given proposals, which are not cut.
    """
    tile, overlap = config.preprocess.tile, config.preprocess.overlap
    if not tile or len(dataset.pictures.windows) or dataset.pictures.sizes.max(initial=0) <= tile:
        return dataset
    if dataset.proposals is not None:
        raise ValueError(
            f"preprocess.tile {tile} cuts pictures, and given proposals are of whole ones; "
            "set it to 0 (--tile 0), or leave out --proposals"
        )
    windows = [tile_windows((h, w), tile, overlap) for h, w in dataset.pictures.sizes.tolist()]
    owners = np.repeat(np.arange(len(windows)), [len(part) for part in windows])  # (t,)
    places = np.concatenate([np.zeros((0, 4), np.int32), *windows])  # (t, 4)
    objects = _cut_objects(dataset.objects, owners, places, config.data.min_visible)
    cut = replace(
        dataset,
        pictures=_tile_pictures(dataset.pictures, owners, places),
        objects=objects,
        splits={name: np.flatnonzero(np.isin(owners, rows)) for name, rows in dataset.splits.items()},
    )
    if seed is None:
        return cut
    shown = np.bincount(cut.objects.owners()[~cut.objects.ignore], minlength=len(cut)) > 0
    return cut.subset(_kept(owners, shown, seed))


def never_shown(dataset: Dataset, config: Config) -> Bools:
    """(m,) bool: objects of which no tile shows as much as ``data.min_visible``, so that all ignore them.

    Args:
        dataset: whole pictures.
        config: as ``tiled`` takes it.
    """
    objects = dataset.objects
    numbers = np.arange(len(objects.boxes), dtype=np.int32)
    # the column travels with every piece of a box
    numbered = replace(dataset, objects=replace(objects, written=numbers), proposals=None)
    pieces = tiled(numbered, config, seed=None).objects
    lost = ~objects.ignore
    lost[pieces.written[~pieces.ignore]] = False
    return lost


def _kept(owners: Ints, shown: NDArray[np.bool_], seed: int) -> Ints:
    """Positions of the tiles that are trained with: all that show an object, and some of the others."""
    keep = shown.copy()
    for i in np.unique(owners[~shown]).tolist():
        empty = np.flatnonzero((owners == i) & ~shown)
        count = max(int(shown[owners == i].sum()), 1)
        keep[sample_generator(seed, i).permutation(empty)[:count]] = True
    return np.flatnonzero(keep)


def _tile_pictures(pictures: Pictures, owners: Ints, places: Windows) -> Pictures:
    sizes = np.stack([places[:, 3] - places[:, 1], places[:, 2] - places[:, 0]], 1).astype(np.int32)
    whole = (sizes == pictures.sizes[owners]).all(1)
    return replace(
        pictures.take(owners), sizes=sizes, declared=sizes * 0, windows=np.where(whole[:, None], 0, places)
    )


def _cut_objects(objects: Objects, owners: Ints, places: Windows, least: float) -> Objects:
    """The boxes of every tile, in its pixels."""
    repeated = objects.take(owners)
    of = repeated.owners()
    corner = np.tile(places[of, :2], 2).astype(np.float32)
    size = np.tile(places[of, 2:] - places[of, :2], 2).astype(np.float32)
    moved = repeated.boxes - corner
    boxes = np.clip(moved, 0, size)
    whole, left = ((b[:, 2:] - b[:, :2]).clip(0).prod(1) for b in (moved, boxes))
    visible = np.divide(left, whole, out=np.zeros(len(left), np.float32), where=whole > 0)
    cut = visible < 1 - 1e-4
    truncated = np.where(cut, 1 - (1 - repeated.truncated) * visible, repeated.truncated)
    ignore = repeated.ignore | (visible < least)
    changed = replace(repeated, boxes=boxes, ignore=ignore, truncated=truncated.astype(np.float32))
    return changed.keep(visible > 0)
