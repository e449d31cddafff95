"""Pascal VOC: one XML file for each picture.

Read are the devkit (``JPEGImages``, ``Annotations``, ``ImageSets/Main``; also one level down, as in
``VOCdevkit/VOC2012``) and plain folders: pictures and XML side by side or in folders of any name. There,
folders called train, val, valid, validation or test are splits. An XML file belongs to the picture of the
same base name, else to the one its ``<filename>`` names; ``<path>`` and ``<folder>`` are what the labeller's
machine had and mean nothing.

Coordinates may have decimals. They are 1-based and include both ends; ``vocxml.from_one_based`` says how they
become ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frcnn.data.findings import Finding, Problem
from frcnn.data.formats import vocxml
from frcnn.data.formats.assemble import Reading, Record
from frcnn.data.formats.layout import SMALL, Tree, data_set_root, folder_splits, read_bytes
from frcnn.data.formats.lists import lists_of_names
from frcnn.data.formats.pairing import PictureIndex, picture_of
from frcnn.data.sample import DataError

_CLASS_FILE = re.compile(r".+_(train|val|trainval|test)\.txt$")
_FLAG_LINE = re.compile(r"\S+\s+(-1|0|1)$")


def detects(tree: Tree) -> bool:
    """Whether there are XML files."""
    return bool(tree.with_endings([".xml"]))


def read(tree: Tree) -> Reading:
    """Read all annotations; what is wrong in them becomes findings.

    Raises:
        DataError: when the folder holds several data sets, or no picture.
    """
    tree = data_set_root(tree, "Annotations", "JPEGImages")
    pictures = [p for p in tree.pictures if p.startswith("JPEGImages/")] or list(tree.pictures)
    if not pictures:
        raise DataError(
            f"{tree.root}: holds XML files and no pictures; put the pictures into the same folder"
        )
    files = tree.with_endings([".xml"])
    files = tuple(f for f in files if f.startswith("Annotations/")) or files
    index = PictureIndex(pictures, (f[: -len(".xml")] for f in files))
    listed, findings = _read_lists(tree, index)
    splits = listed or folder_splits(pictures)
    of_picture: dict[str, Record] = {}
    for file in files:
        findings += _read_file(tree.root, file, index, of_picture, set(listed))
    position = {picture: i for i, picture in enumerate(pictures)}
    records = [of_picture.get(p) or Record(p) for p in pictures]
    return Reading(
        tree.root,
        records,
        {name: [position[p] for p in members] for name, members in splits.items()},
        findings,
    )


def _read_file(
    root: Path, file: str, index: PictureIndex, of_picture: dict[str, Record], listed: set[str]
) -> list[Finding]:
    """Read one XML file into ``of_picture``."""
    place = str(root / file)
    try:
        content = vocxml.parse(read_bytes(root / file, SMALL))
    except OSError as error:
        content = vocxml.VocFile(problems=(Problem(0, f"cannot be read ({error.strerror})"),))
    if content.root not in ("", "annotation"):
        known = bool(index.candidates(file, content.filename))
        message = f"is not a VOC annotation: its outermost element is <{content.root}>"
        action = "replace the file" if known else "not used"
        return [Finding("D16", "error" if known else "warn", message, place, 1, action)]
    action = "correct the file, or export it again"
    findings = [Finding("D16", "error", p.reason, place, p.line, action) for p in content.problems]
    picture, problem = picture_of(
        file, place, index, of_picture, stated=content.filename, listed=bool(listed)
    )
    if problem is not None:
        return [*findings, problem]
    boxes = vocxml.from_one_based(content.corners)
    of_picture[picture] = Record(
        picture,
        file,
        content.size,
        boxes,
        content.names,
        content.difficult,
        content.lines,
        content.truncated.astype(np.float32),
        content.occluded.astype(np.int8),
    )
    return findings


def _read_lists(tree: Tree, index: PictureIndex) -> tuple[dict[str, list[str]], list[Finding]]:
    """The lists of ``ImageSets``: pictures of every split, and the names without a picture."""
    texts = [f for f in tree.files if f.endswith(".txt")]
    lists = [f for f in texts if re.fullmatch(r"ImageSets/Main/[^/]+", f)]
    lists = lists or [f for f in texts if re.fullmatch(r"ImageSets/[^/]+", f)]
    return lists_of_names(tree, lists, index, _is_class_list)


def _is_class_list(file: str, lines: Sequence[str]) -> bool:
    """Whether it is like "aeroplane_train.txt", which pictures show a class; the annotations say that."""
    return bool(
        _CLASS_FILE.match(file) and any(lines) and all(_FLAG_LINE.match(line) for line in lines if line)
    )
