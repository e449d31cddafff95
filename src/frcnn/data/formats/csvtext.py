"""One CSV file of boxes to plain values: which column means what, and the rows.

Nothing that a file holds makes this fail: every row that cannot be understood gives one ``Problem``.

Letters: m rows with a box.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from frcnn.data.findings import Problem
from frcnn.data.formats.flagwords import FLAG_OF, FlagColumns, columns_of, plain_word
from frcnn.data.formats.layout import SPLIT_NAMES
from frcnn.data.formats.yolotext import SLACK
from frcnn.data.pictures.image import NAMED

COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("path", "filepath", "imagepath", "imgpath", "file", "filename", "imagefile", "imagefilename",
             "imagename", "image", "img", "imageid", "frame"),
    "class": ("class", "classname", "label", "labelname", "category", "categoryname", "type", "name",
              "object"),
    "number": ("classid", "labelid", "categoryid", "classindex"),
    "x1": ("xmin", "x1", "left", "bboxx1", "bboxxmin", "boxx1"),
    "y1": ("ymin", "y1", "top", "bboxy1", "bboxymin", "boxy1"),
    "x2": ("xmax", "x2", "right", "bboxx2", "bboxxmax", "boxx2"),
    "y2": ("ymax", "y2", "bottom", "bboxy2", "bboxymax", "boxy2"),
    "x": ("x", "bboxx", "boxx"),
    "y": ("y", "bboxy", "boxy"),
    "cx": ("cx", "xcenter", "xcentre", "centerx", "centrex"),
    "cy": ("cy", "ycenter", "ycentre", "centery", "centrey"),
    "w": ("w", "bboxw", "boxw", "bboxwidth", "boxwidth"),
    "h": ("h", "bboxh", "boxh", "bboxheight", "boxheight"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "split": ("split", "set", "subset", "usage"),
    "score": ("score", "conf", "probability"),
}  # fmt: skip
"""What a column means -> the names it may have, lower case and without separators; the first one counts."""
HEADERLESS = ("path", "x1", "y1", "x2", "y2", "class")
LONGEST_HEADER = 65536
_CORNERS = (("x1", "y1", "x2", "y2"), ("x1", "y1", "w", "h"), ("x", "y", "w", "h"), ("cx", "cy", "w", "h"))


@dataclass(frozen=True)
class Header:
    """Where everything is.

    Attributes:
        place: meaning -> column, from 0.
        flags: our name of a flag -> column.
        box: the four meanings that make a box.
        delimiter: between columns.
        rows_from: 1 with a line of names, else 0.
    """

    place: Mapping[str, int]
    flags: Mapping[str, int]
    box: tuple[str, ...]
    delimiter: str
    rows_from: int


@dataclass
class Table:
    """The content of a file.

    Attributes:
        pictures: paths as written, each once, in the order met.
        first_lines: where every picture is named first.
        sizes: stated (height, width) of every picture, or 0.
        splits: stated split of every picture, lower case, "" for none.
        image: (m,) int64, position of the picture.
        names: m class names.
        numbers: class name -> its numbers, as text.
        boxes: (m, 4) float64, x1, y1, x2, y2.
        lines: (m,) int32.
        flags: of every box.
        relative: the boxes are shares of the picture's sides, not pixels.
        problems: what could not be read.
        contradictions: what a row says otherwise than one before it, by picture and code.
    """

    pictures: list[str] = field(default_factory=list)
    first_lines: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    image: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    names: list[str] = field(default_factory=list)
    numbers: dict[str, list[str]] = field(default_factory=dict)
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    lines: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    flags: FlagColumns = field(default_factory=FlagColumns)
    relative: bool = False
    problems: list[Problem] = field(default_factory=list)
    contradictions: dict[tuple[str, str], Problem] = field(default_factory=dict)


class _Row(NamedTuple):
    """A row with a box; ``at`` is the position of its picture."""

    line: int
    at: int
    name: str
    corners: list[float]
    flags: dict[str, str]


def find_header(text: str) -> Header | None:
    """What the columns mean by the first line; None where the file is no table of boxes.

    A table with a score is one of results, and no data set.
    """
    first = next((line for line in text[:LONGEST_HEADER].splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    try:
        cells = next(csv.reader([first], delimiter=delimiter), list[str]())
    except csv.Error:
        return None
    words = [plain_word(cell) for cell in cells]
    place = {
        meaning: next(words.index(word) for word in names if word in words)
        for meaning, names in COLUMNS.items()
        if not set(names).isdisjoint(words)
    }
    if "name" in words and words.count("label") and place.get("path") != words.index("name"):
        place |= {"class": words.index("name"), "number": words.index("label")}
    for side, meaning in (("w", "width"), ("h", "height")):
        if side not in place and meaning in place and not {"x2", "y2"} & set(place):
            place[side] = place.pop(meaning)  # beside a left upper corner they are the box's
    box = next((four for four in _CORNERS if set(four) <= set(place)), ())
    if "path" in place and box and ("class" in place or "number" in place):
        flags = {FLAG_OF[word]: k for k, word in enumerate(words) if word in FLAG_OF}
        return None if "score" in place else Header(place, flags, box, delimiter, 1)
    return _without_names(cells, delimiter)


def _without_names(cells: Sequence[str], delimiter: str) -> Header | None:
    """The header of a file that has none: path, x1, y1, x2, y2, class."""
    ending = re.search(r"\.\w+$", cells[0].strip()) if len(cells) == 6 else None
    if ending is None or ending[0].lower() not in NAMED:
        return None
    if any(cells[1:]) and any(math.isnan(_number(cell)) for cell in cells[1:5]):
        return None
    return Header({name: k for k, name in enumerate(HEADERLESS)}, {}, HEADERLESS[1:5], delimiter, 0)


def parse(text: str) -> Table:
    """Read a file. Never raises."""
    table, header = Table(), find_header(text)
    if header is None:
        table.problems.append(Problem(1, "has no columns for path, box and class"))
        return table
    position: dict[str, int] = {}
    found: list[_Row] = []
    for line, cells in _rows(text, header, table.problems):
        path = cells[header.place["path"]].strip()
        if not path:
            table.problems.append(Problem(line, "names no picture"))
            continue
        at = position.setdefault(path, len(position))
        _take_picture(table, at, path, line, cells, header)
        name, corners, reason = _row(cells, header)
        if reason:
            table.problems.append(Problem(line, reason))
        elif corners:
            found.append(_Row(line, at, name, corners, {flag: cells[k] for flag, k in header.flags.items()}))
            if "number" in header.place and (number := cells[header.place["number"]].strip()):
                known = table.numbers.setdefault(name, [])
                known += [number] if number not in known else []
    found, table.relative = _shares(found, table.problems)
    table.image = np.asarray([row.at for row in found], np.int64)
    table.names = [row.name for row in found]
    table.boxes = _boxes(found)
    table.lines = np.asarray([row.line for row in found], np.int32)
    table.flags = columns_of([row.flags for row in found])
    return table


def _boxes(rows: Sequence[_Row]) -> NDArray[np.float64]:
    return np.asarray([row.corners for row in rows], np.float64).reshape(-1, 4)


def _shares(rows: list[_Row], problems: list[Problem]) -> tuple[list[_Row], bool]:
    """The rows to keep, and whether their boxes are shares of the picture's sides, not pixels.

    They are where fractions of 1 outnumber what is above 1, but for rounding. Boxes above it are mistakes
    then: read as pixels, all others would lie within the first pixel.
    """
    boxes = _boxes(rows)
    boxes = np.where(np.isfinite(boxes), boxes, 0)  # those that are not are for the check to report
    fits = np.asarray((np.abs(boxes) <= 1 + SLACK).all(1))
    fractions = fits & (boxes % 1 != 0).any(1)
    if fractions.sum() <= (~fits).sum():
        return rows, False
    for row, fit in zip(rows, fits, strict=True):
        if not fit:
            corners = ", ".join(f"{value:g}" for value in row.corners)
            guess = ": it looks like pixels" if max(row.corners) > 2 else ""
            text = f"box ({corners}) of '{row.name[:40]}' is not within 0 to 1, as most boxes here are"
            problems.append(Problem(row.line, text + guess, "D04"))
    return [row for row, fit in zip(rows, fits, strict=True) if fit], True


def _take_picture(table: Table, at: int, path: str, line: int, cells: Sequence[str], header: Header) -> None:
    """Note the picture of a row, and where its size or split differs from what rows before it say."""
    size = _stated_size(cells, header)
    split = cells[header.place["split"]].strip().lower() if "split" in header.place else ""
    split = SPLIT_NAMES.get(split, split)
    if at == len(table.pictures):
        table.pictures.append(path)
        table.first_lines.append(line)
        table.sizes.append(size)
        table.splits.append(split)
        return
    table.sizes[at] = first = table.sizes[at] if all(table.sizes[at]) else size
    if all(size) and size != first:
        text = f'states {size[1]} x {size[0]} for "{path}", and {first[1]} x {first[0]} in a row before'
        table.contradictions.setdefault((path, "D14"), Problem(line, text, "D14"))
    table.splits[at] = table.splits[at] or split
    if split and split != table.splits[at]:
        text = f'has "{path}" in {split}, and in {table.splits[at]} in a row before'
        table.contradictions.setdefault((path, "D18"), Problem(line, text, "D18"))


def _rows(text: str, header: Header, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """The rows below the names that have all columns, with the line on which they begin; others become
    problems.
    """
    reader, line = csv.reader(io.StringIO(text, newline=""), delimiter=header.delimiter), 1
    skip, widest = header.rows_from, max([*header.place.values(), *header.flags.values()])
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.append(Problem(reader.line_num, f"is no CSV ({error})"))
            cells = list[str]()
        if any(cell.strip() for cell in cells):
            if skip:
                skip = 0
            elif len(cells) <= widest:
                text = f"has {len(cells)} columns; at least {widest + 1} are needed"
                problems.append(Problem(line, text))
            else:
                yield line, cells
        line = reader.line_num + 1


def _row(cells: Sequence[str], header: Header) -> tuple[str, list[float], str]:
    """Class, corners, and what is wrong with a row; a row of a picture without a box has no corners."""
    name = next(
        (
            text
            for key in ("class", "number")
            if key in header.place and (text := cells[header.place[key]].strip())
        ),
        "",
    )
    texts = [cells[header.place[key]].strip() for key in header.box]
    if not any(texts):
        return "", [], "" if not name else f"box of '{name[:40]}' is empty"
    values: list[float] = []
    for key, text in zip(header.box, texts, strict=True):
        value = _number(text)
        if math.isnan(value):
            return "", [], f"{key} of '{name[:40]}' is '{text[:40]}', not a number"
        values.append(value)
    if not name:
        return "", [], 'box without a class: ""'
    x, y, far, low = values
    if header.box[2] == "w" and header.box[0] == "cx":
        return name, [x - far / 2, y - low / 2, x + far / 2, y + low / 2], ""
    return name, [x, y, x + far, y + low] if header.box[2] == "w" else values, ""


def _stated_size(cells: Sequence[str], header: Header) -> tuple[int, int]:
    if not {"width", "height"} <= set(header.place):
        return 0, 0
    height, width = (_number(cells[header.place[key]]) for key in ("height", "width"))
    return (int(height), int(width)) if 0 < height < 2**31 and 0 < width < 2**31 else (0, 0)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
