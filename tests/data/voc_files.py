"""Small VOC data sets on disk, for the tests of reading and checking."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

Box = tuple[str, float, float, float, float]


def real(name: str) -> Path:
    """A real data set; skips the test where it is not there."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("FRCNN_DATA", default)) / name
    if not folder.is_dir():
        pytest.skip(f"no {name} here: set FRCNN_DATA to the folder that holds {name}/")
    return folder


def bccd() -> Path:
    """The real blood cells."""
    return real("bccd")


def xml(
    name: str, boxes: Sequence[Box] = (), size: tuple[int, int] | None = (60, 80), difficult: int = 0
) -> str:
    """A VOC annotation; size is (height, width)."""
    head = (
        f"<annotation>\n<folder>elsewhere</folder>\n<filename>{name}</filename>\n<path>/there/x.jpg</path>\n"
    )
    if size:
        head += f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>\n"
    objects = [
        f"<object>\n<name>{label}</name>\n<difficult>{difficult}</difficult>\n<bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>\n</object>\n"
        for label, x1, y1, x2, y2 in boxes
    ]
    return head + "".join(objects) + "</annotation>\n"


def picture(path: Path, size: tuple[int, int] = (60, 80), colour: int = 0) -> Path:
    """A picture of one colour; size is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (colour % 256, 90, 30)).save(path)
    return path


def text(path: Path, content: str) -> Path:
    """A text file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def devkit(
    root: Path, pictures: dict[str, Sequence[Box]], splits: dict[str, Sequence[str]] | None = None
) -> Path:
    """JPEGImages, Annotations and ImageSets/Main."""
    for number, (name, boxes) in enumerate(pictures.items()):
        picture(root / "JPEGImages" / f"{name}.jpg", colour=10 * number)
        text(root / "Annotations" / f"{name}.xml", xml(f"{name}.jpg", boxes))
    for split, names in (splits or {}).items():
        text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{n}\n" for n in names))
    return root
