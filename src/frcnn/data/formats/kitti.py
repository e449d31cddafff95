"""KITTI object detection (Geiger et al., CVPR 2012): one label file of 15 columns for each picture.

``label_2/X.txt`` belongs to ``image_2/X.png``, both below ``training/`` or in the given folder. ``testing/``
has no labels and is left out. The lists of ``ImageSets``, beside or inside ``training/``, are splits; a
``test`` list means the pictures of ``testing/`` where these are there, or where it shares pictures with
another list, because the numbers of both begin at 0.

Columns: type, truncated (0..1), occluded (0..3), alpha, left, top, right, bottom, height, width, length, x,
y, z, rotation. Boxes are 0-based pixels with decimals and are taken as they are, as half-open: the right
edge is ``right``, nothing is added. Truncation and occlusion are kept, -1 (not stated, as for ``DontCare``)
as 0. ``DontCare`` is no class: such a row is a region that holds objects nobody annotated.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frcnn.data.findings import Finding, Problem
from frcnn.data.formats.assemble import Reading, Record
from frcnn.data.formats.layout import Tree, read_lines
from frcnn.data.formats.lists import lists_of_names
from frcnn.data.formats.pairing import PictureIndex, picture_of
from frcnn.data.sample import DataError

DONT_CARE = "DontCare"
COLUMNS = (
    "type", "truncated", "occluded", "alpha", "left", "top", "right", "bottom",
    "height", "width", "length", "x", "y", "z", "rotation",
)  # fmt: skip
_LABELS = re.compile(r"((?:.*/)?)label_2/[^/]+$")


@dataclass
class Content:
    """The content of a label file.

    Attributes:
        names: type of every object.
        boxes: (g, 4) float64, left, top, right, bottom.
        truncated: (g,) float32, 0..1.
        occluded: (g,) int8, 0..3.
        lines: (g,) int32.
        problems: what could not be read.
    """

    names: tuple[str, ...] = ()
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    truncated: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    occluded: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    lines: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    problems: tuple[Problem, ...] = ()


def detects(tree: Tree) -> bool:
    """Whether there are text files in a folder ``label_2``."""
    return any(_LABELS.match(f) and f.endswith(".txt") for f in tree.files)


def read(tree: Tree) -> Reading:
    """Read all label files; what is wrong in them becomes findings.

    Raises:
        DataError: when the folder holds several data sets, or no pictures beside the labels.
    """
    folders = sorted({match[1] for f in tree.files if (match := _LABELS.match(f))})
    if len(folders) > 1:
        names = ", ".join(f.rstrip("/") or "." for f in folders)
        raise DataError(f"{tree.root}: label_2 in {len(folders)} folders ({names}); give one of them")
    (above,) = folders
    pictures = [p for p in tree.pictures if p.startswith(f"{above}image_2/")]
    if not pictures:
        raise DataError(
            f"{tree.root}: holds {above}label_2 and no pictures in {above}image_2; put the pictures there"
        )
    index, of_picture = PictureIndex(pictures), dict[str, Record]()
    findings = _others(tree, len(tree.pictures) - len(pictures), f"{above}image_2")
    for file in (f for f in tree.files if f.startswith(f"{above}label_2/")):
        findings += _read_file(tree.root, file, index, of_picture)
    records = [of_picture.get(p) or Record(p) for p in pictures]
    listed, missing = _read_lists(tree, above, index)
    position = {picture: i for i, picture in enumerate(pictures)}
    splits = {name: [position[p] for p in members] for name, members in listed.items()}
    classless = frozenset({DONT_CARE})
    return Reading(tree.root, records, splits, [*findings, *missing], "dontcare", classless)


def _read_lists(tree: Tree, above: str, index: PictureIndex) -> tuple[dict[str, list[str]], list[Finding]]:
    """The splits that ``ImageSets`` lists, and what is wrong with the lists."""
    outer = above.rstrip("/").rpartition("/")[0]
    folders = [f"{above}ImageSets", f"{outer}/ImageSets".lstrip("/")]
    files = [f for f in tree.files if f.endswith(".txt") and f.rpartition("/")[0] in folders]
    splits, missing = lists_of_names(tree, files, index)
    others = {p for name, members in splits.items() if name != "test" for p in members}
    elsewhere = any(re.search(r"(?:^|/)testing/", p) for p in tree.pictures)
    if "test" not in splits or not (elsewhere or others & set(splits["test"])):
        return splits, missing
    del splits["test"]
    place = next(str(tree.root / f) for f in files if f.endswith("/test.txt"))
    note = Finding("D12", "note", "lists pictures of testing/, which have no labels", place, 0, "not a split")
    return splits, [*(f for f in missing if f.splits != ("test",)), note]


def _others(tree: Tree, count: int, used: str) -> list[Finding]:
    message = f"{count} pictures outside {used} have no labels"
    return [Finding("D12", "note", message, str(tree.root), 0, "left out")] if count else []


def _read_file(root: Path, file: str, index: PictureIndex, of_picture: dict[str, Record]) -> list[Finding]:
    """Read one label file into ``of_picture``."""
    place = str(root / file)
    if not file.endswith(".txt"):
        return [Finding("D12", "warn", "is not a label file (.txt)", place, 0, "not used")]
    try:
        content = parse(read_lines(root / file))
    except OSError as error:
        content = Content(problems=(Problem(0, f"cannot be read ({error.strerror})"),))
    action = "correct the label file, or get it again"
    findings = [Finding("D16", "error", p.reason, place, p.line, action) for p in content.problems]
    picture, problem = picture_of(file.removesuffix(".txt"), place, index, of_picture)
    if problem is not None:
        return [*findings, problem]
    region = np.asarray([name == DONT_CARE for name in content.names], bool)
    with np.errstate(over="ignore"):  # 1e300 becomes inf, which the check reports
        boxes = content.boxes.astype(np.float32)
    of_picture[picture] = Record(
        picture,
        file,
        boxes=boxes,
        names=content.names,
        flagged=region,
        lines=content.lines,
        truncated=content.truncated,
        occluded=content.occluded,
        crowd=region,
    )
    return findings


def parse(lines: list[str]) -> Content:
    """Read the lines of a label file. Never raises; rows that cannot be read become problems."""
    rows: list[tuple[int, str, list[float]]] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if len(columns) == len(COLUMNS) + 1:
            reason = "has 16 columns, the last a score: this is a result file; give the folder of the labels"
            return Content(problems=(Problem(number, reason),))
        if not columns:
            continue
        values, reason = _values(columns)
        if reason:
            problems.append(Problem(number, reason))
        else:
            rows.append((number, columns[0], values))
    table = np.asarray([values for *_, values in rows], np.float64).reshape(-1, len(COLUMNS) - 1)
    return Content(
        tuple(name for _, name, _ in rows),
        table[:, 3:7],
        table[:, 0].clip(0).astype(np.float32),
        table[:, 1].clip(0).astype(np.int8),
        np.asarray([number for number, *_ in rows], np.int32),
        tuple(problems),
    )


def _values(columns: list[str]) -> tuple[list[float], str]:
    """The numbers of a row, and what is wrong with it."""
    if len(columns) != len(COLUMNS):
        return [], f"has {len(columns)} columns; a label has {len(COLUMNS)}"
    values: list[float] = []
    for place, (name, text) in enumerate(zip(COLUMNS[1:], columns[1:], strict=True), 2):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            return [], f"column {place} ({name}) of '{columns[0]}' is '{text[:40]}', not a number"
        values.append(value)
    if not (0 <= values[0] <= 1 or values[0] == -1):
        return [], f"column 2 (truncated) of '{columns[0]}' is {columns[1]}; it is 0 to 1, or -1"
    if values[1] not in (-1, 0, 1, 2, 3):
        return [], f"column 3 (occluded) of '{columns[0]}' is {columns[2]}; it is 0, 1, 2, 3 or -1"
    return values, ""
