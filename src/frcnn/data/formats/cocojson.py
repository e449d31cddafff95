"""One COCO detection file to flat arrays.

Nothing that a file holds makes this fail: a file that is not JSON gives one ``Problem``, and so does every
picture, category or annotation that cannot be understood. Segmentation is skipped, not read.

Letters: n pictures, m boxes of the file, c categories.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from frcnn.data.findings import Problem
from frcnn.data.sample import Bools, Ints

Id = int | str
Flag = float | bool | None
Item = TypeVar("Item")
MAX_SIDE = 2**31


class _File(msgspec.Struct):
    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw]


class _Image(msgspec.Struct):
    id: Id
    file_name: str
    height: float | None = None
    width: float | None = None


class _Category(msgspec.Struct):
    id: Id
    name: str


class _Annotation(msgspec.Struct):
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    id: Id | None = None
    iscrowd: Flag = None
    ignore: Flag = None


@dataclass
class CocoFile:
    """The content of a file.

    Attributes:
        file_names: n pictures, as written.
        sizes: n times (height, width) as stated, 0 where it is not.
        categories: c names, in the order of the file.
        category_ids: c ids, as written.
        image: (m,) position of the picture of every box.
        category: (m,) position of its category.
        boxes: (m, 4) float64, x, y, width, height.
        crowd: (m,) bool, ``iscrowd``.
        ignore: (m,) bool, ``ignore``.
        lines: (m,) int32, -1 - index in ``annotations``.
        problems: what could not be read; a line below 0 is that of an annotation.
        doubts: what was read and is strange.
    """

    file_names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    category_ids: list[Id] = field(default_factory=list)
    image: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    category: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    crowd: Bools = field(default_factory=lambda: np.zeros(0, bool))
    ignore: Bools = field(default_factory=lambda: np.zeros(0, bool))
    lines: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    problems: list[Problem] = field(default_factory=list)
    doubts: list[Problem] = field(default_factory=list)


def parse(content: bytes) -> CocoFile:
    """Read the bytes of a file. Never raises."""
    result, content = CocoFile(), content.removeprefix(b"\xef\xbb\xbf")
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        result.problems.append(json_problem(error, content, "a COCO detection file"))
        return result
    images = _decode(file.images, _Image, lambda i: f"images[{i}]: ", result.problems)
    categories = _decode(file.categories, _Category, lambda i: f"categories[{i}]: ", result.problems)
    categories = _named(categories, result)
    image_of = _positions([(i, item.id) for i, item in images], "images", result.problems)
    category_of = _positions([(i, item.id) for i, item in categories], "categories", result.problems)
    result.file_names = [item.file_name for _, item in images]
    result.sizes = [(_side(item.height), _side(item.width)) for _, item in images]
    result.problems += [
        Problem(0, f"images[{i}]: states a size of {item.width:g} x {item.height:g}, which no picture has")
        for i, item in images
        if item.width is not None and item.height is not None and max(item.width, item.height) >= MAX_SIDE
    ]
    result.categories = [item.name.strip() for _, item in categories]
    result.category_ids = [item.id for _, item in categories]
    _take_boxes(file.annotations, image_of, category_of, result)
    return result


def _decode(
    raw: Sequence[msgspec.Raw], kind: type[Item], place: Callable[[int], str], problems: list[Problem]
) -> list[tuple[int, Item]]:
    """The items that can be read, with their index; ``place`` says where the others are."""
    decoder, items = msgspec.json.Decoder(kind), list[tuple[int, Item]]()
    for i, text in enumerate(raw):
        try:
            items.append((i, decoder.decode(text)))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            where = place(i)
            problems.append(Problem(0 if where else -1 - i, where + reason_of(error)))
    return items


def _take_boxes(
    raw: Sequence[msgspec.Raw], image_of: dict[Id, int], category_of: dict[Id, int], result: CocoFile
) -> None:
    """Read the annotations into ``result``; those of unknown pictures or categories are problems."""
    kept: list[tuple[int, _Annotation]] = []
    used: dict[Id, int] = {}
    for i, item in _decode(raw, _Annotation, lambda _: "", result.problems):
        if item.image_id not in image_of:
            result.problems.append(Problem(-1 - i, f"image_id {item.image_id!r} is not in images", "D10"))
        elif item.category_id not in category_of:
            result.problems.append(Problem(-1 - i, f"category_id {item.category_id!r} is not in categories"))
        else:
            kept.append((i, item))
        if item.id is not None and used.setdefault(item.id, i) != i:
            text = f"has the id {item.id!r} of annotations[{used[item.id]}]"
            result.doubts.append(Problem(-1 - i, text, "D09"))
    result.image = np.asarray([image_of[a.image_id] for _, a in kept], np.int64)
    result.category = np.asarray([category_of[a.category_id] for _, a in kept], np.int64)
    result.boxes = np.asarray([a.bbox for _, a in kept], np.float64).reshape(-1, 4)
    result.crowd = np.asarray([bool(a.iscrowd) for _, a in kept], bool)
    result.ignore = np.asarray([bool(a.ignore) for _, a in kept], bool)
    result.lines = np.asarray([-1 - i for i, _ in kept], np.int32)


def _named(categories: list[tuple[int, _Category]], result: CocoFile) -> list[tuple[int, _Category]]:
    """The categories with a name; two of the same name become one class, which is said."""
    first: dict[str, Id] = {}
    for i, item in categories:
        name = item.name.strip()
        if not name:
            result.problems.append(Problem(0, f"categories[{i}]: has an empty name"))
        elif first.setdefault(name, item.id) != item.id:
            text = f'categories[{i}]: has the name "{name}" of category {first[name]!r}'
            result.doubts.append(Problem(0, text))
    return [(i, item) for i, item in categories if item.name.strip()]


def _positions(ids: Sequence[tuple[int, Id]], section: str, problems: list[Problem]) -> dict[Id, int]:
    """Position among the items that were read, by id; an id that comes again is a problem."""
    found: dict[Id, int] = {}
    for position, (i, key) in enumerate(ids):
        if key in found:
            text = f"{section}[{i}]: has the id {key!r} of {section}[{ids[found[key]][0]}]"
            problems.append(Problem(0, text, "D09"))
        else:
            found[key] = position
    return found


def _side(value: float | None) -> int:
    return int(value) if value is not None and 0 < value < MAX_SIDE else 0


def reason_of(error: Exception) -> str:
    """What msgspec says, for people who have not heard of it."""
    text, _, path = str(error).partition(" - at `$")
    if match := re.search(r"missing required field `(\w+)`", text):
        return f"has no {match[1]}"
    key = path.strip("`.")
    text = text.replace("`", "").replace("object", "{...}").replace("array", "list")
    return (f"{key}: " if key else "") + text[:1].lower() + text[1:]


def json_problem(error: Exception, content: bytes, kind: str) -> Problem:
    """The problem of a file that cannot be decoded at all; ``kind`` says what it should be."""
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        return Problem(1, f"is not {kind}: {reason_of(error)}")
    if not content.strip():
        return Problem(1, "is empty")
    at = re.search(r" \(byte (\d+)\)", text)
    line = content.count(b"\n", 0, int(at[1]) if at else len(content)) + 1
    reason = text.replace(at[0], "") if at else text
    return Problem(line, f"is not JSON ({reason.removeprefix('JSON is malformed: ')})")
