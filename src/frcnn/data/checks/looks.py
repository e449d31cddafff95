"""Check for pictures that look alike: frames of one film, crops, re-encoded copies.

A picture is made gray and 32 x 32. Its hash has 64 bits: whether each of 8 x 9 mean values is brighter than
its right neighbour (a difference hash). Pairs whose hashes differ in few bits are compared once more by the
correlation of their 32 x 32 values, because many pictures without much in them have nearly the same hash.

Letters: n pictures.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from frcnn.data.checks.decoded import SIDE, Thumbnails
from frcnn.data.checks.files import DISJOINT
from frcnn.data.findings import Finding
from frcnn.data.sample import Dataset, Ints

MAX_BITS = 10
"""Hashes that differ in more bits belong to different pictures."""
LEAST_CORRELATION = 0.95
LEAST_CONTRAST = 2.0
"""Deviation of the gray values (0..255) below which a picture is empty, and like every other empty one."""
CHUNK = 2**22

Hashes = NDArray[np.uint64]


def check_looks(dataset: Dataset, thumbs: Thumbnails, same: Container[str] = ()) -> Iterator[Finding]:
    """D22: pictures of two splits that look alike; where there are no splits, pictures that look alike.

    Each picture is named once, with the one it is most like.

    Args:
        dataset: that is checked.
        thumbs: (n, 32, 32) small copies of its pictures (``decoded.decode_all``).
        same: pictures that are known to be in two splits.
    """
    hashes = difference_hashes(thumbs)
    usable = np.flatnonzero(thumbs.reshape(-1, SIDE * SIDE).std(1) > LEAST_CONTRAST)
    pairs = [(a, b) for a, b in DISJOINT if a in dataset.splits and b in dataset.splits]
    for one, two in pairs:
        first, second = (np.intersect1d(dataset.splits[name], usable) for name in (one, two))
        common = np.intersect1d(first, second)  # D18 says that
        first, second = np.setdiff1d(first, common), np.setdiff1d(second, common)
        for i, j, likeness in alike(thumbs, hashes, first, second):
            if str(dataset.picture_path(j)) in same:
                continue
            where = f"in {two} looks like {dataset.pictures.paths[i]} in {one} (correlation {likeness:.3f})"
            action = "keep them in one split (--group-by); the measured AP is too good otherwise"
            yield _finding(dataset, (j, i), "warn", where, action)
    if not pairs:
        for i, j, likeness in alike(thumbs, hashes, usable, usable):
            where = f"looks like {dataset.pictures.paths[i]} (correlation {likeness:.3f})"
            action = "keep them in one split when you hold pictures out (--group-by)"
            yield _finding(dataset, (j, i), "note", where, action)


def _finding(dataset: Dataset, pair: tuple[int, int], severity: str, message: str, action: str) -> Finding:
    path, other = (str(dataset.picture_path(i)) for i in pair)
    level = "warn" if severity == "warn" else "note"
    return Finding("D22", level, message, path, 0, action, other=other)


def difference_hashes(thumbs: Thumbnails) -> Hashes:
    """(n,) the 64 bits of thumbnails (n, 32, 32): is a cell brighter than the one to its right, 8 rows of
    9 cells.
    """
    rows = thumbs.reshape(-1, 8, SIDE // 8, SIDE).mean(2)
    edges = np.linspace(0, SIDE, 10).round().astype(int)
    cells = np.stack([rows[:, :, a:b].mean(2) for a, b in pairwise(edges)], 2)
    bits = (cells[:, :, :-1] > cells[:, :, 1:]).reshape(-1, 64)
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


def alike(thumbs: Thumbnails, hashes: Hashes, first: Ints, second: Ints) -> Iterator[tuple[int, int, float]]:
    """For each of ``second`` that is like one of ``first``: the latter, itself, and their correlation.

    Where both are the same pictures, each is compared with those before it.
    """
    if not len(first) or not len(second):
        return
    same = np.array_equal(first, second)
    step = max(CHUNK // len(first), 1)
    for start in range(0, len(second), step):
        part = second[start : start + step]
        near = np.bitwise_count(hashes[part][:, None] ^ hashes[first]) <= MAX_BITS
        if same:
            near &= first < part[:, None]
        rows, columns = np.nonzero(near)
        if not len(rows):
            continue
        likeness = _correlations(thumbs, part[rows], first[columns])
        order = np.lexsort((columns, -likeness, rows))
        best = order[np.unique(rows[order], return_index=True)[1]]
        for at in best[likeness[best] >= LEAST_CORRELATION]:
            yield int(first[columns[at]]), int(part[rows[at]]), float(likeness[at])


def _correlations(thumbs: Thumbnails, one: Ints, two: Ints) -> NDArray[np.float64]:
    """Correlation of the gray values of each pair, some thousand pairs at a time."""
    found = [np.zeros(0)]
    for start in range(0, len(one), 4096):
        a, b = (
            thumbs[which[start : start + 4096]].reshape(-1, SIDE * SIDE).astype(np.float64)
            for which in (one, two)
        )
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        found.append((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)))
    return np.concatenate(found)
