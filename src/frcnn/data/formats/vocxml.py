"""One Pascal VOC annotation file to plain values, with the line of every object.

Nothing that a file holds makes this fail: a file that is not well-formed gives one ``Problem``, and so does
every object that cannot be understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from numpy.typing import NDArray

from frcnn.data.findings import Problem
from frcnn.data.sample import Bools, Floats

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_YES = {"1", "true", "yes"}
MAX_SIDE = 2**31
"""A picture cannot be so high or wide."""


class _Object(NamedTuple):
    line: int
    values: dict[str, str]


@dataclass
class VocFile:
    """The content of a file.

    Attributes:
        root: name of the outermost element; "" when the file is not well-formed.
        filename: the picture's name as stated, "" where there is none.
        size: declared (height, width); 0 where there is none.
        names: class of every object.
        corners: (g, 4) float64, xmin, ymin, xmax, ymax as written.
        difficult: (g,) bool.
        truncated: (g,) bool.
        occluded: (g,) bool.
        lines: (g,) int32.
        problems: what could not be read.
    """

    root: str = ""
    filename: str = ""
    size: tuple[int, int] = (0, 0)
    names: tuple[str, ...] = ()
    corners: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    difficult: Bools = field(default_factory=lambda: np.zeros(0, bool))
    truncated: Bools = field(default_factory=lambda: np.zeros(0, bool))
    occluded: Bools = field(default_factory=lambda: np.zeros(0, bool))
    lines: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    problems: tuple[Problem, ...] = ()


class _Target:
    """Receives the parser's events; only the right depth counts, so nested ``part`` boxes stay out."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.text: list[str] = []
        self.root = ""
        self.general: dict[str, str] = {}
        self.objects: list[_Object] = []
        self.parser: DefusedXMLParser | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        del attributes  # VOC has none
        self.path.append(tag)
        self.text.clear()
        if len(self.path) == 1:
            self.root = tag
        elif len(self.path) == 2 and tag == "object":
            line = self.parser.parser.CurrentLineNumber if self.parser else 0
            self.objects.append(_Object(line, {}))

    def data(self, text: str) -> None:
        self.text.append(text)

    def end(self, tag: str) -> None:
        path = self.path
        if len(path) > 2 and path[1] == "object":
            if len(path) == 3 or (len(path) == 4 and path[2] == "bndbox"):
                self.objects[-1].values[tag] = "".join(self.text).strip()
        elif len(path) == 2 or (len(path) == 3 and path[1] == "size"):
            self.general[tag] = "".join(self.text).strip()
        path.pop()
        self.text.clear()

    def close(self) -> None:
        """The parser asks for a result here; the values are read from the attributes instead."""


def parse(content: bytes) -> VocFile:
    """Read the bytes of a file. Never raises."""
    target = _Target()
    try:
        parser = DefusedXMLParser(target=target)
        target.parser = parser
        parser.feed(content)
        parser.close()
    except ParseError as error:
        line = error.position[0]
        reason = re.sub(r": line \d+, column \d+$", "", str(error))
        return VocFile(problems=(Problem(line, f"not well-formed XML ({reason})"),))
    except DefusedXmlException:
        return VocFile(problems=(Problem(1, "declares XML entities, which are not allowed"),))
    except (ValueError, LookupError) as error:  # an encoding that does not exist or does not fit
        return VocFile(problems=(Problem(1, f"cannot be decoded ({error})"),))
    return _understand(target)


def _understand(target: _Target) -> VocFile:
    general = target.general
    result = VocFile(target.root, general.get("filename", ""), _declared_size(general))
    reasons = [_problem(values) for _, values in target.objects]
    good = [item for item, reason in zip(target.objects, reasons, strict=True) if not reason]
    result.names = tuple(values["name"] for _, values in good)
    result.corners = np.asarray([[float(v[c]) for c in _CORNERS] for _, v in good], np.float64).reshape(-1, 4)
    result.difficult, result.truncated, result.occluded = (
        np.asarray([_is_true(values.get(flag, "")) for _, values in good], bool)
        for flag in ("difficult", "truncated", "occluded")
    )
    result.lines = np.asarray([line for line, _ in good], np.int32)
    result.problems = tuple(
        Problem(item.line, reason) for item, reason in zip(target.objects, reasons, strict=True) if reason
    )
    if huge := _huge_size(general):
        result.problems = (Problem(1, huge), *result.problems)
    return result


def _problem(values: dict[str, str]) -> str:
    if not values.get("name"):
        return "object without <name>"
    missing = [c for c in _CORNERS if not values.get(c)]
    if missing:
        return f"object '{values['name']}' without {', '.join(f'<{m}>' for m in missing)} in its <bndbox>"
    for corner in _CORNERS:
        try:
            float(values[corner])
        except ValueError:
            return f"<{corner}> of object '{values['name']}' is '{values[corner][:40]}', not a number"
    return ""


def _is_true(text: str) -> bool:
    try:
        return float(text) != 0
    except ValueError:  # "Unspecified" and the like
        return text.lower() in _YES


def _huge_size(general: dict[str, str]) -> str:
    """What is wrong with a stated size that no picture can have."""
    for side in ("width", "height"):
        try:
            huge = float(general.get(side, "0")) >= MAX_SIDE
        except ValueError:
            huge = False
        if huge:
            return f"states a {side} of {general[side][:40]} pixels, which no picture has"
    return ""


def _declared_size(general: dict[str, str]) -> tuple[int, int]:
    try:
        height, width = (int(float(general[k])) for k in ("height", "width"))
    except (KeyError, ValueError, OverflowError):
        return 0, 0
    return (height, width) if 0 < height < MAX_SIDE and 0 < width < MAX_SIDE else (0, 0)


def from_one_based(corners: NDArray[np.float64]) -> Floats:
    """VOC corners (1-based, both ends included) to half-open boxes from 0: 1 is taken off xmin and ymin only.

    The result is never moved below 0, and a coordinate that is negative in the file stays as it is, so that
    the data check sees it. Where xmax <= xmin (or ymax <= ymin) as written, both stay as written: such a box
    is reported as having no area, with the numbers of the file, and not silently made one pixel wide.

    Args:
        corners: (g, 4) float64.

    Returns:
        (g, 4) float32.
    """
    low, high = corners[:, :2], corners[:, 2:]
    moved = np.where(low < 0, low, np.maximum(low - 1, 0))
    moved = np.where(high > low, moved, low)
    with np.errstate(over="ignore"):  # 1e300 becomes inf, which the check reports
        return np.concatenate([moved, high], 1).astype(np.float32)
