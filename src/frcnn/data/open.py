"""Open a data set: find out its format, read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from frcnn.config import DataConfig
from frcnn.data import coco, kitti, pennfudan, voc
from frcnn.data.assemble import Reading, assemble
from frcnn.data.findings import CheckReport, Finding
from frcnn.data.layout import Tree, scan
from frcnn.data.sample import DataError, Dataset


class Format(NamedTuple):
    """A kind of data set: whether a folder looks like it, and how it is read."""

    name: str
    detects: Callable[[Tree], bool]
    read: Callable[[Tree], Reading]


FORMATS = [
    Format("KITTI", kitti.detects, kitti.read),
    Format("Penn-Fudan", pennfudan.detects, pennfudan.read),
    Format("Pascal VOC", voc.detects, voc.read),
    Format("COCO", coco.detects, coco.read),
]
"""In the order in which they are tried: those with folders of their own first."""


def read_dataset(
    path: str | Path, classes: str | Sequence[str] | None = None, config: DataConfig | None = None
) -> tuple[Dataset, list[Finding]]:
    """Read a whole data set and everything that was found while reading; see ``check.load_checked`` for the
    checked one.

    Raises:
        DataError: when there is no folder, no picture, or no annotation of a known format.
    """
    tree = scan(path)
    if not tree.files:
        raise DataError(
            f"{path}: the folder is empty; give the folder that holds the pictures and annotations"
        )
    kinds = [kind for kind in FORMATS if kind.detects(tree)]
    if kinds:
        dataset, findings = assemble(kinds[0].read(tree), classes, config)
        return dataset, [*findings, *_other_formats(kinds, tree)]
    if not tree.pictures:
        raise DataError(f"{path}: no pictures and no annotations here; give the folder that holds both")
    known = ", ".join(kind.name for kind in FORMATS)
    raise DataError(
        f"{path}: holds pictures ({len(tree.pictures)}) and no annotations of a known format ({known}); "
        "give the folder that holds the pictures and their annotations"
    )


def _other_formats(kinds: Sequence[Format], tree: Tree) -> list[Finding]:
    """A note where a folder looks like several formats."""
    if len(kinds) == 1:
        return []
    others = " and ".join(kind.name for kind in kinds[1:])
    message = f"holds {kinds[0].name} and {others} annotations"
    return [Finding("D09", "note", message, str(tree.root), 0, f"only {kinds[0].name} is read")]


def open_dataset(
    path: str | Path,
    split: str | None = None,
    classes: str | Sequence[str] | None = None,
    config: DataConfig | None = None,
) -> Dataset:
    """Open a data set for looking at it; boxes are as annotated, bad ones too.

    Args:
        path: folder of a data set in a known format (found out by itself).
        split: one of its splits; None: all pictures.
        classes: the class list; None: the sorted names of all annotations, whatever the split.
        config: policies; None: the defaults.

    Returns:
        The data set; ``d[i]`` is a ``Sample``.

    Raises:
        DataError: when something is missing or cannot be read, with file and line of everything that was
        found; for a split that does not exist or is empty.
    """
    config = config or DataConfig()
    dataset, findings = read_dataset(path, classes, config)
    whole = dataset
    if split is not None:
        dataset = pick_split(dataset, split)
    CheckReport(
        str(path), tuple(relevant(findings, whole, dataset, [split] if split else None))
    ).raise_errors()
    readable = np.flatnonzero(dataset.pictures.sizes.all(1))
    return dataset if len(readable) == len(dataset) else dataset.subset(readable)


def pick_split(dataset: Dataset, split: str) -> Dataset:
    """The pictures of a split.

    Raises:
        DataError: when it does not exist or is empty.
    """
    picked = dataset.subset(split)
    if not len(picked):
        raise DataError(
            f'D17 {dataset.root}: split "{split}" is empty; list pictures in it or name another split'
        )
    return picked


def relevant(
    findings: Sequence[Finding], whole: Dataset, picked: Dataset, splits: Sequence[str] | None
) -> list[Finding]:
    """The findings that concern the picked pictures or no picture in particular.

    Args:
        findings: of the whole data set.
        whole: the whole data set.
        picked: the pictures that are used.
        splits: names of the splits in use; None: all.
    """
    if len(picked) == len(whole):
        others: set[str] = set()
    else:
        others = _files(whole) - _files(picked)
    return [
        f
        for f in findings
        if f.path not in others and (splits is None or not f.splits or set(f.splits) & set(splits))
    ]


def _files(dataset: Dataset) -> set[str]:
    pictures = dataset.pictures
    return {
        str(dataset.root / name) for part in (pictures.paths, pictures.annotations) for name in part if name
    }
