"""Penn-Fudan pedestrians (Wang et al., ACCV 2007): one text record for each picture.

``Annotation/X.txt`` belongs to ``PNGImages/X.png``. The paths inside the records begin with a folder that is
not there, so only base names count. Every box has the class that the record gives it (``PASpersonWalking``,
``PASpersonStanding``); ``data.rename`` merges them. The masks are not read.

Coordinates are 1-based and include both ends, as in Pascal VOC: 1 is taken off xmin and ymin only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frcnn.data.findings import Finding, Problem
from frcnn.data.formats.assemble import Reading, Record
from frcnn.data.formats.layout import Tree, data_set_root, read_lines
from frcnn.data.formats.pairing import PictureIndex, picture_of
from frcnn.data.formats.vocxml import from_one_based

_RECORD = re.compile(r"(?:^|/)Annotation/[^/]+\.txt$")
_PICTURE = re.compile(r"(?:^|/)PNGImages/")
_NAME = re.compile(r'Image filename\s*:\s*"(.*)"')
_SIZE = re.compile(r"Image size.*:\s*(\d{1,9})\s*x\s*(\d{1,9})\b")
_COUNT = re.compile(r"Objects with ground truth\s*:\s*(\d{1,9})\b")
_BOX = re.compile(
    r'Bounding box for object\s+\S+\s+"(.*?)"[^:]*:'
    r"\s*\(([^,()]*),([^,()]*)\)\s*-\s*\(([^,()]*),([^,()]*)\)\s*$"
)


@dataclass
class Content:
    """The content of a record.

    Attributes:
        filename: the picture as stated, "" where it is not.
        size: stated (height, width), or 0.
        names: class of every object.
        corners: (g, 4) float64, xmin, ymin, xmax, ymax as written.
        lines: (g,) int32.
        problems: what could not be read.
    """

    filename: str = ""
    size: tuple[int, int] = (0, 0)
    names: tuple[str, ...] = ()
    corners: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    lines: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    problems: tuple[Problem, ...] = ()


def detects(tree: Tree) -> bool:
    """Whether there are records in ``Annotation`` and pictures in ``PNGImages``."""
    return any(map(_RECORD.search, tree.files)) and any(map(_PICTURE.search, tree.pictures))


def read(tree: Tree) -> Reading:
    """Read all records; what is wrong in them becomes findings.

    Raises:
        DataError: when the folder holds several data sets.
    """
    tree = data_set_root(tree, "Annotation", "PNGImages")
    pictures = [p for p in tree.pictures if p.startswith("PNGImages/")]
    index, of_picture = PictureIndex(pictures), dict[str, Record]()
    findings: list[Finding] = []
    for file in tree.files:
        if file.startswith("Annotation/") and file.endswith(".txt"):
            findings += _read_file(tree.root, file, index, of_picture)
    return Reading(
        tree.root, [of_picture.get(p) or Record(p) for p in pictures], findings=findings, flag="difficult"
    )


def _read_file(root: Path, file: str, index: PictureIndex, of_picture: dict[str, Record]) -> list[Finding]:
    """Read one record into ``of_picture``."""
    place, action = str(root / file), "correct the record, or get the file again"
    try:
        content = parse(read_lines(root / file))
    except OSError as error:
        content = Content(problems=(Problem(0, f"cannot be read ({error.strerror})"),))
    findings = [Finding("D16", "error", p.reason, place, p.line, action) for p in content.problems]
    name = file.removesuffix(".txt")
    picture, problem = picture_of(name, place, index, of_picture, stated=content.filename)
    if problem is not None:
        return [*findings, problem]
    boxes = from_one_based(content.corners)
    of_picture[picture] = Record(
        picture, file, content.size, boxes, content.names, np.zeros(len(boxes), bool), content.lines
    )
    return findings


def parse(lines: list[str]) -> Content:
    """Read the lines of a record. Never raises."""
    content, problems = Content(), list[Problem]()
    objects: list[tuple[int, str, list[float]]] = []
    stated, at = -1, 0
    for number, line in enumerate((text.strip() for text in lines), 1):
        if match := _NAME.match(line):
            content.filename = match[1]
        elif match := _SIZE.match(line):
            content.size = int(match[2]), int(match[1])
        elif match := _COUNT.match(line):
            stated, at = int(match[1]), number
        elif line.startswith("Bounding box"):
            name, corners, reason = _box(line)
            if reason:
                problems.append(Problem(number, reason))
            else:
                objects.append((number, name, corners))
    found = len(objects) + len(problems)
    if stated < 0 and not found:
        reason = "is empty" if not any(map(str.strip, lines)) else "is not a Penn-Fudan record"
        problems.append(Problem(1, f'{reason}: no line "Objects with ground truth : N"'))
    elif stated != found:
        many = f"states {stated} objects" if stated >= 0 else "does not state its number of objects"
        problems.append(Problem(max(at, 1), f"{many} and has {found} bounding boxes"))
    content.names = tuple(name for _, name, _ in objects)
    content.corners = np.asarray([corners for *_, corners in objects], np.float64).reshape(-1, 4)
    content.lines = np.asarray([number for number, *_ in objects], np.int32)
    content.problems = tuple(problems)
    return content


def _box(line: str) -> tuple[str, list[float], str]:
    """Class, corners, and what is wrong with a line that begins as a box does."""
    match = _BOX.match(line)
    if match is None:
        return "", [], f"is not a bounding box: '{line[:80]}'"
    name = match[1].strip()
    if not name:
        return "", [], 'object without a class: ""'
    corners: list[float] = []
    for corner, text in zip(("Xmin", "Ymin", "Xmax", "Ymax"), match.groups()[1:], strict=True):
        try:
            corners.append(float(text))
        except ValueError:
            return "", [], f"{corner} of object '{name}' is '{text.strip()[:40]}', not a number"
    return name, corners, ""
