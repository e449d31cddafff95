"""Boxes as the text of label files: Pascal VOC, YOLO and COCO. ``writers`` writes predictions with it,
``conversion`` data sets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

LabelFormat = Literal["voc", "yolo", "coco"]
FORMATS: tuple[str, ...] = get_args(LabelFormat)
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Labelled:
    """The boxes of one picture.

    Attributes:
        boxes: (n, 4) x1, y1, x2, y2, half-open pixels of the picture as it is shown.
        labels: (n,) int64, 0..K-1.
        classes: K names.
        size: (height, width) of the picture.
        file: the picture's file name, "" for none.
        folder: the name of the folder it is in.
        difficult: (n,) bool, to be neither learnt nor counted.
        crowd: (n,) bool, regions that may hold any number of objects.
        truncated: (n,) bool.
        occluded: (n,) bool.

    The last four may be left out: none.
    """

    boxes: NDArray[np.floating]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    size: tuple[int, int]
    file: str = ""
    folder: str = ""
    difficult: Bools = field(default_factory=lambda: np.zeros(0, bool))
    crowd: Bools = field(default_factory=lambda: np.zeros(0, bool))
    truncated: Bools = field(default_factory=lambda: np.zeros(0, bool))
    occluded: Bools = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        for name in ("difficult", "crowd", "truncated", "occluded"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.zeros(len(self.boxes), bool))


def voc_holds(boxes: NDArray[np.floating]) -> Bools:
    """(n,) whether a box can be written in VOC: a side above 0 and up to 1 pixel cannot, because its last
    pixel, counted from 1, would not lie after its first.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    thin = (low >= 0) & (high > low) & (high <= low + 1)
    return np.asarray(np.isfinite(boxes).all(1) & ~thin.any(1))


def one_based(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 4) VOC corners, 1-based, both ends included: what ``vocxml.from_one_based`` turns into the boxes.

    Sides without length and below 0 stay as they are, as they do there.
    """
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return np.concatenate([np.where((low < 0) | (high <= low), low, low + 1), high], 1)


def voc_xml(picture: Labelled, digits: int = 2) -> str:
    """Pascal VOC's XML of one picture; a crowd is written as difficult."""
    height, width = picture.size
    lines = [
        "<annotation>",
        f"  <folder>{_xml(picture.folder)}</folder>",
        f"  <filename>{_xml(picture.file)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    flags = np.stack([picture.truncated, picture.occluded, picture.difficult | picture.crowd], 1).astype(int)
    rows = zip(one_based(picture.boxes).tolist(), picture.labels.tolist(), flags.tolist(), strict=True)
    for corners, label, (truncated, occluded, difficult) in rows:
        named = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{tag}>{_short(value, digits)}</{tag}>" for tag, value in named)
        lines += [
            "  <object>",
            f"    <name>{_xml(picture.classes[label])}</name>",
            "    <pose>Unspecified</pose>",
            f"    <truncated>{truncated}</truncated>",
            f"    <occluded>{occluded}</occluded>",
            f"    <difficult>{difficult}</difficult>",
            f"    <bndbox>{box}</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def yolo_text(picture: Labelled, digits: int = 6) -> str:
    """One line an object: label, centre x and y, width, height as shares of the picture; no flags."""
    height, width = picture.size
    lines = []
    for (x1, y1, x2, y2), label in zip(picture.boxes.tolist(), picture.labels.tolist(), strict=True):
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(f"{label} " + " ".join(f"{share:.{digits}f}" for share in shares) + "\n")
    return "".join(lines)


def yolo_yaml(classes: tuple[str, ...], places: dict[str, str]) -> str:
    """``data.yaml``: where the pictures of every split are, below the file's own folder, and the names."""
    splits = "".join(f"{split}: {place}\n" for split, place in places.items())
    names = "".join(f"  {k}: {json.dumps(name, ensure_ascii=False)}\n" for k, name in enumerate(classes))
    return f"path: .\n{splits}names:{' {}' if not classes else ''}\n{names}"


class CocoTable:
    """A COCO file that grows by pictures; ids of pictures, boxes and classes are counted from 1."""

    def __init__(self, classes: tuple[str, ...], digits: int = 2) -> None:
        """Begin with no picture."""
        self._digits = digits
        categories = [{"id": k + 1, "name": name} for k, name in enumerate(classes)]
        self._data: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}

    def add(self, picture: Labelled) -> None:
        """Add a picture by its ``file``; what is difficult gets ``ignore``, a crowd ``iscrowd``."""
        images, annotations = self._data["images"], self._data["annotations"]
        height, width = picture.size
        images.append({"id": len(images) + 1, "file_name": picture.file, "height": height, "width": width})
        boxes = np.asarray(picture.boxes, np.float64)
        corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()
        rows = zip(corners, picture.labels.tolist(), picture.crowd, picture.difficult, strict=True)
        for values, label, crowd, difficult in rows:
            box = [_whole(round(value, self._digits)) for value in values]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": label + 1,
                    "bbox": box,
                    "area": _whole(round(box[2] * box[3], self._digits)),
                    "iscrowd": int(crowd),
                    **({"ignore": 1} if difficult and not crowd else {}),
                }
            )

    def text(self) -> str:
        """The file."""
        return json.dumps(self._data, ensure_ascii=False)


def picture_file(path: Path | None) -> tuple[str, str]:
    """Name and folder of a picture's file, as VOC states them; "" for a picture without one."""
    return ("", "") if path is None else (path.name, path.parent.name)


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _short(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _xml(text: str) -> str:
    return escape("".join(c for c in text if c.isprintable()))
