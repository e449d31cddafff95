"""Checks of class names and of what the splits hold: spelling, classes without boxes, splits without
pictures.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np

from frcnn.config import DataConfig
from frcnn.data.checks.boxes import BoxFaults
from frcnn.data.findings import Finding, Severity
from frcnn.data.sample import Bools, Dataset, Ints

RARE_SHARE = 0.05
NEAR = 0.84
"""Likeness of two names (difflib) from which a rare one is taken for a slip of the other."""
TINY = "below 1 pixel at the training size"
"""Why boxes are lost to training only."""


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


def lost_boxes(
    dataset: Dataset, faults: BoxFaults, data: DataConfig, unread: Container[str] = ()
) -> dict[str, Bools]:
    """The boxes that no object is learnt from, (m,) bool for every reason; a box stands under its first one.

    Boxes that are errors are not lost: they are to be mended.

    Args:
        dataset: that is checked.
        faults: of its boxes.
        data: the policies.
        unread: files of the pictures that cannot be read.
    """
    objects = dataset.objects
    drop, none = data.bad_boxes == "drop", np.zeros(len(objects.boxes), bool)
    gone = np.zeros(len(dataset), bool)
    if unread and data.on_bad_image == "skip":
        gone[:] = [str(dataset.picture_path(i)) in unread for i in range(len(dataset))]
    reasons = {
        "on pictures that cannot be read": gone[objects.owners()],
        "without area": faults.no_area if drop else none,
        "outside their pictures": faults.outside if drop else none,
        TINY: faults.tiny,
        "to ignore": objects.ignore,
    }
    lost: dict[str, Bools] = {}
    seen = none.copy()
    for reason, mask in reasons.items():
        lost[reason] = mask & ~seen
        seen |= mask
    return lost


def check_split_contents(
    dataset: Dataset,
    lost: Mapping[str, Bools],
    absent: Severity = "error",
    left_out: Sequence[str] = (),
) -> Iterator[Finding]:
    """D08 and D17: classes without a box in the training or evaluation pictures, training pictures without
    any, and splits without a picture.

    Args:
        dataset: that is checked.
        lost: boxes that do not count, by reason (``lost_boxes``).
        absent: how grave it is that something cannot be learnt.
        left_out: what is to be said of classes whose boxes are not used.
    """
    if not dataset.classes or not len(dataset):
        message = "; ".join((f"no object in any of {len(dataset)} pictures", *left_out))
        action = "check that the annotations belong to these pictures"
        yield Finding("D17", "error", message, str(dataset.root), 0, action)
        return
    for name, rows in dataset.splits.items():
        if not len(rows):
            action = "list pictures in it, or remove it"
            yield Finding("D17", "error", f'split "{name}" is empty', str(dataset.root), 0, action, (name,))
    usual = [name for name in ("train", "val", "test") if len(dataset.splits.get(name, ()))]
    for name in usual or [""]:
        learnt = name in ("train", "")
        here = _boxes_of(dataset, name)
        gone = {reason: mask for reason, mask in lost.items() if learnt or reason != TINY}
        left = here & ~np.logical_or.reduce(list(gone.values()))
        severity: Severity = absent if name == "train" else "warn"
        if learnt and not left.any() and (here.any() or left_out):
            counts = {reason: int((mask & here).sum()) for reason, mask in gone.items()}
            yield _nothing_left(dataset, name, severity, [tally(counts, int(here.sum())), *left_out])
        else:
            yield from _without_boxes(dataset, name, severity, left, gone)


def tally(lost: Mapping[str, int], boxes: int) -> str:
    """How many of so many boxes each reason takes: ``of 9 boxes 2 without area, 7 to ignore``; "": none."""
    taken = ", ".join(f"{count} {reason}" for reason, count in lost.items() if count)
    return f"of {boxes} boxes {taken}" if taken else ""


def _boxes_of(dataset: Dataset, split: str) -> Bools:
    """(m,) bool: the boxes of a split; "": all."""
    owners = dataset.objects.owners()
    return np.isin(owners, dataset.splits[split]) if split else np.ones(len(owners), bool)


def _nothing_left(dataset: Dataset, split: str, severity: Severity, reasons: Sequence[str]) -> Finding:
    where = f' in split "{split}"' if split else ""
    message = f"no object is left to learn from{where}: " + "; ".join(filter(None, reasons))
    action = "mend these boxes or files, train at a larger size, or change what leaves them out"
    return Finding("D17", severity, message, str(dataset.root), 0, action, (split,) if split else ())


def _without_boxes(
    dataset: Dataset, split: str, severity: Severity, left: Bools, lost: Mapping[str, Bools]
) -> Iterator[Finding]:
    """D08 for every class that none of the boxes ``left`` (m,) shows."""
    where = f' in split "{split}"' if split else ""
    action = "its AP is printed as n/a"
    if split == "train":
        action = (
            "it cannot be learnt: add pictures with it to the training pictures, or rename its annotations"
        )
    here = _boxes_of(dataset, split)
    boxes, counts = _by_class(dataset, here), _by_class(dataset, left)
    gone = {reason: _by_class(dataset, mask & here) for reason, mask in lost.items()}
    for label in np.flatnonzero(counts == 0):
        why = tally({reason: int(taken[label]) for reason, taken in gone.items()}, int(boxes[label]))
        message = f'class "{dataset.classes[label]}" has no box{where}'
        message += f" that counts: {why}" if why else ""
        yield Finding("D08", severity, message, "", 0, action, (split,) if split else ())


def _by_class(dataset: Dataset, which: Bools) -> Ints:
    """(K,) how many of the boxes ``which`` (m,) each class has."""
    labels = dataset.objects.labels[which]
    return np.bincount(labels[labels >= 0], minlength=len(dataset.classes))
