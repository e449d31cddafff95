"""The objects of the generated scenes: signed distances of shapes, painted with bevel, gloss and shadow.

A signed distance is negative inside a shape, positive outside, in pixels. It gives antialiased edges, bevels
and soft shadows by arithmetic on one array.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CLASSES = ("disc", "ring", "square", "triangle", "star")
_LIGHT = np.array([-0.55, -0.83], np.float32)  # from the top left; (x, y) of unit length
_MARGIN = 1.35  # of a window around a shape, in radii, so that the shadow fits


@dataclass(frozen=True)
class Piece:
    """One object of a scene.

    Attributes:
        label: position in ``CLASSES``.
        x: of the centre, pixels.
        y: of the centre, pixels.
        radius: of the circle around the shape, pixels.
        turn: rotation, radians.
        colour: (3,) in 0..1.
        style: 0 plain, 1 with an engraved line, 2 striped.
    """

    label: int
    x: float
    y: float
    radius: float
    turn: float
    colour: tuple[float, float, float]
    style: int = 0


def footprint(piece: Piece, height: int, width: int) -> tuple[slice, slice, NDArray[np.bool_], int]:
    """Where a shape is in a picture of ``height`` x ``width``.

    Returns:
        Rows and columns that the shape and its shadow can touch, the mask of the pixels there whose centre is
        in the shape, and the number of such pixels with those beyond the border.
    """
    reach = piece.radius * _MARGIN + 4
    top, left = int(np.floor(piece.y - reach)), int(np.floor(piece.x - reach))
    side = int(2 * reach) + 2
    mask = distance(piece, slice(top, top + side), slice(left, left + side)) <= 0
    rows = slice(min(max(top, 0), height), max(min(top + side, height), 0))
    columns = slice(min(max(left, 0), width), max(min(left + side, width), 0))
    inside = mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return rows, columns, inside, int(mask.sum())


def distance(piece: Piece, rows: slice, columns: slice, shift: float = 0.0) -> Floats:
    """(rows, columns) signed distance of pixel centres to the shape, moved by ``shift`` as a shadow is."""
    y, x = np.mgrid[rows, columns].astype(np.float32) + np.float32(0.5)
    x, y = x - piece.x - 0.6 * shift, y - piece.y - shift
    cos, sin = np.cos(piece.turn), np.sin(piece.turn)
    x, y = x * cos + y * sin, y * cos - x * sin
    r = piece.radius
    match CLASSES[piece.label]:
        case "disc":
            result = np.hypot(x, y) - r
        case "ring":
            result = np.abs(np.hypot(x, y) - 0.73 * r) - 0.27 * r
        case "square":
            result = _polygon(_regular(4, 0.88 * r, 1.0), x, y) - 0.12 * r
        case "triangle":
            result = _polygon(_regular(3, 0.9 * r, 1.0), x, y) - 0.1 * r
        case _:
            result = _polygon(_regular(5, 0.94 * r, 0.47), x, y) - 0.06 * r
    return np.asarray(result, np.float32)


def paint(canvas: Floats, piece: Piece, rows: slice, columns: slice) -> None:
    """Draw a shape with its shadow onto these rows and columns of ``canvas`` (h, w, 3), in place."""
    inside = distance(piece, rows, columns)
    soft = _cover(distance(piece, rows, columns, max(0.1 * piece.radius, 1.5)), max(0.14 * piece.radius, 2.0))
    part = canvas[rows, columns]
    part *= 1 - 0.42 * soft[..., None]
    part += (_surface(piece, inside, rows, columns) - part) * _cover(inside, 0.5)[..., None]


def _surface(piece: Piece, inside: Floats, rows: slice, columns: slice) -> Floats:
    """(rows, columns, 3): the shaded colour of the shape, valid inside it."""
    r = piece.radius
    y, x = np.mgrid[rows, columns].astype(np.float32)
    x, y = (x + 0.5 - piece.x) / r, (y + 0.5 - piece.y) / r
    down, right = np.gradient(inside) if min(inside.shape) > 1 else (inside * 0, inside * 0)
    bevel = np.clip(1 + inside / max(0.2 * r, 1.5), 0, 1)  # 1 at the edge, 0 on the flat top
    light = 1.04 - 0.1 * y + 0.34 * bevel * (right * _LIGHT[0] + down * _LIGHT[1])
    light *= 1 - 0.22 * np.clip(1 + inside / 1.4, 0, 1)  # a thin dark rim
    if piece.style == 1:
        light -= 0.16 * np.clip(1 - np.abs(inside + 0.17 * r) / max(0.035 * r, 0.6), 0, 1)
    elif piece.style == 2:
        along = x * np.cos(piece.turn + 0.7) + y * np.sin(piece.turn + 0.7)
        light += 0.09 * np.tanh(3 * np.sin(along * 11))
    gloss = 0.2 * np.exp(-((x + 0.36) ** 2 + (y + 0.46) ** 2) / 0.09)
    return np.asarray(np.array(piece.colour, np.float32) * light[..., None] + gloss[..., None], np.float32)


def _cover(signed: Floats, softness: float) -> Floats:
    """Share of each pixel inside; the edge runs over 2 x ``softness`` pixels."""
    return np.clip(0.5 - signed / (2 * softness), 0, 1)


def _regular(corners: int, outer: float, inner: float) -> list[tuple[float, float]]:
    """Corners of a regular polygon, or with ``inner`` below 1 of a star, the first one at the top."""
    count = corners if inner == 1.0 else 2 * corners
    radii = [outer * (inner if i % 2 and inner < 1 else 1.0) for i in range(count)]
    angles = [2 * np.pi * i / count - np.pi / 2 for i in range(count)]
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


def _polygon(corners: list[tuple[float, float]], x: Floats, y: Floats) -> Floats:
    """Signed distance to a closed polygon; inside is where a ray crosses edges an odd number of times."""
    nearest = np.full(x.shape, np.inf, np.float32)
    odd = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
        if ay != by:
            odd ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) / (by - ay) * ex)
    root = np.sqrt(nearest)
    return np.where(odd, -root, root).astype(np.float32)
