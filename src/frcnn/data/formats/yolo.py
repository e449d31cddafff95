"""YOLO: one text file for each picture, with a class number and shares of the picture's sides in every row.

Read are Ultralytics' layout (``data.yaml`` with ``names`` and train, val, test as folder, list of folders or
list file), Darknet's (``.data``, ``.names`` and list files), and folders without any such file. The labels of
``images/a.jpg`` are ``labels/a.txt`` (the last folder called images or JPEGImages counts), else ``a.txt``
beside it, else the label file of the same name. A picture without one is background.

A row is class, centre x, centre y, width, height. A row of a polygon (class and at least three points) is
read as its bounding box. Where there is no ``names``, ``classes.txt`` or ``*.names`` has them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frcnn.data.findings import Finding, Problem
from frcnn.data.formats.assemble import Reading, Record
from frcnn.data.formats.layout import Tree, base_name, read_lines
from frcnn.data.formats.pairing import PictureIndex, picture_of
from frcnn.data.formats.yolosetup import (
    IN_LABELS,
    LISTS,
    ClassNames,
    class_names,
    lines_of,
    read_setup,
    setup_files,
    splits_of,
)
from frcnn.data.formats.yolotext import Labels, looks_like_labels, parse_labels

_FOLDER = re.compile(r"(.*(?:^|/))(?:images|JPEGImages)(/.*)")
SNIFFED = 50
"""Label files that are looked into to find out whether they are YOLO's."""


def detects(tree: Tree) -> bool:
    """Whether there is a ``data.yaml`` or ``.data`` file, or label files with YOLO's rows."""
    if not tree.pictures:
        return False
    if setup_files(tree):
        return True
    labels = [file for file, owners in _label_files(tree, tree.pictures).items() if owners is not None]
    return any(looks_like_labels(lines_of(tree, file)) for file in labels[:SNIFFED])


def _label_files(tree: Tree, pictures: Sequence[str]) -> dict[str, list[str]]:
    """The label files, each with the pictures whose label its place says it is."""
    owners = defaultdict[str, list[str]](list)
    texts = tree.with_endings([".txt"])
    for picture in pictures:
        plain = picture.rpartition(".")[0]
        match = _FOLDER.fullmatch(plain)
        for label in {f"{match[1]}labels{match[2]}.txt" if match else "", f"{plain}.txt"}:
            owners[label].append(picture)
    return {
        file: owners.get(file, [])
        for file in texts
        if (file in owners or IN_LABELS.search(file))
        and base_name(file) != "classes.txt"
        and file not in LISTS
    }


def read(tree: Tree) -> Reading:
    """Read all label files; what is wrong in them becomes findings.

    Raises:
        DataError: when several files name classes and splits, or a list cannot be read.
    """
    setup, file, findings = read_setup(tree)
    names, more = class_names(tree, setup, file)
    findings += more
    splits, used, more = splits_of(tree, setup, file)
    findings += more
    owners = _label_files(tree, tree.pictures)
    index = PictureIndex(tree.pictures, (label[: -len(".txt")] for label in owners))
    of_picture, polygons = dict[str, Record](), 0
    # a picture is that of the label file in its place, before one elsewhere is asked
    for label in sorted(owners, key=lambda label: not owners[label]):
        if tree.only and used is not None and owners[label] and used.isdisjoint(owners[label]):
            continue  # of another data set than that of the file that was chosen
        found, count = _read_file(tree.root, label, owners[label], index, of_picture, names, setup.keypoints)
        findings += found
        polygons += count
    pictures = [p for p in tree.pictures if used is None or p in used or (p in of_picture and not tree.only)]
    records = [of_picture.get(p) or Record(p) for p in pictures]
    position = {picture: i for i, picture in enumerate(pictures)}
    present = {name for r in records for name in r.names}
    findings += _notes(tree, file, names, present, len(tree.pictures) - len(pictures), polygons)
    ids = defaultdict[str, list[str]](list)
    for number, name in sorted(names.of.items()):
        ids[name].append(str(number))
    rows = {name: [position[p] for p in members] for name, members in splits.items()}
    return Reading(tree.root, records, rows, findings, source_ids={k: ", ".join(v) for k, v in ids.items()})


def _notes(
    tree: Tree, file: str, names: ClassNames, present: set[str], left_out: int, polygons: int
) -> list[Finding]:
    """What is no fault and should be known."""
    root, found = str(tree.root), list[Finding]()
    if left_out:
        message = f"{left_out} of {len(tree.pictures)} pictures are in no split of {file}" + (
            " and have no label file" if not tree.only else ""
        )
        found.append(Finding("D12", "note", message, root, 0, "left out"))
    if polygons:
        found.append(Finding("D16", "note", f"{polygons} rows are polygons", root, 0, "read as their boxes"))
    if present and not names.of:
        action = "put a file classes.txt with a name in each line beside the labels"
        found.append(Finding("D07", "warn", "no class has a name: numbers are their names", root, 0, action))
    for name in sorted(set(names.of.values()) - present) if present else ():
        place = str(tree.root / names.file)
        found.append(Finding("D08", "note", f'name "{name}" has no box', place, 0, "not a class"))
    return found


def _read_file(
    root: Path,
    file: str,
    owners: Sequence[str],
    index: PictureIndex,
    of_picture: dict[str, Record],
    names: ClassNames,
    keypoints: int,
) -> tuple[list[Finding], int]:
    """Read one label file into ``of_picture``; its findings, and how many of its rows were polygons."""
    place = str(root / file)
    picture, problem = (
        (owners[0], None)
        if len(owners) == 1 and owners[0] not in of_picture
        else (picture_of(file[: -len(".txt")], place, index, of_picture))
    )
    try:
        content = parse_labels(read_lines(root / file), keypoints)
    except OSError as error:
        content = Labels(problems=(Problem(0, f"cannot be read ({error.strerror})"),))
    action = "correct the label file, or get it again"
    findings = [Finding(p.code, "error", p.reason, place, p.line, action) for p in content.problems]
    if problem is not None:
        return [*findings, problem], 0
    known = np.asarray([not names.of or bool(names.of.get(k)) for k in content.ids.tolist()], bool)
    known &= content.ids >= 0
    for number, line in zip(content.ids[~known].tolist(), content.lines[~known].tolist(), strict=True):
        message = f"class {number} has no name: {_range(names)}"
        findings.append(Finding("D07", "error", message, place, line, "correct the row, or add the name"))
    called = tuple(names.of.get(k, str(k)) for k in content.ids[known].tolist())
    of_picture[picture] = Record(
        picture,
        file,
        boxes=content.boxes[known].astype(np.float32),
        names=called,
        flagged=np.zeros(len(called), bool),
        lines=content.lines[known],
        relative=True,
    )
    return findings, content.polygons


def _range(names: ClassNames) -> str:
    if not names.of:
        return "classes are counted from 0"
    return f"{names.file} has {len(names.of)}, {min(names.of)} to {max(names.of)}"
