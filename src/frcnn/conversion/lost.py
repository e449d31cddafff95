"""What a data set loses on its way into another form, in sentences with numbers.

Letters: m boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from frcnn.config import DataConfig
from frcnn.data.checks.boxes import clip_to_pictures
from frcnn.data.findings import TITLES, CheckReport, group_action
from frcnn.data.flags import ACTIONS
from frcnn.data.naming import new_names
from frcnn.data.sample import Bools, Dataset
from frcnn.labels import LabelFormat, voc_holds

SHOWN = 8
"""Classes that are named."""


def lost_in_reading(report: CheckReport) -> list[str]:
    """What the reader left out or changed, a line for every kind: it is in no form any more.

    Categories without a box are left out here, because their names are kept (``with_all_names``), and so are
    flagged boxes that stay flagged.
    """
    kept = [
        f
        for f in report.findings
        if f.code != "D08" and (f.code != "D20" or (f.kind and not f.action.startswith(ACTIONS["ignore"])))
    ]
    return [
        f"{group[0].code} {TITLES.get(group[0].code, '')} ({len(group)}): {group[0]}"
        + (f"; {group_action(group)}" if group[0].action else "")
        for group in report.groups(kept)
    ]


def with_all_names(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with those classes, too, that its files name and that have no box, unless ``data.classes``
    chooses.
    """
    unused = set(dataset.source_ids) - set(dataset.written)
    empty = set(new_names(unused, config.rename).values()) - set(dataset.classes)
    if config.classes or not empty:
        return dataset
    names = tuple(sorted({*dataset.classes, *empty}))
    place = np.asarray([*(names.index(name) for name in dataset.classes), -1], np.int32)  # -1 stays -1
    objects = replace(dataset.objects, labels=place[dataset.objects.labels])
    return replace(dataset, classes=names, objects=objects)


def holdable(dataset: Dataset, to: LabelFormat) -> tuple[Dataset, list[str]]:
    """The boxes that the new form can hold, and how many of which kind it cannot."""
    objects, lost, keep = dataset.objects, list[str](), np.ones(len(dataset.objects.boxes), bool)

    def leave_out(wrong: NDArray[np.generic] | np.generic, what: str) -> None:
        nonlocal keep
        if count := int(np.count_nonzero(wrong & keep)):
            lost.append(f"{count} {what}: left out")
        keep &= np.logical_not(wrong)

    leave_out(objects.labels < 0, "regions without a class (DontCare)")
    leave_out(~np.isfinite(objects.boxes).all(1), "boxes with a number that is not finite")
    if to == "voc":
        leave_out(~voc_holds(objects.boxes), "boxes with a side of up to 1 pixel")
    if to == "yolo":
        leave_out(objects.crowd, "crowd boxes, which are no objects")
        cut = clip_to_pictures(dataset)
        gone = (cut[:, 2:] <= cut[:, :2]).any(1) & (objects.boxes[:, 2:] > objects.boxes[:, :2]).all(1)
        leave_out(gone | (cut[:, 2:] < cut[:, :2]).any(1), "boxes outside their picture or inverted")
        if count := int(((cut != objects.boxes).any(1) & keep).sum()):
            lost.append(f"{count} boxes that reach over the border: cut there")
        objects = replace(objects, boxes=cut)
    return replace(dataset, objects=objects.keep(keep)), lost


def lost_flags(dataset: Dataset, to: LabelFormat) -> list[str]:
    """What is lost of the flags of boxes that are written, and what must be known to read them."""
    objects, lost = dataset.objects, list[str]()
    if not dataset.upright:
        lost.append("the boxes lie on the unrotated pictures: read it with --set data.exif=ignore, too")

    def count(mask: Bools, text: str) -> None:
        if mask.any():
            lost.append(f"{int(mask.sum())} {text}")

    if to == "voc":
        count(objects.crowd, "crowd boxes: written as difficult")
        part = (objects.truncated > 0) & (objects.truncated < 1)
        count(part, "boxes that are truncated in part: written as truncated")
        count(objects.occluded > 1, "boxes with a degree of occlusion: written as occluded")
        return lost
    if to == "yolo":
        count(objects.ignore, "difficult or ignored boxes: written as ordinary ones")
    count(objects.truncated > 0, "truncated boxes: the flag is dropped")
    count(objects.occluded > 0, "occluded boxes: the flag is dropped")
    return lost


def lost_names(dataset: Dataset, to: LabelFormat) -> list[str]:
    """The classes that no file of the new form names: Pascal VOC has names at boxes only."""
    if to != "voc":
        return []
    absent = [
        dataset.classes[k] for k in np.setdiff1d(np.arange(len(dataset.classes)), dataset.objects.labels)
    ]
    return [f"{len(absent)} classes without a box: {_some(absent)}: not named any more"] if absent else []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
