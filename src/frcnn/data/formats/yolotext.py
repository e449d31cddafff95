"""The files of a YOLO data set to plain values: label files, ``data.yaml``, Darknet's ``.data``.

Nothing that a file holds makes this fail: every row or entry that cannot be understood gives one ``Problem``.

Letters: g boxes of one picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import yaml
from numpy.typing import NDArray
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from frcnn.data.findings import Problem
from frcnn.data.formats.layout import SPLIT_NAMES, split_lines
from frcnn.data.sample import Ints

SLACK = 0.01
"""Shares may lie outside 0..1 by this; such boxes are cut at the border by the data check."""
_VALUES = ("centre x", "centre y", "width", "height")
_DATA_LINE = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*$")


@dataclass
class Labels:
    """The content of a label file.

    Attributes:
        ids: (g,) int64, class of every box.
        boxes: (g, 4) float64, x1, y1, x2, y2 as shares of the picture's width and height.
        lines: (g,) int32.
        polygons: number of boxes that were polygons.
        problems: what could not be read, with the code of its finding.
    """

    ids: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    lines: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    polygons: int = 0
    problems: tuple[Problem, ...] = ()


@dataclass
class Setup:
    """What ``data.yaml`` or a ``.data`` file says.

    Attributes:
        names: class names by number; empty where the file has none.
        names_file: where Darknet has them instead, "" for nowhere.
        base: folder that the splits are below, as written.
        splits: name -> places as written, each with its line.
        keypoints: values of the key points that follow a box in a label row.
        problems: what could not be read.
    """

    names: dict[int, str] = field(default_factory=dict)
    names_file: str = ""
    base: str = ""
    splits: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    keypoints: int = 0
    problems: list[Problem] = field(default_factory=list)


def parse_labels(lines: Sequence[str], keypoints: int = 0) -> Labels:
    """Read the lines of a label file. Never raises."""
    rows: list[tuple[int, int, list[float]]] = []
    problems: list[Problem] = []
    polygons = 0
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if not columns:
            continue
        if len(columns) == 6 and not keypoints:
            reason = (
                "has 6 columns, the last a confidence: this is a result file; give the folder of the labels"
            )
            return Labels(problems=(Problem(number, reason),))
        label, values, problem = _row(columns, keypoints)
        if problem:
            problems.append(Problem(number, *problem))
        elif len(values) == 4:
            x, y, width, height = values
            rows.append((number, label, [x - width / 2, y - height / 2, x + width / 2, y + height / 2]))
        else:
            polygons += 1
            across, down = values[0::2], values[1::2]
            rows.append((number, label, [min(across), min(down), max(across), max(down)]))
    return Labels(
        np.asarray([label for _, label, _ in rows], np.int64),
        np.asarray([box for *_, box in rows], np.float64).reshape(-1, 4),
        np.asarray([number for number, *_ in rows], np.int32),
        polygons,
        tuple(problems),
    )


def _row(columns: list[str], keypoints: int) -> tuple[int, list[float], tuple[str, str] | tuple[()]]:
    """Class, shares (of a box, or of a polygon's points), and what is wrong with a row, with its code."""
    count = len(columns)
    polygon = count >= 7 and count % 2 == 1 and not keypoints
    if count not in (5, 5 + keypoints) and not polygon:
        wanted = f"{5 + keypoints}" if keypoints else "5, of a polygon an odd number from 7 on"
        return 0, [], (f"has {count} columns; the row of a box has {wanted}", "D16")
    label = _number(columns[0])
    if not (label.is_integer() and abs(label) < 2**31):
        return 0, [], (f"column 1 (class) is '{columns[0][:40]}', not the number of a class", "D16")
    values = [_number(text) for text in (columns[1:] if polygon else columns[1:5])]
    for place, (text, value) in enumerate(zip(columns[1:], values, strict=False), 2):
        if math.isnan(value):
            return 0, [], (f"column {place} of class {int(label)} is '{text[:40]}', not a number", "D16")
    for place, (text, value) in enumerate(zip(columns[1:], values, strict=False), 2):
        if not -SLACK <= value <= 1 + SLACK:
            name = "" if polygon else f" ({_VALUES[place - 2]})"
            guess = "below 0"
            if value > 1:
                pixels = max(values) > 2
                guess = "above 1: these look like pixels, not shares of 0 to 1" if pixels else "above 1"
            return 0, [], (f"column {place}{name} of class {int(label)} is {text[:40]}, {guess}", "D04")
    return int(label), values, ()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def looks_like_labels(lines: Sequence[str]) -> bool:
    """Whether the first row that is not empty is that of a box or polygon; an empty file is not."""
    columns = next((line.split() for line in lines if line.strip()), list[str]())
    if len(columns) < 5 or not re.fullmatch(r"\d+(\.0*)?", columns[0]):
        return False
    return not any(math.isnan(_number(text)) for text in columns)


def parse_yaml(text: str) -> Setup:
    """Read ``data.yaml``. Never raises; aliases and tags are not followed into other types."""
    setup = Setup()
    try:
        top = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or "a character that is not allowed"
        setup.problems.append(Problem(mark.line + 1 if mark else 1, f"is not YAML ({reason})"))
        return setup
    except (RecursionError, ValueError):
        setup.problems.append(Problem(1, "is not YAML (nested too deeply)"))
        return setup
    if not isinstance(top, MappingNode):
        setup.problems.append(Problem(1, "is not a YOLO data file: it has no keys"))
        return setup
    stated = -1
    for key, value in top.value:
        word = _text(key).lower()
        if word == "names":
            _take_names(value, setup)
        elif word == "path":
            setup.base = _text(value)
        elif word == "nc":
            stated = int(_text(value)) if re.fullmatch(r"\d{1,6}", _text(value)) else -1
        elif word == "kpt_shape":
            sizes = [_text(item) for item in value.value] if isinstance(value, SequenceNode) else []
            setup.keypoints = math.prod(int(n) for n in sizes if re.fullmatch(r"\d{1,3}", n)) if sizes else 0
        elif word in SPLIT_NAMES:
            _take_split(SPLIT_NAMES[word], value, setup)
    if 0 <= stated != len(setup.names) and setup.names:
        setup.problems.append(Problem(1, f"nc is {stated} and names holds {len(setup.names)}"))
    return setup


def _text(node: Node) -> str:
    return str(node.value).strip() if isinstance(node, ScalarNode) else ""


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _take_names(node: Node, setup: Setup) -> None:
    """The class names: a list, or a mapping from number to name."""
    pairs: list[tuple[str, Node]] = []
    if isinstance(node, SequenceNode):
        pairs = [(str(k), item) for k, item in enumerate(node.value)]
    elif isinstance(node, MappingNode):
        pairs = [(_text(key), item) for key, item in node.value]
    else:
        setup.problems.append(
            Problem(_line(node), "names is neither a list nor a mapping from number to name")
        )
    for key, item in pairs:
        name = _text(item)
        if not name or not re.fullmatch(r"\d{1,6}", key):
            setup.problems.append(Problem(_line(item), f"names: '{key[:40]}' has no usable number and name"))
        elif int(key) in setup.names:
            setup.problems.append(Problem(_line(item), f"names: the number {key} comes twice"))
        else:
            setup.names[int(key)] = name


def _take_split(split: str, node: Node, setup: Setup) -> None:
    """The places of a split: one, or a list of them."""
    items = node.value if isinstance(node, SequenceNode) else [node]
    for item in items:
        place = _text(item)
        if not isinstance(item, ScalarNode):
            setup.problems.append(Problem(_line(node), f"{split} is neither a path nor a list of paths"))
        elif place and place.lower() not in ("null", "~"):
            setup.splits.setdefault(split, []).append((place, _line(item)))


def parse_data(text: str) -> Setup:
    """Read Darknet's ``.data`` file: ``train = list.txt``, ``valid = list.txt``, ``names = obj.names``."""
    setup = Setup()
    for number, line in enumerate(split_lines(text), 1):
        match = _DATA_LINE.match(line)
        word = match[1].lower() if match else ""
        if match is None and line.strip() and not line.lstrip().startswith("#"):
            setup.problems.append(Problem(number, f"is no line 'key = value': '{line.strip()[:40]}'"))
        elif match and word == "names":
            setup.names_file = match[2]
        elif match and word in SPLIT_NAMES and match[2]:
            setup.splits.setdefault(SPLIT_NAMES[word], []).append((match[2], number))
    return setup


def parse_names(lines: Sequence[str]) -> dict[int, str]:
    """The class names of ``classes.txt`` or ``obj.names``: one in each line, blank lines at the end apart."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return {number: line.strip() for number, line in enumerate(lines)}
