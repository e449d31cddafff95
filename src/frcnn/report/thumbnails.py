"""Small pictures of what was found: the part of a picture around a box, with the box drawn as SVG.

The box is a vector over the picture, so that it stays thin and sharp at any size and follows the page's
colours. Coordinates are pixels of the original picture.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from frcnn.data.checks.locate import Place
from frcnn.data.findings import Finding
from frcnn.data.pictures.image import read_image
from frcnn.data.sample import DataError, Dataset

MAX_PICTURES = 180
MAX_BYTES = 5_000_000
"""Of the JPEG files inside a page, before they are written as text."""
SIDE = 440
"""Longer side of a small picture."""
SMALL_BOX = 0.35
"""A box whose longer side is a smaller share of the picture's is shown enlarged ..."""
AROUND = 2.5
"""... with so many times its longer side around it,"""
LEAST_VIEW = 0.22
"""but never less than this share of the picture's longer side."""
MOST_BOXES = 300
"""Other boxes that are drawn faintly."""

View = tuple[float, float, float, float]
"""x, y, width, height of what is shown."""


@dataclass(frozen=True)
class Budget:
    """How much a page may hold."""

    pictures: int = MAX_PICTURES
    size: int = MAX_BYTES


def chosen(findings: Sequence[Finding], places: Sequence[Place], limit: int) -> list[int]:
    """Which findings get a picture: those of all codes in turn, so that none crowds out another."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, (finding, place) in enumerate(zip(findings, places, strict=True)):
        if place.picture >= 0:
            groups.setdefault((finding.code, finding.severity), []).append(i)
    turns = zip_longest(*groups.values())
    return [i for turn in turns for i in turn if i is not None][:limit]


def thumbnails(
    dataset: Dataset, findings: Sequence[Finding], places: Sequence[Place], budget: Budget | None = None
) -> dict[int, Markup]:
    """Pictures as SVG by the position of their finding, as many as the budget allows."""
    budget = budget or Budget()
    order = chosen(findings, places, budget.pictures)
    shown: dict[int, Markup] = {}
    made: dict[tuple[int, View], tuple[str, int]] = {}
    last, image, spent = -1, None, 0
    for i in sorted(order, key=lambda i: places[i].picture):
        place = places[i]
        if place.picture != last:
            last, image = place.picture, _read(dataset, place.picture)
        if image is None or spent >= budget.size:
            continue
        boxes = [dataset.objects.boxes[row].astype(np.float64) for row in place.rows]
        view = view_of(boxes, image.size)
        if (place.picture, view) not in made:
            made[place.picture, view] = _address(image, view)
            spent += made[place.picture, view][1]
        source = made[place.picture, view][0]
        other = _other(dataset, place)
        spent += len(other)
        shown[i] = _svg(dataset, place, view, source, other, image.size)
    return shown


def view_of(boxes: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> View:
    """What to show of a picture of ``size`` (width, height): all of it, or the part around the boxes (4,)."""
    width, height = size
    whole = (0.0, 0.0, float(width), float(height))
    usable = [b for b in boxes if np.isfinite(b).all()]
    if not usable:
        return whole
    corners = np.stack([np.concatenate([np.minimum(b[:2], b[2:]), np.maximum(b[:2], b[2:])]) for b in usable])
    low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
    limit = np.asarray([width, height]) * 0.5  # so far outside a box is still shown
    if (low < -limit).any() or (high > np.asarray([width, height]) + limit).any():
        return whole
    side = float((high - low).max())
    longest = max(width, height)
    if side > SMALL_BOX * longest:
        low, high = np.minimum(low, 0), np.maximum(high, [width, height])
        return (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
    wide = max(side * (1 + AROUND), LEAST_VIEW * longest)
    tall = wide * 0.75
    x, y = (low + high) / 2
    left = (
        x - wide / 2
        if wide >= width
        else min(max(x - wide / 2, min(0.0, low[0])), max(width, high[0]) - wide)
    )
    top = (
        y - tall / 2
        if tall >= height
        else min(max(y - tall / 2, min(0.0, low[1])), max(height, high[1]) - tall)
    )
    return (round(float(left), 1), round(float(top), 1), round(wide, 1), round(tall, 1))


def _read(dataset: Dataset, index: int) -> Image.Image | None:
    try:
        return read_image(dataset.picture_path(index), upright=dataset.upright)[0]
    except DataError:
        return None


def _address(image: Image.Image, view: View) -> tuple[str, int]:
    """The part of a picture inside a view as a data address, and the bytes it takes."""
    x, y, wide, tall = view
    box = (max(x, 0), max(y, 0), min(x + wide, image.width), min(y + tall, image.height))
    factor = min(SIDE / max(wide, tall), 2.0)
    size = (max(round((box[2] - box[0]) * factor), 1), max(round((box[3] - box[1]) * factor), 1))
    small = image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/jpeg;base64,{text}", buffer.tell()


def _other(dataset: Dataset, place: Place) -> str:
    """The second picture that a finding is about, "" for none."""
    image = _read(dataset, place.other) if place.other >= 0 else None
    return "" if image is None else _address(image, (0.0, 0.0, float(image.width), float(image.height)))[0]


def _svg(
    dataset: Dataset, place: Place, view: View, source: str, other: str, size: tuple[int, int]
) -> Markup:
    x, y, wide, tall = view
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + wide, size[0]), min(y + tall, size[1])
    parts = [
        f'<image href="{source}" x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}" '
        'preserveAspectRatio="none"/>'
    ]
    if other:  # side by side, without boxes
        parts.append(
            f'<image href="{other}" x="{wide * 1.03:g}" y="0" width="{wide:g}" height="{tall:g}" '
            'preserveAspectRatio="xMidYMid meet"/>'
        )
        wide *= 2.03
    else:
        parts += _boxes(dataset, place, view)
    name = escape(dataset.pictures.paths[place.picture])
    return Markup(
        f'<svg viewBox="{x:g} {y:g} {wide:g} {tall:g}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    )


def _boxes(dataset: Dataset, place: Place, view: View) -> list[str]:
    """The other boxes of the picture, faint; then those in question."""
    start, stop = dataset.objects.offsets[place.picture : place.picture + 2].tolist()
    faint = [row for row in range(start, min(stop, start + MOST_BOXES)) if row not in place.rows]
    parts = [_rectangle(dataset.objects.boxes[row], "other") for row in faint]
    parts += [_rectangle(dataset.objects.boxes[row], "halo") for row in place.rows]
    for row in place.rows[:1]:
        box = dataset.objects.boxes[row]
        parts.append(_rectangle(box, "found"))
        side = np.abs(box[2:] - box[:2])
        if np.isfinite(box).all() and side.min() < 0.03 * max(view[2:]):  # too small to be seen
            x, y = (box[:2] + box[2:]).astype(np.float64) / 2
            radius = 0.07 * max(view[2:])
            parts.append(f'<circle class="mark" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>')
    parts += [
        _rectangle(dataset.objects.boxes[row], "twin") for row in place.rows[1:]
    ]  # dashes let it through
    return parts


def _rectangle(box: NDArray[np.float32], kind: str) -> str:
    if not np.isfinite(box).all() or np.abs(box).max() > 1e6:
        return ""
    x, y = np.minimum(box[:2], box[2:]).tolist()
    width, height = np.abs(box[2:] - box[:2]).tolist()
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>'
