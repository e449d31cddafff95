"""Checks of class names and of what the splits hold: spelling, classes without boxes, splits without
pictures.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

import numpy as np

from frcnn.data.findings import Finding, Severity
from frcnn.data.sample import Dataset

RARE_SHARE = 0.05
NEAR = 0.84
"""Likeness of two names (difflib) from which a rare one is taken for a slip of the other."""


def check_names(dataset: Dataset) -> Iterator[Finding]:
    """D07: names that differ in case or separators only, and rare names that look like a slip of a frequent
    one.
    """
    counts = dataset.class_counts()
    by_shape: dict[str, int] = {}
    for label in np.argsort(-counts, kind="stable").tolist():
        name = dataset.classes[label]
        shape = re.sub(r"[\s_-]+", "", name).casefold()
        twin = by_shape.setdefault(shape, label)
        if twin != label:
            yield from _at_boxes(
                dataset, label, f'class "{name}" and class "{dataset.classes[twin]}" differ in spelling only'
            )
            continue
        common = [n for n, c in zip(dataset.classes, counts, strict=True) if counts[label] < RARE_SHARE * c]
        # "part1" and "part2" are meant
        common = [n for n in common if re.sub(r"\d+", "", n) != re.sub(r"\d+", "", name)]
        near = difflib.get_close_matches(name, common, 1, NEAR) if counts[label] else []
        if near:
            yield from _at_boxes(dataset, label, f'class "{name}" is rare; did you mean "{near[0]}"?')


def _at_boxes(dataset: Dataset, label: int, message: str) -> Iterator[Finding]:
    action = "kept as classes of their own; rename one if they are the same"
    rows = np.flatnonzero(dataset.objects.labels == label)
    owner = dataset.objects.owners()
    if not len(rows):
        yield Finding("D07", "warn", message, action=action)
    for row in rows:
        path = str(dataset.annotation_path(int(owner[row])) or "")
        line = int(dataset.objects.lines[row])
        yield Finding("D07", "warn", message, path, line, action, rows=(int(row),))


def check_split_contents(dataset: Dataset) -> Iterator[Finding]:
    """D08 and D17: classes without a box in the training or evaluation pictures, and splits without a
    picture.
    """
    if not dataset.classes or not len(dataset):
        action = "check that the annotations belong to these pictures"
        yield Finding(
            "D17", "error", f"no object in any of {len(dataset)} pictures", str(dataset.root), 0, action
        )
        return
    for name, rows in dataset.splits.items():
        if not len(rows):
            action = "list pictures in it, or remove it"
            yield Finding("D17", "error", f'split "{name}" is empty', str(dataset.root), 0, action, (name,))
    usual = [name for name in ("train", "val", "test") if len(dataset.splits.get(name, ()))]
    for name in usual:
        yield from _without_boxes(dataset.subset(name), name)
    if not usual:
        yield from _without_boxes(dataset, "")


def _without_boxes(part: Dataset, split: str) -> Iterator[Finding]:
    where = f' in split "{split}"' if split else ""
    severity: Severity = "error" if split == "train" else "warn"
    action = "its AP is printed as n/a"
    if split == "train":
        action = (
            "it cannot be learnt: add pictures with it to the training pictures, or rename its annotations"
        )
    for label in np.flatnonzero(part.class_counts() == 0):
        message = f'class "{part.classes[label]}" has no box{where}'
        yield Finding("D08", severity, message, "", 0, action, (split,) if split else ())
