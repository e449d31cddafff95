"""One data set in another form: pictures and labels as COCO, Pascal VOC or YOLO.

What both forms hold comes back the same; what the new one does not hold is named with its number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from frcnn.config import DataConfig
from frcnn.conversion.lost import holdable, lost_flags, lost_in_reading, lost_names, with_all_names
from frcnn.conversion.write import places, write_coco, write_voc, write_yolo
from frcnn.data.checks.files import check_sizes
from frcnn.data.findings import CheckReport
from frcnn.data.open import read_split, readable
from frcnn.data.sample import DataError, Dataset
from frcnn.labels import FORMATS, LabelFormat

NAMES: dict[str, str] = {"voc": "Pascal VOC", "coco": "COCO", "yolo": "YOLO"}
NOT_READ = {
    "COCO": "segmentation, key points, supercategories",
    "KITTI": "3D boxes and angles",
    "LabelMe": "outlines and other shapes than their boxes",
    "Pascal VOC": "poses and parts",
    "Penn-Fudan": "masks",
    "YOLO": "outlines and key points",
}
"""What a format may hold that no data set in memory has."""


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        dataset: the pictures and boxes as they were written.
        target: the new form.
        folder: where it is.
        lost: what was left out or changed, because reading did or the new form does not hold it, a sentence
            for every kind.
    """

    dataset: Dataset
    target: LabelFormat
    folder: Path
    lost: tuple[str, ...]

    def format(self) -> str:
        """Text for a terminal."""
        data = self.dataset
        splits = ", ".join(f"{name} {len(rows)}" for name, rows in data.splits.items())
        lines = [
            f"{data.format} -> {NAMES[self.target]}: {len(data)} pictures, {len(data.objects.boxes)} boxes, "
            f"{len(data.classes)} classes; splits: {splits or 'none'}",
            *(["left out or changed:"] if self.lost else []),
            *(f"    {line}" for line in self.lost),
        ]
        if data.format in NOT_READ:
            lines.append(f"not read, and so not written: {NOT_READ[data.format]}")
        return "\n".join([*lines, f"written: {self.folder}"])


def convert(
    data: str | Path,
    out: str | Path,
    to: LabelFormat,
    *,
    split: str | None = None,
    link: bool = False,
    config: DataConfig | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Conversion:
    """Write a data set in another form.

    Args:
        data: folder of a data set in a known format.
        out: a new or empty folder outside ``data``.
        to: ``voc``, ``yolo`` or ``coco``.
        split: write this split only; None: all pictures.
        link: make hard links to the pictures instead of copies.
        config: how the data set is read: names, flags, policies; None: the defaults.
        progress: called with the number of pictures done, and of all.

    Raises:
        DataError: when the data cannot be read, or state another size than the pictures have, listing
            everything that was found; or when the folder is not empty. Nothing is written then.
        ValueError: for an unknown form.
    """
    if to not in FORMATS:
        raise ValueError(f"unknown label format {to!r}; choose one of {', '.join(FORMATS)}")
    folder, config = Path(out), config or DataConfig()
    _check_folder(folder)
    if Path(data).is_dir():
        _check_apart(folder, Path(data))
    dataset, found = read_split(data, split, config=config)
    # the size is written anew, so boxes that were drawn at another one could not be told any more
    report = CheckReport(str(data), (*found, *check_sizes(dataset)))
    report.raise_errors()
    dataset = with_all_names(readable(dataset), config)
    _check_apart(folder, dataset.root)
    if split is not None:
        dataset = replace(dataset, splits={split: np.arange(len(dataset))})
    dataset, lost = holdable(dataset, to)
    where, more = places(dataset, to)
    write = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}[to]
    for done, _ in enumerate(write(dataset, folder, where, link), 1):
        if progress is not None:
            progress(done, len(dataset))
    lost += [*lost_flags(dataset, to), *lost_names(dataset, to), *more]
    return Conversion(dataset, to, folder, (*lost_in_reading(report), *lost))


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty; give a folder that is new or empty")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; give a folder that is new or empty")


def _check_apart(folder: Path, data: Path) -> None:
    if folder.resolve().is_relative_to(data.resolve()):
        raise DataError(
            f"{folder}: lies inside the data set {data}, which would then hold two; give a folder outside"
        )
