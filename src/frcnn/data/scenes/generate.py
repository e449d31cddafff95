"""A generated data set: coloured badges on cluttered backgrounds, written as VOC files, all from one seed.

It has what real data has: overlaps, objects cut by the border, small ones, empty pictures, pictures of many
sizes, distractors, and a few objects so hidden that they are marked ``difficult``. A box is tight around what
can be seen.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frcnn.data.feed.transforms import sample_generator
from frcnn.data.scenes.backdrop import PALETTE, backdrop
from frcnn.data.scenes.shapes import CLASSES, Floats, Piece, footprint, paint

SPLITS: Mapping[str, int] = MappingProxyType({"train": 240, "val": 40, "test": 60})
"""Pictures of each split by default."""
VERSION = 1
"""Of the drawing; a folder of another version is made anew."""
_MARKER = "scenes.json"
_SHORT_SIDE, _LONGEST = (240, 320), 1.4
_SMALL, _LARGE = (9.0, 16.0), (16.0, 58.0)  # radius, pixels
_EMPTY = 0.08  # share of pictures without objects
_HIDDEN = 0.06  # share of pictures in which an object is hidden on purpose
_VISIBLE = 0.62  # of every other object, at least
_MIN_SIDE = 7  # of a box, pixels


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene.

    Attributes:
        label: position in ``CLASSES``.
        box: (x1, y1, x2, y2) around the visible pixels, half-open.
        visible: share of the object's pixels that can be seen, 0..1.
        truncated: cut by the border of the picture.
    """

    label: int
    box: tuple[int, int, int, int]
    visible: float
    truncated: bool

    @property
    def difficult(self) -> bool:
        """Whether less than half can be seen."""
        return self.visible < 0.5


@dataclass(frozen=True)
class Scene:
    """A picture with its objects; ``owner`` (h, w) int16 is the object that each pixel shows, -1 for none."""

    image: Image.Image
    objects: tuple[SceneObject, ...]
    owner: NDArray[np.int16]


