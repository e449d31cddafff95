"""Which picture and which boxes of a data set a finding is about.

Letters: n pictures, m boxes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from frcnn.data.findings import Finding
from frcnn.data.sample import Dataset, Ints


class Place(NamedTuple):
    """Where a finding lies in a data set.

    Attributes:
        picture: its position; -1: no picture, or no single one.
        rows: positions of the boxes it is about, the one in question first.
        splits: those it concerns.
        other: position of a second picture that it is about; -1: none.
    """

    picture: int
    rows: tuple[int, ...]
    splits: tuple[str, ...]
    other: int = -1


def locate(dataset: Dataset, findings: Sequence[Finding]) -> list[Place]:
    """The place of every finding: by the boxes that it names, else by its file and line."""
    pictures = {str(dataset.picture_path(i)): i for i in range(len(dataset))} if findings else {}
    annotated = defaultdict[str, list[int]](list)
    for i in range(len(dataset)) if findings else ():
        path = dataset.annotation_path(i)
        if path is not None:
            annotated[str(path)].append(i)
    rows_of: dict[str, dict[int, int]] = {}
    membership = _membership(dataset)
    places: list[Place] = []
    for item in findings:
        picture, rows = pictures.get(item.path, -1), item.rows
        members = annotated.get(item.path, [])
        if not rows and item.line and members:
            if item.path not in rows_of:
                rows_of[item.path] = _rows_by_line(dataset, members)
            row = rows_of[item.path].get(item.line)
            rows = () if row is None else (row,)
        if rows:
            picture = int(np.searchsorted(dataset.objects.offsets, rows[0], "right")) - 1
        elif picture < 0 and len(members) == 1:
            picture = members[0]
        other = pictures.get(item.other, -1)
        if picture < 0:
            picture = other
        splits = item.splits or tuple(name for name, inside in membership if picture >= 0 and inside[picture])
        places.append(Place(picture, rows, splits, -1 if other == picture else other))
    return places


def _membership(dataset: Dataset) -> list[tuple[str, np.ndarray]]:
    """For every split (n,) bool, which pictures are in it."""
    return [(name, np.isin(np.arange(len(dataset)), rows)) for name, rows in dataset.splits.items()]


def _rows_by_line(dataset: Dataset, pictures: Sequence[int]) -> dict[int, int]:
    """Box by line of one annotation file, for its pictures; lines that have several boxes are left out."""
    offsets = dataset.objects.offsets
    parts = [np.arange(offsets[i], offsets[i + 1]) for i in pictures]
    rows: Ints = np.concatenate([np.zeros(0, np.int64), *parts])
    lines, first, times = np.unique(dataset.objects.lines[rows], return_index=True, return_counts=True)
    alone = times == 1
    return dict(zip(lines[alone].tolist(), rows[first[alone]].tolist(), strict=True))
