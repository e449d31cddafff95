"""One data set in another form: pictures and labels as COCO, Pascal VOC or YOLO.

What both forms hold comes back the same; what the new one does not hold is named with its number.

Letters: n pictures, m boxes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frcnn.config import DataConfig
from frcnn.data.checks.boxes import clip_to_pictures
from frcnn.data.open import open_dataset
from frcnn.data.sample import Bools, DataError, Dataset
from frcnn.files import write_text
from frcnn.labels import (
    FORMATS,
    CocoTable,
    LabelFormat,
    Labelled,
    voc_holds,
    voc_xml,
    yolo_text,
    yolo_yaml,
)
from frcnn.writers import OutputNames

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
UNSPLIT = "unsplit"
DIGITS, SHARE_DIGITS = 4, 9
_USUAL = ("train", "val", "test")


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        dataset: the pictures and boxes as they were written.
        target: the new form.
        folder: where it is.
        lost: what the new form does not hold, a sentence for every kind.
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
            *([f"{NAMES[self.target]} does not hold all of it:"] if self.lost else []),
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
        DataError: when the data cannot be read, listing everything that was found, or the folder is not
            empty; nothing is written then.
        ValueError: for an unknown form.
    """
    if to not in FORMATS:
        raise ValueError(f"unknown label format {to!r}; choose one of {', '.join(FORMATS)}")
    folder = Path(out)
    _check_folder(folder)
    if Path(data).is_dir():
        _check_apart(folder, Path(data))
    dataset = open_dataset(data, split, config=config)
    _check_apart(folder, dataset.root)
    if split is not None:
        dataset = replace(dataset, splits={split: np.arange(len(dataset))})
    dataset, lost = _holdable(dataset, to)
    homes, more = _homes(dataset, to)
    write = {"voc": _write_voc, "coco": _write_coco, "yolo": _write_yolo}[to]
    for done, _ in enumerate(write(dataset, folder, homes, link), 1):
        if progress is not None:
            progress(done, len(dataset))
    return Conversion(dataset, to, folder, (*lost, *_lost_flags(dataset, to), *more))


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


def _holdable(dataset: Dataset, to: LabelFormat) -> tuple[Dataset, list[str]]:
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


def _lost_flags(dataset: Dataset, to: LabelFormat) -> list[str]:
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


def _homes(dataset: Dataset, to: LabelFormat) -> tuple[list[str], list[str]]:
    """The one split of every picture ("" for none) for forms that have one folder for each, and what that
    loses.
    """
    if to == "voc":
        return [], []
    homes, lost = [""] * len(dataset), list[str]()
    order = [name for name in _USUAL if name in dataset.splits]
    for split in [*order, *(name for name in dataset.splits if name not in _USUAL)]:
        rows = dataset.splits[split].tolist()
        free = [i for i in rows if not homes[i]] if to == "coco" or split in _USUAL else []
        for i in free:
            homes[i] = split
        if len(free) < len(rows):
            why = (
                "its pictures are in other splits already"
                if to == "coco" or split in _USUAL
                else "it has train, val and test only"
            )
            lost.append(f'split "{split}": {len(rows) - len(free)} of {len(rows)} pictures not in it ({why})')
    missing = homes.count("")
    if missing and any(homes) and to == "coco":
        lost.append(f'{missing} pictures in no split: written as split "{UNSPLIT}"')
    elif missing == len(homes) and to == "yolo":
        lost.append('no splits: data.yaml calls all pictures "train"')
    return homes, lost


def _pictures(dataset: Dataset) -> Iterator[tuple[int, str, Labelled]]:
    """Position, new file name and boxes of every picture; names differ, also where the folders did."""
    names = OutputNames()
    for i, sample in enumerate(dataset):
        name = names.next(sample.path) + sample.path.suffix
        yield (
            i,
            name,
            Labelled(
                sample.boxes,
                sample.labels,
                dataset.classes,
                sample.size,
                name,
                difficult=sample.ignore & ~sample.crowd,
                crowd=sample.crowd,
                truncated=sample.truncated > 0,
                occluded=sample.occluded > 0,
            ),
        )


def _write_voc(dataset: Dataset, folder: Path, homes: list[str], link: bool) -> Iterator[None]:
    """The devkit: ``JPEGImages``, ``Annotations``, ``ImageSets/Main``."""
    del homes  # a picture may be in several lists
    stems: list[str] = []
    for i, name, picture in _pictures(dataset):
        stems.append(Path(name).stem)
        _place(dataset.picture_path(i), folder / "JPEGImages" / name, link)
        xml = voc_xml(replace(picture, folder="JPEGImages"), DIGITS)
        write_text(folder / "Annotations" / f"{stems[-1]}.xml", xml)
        yield
    for split, rows in dataset.splits.items():
        listed = "".join(f"{stems[i]}\n" for i in rows.tolist())
        write_text(folder / "ImageSets" / "Main" / f"{_plain(split)}.txt", listed)


def _write_coco(dataset: Dataset, folder: Path, homes: list[str], link: bool) -> Iterator[None]:
    """``annotations/instances_SPLIT.json`` beside ``SPLIT/``; without splits ``annotations.json`` and
    ``images/``.
    """
    tables: dict[str, CocoTable] = {}
    for i, name, picture in _pictures(dataset):
        home = _plain(homes[i] or (UNSPLIT if any(homes) else ""))
        table = tables.setdefault(home, CocoTable(dataset.classes, DIGITS))
        table.add(picture)
        _place(dataset.picture_path(i), folder / (home or "images") / name, link)
        yield
    for home, table in tables.items():
        file = f"annotations/instances_{home}.json" if home else "annotations.json"
        write_text(folder / file, table.text())


def _write_yolo(dataset: Dataset, folder: Path, homes: list[str], link: bool) -> Iterator[None]:
    """``images/SPLIT/``, ``labels/SPLIT/`` and ``data.yaml``."""
    for i, name, picture in _pictures(dataset):
        _place(dataset.picture_path(i), folder / "images" / homes[i] / name, link)
        write_text(folder / "labels" / homes[i] / f"{Path(name).stem}.txt", yolo_text(picture, SHARE_DIGITS))
        yield
    places = {split: f"images/{split}" for split in _USUAL if split in homes} or {"train": "images"}
    write_text(folder / "data.yaml", yolo_yaml(dataset.classes, places))


def _plain(split: str) -> str:
    """A split's name as that of a file."""
    return re.sub(r"[^\w-]+", "_", split)


def _place(source: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        shutil.copyfile(source, target)
        return
    try:
        os.link(os.path.realpath(source), target)
    except OSError as error:
        raise DataError(
            f"{target}: no hard link to {source} can be made ({error.strerror}); use --copy"
        ) from None
