"""The files of a data set in another form: where its pictures go, and labels beside them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from frcnn.data.formats.coco import split_said
from frcnn.data.sample import DataError, Dataset
from frcnn.files import write_text
from frcnn.labels import CocoTable, LabelFormat, Labelled, voc_xml, yolo_text, yolo_yaml
from frcnn.writers import OutputNames

UNSPLIT = "unsplit"
DIGITS, SHARE_DIGITS = 4, 9
_USUAL = ("train", "val", "test")
_NO_TEXT = re.compile(r"[\udc80-\udcff]")
"""Bytes of a file name that are no UTF-8, as Python has them in its text."""


@dataclass(frozen=True)
class Places:
    """Where pictures go.

    Attributes:
        homes: the one split of every picture, "" for none; empty for a form whose splits are lists.
        files: what every split is called in file names.
    """

    homes: list[str] = field(default_factory=list)
    files: Mapping[str, str] = field(default_factory=dict)


def places(dataset: Dataset, to: LabelFormat) -> tuple[Places, list[str]]:
    """Where the pictures go, and what is lost of splits and file names."""
    homes, lost = (list[str](), list[str]()) if to == "voc" else _homes(dataset, to)
    if to == "coco" and any(homes):
        homes = [home or UNSPLIT for home in homes]
    files = _file_names(dataset.splits if to == "voc" else dict.fromkeys(filter(None, homes)))
    if to == "voc":
        lost += [f'split "{split}": its list is {name}.txt' for split, name in files.items() if name != split]
    if to == "coco":
        lost += _read_otherwise(files)
    odd = sum(bool(_NO_TEXT.search(Path(path).name)) for path in dataset.pictures.paths)
    if odd:
        lost.append(
            f"{odd} pictures with bytes in their names that are no UTF-8: written as %E9 and the like"
        )
    return Places(homes, files), lost


def _homes(dataset: Dataset, to: LabelFormat) -> tuple[list[str], list[str]]:
    """The one split of every picture, and what that loses."""
    homes, lost = [""] * len(dataset), list[str]()
    order = [name for name in _USUAL if name in dataset.splits]
    for split in [*order, *(name for name in dataset.splits if name not in _USUAL)]:
        rows = dataset.splits[split].tolist()
        free = [i for i in rows if not homes[i]] if to == "coco" or split in _USUAL else []
        for i in free:
            homes[i] = split
        if len(free) < len(rows):
            why = (
                "they are in other splits already"
                if to == "coco" or split in _USUAL
                else "YOLO has train, val and test only"
            )
            lost.append(f'split "{split}": {len(rows) - len(free)} of {len(rows)} pictures left out ({why})')
    missing = homes.count("")
    if missing and any(homes) and to == "coco":
        lost.append(f'{missing} pictures in no split: written as split "{UNSPLIT}"')
    elif missing == len(homes) and to == "yolo":
        lost.append('no splits: data.yaml calls all pictures "train"')
    return homes, lost


def _file_names(splits: Iterable[str]) -> dict[str, str]:
    """For every split a name that files can have, different also where case does not count."""
    names: dict[str, str] = {}
    for split in splits:
        plain = name = re.sub(r"[^\w-]+", "_", split)
        taken, number = {other.casefold() for other in names.values()}, 2
        while name.casefold() in taken:
            name, number = f"{plain}_{number}", number + 1
        names[split] = name
    return names


def _read_otherwise(files: Mapping[str, str]) -> list[str]:
    """The splits that are others when the COCO files are read: that is told by words in their names."""
    lost: list[str] = []
    for split, name in files.items():
        file = f"instances_{name}.json"
        again = split_said(f"annotations/{file}", alone=len(files) == 1)
        if again != split:
            said = f'is read as split "{again}"' if again else "alone is read as no split"
            lost.append(f'split "{split}": {file} {said}')
    return lost


def _pictures(dataset: Dataset) -> Iterator[tuple[int, str, Labelled]]:
    """Position, new file name and boxes of every picture; names differ, also where the folders did."""
    names = OutputNames()
    for i, sample in enumerate(dataset):
        plain = sample.path.with_name(_as_text(sample.path.name))
        name = names.next(plain) + plain.suffix
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


def _as_text(name: str) -> str:
    """A file name that label files can hold."""
    return _NO_TEXT.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)


def write_voc(dataset: Dataset, folder: Path, where: Places, link: bool) -> Iterator[None]:
    """The devkit: ``JPEGImages``, ``Annotations``, ``ImageSets/Main``."""
    stems: list[str] = []
    for i, name, picture in _pictures(dataset):
        stems.append(Path(name).stem)
        _place(dataset.picture_path(i), folder / "JPEGImages" / name, link)
        xml = voc_xml(replace(picture, folder="JPEGImages"), DIGITS)
        write_text(folder / "Annotations" / f"{stems[-1]}.xml", xml)
        yield
    for split, rows in dataset.splits.items():
        listed = "".join(f"{stems[i]}\n" for i in rows.tolist())
        write_text(folder / "ImageSets" / "Main" / f"{where.files[split]}.txt", listed)


def write_coco(dataset: Dataset, folder: Path, where: Places, link: bool) -> Iterator[None]:
    """``annotations/instances_SPLIT.json`` beside ``SPLIT/``; without splits ``annotations.json`` and
    ``images/``.
    """
    tables: dict[str, CocoTable] = {}
    for i, name, picture in _pictures(dataset):
        home = where.files.get(where.homes[i], "")
        table = tables.setdefault(home, CocoTable(dataset.classes, DIGITS))
        table.add(picture)
        _place(dataset.picture_path(i), folder / (home or "images") / name, link)
        yield
    for home, table in tables.items():
        file = f"annotations/instances_{home}.json" if home else "annotations.json"
        write_text(folder / file, table.text())


def write_yolo(dataset: Dataset, folder: Path, where: Places, link: bool) -> Iterator[None]:
    """``images/SPLIT/``, ``labels/SPLIT/`` and ``data.yaml``."""
    homes = where.homes
    for i, name, picture in _pictures(dataset):
        _place(dataset.picture_path(i), folder / "images" / homes[i] / name, link)
        write_text(folder / "labels" / homes[i] / f"{Path(name).stem}.txt", yolo_text(picture, SHARE_DIGITS))
        yield
    splits = {split: f"images/{split}" for split in _USUAL if split in homes} or {"train": "images"}
    write_text(folder / "data.yaml", yolo_yaml(dataset.classes, splits))


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
