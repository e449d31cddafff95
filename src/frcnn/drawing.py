"""Pictures with boxes, names and scores, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

Rgb = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

COLORS: tuple[Rgb, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
"""Okabe and Ito's colours, told apart with every colour vision; further classes: lighter and darker."""
SHADES = (0.0, 0.45, -0.35, 0.7, -0.55)
HALO: Rgb = (20, 20, 20)
"""Thin dark edge on both sides of a line, so that it stands out from any background."""


def class_color(label: int) -> Rgb:
    """The colour of a class; neighbours differ clearly, and it repeats only after 35."""
    base = COLORS[label % len(COLORS)]
    shade = SHADES[label // len(COLORS) % len(SHADES)]
    goal = 255 if shade > 0 else 0
    red, green, blue = (round(c + (goal - c) * abs(shade)) for c in base)
    return red, green, blue


@dataclass(frozen=True)
class _Style:
    line: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    pad: int


def annotate(
    image: Image.Image | NDArray[np.uint8],
    boxes: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    scores: ArrayLike | None = None,
    ignore: ArrayLike | None = None,
) -> Image.Image:
    """Draw boxes with tags on a copy of a picture.

    Line width and type follow the picture's size. The best score is drawn last and so stays on top. Tags lie
    inside the picture, clear of each other where there is room.

    Args:
        image: RGB picture, or uint8 (h, w, 3).
        boxes: (n, 4) x1, y1, x2, y2, pixels of this picture.
        labels: (n,) 0..K-1, or -1 for a region without a class.
        classes: K names.
        scores: (n,) shown in the tags.
        ignore: (n,) bool: drawn thin and dashed in gray.

    Returns:
        A new RGB picture of the same size.
    """
    shown = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    shown = shown.convert("RGB") if shown.mode != "RGB" else shown.copy()
    rows = np.asarray(boxes, np.float64).reshape(-1, 4)
    names = [classes[k] if k >= 0 else "ignored" for k in np.asarray(labels, np.int64)]
    order = np.arange(len(rows)) if scores is None else np.argsort(np.asarray(scores), kind="stable")
    left_out = np.zeros(len(rows), bool) if ignore is None else np.asarray(ignore, bool)
    style = _style(shown)
    draw = ImageDraw.Draw(shown)
    for i in order:
        if left_out[i]:
            _dashed(draw, rows[i], style)
        else:
            _box(draw, rows[i], class_color(int(np.asarray(labels)[i])), style)
    taken: list[Rectangle] = []
    for i in order[::-1]:  # the best one chooses its place first
        score = "" if scores is None else f" {np.asarray(scores)[i]:.2f}"
        if not left_out[i]:
            text = _shortened(draw, names[i], score, style)
            _tag(draw, text, rows[i], class_color(int(np.asarray(labels)[i])), style, taken)
    return shown


def _style(image: Image.Image) -> _Style:
    side = (image.width * image.height) ** 0.5
    size = round(min(max(side * 0.022, 10), 64))
    return _Style(max(round(side / 320), 1), ImageFont.load_default(size), max(size // 5, 2))


def _box(draw: ImageDraw.ImageDraw, box: NDArray[np.float64], color: Rgb, style: _Style) -> None:
    x1, y1, x2, y2 = _pixels(box)
    edge = 1 if style.line > 1 else 0
    draw.rectangle((x1 - edge, y1 - edge, x2 + edge, y2 + edge), outline=HALO, width=style.line + 2 * edge)
    draw.rectangle((x1, y1, x2, y2), outline=color, width=style.line)


def _dashed(draw: ImageDraw.ImageDraw, box: NDArray[np.float64], style: _Style) -> None:
    x1, y1, x2, y2 = _pixels(box)
    step = max(style.line * 4, 5)
    for color, shift in ((HALO, step), ((235, 235, 235), 0)):
        for x in range(x1 + shift, x2, 2 * step):
            for y in (y1, y2):
                draw.line((x, y, min(x + step, x2), y), color, style.line)
        for y in range(y1 + shift, y2, 2 * step):
            for x in (x1, x2):
                draw.line((x, y, x, min(y + step, y2)), color, style.line)


def _pixels(box: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """First and last pixel of a half-open box; at least one."""
    x1, y1 = round(float(box[0])), round(float(box[1]))
    return x1, y1, max(round(float(box[2])) - 1, x1), max(round(float(box[3])) - 1, y1)


def _tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: NDArray[np.float64],
    color: Rgb,
    style: _Style,
    taken: list[Rectangle],
) -> None:
    picture_width, picture_height = draw.im.size
    left, top, right, bottom = draw.textbbox((0, 0), text, style.font)
    width, height = right - left + 2 * style.pad, bottom - top + 2 * style.pad
    x1, y1, x2, y2 = _pixels(box)
    places = ((x1, y1 - height), (x1, y2 + 1), (x1, y1), (x2 - width + 1, y1 - height), (x1, y2 - height + 1))
    options = []
    for x, y in places:
        fits = 0 <= y <= picture_height - height
        x, y = min(max(x, 0), picture_width - width), min(max(y, 0), picture_height - height)
        rectangle = (x, y, x + width - 1, y + height - 1)
        options.append((not fits, _covered(rectangle, taken), len(options), rectangle))
    # inside the picture first, then clear of other tags, then the usual place above
    rectangle = min(options, key=lambda o: (o[0], o[1] > 0, o[1], o[2]))[3]
    taken.append(rectangle)
    draw.rectangle(rectangle, fill=color)
    ink = (0, 0, 0) if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 110 else (255, 255, 255)
    draw.text((rectangle[0] + style.pad - left, rectangle[1] + style.pad - top), text, ink, style.font)


def _covered(rectangle: Rectangle, taken: Sequence[Rectangle]) -> float:
    """Pixels of the rectangle under the taken ones."""
    x1, y1, x2, y2 = rectangle
    sides = ((min(x2, c) - max(x1, a) + 1, min(y2, d) - max(y1, b) + 1) for a, b, c, d in taken)
    return sum(w * h for w, h in sides if w > 0 and h > 0)


def _shortened(draw: ImageDraw.ImageDraw, name: str, score: str, style: _Style) -> str:
    """The name, cut until it and the score fit into the picture's width."""
    name = " ".join(name.split()) or "?"  # a line break in a name would make a tag of two lines
    room = draw.im.size[0] - 2 * style.pad
    text = name + score
    while len(name) > 1 and draw.textlength(text, style.font) > room:
        name = name[:-1]
        text = f"{name.rstrip()}.{score}"
    return text
