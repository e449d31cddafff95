"""At which size to train, so that the objects are large enough to be seen.

Letters: m objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from frcnn.config import PreprocessConfig
from frcnn.data.sample import Floats

LEAST_SIDE = 12.0
"""Pixels of the short side at training size below which an object is hard to find."""
SHARE = 0.95
"""Of the objects that should have as many."""
LARGEST = 1344
"""Short sides above this are beyond what usual accelerators train."""
ENLARGED = 2.0
"""Pictures enlarged by more gain nothing that they do not hold."""
SMALLEST_TILE = 128
STEP = 32


@dataclass(frozen=True)
class SizeAdvice:
    """What to do about small objects.

    Attributes:
        kind: ``enough`` (the size is large enough), ``larger`` (train at ``min_size``), ``tile`` (cut
            pictures into tiles of ``tile``), ``limits`` (not even tiles help), ``none`` (no object).
        now: short side of the pictures in training.
        large_enough: share of the objects with 12 pixels or more now.
        min_size: smallest short side at which 95 % of the objects have 12 pixels or more.
        tile: side of tiles, pixels of the original pictures; 0 where that is no advice.
        text: one sentence.
    """

    kind: Literal["enough", "larger", "tile", "limits", "none"]
    now: int
    large_enough: float
    min_size: int
    tile: int
    text: str


def advise_size(short: Floats, original: Floats, sides: Floats, spec: PreprocessConfig) -> SizeAdvice:
    """Advice from the short sides of the objects.

    Args:
        short: (m,) in pixels at training size.
        original: (m,) in pixels of the pictures.
        sides: (m,) short side of each object's picture, or of its tiles.
        spec: how pictures are resized; a fixed size is enlarged as a whole.
    """
    now = min(spec.fixed_size) if spec.fixed_size else spec.min_size
    if not len(short):
        return SizeAdvice("none", now, 0.0, now, 0, "no usable object to advise about")
    enough = float((short >= LEAST_SIDE).mean())
    limit = max(float(np.quantile(short, 1 - SHARE)), 1e-6)
    wish = int(np.ceil(now * LEAST_SIDE / limit / STEP - 1e-6)) * STEP
    percent = f"{100 * enough:.1f}".removesuffix(".0")
    begin = f"{percent}% of the objects have {LEAST_SIDE:g} px or more on their short side at {now} px"
    if enough >= SHARE:
        smallest = f" ({wish} px is the smallest at which {SHARE:.0%} have)" if wish < now else ""
        return SizeAdvice("enough", now, enough, min(wish, now), 0, f"{begin}: large enough{smallest}")
    picture = float(np.median(sides))
    if wish <= LARGEST and wish <= ENLARGED * picture:
        how = (
            f"--set 'preprocess.fixed_size={_scaled(spec, wish)}'"
            if spec.fixed_size
            else f"--min-size {wish}"
        )
        text = f"{begin}; train with {how}, the smallest at which {SHARE:.0%} have"
        return SizeAdvice("larger", now, enough, wish, 0, text)
    least = float(np.quantile(original, 1 - SHARE))
    tile = int(least * now / LEAST_SIDE // STEP) * STEP
    if tile >= SMALLEST_TILE and tile < picture:
        text = (
            f"{begin}; it would take {wish} px, which is too large: train, evaluate and predict with "
            f"--tile {tile}"
        )
        return SizeAdvice("tile", now, enough, wish, tile, text)
    text = (
        f"{begin}; it would take {wish} px, and 5% have less than {least:.1f} px in the pictures themselves: "
        "take pictures of a higher resolution, or expect to miss these"
    )
    return SizeAdvice("limits", now, enough, wish, 0, text)


def _scaled(spec: PreprocessConfig, wish: int) -> str:
    height, width = spec.fixed_size or (wish, wish)
    factor = wish / min(height, width)
    return f"[{round(height * factor)},{round(width * factor)}]"