class _Layout:
    """The objects placed so far: the later ones on top."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.owner = np.full((height, width), -1, np.int16)
        self.pieces: list[Piece] = []
        self.places: list[tuple[slice, slice]] = []
        self.areas: list[int] = []
        self.truncated: list[bool] = []

    def objects(self, owner: NDArray[np.int16]) -> list[SceneObject]:
        """What ``owner`` shows of each object."""
        found = []
        for i, (piece, (rows, columns)) in enumerate(zip(self.pieces, self.places, strict=True)):
            mask = owner[rows, columns] == i
            down, right = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            if not len(down):
                found.append(SceneObject(piece.label, (0, 0, 0, 0), 0.0, self.truncated[i]))
                continue
            left, top = columns.start + int(right[0]), rows.start + int(down[0])
            box = (left, top, columns.start + int(right[-1]) + 1, rows.start + int(down[-1]) + 1)
            found.append(SceneObject(piece.label, box, float(mask.sum() / self.areas[i]), self.truncated[i]))
        return found

    def try_add(self, piece: Piece, hide: int = -1) -> bool:
        """Put ``piece`` on top unless an object would be seen too little; ``hide`` is one that shall be."""
        rows, columns, mask, area = footprint(piece, self.height, self.width)
        owner = self.owner.copy()
        owner[rows, columns][mask] = len(self.pieces)
        self.pieces.append(piece)
        self.places.append((rows, columns))
        self.areas.append(area)
        self.truncated.append(int(mask.sum()) < area)
        for i, item in enumerate(self.objects(owner)):
            least, most = (0.12, 0.42) if i == hide else (_VISIBLE, 1.0)
            x1, y1, x2, y2 = item.box
            if not least <= item.visible <= most or min(x2 - x1, y2 - y1) < _MIN_SIDE:
                for part in (self.pieces, self.places, self.areas, self.truncated):
                    part.pop()
                return False
        self.owner = owner
        return True


def make_scene(seed: int, index: int) -> Scene:
    """Picture number ``index`` of the series ``seed``."""
    rng = sample_generator(seed, index)
    short = int(rng.integers(_SHORT_SIDE[0], _SHORT_SIDE[1] + 1))
    long = int(short * rng.uniform(1, _LONGEST))
    height, width = (short, long) if rng.random() < 0.65 else (long, short)
    canvas = backdrop(height, width, rng)
    layout = _Layout(height, width)
    if rng.random() >= _EMPTY:
        _place(layout, canvas.mean((0, 1)), rng)
    for piece, place in zip(layout.pieces, layout.places, strict=True):
        paint(canvas, piece, *place)
    canvas += rng.normal(0, rng.uniform(0.008, 0.022), (height, width, 1)).astype(np.float32)
    image = Image.fromarray(np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8))
    return Scene(image, tuple(layout.objects(layout.owner)), layout.owner)


def _place(layout: _Layout, tone: Floats, rng: np.random.Generator) -> None:
    wanted = min(1 + int(rng.poisson(3.4)), 9)
    hidden = rng.random() < _HIDDEN
    for _ in range(wanted * 8):
        if len(layout.pieces) == wanted:
            break
        layout.try_add(_piece(layout, tone, rng))
    victims = [i for i, piece in enumerate(layout.pieces) if piece.radius > 18]
    if hidden and victims:
        victim = victims[0]
        target = layout.pieces[victim]
        for _ in range(60):
            piece = _piece(layout, tone, rng)
            away = target.radius * rng.uniform(0.3, 1.0) * np.array([np.cos(piece.turn), np.sin(piece.turn)])
            x, y = target.x + float(away[0]), target.y + float(away[1])
            over = replace(piece, x=x, y=y, radius=min(target.radius * rng.uniform(0.8, 1.2), _LARGE[1]))
            if layout.try_add(over, hide=victim):
                break


def _piece(layout: _Layout, tone: Floats, rng: np.random.Generator) -> Piece:
    low, high = _SMALL if rng.random() < 0.3 else _LARGE
    radius = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if layout.pieces and rng.random() < 0.4:  # near another one, so that they overlap
        other = layout.pieces[int(rng.integers(len(layout.pieces)))]
        angle, reach = rng.uniform(0, 2 * np.pi), (radius + other.radius) * rng.uniform(0.6, 1.1)
        x, y = other.x + reach * np.cos(angle), other.y + reach * np.sin(angle)
    else:
        x, y = rng.uniform(0, layout.width), rng.uniform(0, layout.height)
    colours = np.array(PALETTE) + rng.normal(0, 0.025, (len(PALETTE), 3))
    far = np.abs(colours - tone).sum(1) > 0.5  # stands out from the background
    red, green, blue = colours[rng.choice(np.flatnonzero(far))].tolist()
    turn = rng.uniform(-0.5, 0.5) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    style = int(rng.choice(3, p=(0.5, 0.3, 0.2)))
    return Piece(int(rng.integers(len(CLASSES))), float(x), float(y), radius, turn, (red, green, blue), style)


def write_scenes(folder: str | Path, images: Mapping[str, int] = SPLITS, seed: int = 0) -> Path:
    """Write the data set in the layout of the VOC devkit: JPEGImages, Annotations, ImageSets/Main.

    The same arguments give the same bytes (with the same versions of NumPy and Pillow). A folder that already
    holds exactly this data set is left as it is; one with another generated data set is replaced; nothing
    half-written remains.

    Args:
        folder: where to; its parents are made.
        images: number of pictures of each split.
        seed: of the series.

    Returns:
        The folder.

    Raises:
        ValueError: when the folder holds anything that was not generated here, or a number is negative.
    """
    folder = Path(folder)
    if not images or min(images.values()) < 0:
        raise ValueError(f"images {dict(images)}: at least one split with 0 or more pictures is needed")
    settings = {"made_by": "frcnn scenes", "version": VERSION, "seed": seed, "images": dict(images)}
    if _existing(folder) == settings:
        return folder
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        _write(partial, images, seed)
        (partial / _MARKER).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _existing(folder: Path) -> Mapping[str, object] | None:
    """Settings of the generated data set in ``folder``; None where one may be written; else an error."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        settings = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        count = sum(settings["images"].values()) if settings["made_by"] == "frcnn scenes" else -1
        own = {f"{place}/{_name(i)}{end}" for i in range(count) for place, end in _FILES}
        own |= {f"ImageSets/Main/{split}.txt" for split in settings["images"]} | {_MARKER}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder}: is not a folder of generated scenes; choose a new one") from None
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    if found - own:
        raise ValueError(f"{folder}: holds {min(found - own)}, which was not generated; choose a new folder")
    return settings if found == own else None


_FILES = (("JPEGImages", ".jpg"), ("Annotations", ".xml"))


def _name(index: int) -> str:
    return f"scene_{index:05d}"


def _write(folder: Path, images: Mapping[str, int], seed: int) -> None:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    index = 0
    for split, count in images.items():
        names = [_name(i) for i in range(index, index + count)]
        lines = "".join(f"{name}\n" for name in names)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")
        for i, name in enumerate(names, index):
            scene = make_scene(seed, i)
            scene.image.save(folder / "JPEGImages" / f"{name}.jpg", quality=93, subsampling=0)
            (folder / "Annotations" / f"{name}.xml").write_text(_xml(name, scene), encoding="utf-8")
        index += count


def _xml(name: str, scene: Scene) -> str:
    """VOC's XML; its coordinates count from 1 and include the last pixel."""
    width, height = scene.image.size
    lines = ["<annotation>", "\t<folder>JPEGImages</folder>", f"\t<filename>{name}.jpg</filename>"]
    lines.append(f"\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>")
    for item in scene.objects:
        x1, y1, x2, y2 = item.box
        hidden = item.visible < 0.95 and not item.truncated
        lines += [
            "\t<object>",
            f"\t\t<name>{CLASSES[item.label]}</name>",
            f"\t\t<truncated>{int(item.truncated)}</truncated>",
            f"\t\t<occluded>{int(hidden)}</occluded>",
            f"\t\t<difficult>{int(item.difficult)}</difficult>",
            f"\t\t<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])
