"""The Penn-Fudan pedestrians as a Pascal VOC data set: pictures linked, records made XML, splits fixed.

Both labels become ``person``. Boxes keep their numbers: the records count from 1 and include both ends, as
VOC does. The pictures are sorted by name and shuffled with ``random.Random(0)``; the first 70 % are
``trainval`` and the rest ``test``. The last 20 % of the shuffled ``trainval`` are ``val`` and the rest
``train``, for tuning.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

CLASS = "person"
SIZE = re.compile(r"^Image size \(X x Y x C\) : (\d+) x (\d+) x \d+", re.MULTILINE)
COUNT = re.compile(r"^Objects with ground truth : (\d+)", re.MULTILINE)
BOX = re.compile(
    r'^Bounding box for object \d+ "[^"]*" \(Xmin, Ymin\) - \(Xmax, Ymax\) : '
    r"\((\d+), (\d+)\) - \((\d+), (\d+)\)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Record:
    """(width, height) of a picture, and its boxes (xmin, ymin, xmax, ymax), 1-based, both ends included."""

    size: tuple[int, int]
    boxes: tuple[tuple[int, ...], ...]


def parse_record(text: str, name: str) -> Record:
    """Read a record.

    Raises:
        ValueError: when it states no size, or another number of objects than it has boxes.
    """
    size, count = SIZE.search(text), COUNT.search(text)
    if size is None or count is None:
        raise ValueError(f"{name}: not a Penn-Fudan record: no picture size, or no number of objects")
    boxes = tuple(tuple(int(v) for v in match.groups()) for match in BOX.finditer(text))
    if len(boxes) != int(count[1]):
        raise ValueError(f"{name}: states {count[1]} objects, holds {len(boxes)}; get the file again")
    return Record((int(size[1]), int(size[2])), boxes)


def to_xml(filename: str, record: Record) -> str:
    """A VOC annotation with the same numbers."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"  <object>\n    <name>{CLASS}</name>\n    <difficult>0</difficult>\n    <bndbox>"
        + "".join(f"<{c}>{v}</{c}>" for c, v in zip(corners, box, strict=True))
        + "</bndbox>\n  </object>\n"
        for box in record.boxes
    )
    width, height = record.size
    return (
        f"<annotation>\n  <filename>{escape(filename)}</filename>\n  <size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>\n{objects}</annotation>\n"
    )


def make_splits(names: Sequence[str]) -> dict[str, list[str]]:
    """The four splits of the pictures with these names; whole numbers only, so that no rounding moves one."""
    shuffled = sorted(names)
    random.Random(0).shuffle(shuffled)
    trainval = shuffled[: len(shuffled) * 7 // 10]
    cut = len(trainval) * 4 // 5
    return {
        "train": trainval[:cut],
        "val": trainval[cut:],
        "trainval": trainval,
        "test": shuffled[len(trainval) :],
    }


def prepare(source: Path, target: Path) -> Mapping[str, int]:
    """Write the VOC data set into ``target``, in one piece: a folder that was left half done is made anew.

    Args:
        source: folder with ``Annotation`` and ``PNGImages``.
        target: new folder; one that is there already is kept as it is.

    Returns:
        Number of pictures of every split.

    Raises:
        ValueError: when the source is not there, has no records, or a record has no picture.
    """
    lists = target / "ImageSets" / "Main"
    if not lists.is_dir():
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _write(source, partial)
        partial.rename(target)
    return {p.stem: len(p.read_text(encoding="utf-8").split()) for p in sorted(lists.glob("*.txt"))}


def _write(source: Path, target: Path) -> None:
    records = sorted((source / "Annotation").glob("*.txt"))
    if not records:
        raise ValueError(
            f"{source}: no Penn-Fudan records (Annotation/*.txt) here; "
            "set FRCNN_DATA to the folder above pennfudan/"
        )
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (target / folder).mkdir(parents=True)
    for path in records:
        picture = source / "PNGImages" / f"{path.stem}.png"
        if not picture.is_file():
            raise ValueError(f"{path}: its picture {picture} is not there; get the data set again")
        _link(picture, target / "JPEGImages" / picture.name)
        record = parse_record(path.read_text(encoding="utf-8", errors="replace"), str(path))
        (target / "Annotations" / f"{path.stem}.xml").write_text(
            to_xml(picture.name, record), encoding="utf-8"
        )
    for split, names in make_splits([path.stem for path in records]).items():
        text = "".join(f"{name}\n" for name in names)
        (target / "ImageSets" / "Main" / f"{split}.txt").write_text(text, encoding="utf-8")


def _link(picture: Path, place: Path) -> None:
    """A hard link, since links that lead out of a data set are refused; a copy on another file system."""
    try:
        os.link(picture.resolve(), place)
    except OSError:
        shutil.copyfile(picture, place)
