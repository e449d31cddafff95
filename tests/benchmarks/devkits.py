"""Penn-Fudan-like records and a small VOC data set, written by the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]


def record(name: str, boxes: Sequence[Box], size: tuple[int, int] = (80, 60)) -> str:
    """A text record as Penn-Fudan's; size is (width, height), boxes are 1-based, both ends included."""
    lines = [
        "# Compatible with PASCAL Annotation Version 1.00",
        f'Image filename : "PennFudanPed/PNGImages/{name}.png"',
        f"Image size (X x Y x C) : {size[0]} x {size[1]} x 3",
        f"Objects with ground truth : {len(boxes)} {{ }}",
        "# Top left pixel co-ordinates : (1, 1)",
    ]
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        label = "PASpersonWalking" if number % 2 else "PASpersonStanding"
        lines.append(f'# Details for pedestrian {number} ("{label}")')
        lines.append(
            f'Bounding box for object {number} "{label}" (Xmin, Ymin) - (Xmax, Ymax) : '
            f"({x1}, {y1}) - ({x2}, {y2})"
        )
    return "\n".join(lines) + "\n"


def pedestrians(root: Path, boxes: Mapping[str, Sequence[Box]], size: tuple[int, int] = (80, 60)) -> Path:
    """Annotation and PNGImages below ``root``: grey pictures, light where an object is."""
    for folder in ("Annotation", "PNGImages"):
        (root / folder).mkdir(parents=True)
    for name, objects in boxes.items():
        pixels = np.full((size[1], size[0], 3), 60, np.uint8)
        for x1, y1, x2, y2 in objects:
            pixels[y1 - 1 : y2, x1 - 1 : x2] = 200
        Image.fromarray(pixels).save(root / "PNGImages" / f"{name}.png")
        (root / "Annotation" / f"{name}.txt").write_text(record(name, objects, size), encoding="utf-8")
    return root


def ten(root: Path) -> Path:
    """Ten pictures with one or two objects: splits of 5, 2, 7 and 3."""
    one, two = (11, 6, 40, 45), (46, 10, 70, 50)
    return pedestrians(root, {f"P{i:05}": [one, two][: 1 + i % 2] for i in range(10)})
