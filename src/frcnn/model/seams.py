"""Detections of overlapping tiles become those of the picture: an object on a seam is found once.

Two tiles share a strip, and both see what of an object lies in it. So two detections of one class from two
tiles are the same object if what each says about the strip agrees (``AGREE``), and one of them at least is
*cut*: it ends at a border of its tile that lies inside the other one, so that its tile did not see the whole
object. Each detection agrees with at most one of another tile, the one with which it agrees best, and the
choice must be mutual. Of detections that are the same object

* those that are whole count, where there are any; the cut ones are left out, and the best whole one gets the
  best score of all;
* if all are cut, the object is longer than the strip is wide: the box around all of them counts, with the
  best score.

What is left, detections that several tiles saw whole above all, goes through NMS by class as within a
picture.

Letters: n detections, t tiles. Boxes are (x1, y1, x2, y2), pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from frcnn.config import Config
from frcnn.ops.nms import nms_mask

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Window = tuple[int, int, int, int]
AGREE = 0.5
"""Least IoU of two detections in the strip that their tiles share ..."""
CONTAINED = 0.8
"""... or least share of a cut one that lies in a whole one."""
NEAR_TILE, NEAR_BOX = 0.01, 0.05
"""A box ends at a border that is nearer than these shares of the tile's and of its own side, added."""


class Found(NamedTuple):
    """Detections: boxes (n, 4) float32, scores (n,) float32, labels (n,) int64."""

    boxes: Floats
    scores: Floats
    labels: Ints

    def take(self, rows: Ints | NDArray[np.bool_] | slice) -> Found:
        """The chosen ones: a mask, positions or a slice."""
        return Found(self.boxes[rows], self.scores[rows], self.labels[rows])


class Tile(NamedTuple):
    """What was found in one tile: where it lies, and detections in its own pixels."""

    window: Window
    found: Found


def merge_pieces(tiles: Sequence[Tile], iou: float) -> Found:
    """The detections of a picture from those of its tiles; at least one tile.

    Args:
        tiles: all of the picture.
        iou: threshold of the NMS (``seam_iou``).

    Returns:
        Best first, boxes in pixels of the picture.
    """
    windows = np.array([tile.window for tile in tiles])
    counts = [len(tile.found.scores) for tile in tiles]
    corners = np.tile(windows[:, :2], 2).astype(np.float32)
    boxes = [tile.found.boxes + corner for tile, corner in zip(tiles, corners, strict=True)]
    found = Found(
        np.concatenate(boxes),
        np.concatenate([tile.found.scores for tile in tiles]),
        np.concatenate([tile.found.labels for tile in tiles]),
    )
    return merge_tiles(found, np.repeat(np.arange(len(tiles)), counts), windows, iou)


def seam_iou(config: Config) -> float:
    """The IoU of the last NMS within a picture, from the section that the detector reads."""
    if config.detector == "fcos":
        return config.fcos.nms_iou
    return config.proposals.nms_iou if config.detector == "rpn" else config.roi.nms_iou


def merge_tiles(found: Found, tiles: Ints, windows: NDArray[np.integer], iou: float) -> Found:
    """Merge the detections of one picture's tiles.

    Args:
        found: of all tiles, boxes already in pixels of the picture.
        tiles: (n,) the tile of each detection.
        windows: (t, 4) where the tiles lie.
        iou: threshold of the NMS.

    Returns:
        Best first. With a single tile, what was given.
    """
    if len(windows) <= 1:
        return found
    boxes, scores = found.boxes.astype(np.float64), found.scores.copy()
    cut = np.zeros(len(boxes), bool)
    group = np.arange(len(boxes))
    for a, b in _neighbours(windows):
        rows, columns = np.flatnonzero(tiles == a), np.flatnonzero(tiles == b)
        cut_rows = _cut(boxes[rows], windows[a], windows[b])
        cut_columns = _cut(boxes[columns], windows[b], windows[a])
        cut[rows] |= cut_rows
        cut[columns] |= cut_columns
        agree = _agreement(boxes[rows], boxes[columns], windows[a], windows[b], cut_rows, cut_columns)
        agree[found.labels[rows][:, None] != found.labels[columns]] = 0
        for i, j in _mutual(agree):
            first, second = group[rows[i]], group[columns[j]]
            group[group == second] = first
    keep = np.ones(len(boxes), bool)
    for members in _groups(group):
        keep[members] = False
        whole = members[~cut[members]]
        kept = whole if len(whole) else members[:1]
        if not len(whole):
            boxes[kept] = np.r_[boxes[members, :2].min(0), boxes[members, 2:].max(0)]
        keep[kept] = True
        scores[kept[np.argmax(scores[kept])]] = scores[members].max()
    return _suppressed(Found(boxes[keep].astype(np.float32), scores[keep], found.labels[keep]), iou)


def _neighbours(windows: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Pairs of tiles that share something."""
    low = np.maximum(windows[:, None, :2], windows[None, :, :2])
    high = np.minimum(windows[:, None, 2:], windows[None, :, 2:])
    shared = np.triu((high > low).all(-1), 1)
    return [(int(a), int(b)) for a, b in np.argwhere(shared)]


def _cut(
    boxes: NDArray[np.float64], own: NDArray[np.integer], other: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """(n,) which boxes of tile ``own`` end at a border of it that lies inside tile ``other``."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)  # width, height, width, height
    room = NEAR_TILE * np.tile(own[2:] - own[:2], 2) + NEAR_BOX * sides
    inside = (own > np.tile(other[:2], 2)) & (own < np.tile(other[2:], 2))
    return np.asarray(((np.abs(boxes - own) <= room) & inside).any(1))


def _agreement(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    window_a: NDArray[np.integer],
    window_b: NDArray[np.integer],
    cut_a: NDArray[np.bool_],
    cut_b: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """(na, nb) how well detections agree in the strip that both tiles see; 0: they are not one object."""
    strip = np.r_[np.maximum(window_a[:2], window_b[:2]), np.minimum(window_a[2:], window_b[2:])]
    low, high = np.tile(strip[:2], 2), np.tile(strip[2:], 2)
    a, b = a.clip(low, high), b.clip(low, high)
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = sides.clip(0).prod(-1)
    area_a, area_b = ((c[:, 2:] - c[:, :2]).prod(1) for c in (a, b))
    union = np.maximum(area_a[:, None] + area_b - shared, 1e-9)
    agree = shared / union
    only_a, only_b = cut_a[:, None] & ~cut_b, ~cut_a[:, None] & cut_b
    inside = np.where(only_a, shared / np.maximum(area_a[:, None], 1e-9), 0)
    inside = np.where(only_b, shared / np.maximum(area_b, 1e-9), inside)
    agree = np.where((agree >= AGREE) | (inside >= CONTAINED), np.maximum(agree, 1e-9), 0)
    return np.where(cut_a[:, None] | cut_b, agree, 0)


def _mutual(agree: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs that are each other's best."""
    if not agree.size:
        return []
    best_row, best_column = agree.argmax(1), agree.argmax(0)
    return [(i, int(j)) for i, j in enumerate(best_row) if agree[i, j] > 0 and best_column[j] == i]


def _groups(group: Ints) -> list[Ints]:
    """Members of every group of several."""
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(group) else []
    return [part for part in parts if len(part) > 1]


def _suppressed(found: Found, iou: float) -> Found:
    found = found.take(np.argsort(-found.scores, kind="stable"))
    keep = nms_mask(torch.from_numpy(found.boxes)[None], iou, torch.from_numpy(found.labels)[None])[0]
    return found.take(keep.numpy())
