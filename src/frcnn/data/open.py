"""Open a data set: find out its format, read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from frcnn.config import DataConfig
from frcnn.config.data import FormatChoice
from frcnn.data.findings import CheckReport, Finding, Severity
from frcnn.data.formats import coco, csvfile, kitti, labelme, pennfudan, voc, yolo
from frcnn.data.formats.assemble import Reading, assemble
from frcnn.data.formats.layout import WHOLE, Tree, scan
from frcnn.data.sample import DataError, Dataset


class Format(NamedTuple):
    """A kind of data set: its name and key, what a folder of it looks like, and how it is read."""

    name: str
    key: FormatChoice
    looks_like: str
    detects: Callable[[Tree], bool]
    read: Callable[[Tree], Reading]


FORMATS = [
    Format("KITTI", "kitti", "label_2/*.txt beside image_2/", kitti.detects, kitti.read),
    Format("Penn-Fudan", "pennfudan", "Annotation/*.txt and PNGImages/", pennfudan.detects, pennfudan.read),
    Format("Pascal VOC", "voc", "*.xml", voc.detects, voc.read),
    Format("COCO", "coco", "*.json with images, annotations and categories", coco.detects, coco.read),
    Format("YOLO", "yolo", "data.yaml, *.data, or labels/*.txt beside images/", yolo.detects, yolo.read),
    Format("LabelMe", "labelme", "*.json with shapes", labelme.detects, labelme.read),
    Format("CSV", "csv", "*.csv with columns for path, box and class", csvfile.detects, csvfile.read),
]


def read_dataset(
    path: str | Path,
    classes: str | Sequence[str] | None = None,
    config: DataConfig | None = None,
    absent: Severity = "error",
) -> tuple[Dataset, list[Finding]]:
    """Read a whole data set and everything that was found while reading; see ``check.load_checked`` for the
    checked one.

    Args:
        path: its folder, or the file that describes it: ``data.yaml``, a COCO file, a table.
        classes: the class list; None: ``data.classes``, or the names of all annotations.
        config: how it is read; None: the defaults.
        absent: how grave a class is that is asked for and that the annotations do not have.

    Raises:
        DataError: when there is no folder, no picture, no annotation of a known format, or annotations of
            several formats.
    """
    config = config or DataConfig()
    tree = scan(path, config.links)
    if not tree.files:
        if tree.outward:
            finding = _outward(tree)[0]
            raise DataError(f"{finding}; {finding.action}")
        raise DataError(
            f"{path}: the folder is empty; give the folder that holds the pictures and annotations"
        )
    outward = _outward(tree)
    try:
        kind, findings = choose_format(tree, config.format)
        dataset, found = assemble(kind.read(tree), classes, config, absent)
    except DataError as error:
        if not outward:
            raise
        # what is missing may be what was not followed
        links = f"{len(outward)} links lead out of it, the first {outward[0]}; {outward[0].action}"
        raise DataError(f"{error}\n{links}") from error
    return replace(dataset, format=kind.name), [*found, *findings, *outward]


def choose_format(tree: Tree, wanted: FormatChoice = "auto") -> tuple[Format, list[Finding]]:
    """The format of a data set, and a note where it is not the wanted one.

    Args:
        tree: its files.
        wanted: ``data.format``, which decides between several.

    Raises:
        DataError: when it looks like none, or like several and none of them is wanted.
    """
    if tree.only:
        return _named(tree), []
    kinds = [kind for kind in FORMATS if kind.detects(tree)]
    chosen = [kind for kind in kinds if kind.key == wanted]
    if len(kinds) == 1 and not chosen and wanted != "auto":
        message = f"data.format={wanted} has no effect: {kinds[0].name} is all that is here"
        return kinds[0], [Finding("D09", "note", message, str(tree.root), 0, f"{kinds[0].name} is read")]
    if len(kinds) == 1:
        return kinds[0], []
    if chosen:
        others = " and ".join(kind.name for kind in kinds if kind.key != wanted)
        message = f"holds {others} annotations, too"
        return chosen[0], [
            Finding("D09", "note", message, str(tree.root), 0, f"only {chosen[0].name} is read")
        ]
    if kinds:
        found = " and ".join(f"{kind.name} ({kind.looks_like})" for kind in kinds)
        choices = " or ".join(f"--set data.format={kind.key}" for kind in kinds)
        raise DataError(
            f"{tree.root}: may be {found}; say which one to read with {choices}, or give the folder of one"
        )
    looked = ", ".join(f"{kind.name} ({kind.looks_like})" for kind in FORMATS)
    if not tree.pictures:
        raise DataError(
            f"{tree.root}: no pictures and no annotations here; looked for {looked}; give the folder that "
            "holds both"
        )
    raise DataError(
        f"{tree.root}: holds pictures ({len(tree.pictures)}) and no annotations of a known format; looked "
        f"for {looked}; give the folder that holds the pictures and their annotations"
    )


def _named(tree: Tree) -> Format:
    """The format of the file that was given in place of a folder."""
    place, ending = tree.root / tree.only, Path(tree.only).suffix.lower()
    if tree.only not in tree.files:
        raise DataError(
            f"{place}: hidden files, and links that lead out of the folder, are not read; give another file"
        )
    kind = next(kind for kind in FORMATS if kind.key == WHOLE[ending])
    if not kind.detects(replace(tree, files=(*tree.pictures, tree.only))):
        raise DataError(
            f"{place}: is no {kind.name} file ({kind.looks_like}), or there are no pictures below "
            f"{tree.root}; give the folder that holds the pictures and annotations"
        )
    return kind


def _outward(tree: Tree) -> list[Finding]:
    """Links that lead out of the data set, which are not followed."""
    action = "copy it here, make it a hard link, or allow such links with --set data.links=follow"
    return [
        Finding("D12", "error", f"is a link to {os.path.realpath(tree.root / name)}, outside the data set",
                str(tree.root / name), 0, action)
        for name in tree.outward
    ]  # fmt: skip


def open_dataset(
    path: str | Path,
    split: str | None = None,
    classes: str | Sequence[str] | None = None,
    config: DataConfig | None = None,
    absent: Severity = "error",
) -> Dataset:
    """Open a data set for looking at it; boxes are as annotated, bad ones too.

    Args:
        path: folder of a data set in a known format (found out by itself), or the file that describes it:
            ``data.yaml``, a COCO file, a table.
        split: one of its splits; None: all pictures.
        classes: the class list; None: the sorted names of all annotations, whatever the split.
        config: policies; None: the defaults.
        absent: how grave a class is that is asked for and that the annotations do not have.

    Returns:
        The data set; ``d[i]`` is a ``Sample``, ``d.format`` says what was found.

    Raises:
        DataError: when something is missing or cannot be read, with file and line of everything that was
        found; for a split that does not exist or is empty.
    """
    dataset, findings = read_split(path, split, classes, config, absent)
    CheckReport(str(path), tuple(findings)).raise_errors()
    return readable(dataset)


def read_split(
    path: str | Path,
    split: str | None = None,
    classes: str | Sequence[str] | None = None,
    config: DataConfig | None = None,
    absent: Severity = "error",
) -> tuple[Dataset, list[Finding]]:
    """As ``open_dataset``, with the findings that concern the chosen pictures, errors too, and with pictures
    that cannot be read.

    Raises:
        DataError: as ``read_dataset``; for a split that does not exist or is empty.
    """
    whole, findings = read_dataset(path, classes, config, absent)
    dataset = whole if split is None else pick_split(whole, split)
    return dataset, relevant(findings, whole, dataset, [split] if split else None)


def readable(dataset: Dataset) -> Dataset:
    """Without the pictures whose headers cannot be read."""
    known = np.flatnonzero(dataset.pictures.sizes.all(1))
    return dataset if len(known) == len(dataset) else dataset.subset(known)


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
