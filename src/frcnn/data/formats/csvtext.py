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

import numpy as np
from numpy.typing import NDArray

from frcnn.data.findings import Problem
from frcnn.data.formats.flagwords import FLAG_OF, FlagColumns, columns_of, plain_word
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
        splits: stated split of every picture, "" for none.
        image: (m,) int64, position of the picture.
        names: m class names.
        numbers: class name -> its numbers, as text.
        boxes: (m, 4) float64, x1, y1, x2, y2.
        lines: (m,) int32.
        flags: of every box.
        problems: what could not be read.
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
    problems: list[Problem] = field(default_factory=list)

    @property
    def relative(self) -> bool:
        """Whether the boxes are shares of the picture's sides: none is above 1, and some are fractions."""
        known = self.boxes[np.isfinite(self.boxes)]
        return bool(known.size and np.abs(known).max() <= 1 and (known % 1 != 0).any())


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
    found: list[tuple[int, int, str, list[float], dict[str, str]]] = []
    for line, cells in _rows(text, header, table.problems):
        path = cells[header.place["path"]].strip()
        if not path:
            table.problems.append(Problem(line, "names no picture"))
            continue
        at = position.setdefault(path, len(position))
        if at == len(table.pictures):
            table.pictures.append(path)
            table.first_lines.append(line)
            table.sizes.append(_stated_size(cells, header))
            table.splits.append(
                cells[header.place["split"]].strip().lower() if "split" in header.place else ""
            )
        name, corners, reason = _row(cells, header)
        if reason:
            table.problems.append(Problem(line, reason))
        elif corners:
            found.append((line, at, name, corners, {flag: cells[k] for flag, k in header.flags.items()}))
            if "number" in header.place and (number := cells[header.place["number"]].strip()):
                known = table.numbers.setdefault(name, [])
                known += [number] if number not in known else []
    table.image = np.asarray([at for _, at, *_ in found], np.int64)
    table.names = [name for _, _, name, *_ in found]
    table.boxes = np.asarray([corners for *_, corners, _ in found], np.float64).reshape(-1, 4)
    table.lines = np.asarray([line for line, *_ in found], np.int32)
    table.flags = columns_of([flags for *_, flags in found])
    return table


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
