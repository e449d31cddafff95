"""Backgrounds of the generated scenes: gradients, textures, and clutter that is not to be found."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from frcnn.data.scenes.shapes import Floats

PALETTE = (
    (0.91, 0.36, 0.30),  # coral
    (0.95, 0.66, 0.22),  # mustard
    (0.16, 0.60, 0.56),  # teal
    (0.25, 0.47, 0.80),  # blue
    (0.56, 0.37, 0.66),  # plum
    (0.47, 0.68, 0.33),  # leaf
    (0.93, 0.52, 0.62),  # rose
    (0.20, 0.27, 0.42),  # navy
    (0.93, 0.91, 0.85),  # ivory
)
_GROUNDS = (
    ((0.93, 0.90, 0.84), (0.84, 0.80, 0.73)),  # paper
    ((0.80, 0.86, 0.89), (0.63, 0.72, 0.78)),  # mist
    ((0.76, 0.82, 0.73), (0.58, 0.68, 0.58)),  # sage
    ((0.87, 0.77, 0.68), (0.73, 0.60, 0.52)),  # clay
    ((0.33, 0.38, 0.45), (0.20, 0.24, 0.30)),  # slate
    ((0.30, 0.40, 0.37), (0.19, 0.27, 0.26)),  # pine
    ((0.80, 0.76, 0.85), (0.66, 0.62, 0.74)),  # lilac
)
_FINE = 3  # clutter is drawn this much larger and reduced, for smooth edges


def backdrop(height: int, width: int, rng: np.random.Generator) -> Floats:
    """(height, width, 3) float32 in about 0..1: a background with clutter."""
    canvas = _ground(height, width, rng)
    layer = Image.new("RGBA", (width * _FINE, height * _FINE))
    tone = canvas.mean((0, 1))
    for _ in range(rng.integers(0, 6)):
        _blob(layer, _near(tone, rng, 0.16), rng)
    for _ in range(rng.integers(0, 5)):
        _curve(layer, _near(tone, rng, 0.3), rng)
    for _ in range(rng.integers(0, 3)):
        _arc(layer, _near(tone, rng, 0.3), rng)
    for _ in range(rng.integers(0, 3)):
        _scribble(layer, _near(tone, rng, 0.4), rng)
    reduced = np.asarray(layer.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    cover = reduced[..., 3:] * rng.uniform(0.55, 0.9)
    return np.asarray(canvas + (reduced[..., :3] - canvas) * cover, np.float32)


def noise(height: int, width: int, cell: int, rng: np.random.Generator) -> Floats:
    """(height, width) smooth noise of about unit size, with features of ``cell`` pixels."""
    small = rng.standard_normal((height // cell + 3, width // cell + 3)).astype(np.float32)
    size = (small.shape[1] * cell, small.shape[0] * cell)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))[:height, :width]


def _ground(height: int, width: int, rng: np.random.Generator) -> Floats:
    light, dark = np.array(_GROUNDS[rng.integers(len(_GROUNDS))], np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = ((x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle)) / 1.4 + 0.5
    canvas = light + (dark - light) * np.clip(along, 0, 1)[..., None]
    relief = 0.03 * noise(height, width, 48, rng) + 0.014 * noise(height, width, 7, rng)
    period, turn = rng.uniform(7, 22), rng.uniform(0, np.pi)
    u = (x * np.cos(turn) + y * np.sin(turn)) * (2 * np.pi / period)
    v = (y * np.cos(turn) - x * np.sin(turn)) * (2 * np.pi / period)
    depth = rng.uniform(0.006, 0.022)
    match rng.integers(5):
        case 0:
            relief += depth * np.sin(u)
        case 1:
            relief += depth * np.clip(np.sin(u) * np.sin(v) * 3, -1, 1)
        case 2:
            relief -= depth * 2 * np.clip(np.cos(u) + np.cos(v) - 1.6, 0, 1)
        case 3:
            relief += depth * 0.8 * np.tanh(4 * np.sin(u + 2 * noise(height, width, 32, rng)))
    return np.asarray(canvas + relief[..., None], np.float32)


def _near(tone: Floats, rng: np.random.Generator, spread: float) -> tuple[int, int, int, int]:
    """A colour for clutter: the background's, darker or lighter, slightly tinted."""
    shift = rng.choice([-1, 1]) * rng.uniform(0.35, 1) * spread + rng.normal(0, 0.04, 3)
    red, green, blue = np.rint(np.clip(tone + shift, 0, 1) * 255).astype(int).tolist()
    return red, green, blue, 255


def _somewhere(layer: Image.Image, rng: np.random.Generator) -> Floats:
    return (rng.random(2) * layer.size).astype(np.float32)


def _blob(layer: Image.Image, colour: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    """An irregular, longish patch: no disc."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones(72)
    for wave in (2, 3, 4, 5):
        radius += rng.uniform(0.04, 0.15) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    size, flat, turn = rng.uniform(8, 45) * _FINE, rng.uniform(0.35, 0.7), rng.uniform(0, np.pi)
    x, y = size * radius * np.cos(angles), size * flat * radius * np.sin(angles)
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    outline = (points + _somewhere(layer, rng)).ravel().tolist()
    ImageDraw.Draw(layer).polygon(outline, fill=colour)


def _curve(layer: Image.Image, colour: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    """A long thin line with one bend."""
    t = np.linspace(0, 1, 60)[:, None]
    a, b, c = (_somewhere(layer, rng) for _ in range(3))
    points = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    line_width = int(rng.integers(_FINE, 4 * _FINE))
    ImageDraw.Draw(layer).line(points.ravel().tolist(), fill=colour, width=line_width, joint="curve")


def _arc(layer: Image.Image, colour: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    """Part of a circle: no ring."""
    x, y = _somewhere(layer, rng).tolist()
    radius, start = rng.uniform(8, 40) * _FINE, rng.uniform(0, 360)
    box = (x - radius, y - radius, x + radius, y + radius)
    stop = start + rng.uniform(60, 200)
    ImageDraw.Draw(layer).arc(box, start, stop, fill=colour, width=int(rng.integers(2, 5)) * _FINE)


def _scribble(layer: Image.Image, colour: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    """A line of something like handwriting."""
    draw = ImageDraw.Draw(layer)
    x, y = _somewhere(layer, rng).tolist()
    tall, slope = rng.uniform(3, 8) * _FINE, rng.uniform(-0.25, 0.25)
    for _ in range(rng.integers(2, 6)):
        strokes = int(rng.integers(5, 14))
        across = x + np.cumsum(rng.uniform(0.15, 0.5, strokes)) * tall
        up = (
            y
            + slope * (across - x)
            + tall * rng.uniform(-0.5, 0.5, strokes) * (1 + (np.arange(strokes) % 4 == 0))
        )
        draw.line(
            np.stack([across, up], 1).ravel().tolist(),
            fill=colour,
            width=max(int(tall / 5), 2),
            joint="curve",
        )
        y += slope * (across[-1] - x + tall)
        x = float(across[-1]) + tall
