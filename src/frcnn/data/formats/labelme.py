"""LabelMe: one JSON file for each picture, with its shapes.

A file belongs to the picture of the same base name, else to the one its ``imagePath`` names. Rectangles,
polygons, circles and masks are read as their bounding boxes; points and lines have no area and are left out,
which is said. ``imageData``, a copy of the picture, is never decoded. Coordinates are pixels from 0, taken as
they are. Flags of a shape called difficult, ignore, crowd, truncated or occluded are kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from frcnn.data.findings import Finding, Problem
from frcnn.data.formats.assemble import Reading, Record
from frcnn.data.formats.cocojson import MAX_SIDE, json_problem, reason_of
from frcnn.data.formats.flagwords import FLAG_OF, FlagColumns, columns_of, plain_word
from frcnn.data.formats.layout import SMALL, Tree, folder_splits, read_bytes, read_head
from frcnn.data.formats.pairing import PictureIndex, picture_of
from frcnn.data.sample import DataError

SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
_OTHER_KEYS = re.compile(rb'"(version|flags|imagePath|imageData|imageHeight)"\s*:')
WITHOUT_AREA = ("point", "points", "line", "linestrip")


class _File(msgspec.Struct):
    shapes: list[msgspec.Raw]
    imagePath: str | None = None  # noqa: N815 - the format's own name
    imageHeight: float | None = None  # noqa: N815
    imageWidth: float | None = None  # noqa: N815


class _Shape(msgspec.Struct):
    label: str
    points: list[tuple[float, float]]
    shape_type: str | None = None
    flags: dict[str, Any] | None = None
    difficult: Any = None


@dataclass
class Content:
    """The content of a file.

    Attributes:
        filename: the picture as stated, "" where it is not.
        size: stated (height, width), or 0.
        names: class of every shape.
        boxes: (g, 4) float64, x1, y1, x2, y2.
        lines: (g,) int32.
        flags: of every shape.
        problems: what could not be read.
        left_out: shapes without an area.
        outlines: number of shapes that were no rectangles.
    """

    filename: str = ""
    size: tuple[int, int] = (0, 0)
    names: tuple[str, ...] = ()
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    lines: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    flags: FlagColumns = field(default_factory=FlagColumns)
    problems: list[Problem] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    outlines: int = 0


def detects(tree: Tree) -> bool:
    """Whether there are JSON files with shapes."""
    return any(_is_labelme(tree, file) for file in tree.with_endings([".json"]))


def _is_labelme(tree: Tree, file: str) -> bool:
    head = read_head(tree.root / file)
    if SHAPES.search(head):
        return True
    if not _OTHER_KEYS.search(head) or b'"images"' in head:
        return False
    try:
        return bool(SHAPES.search(read_bytes(tree.root / file, SMALL)))
    except OSError:
        return False


def read(tree: Tree) -> Reading:
    """Read all files; what is wrong in them becomes findings.

    Raises:
        DataError: when there is no picture.
    """
    if not tree.pictures:
        raise DataError(
            f"{tree.root}: holds LabelMe files and no pictures (the copies inside the files, imageData, are "
            "not read); put the pictures into the same folder"
        )
    files = tree.with_endings([".json"])
    index = PictureIndex(tree.pictures, (f[: -len(".json")] for f in files))
    of_picture, findings, outlines = dict[str, Record](), list[Finding](), 0
    # a file with a picture's name is meant for it, even where it is too damaged to be told
    chosen = [f for f in files if _is_labelme(tree, f) or index.candidates(f[: -len(".json")])]
    for file in chosen:
        found, count = _read_file(tree.root, file, index, of_picture)
        findings += found
        outlines += count
    root = str(tree.root)
    if outlines:
        message = f"{outlines} shapes are polygons, circles or masks"
        findings.append(Finding("D16", "note", message, root, 0, "read as their bounding boxes"))
    others = sorted(set(files) - set(chosen))
    if others:
        names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        findings.append(
            Finding("D12", "note", f"{len(others)} other JSON files: {names}", root, 0, "not read")
        )
    records = [of_picture.get(p) or Record(p) for p in tree.pictures]
    position = {picture: i for i, picture in enumerate(tree.pictures)}
    splits = {name: [position[p] for p in members] for name, members in folder_splits(tree.pictures).items()}
    crowds = any(r.crowd.any() for r in records)
    return Reading(tree.root, records, splits, findings, "crowd" if crowds else "difficult")


def _read_file(
    root: Path, file: str, index: PictureIndex, of_picture: dict[str, Record]
) -> tuple[list[Finding], int]:
    """Read one file into ``of_picture``; its findings, and how many shapes were no rectangles."""
    place = str(root / file)
    try:
        content = parse(read_bytes(root / file, SMALL))
    except OSError as error:
        content = Content(problems=[Problem(0, f"cannot be read ({error.strerror})")])
    action = "correct the file, or save it again"
    findings = [Finding(p.code, "error", p.reason, place, p.line, action) for p in content.problems]
    findings += [Finding("D16", "warn", p.reason, place, p.line, "left out") for p in content.left_out]
    name = file[: -len(".json")]
    picture, problem = picture_of(name, place, index, of_picture, stated=content.filename)
    if problem is not None:
        return [*findings, problem], 0
    with np.errstate(over="ignore"):  # 1e300 becomes inf, which the check reports
        boxes = content.boxes.astype(np.float32)
    flags = content.flags
    of_picture[picture] = Record(
        picture,
        file,
        content.size,
        boxes,
        content.names,
        flags.flagged,
        content.lines,
        flags.truncated,
        flags.occluded,
        flags.crowd,
    )
    return findings, content.outlines


def parse(content: bytes) -> Content:
    """Read the bytes of a file. Never raises."""
    result, content = Content(), content.removeprefix(b"\xef\xbb\xbf")
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        result.problems.append(json_problem(error, content, "a LabelMe file"))
        return result
    result.filename = file.imagePath or ""
    sides = file.imageHeight, file.imageWidth
    if any(side is not None and side >= MAX_SIDE for side in sides):
        text = f"states a size of {sides[1] or 0:g} x {sides[0] or 0:g}, which no picture has"
        result.problems.append(Problem(1, text))
    elif all(side is not None and side >= 1 for side in sides):
        result.size = int(sides[0] or 0), int(sides[1] or 0)
    found: list[tuple[str, list[float], int, dict[str, Any]]] = []
    decoder = msgspec.json.Decoder(_Shape)
    for raw, line in zip(file.shapes, _lines(content, file.shapes), strict=True):
        try:
            shape = decoder.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            result.problems.append(Problem(line, f"shape: {reason_of(error)}"))
            continue
        box, reason = _box(shape)
        if reason:
            result.problems.append(Problem(line, reason))
        elif box:
            found.append((shape.label.strip(), box, line, _flags(shape)))
            result.outlines += len(shape.points) != 2 or shape.shape_type in ("circle", "mask")
        else:
            text = f'shape of "{shape.label.strip()}" is a {shape.shape_type}, which has no area'
            result.left_out.append(Problem(line, text))
    result.names = tuple(name for name, *_ in found)
    result.boxes = np.asarray([box for _, box, *_ in found], np.float64).reshape(-1, 4)
    result.lines = np.asarray([line for *_, line, _ in found], np.int32)
    result.flags = columns_of([flags for *_, flags in found])
    return result


def _lines(content: bytes, shapes: Sequence[msgspec.Raw]) -> list[int]:
    """The line of every shape: they stand in the file in this order."""
    begin = SHAPES.search(content)
    at, line, lines = begin.end() if begin else 0, 1, list[int]()
    line += content.count(b"\n", 0, at)
    for raw in shapes:
        start = max(content.find(bytes(raw), at), at)
        line += content.count(b"\n", at, start)
        lines.append(line)
        line += content.count(b"\n", start, start + len(bytes(raw)))
        at = start + len(bytes(raw))
    return lines


def _box(shape: _Shape) -> tuple[list[float], str]:
    """The bounding box of a shape, empty where it has no area by its kind; and what is wrong with it."""
    name, kind, points = shape.label.strip(), shape.shape_type or "", shape.points
    if not name:
        return [], 'shape without a class: ""'
    if kind in WITHOUT_AREA:
        return [], ""
    wanted = 2 if kind in ("rectangle", "circle", "mask") else 3 if kind == "polygon" else 0
    if len(points) < max(wanted, 2) or (wanted == 2 and kind == "circle" and len(points) != 2):
        return [], f'{kind or "shape"} of "{name}" has {len(points)} points'
    if kind == "circle":
        (x, y), edge = points[0], points[1]
        radius = math.hypot(edge[0] - x, edge[1] - y)
        return [x - radius, y - radius, x + radius, y + radius], ""
    across, down = [x for x, _ in points], [y for _, y in points]
    return [min(across), min(down), max(across), max(down)], ""


def _flags(shape: _Shape) -> dict[str, Any]:
    """The flags of a shape by ours."""
    found: dict[str, Any] = {"difficult": shape.difficult}
    for word, value in (shape.flags or {}).items():
        flag = FLAG_OF.get(plain_word(word))
        if flag is not None and value:
            found[flag] = value
    return found
