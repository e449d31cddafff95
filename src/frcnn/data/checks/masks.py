"""Check of boxes against instance masks, where a data set has some: Penn-Fudan's ``PedMasks``.

Letters: g boxes of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from frcnn.data.checks.boxes import box_finding
from frcnn.data.findings import Finding
from frcnn.data.formats.layout import stem
from frcnn.data.sample import Bools, Dataset, Floats

MASKS = "PedMasks"
SLACK = 4.0
"""Pixels by which a side of a box may differ from its mask's."""


def check_masks(dataset: Dataset, usable: Bools) -> Iterator[Finding]:
    """D24: boxes with a side that differs from the tight box of their mask by more than 4 pixels.

    Object k of a record has the value k in the picture's mask. Masks that are missing, unreadable or of
    another size are left out, because nothing is trained on them.

    Args:
        dataset: that is checked; nothing is done where it has no masks.
        usable: (m,) bool, boxes that are looked at.
    """
    if not (dataset.root / MASKS).is_dir():
        return
    for i in range(len(dataset)):
        start, stop = dataset.objects.offsets[i : i + 2].tolist()
        tight = mask_boxes(dataset.root / MASKS / f"{stem(dataset.pictures.paths[i])}_mask.png", stop - start)
        boxes = dataset.objects.boxes[start:stop]
        off = np.abs(boxes - tight).max(1, initial=0)
        for k in np.flatnonzero(usable[start:stop] & np.isfinite(off) & (off > SLACK)):
            corners = ", ".join(f"{v:g}" for v in tight[k])
            what = f"differs from its mask, which is within ({corners}), by {off[k]:g} px"
            yield box_finding(dataset, (start + int(k),), "D24", "warn", what, "kept as it is; look at it")


def mask_boxes(path: Path, count: int) -> Floats:
    """(g, 4) the tight boxes of the values 1..g of a mask; infinite for values that it does not have, and
    where the file cannot be read.
    """
    none = np.full((count, 4), np.inf, np.float32)
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return none
    if values.ndim != 2 or not count:
        return none
    rows, columns = np.nonzero((values >= 1) & (values <= count))
    which = values[rows, columns].astype(np.int64) - 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    for axis, places in enumerate((columns, rows)):
        np.minimum.at(low[:, axis], which, places)
        np.maximum.at(high[:, axis], which, places + 1)
    found = np.concatenate([low, high], 1)
    return np.where(np.isfinite(found), found, np.inf).astype(np.float32)
