"""Check for pictures that look alike: frames of one film, crops, re-encoded copies.

A picture is made gray and 32 x 32. Its hash has 64 bits: whether each of 8 x 9 mean values is brighter than
its right neighbour (a difference hash). Pairs whose hashes differ in few bits are compared once more by the
correlation of their 32 x 32 values, because many pictures without much in them have nearly the same hash.

Letters: n pictures.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from frcnn.data.checks.decoded import SIDE, Thumbnails
from frcnn.data.checks.files import DISJOINT
from frcnn.data.findings import Finding
from frcnn.data.sample import Bools, Dataset, Floats, Ints

MAX_BITS = 10
"""Hashes that differ in more bits belong to different pictures."""
LEAST_CORRELATION = 0.95
LEAST_CONTRAST = 2.0
"""Deviation of the gray values (0..255) below which a picture is empty, and like every other empty one."""
MANY, MOST = 20, 0.5
"""Where so many pictures, and more than this share of all, look like others, one finding speaks for them."""
BLOCK = 2048
"""Pictures that are compared with as many others at a time."""
FEW = 32
"""Where fewer than one pair in so many is asked for, each is multiplied by itself, not all as matrices."""

Hashes = NDArray[np.uint64]
Pair = tuple[int, int, float]
"""Two positions in a data set and the correlation of their pictures."""


def check_looks(dataset: Dataset, thumbs: Thumbnails, same: Container[str] = ()) -> Iterator[Finding]:
    """D22: pictures of two splits that look alike; where there are no splits, pictures that look alike.

    Each picture is named once, with the one it is most like.

    Args:
        dataset: that is checked.
        thumbs: (n, 32, 32) small copies of its pictures (``decoded.decode_all``).
        same: pictures that are known to be in two splits.
    """
    hashes = difference_hashes(thumbs)
    contrast = [thumbs[rows].reshape(-1, SIDE * SIDE).std(1) for rows in _blocks(np.arange(len(thumbs)))]
    usable = np.flatnonzero(np.concatenate([np.zeros(0), *contrast]) > LEAST_CONTRAST)
    pairs = [(a, b) for a, b in DISJOINT if a in dataset.splits and b in dataset.splits]
    for one, two in pairs:
        first, second = (np.intersect1d(dataset.splits[name], usable) for name in (one, two))
        common = np.intersect1d(first, second)  # D18 says that
        first, second = np.setdiff1d(first, common), np.setdiff1d(second, common)
        found = alike(thumbs, hashes, first, second)
        unknown = [pair for pair in found if str(dataset.picture_path(pair[1])) not in same]
        yield from _said(dataset, unknown, len(second), one, two)
    if not pairs:
        yield from _said(dataset, list(alike(thumbs, hashes, usable, usable)), len(usable))


def _said(
    dataset: Dataset, found: Sequence[Pair], compared: int, one: str = "", two: str = ""
) -> list[Finding]:
    """A finding for each pair; one for all, with the pair that is most alike, where most pictures are in one.

    Args:
        dataset: that is checked.
        found: the pairs.
        compared: pictures that might have been the second of a pair.
        one: split of the first of each pair; "": there are no splits.
        two: split of the second.
    """
    many = len(found) >= MANY and len(found) > MOST * compared
    action = "keep them in one split when you hold pictures out (--group-by)"
    if one:
        action = "keep them in one split (--group-by); the measured AP is too good otherwise"
    if many:
        action = (
            "hold whole scenes out, or a stretch of time (--group-by); the measured AP is too good otherwise"
        )
    findings: list[Finding] = []
    for i, j, likeness in [max(found, key=lambda pair: pair[2])] if many else found:
        message = f"in {two} looks like" if one else "looks like"
        message += f" {dataset.pictures.paths[i]}" + (f" in {one}" if one else "")
        message += f" (correlation {likeness:.3f})"
        if many:
            message += f", and {len(found) - 1:,} more of {compared:,} pictures look like another one"
            message += f" in {one}" if one else ""
        path, other = str(dataset.picture_path(j)), str(dataset.picture_path(i))
        findings.append(Finding("D22", "warn" if one else "note", message, path, 0, action, other=other))
    return findings


def difference_hashes(thumbs: Thumbnails) -> Hashes:
    """(n,) the 64 bits of thumbnails (n, 32, 32): is a cell brighter than the one to its right, 8 rows of
    9 cells.
    """
    rows = thumbs.reshape(-1, 8, SIDE // 8, SIDE).mean(2)
    edges = np.linspace(0, SIDE, 10).round().astype(int)
    cells = np.stack([rows[:, :, a:b].mean(2) for a, b in pairwise(edges)], 2)
    bits = (cells[:, :, :-1] > cells[:, :, 1:]).reshape(-1, 64)
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


def alike(thumbs: Thumbnails, hashes: Hashes, first: Ints, second: Ints) -> Iterator[Pair]:
    """For each of ``second`` that is like one of ``first``: the one it is most like, itself, and their
    correlation.

    Where both are the same pictures, each is compared with those before it.

    Args:
        thumbs: (n, 32, 32) of all pictures.
        hashes: (n,) of them.
        first: positions, in rising order.
        second: positions, in rising order.
    """
    itself = np.array_equal(first, second)
    for part in _blocks(second):
        best, mate = np.full(len(part), -1, np.float32), np.zeros(len(part), np.int64)
        for others in _blocks(first):
            if itself and others[0] >= part[-1]:
                break
            near = np.bitwise_count(hashes[part][:, None] ^ hashes[others]) <= MAX_BITS
            if itself:
                near &= others < part[:, None]
            rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
            if not len(rows):
                continue
            likeness = _correlations(thumbs[part[rows]], thumbs[others[columns]], near[np.ix_(rows, columns)])
            nearest = likeness.argmax(1)  # the first of equals
            value = likeness[np.arange(len(rows)), nearest]
            better = value > best[rows]
            best[rows[better]] = value[better]
            mate[rows[better]] = others[columns[nearest[better]]]
        for at in np.flatnonzero(best >= LEAST_CORRELATION):
            yield int(mate[at]), int(part[at]), float(best[at])


def _correlations(one: Thumbnails, two: Thumbnails, near: Bools) -> Floats:
    """(a, b) correlations of the gray values of pictures (a, 32, 32) and (b, 32, 32), to four places, where
    ``near`` (a, b) asks for them; -1 elsewhere.
    """
    first, second = _normalised(one), _normalised(two)
    if FEW * near.sum() > near.size:
        return np.where(near, np.round(first @ second.T, 4), np.float32(-1))
    found = np.full(near.shape, -1, np.float32)
    for pairs in _blocks(np.argwhere(near)):
        rows, columns = pairs.T
        found[rows, columns] = np.round(np.einsum("pv,pv->p", first[rows], second[columns]), 4)
    return found


def _normalised(thumbs: Thumbnails) -> Floats:
    """(k, 1024) gray values around their mean, of length 1: their products are correlations."""
    values = thumbs.reshape(-1, SIDE * SIDE).astype(np.float32)
    values -= values.mean(1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-6))


def _blocks(rows: Ints) -> list[Ints]:
    """As many at a time as are compared."""
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
