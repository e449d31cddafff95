"""The words by which tools flag a box, where a format leaves the word to its user: CSV and LabelMe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frcnn.data.sample import Bools, Floats

_WORDS = {
    "difficult": ("difficult", "isdifficult", "ignore", "isignore", "ignored"),
    "crowd": ("crowd", "iscrowd", "isgroupof", "groupof"),
    "truncated": ("truncated", "istruncated", "truncation"),
    "occluded": ("occluded", "isoccluded", "occlusion"),
}
FLAG_OF = {word: flag for flag, words in _WORDS.items() for word in words}
"""Word, lower case and without separators -> the flag: difficult, crowd, truncated or occluded."""


@dataclass
class FlagColumns:
    """The flags of g boxes, as ``assemble.Record`` takes them.

    Attributes:
        flagged: (g,) bool, difficult or crowd.
        truncated: (g,) float32, 0..1.
        occluded: (g,) int8, 0..3.
        crowd: (g,) bool.
    """

    flagged: Bools = field(default_factory=lambda: np.zeros(0, bool))
    truncated: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    occluded: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    crowd: Bools = field(default_factory=lambda: np.zeros(0, bool))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> FlagColumns:
    """The columns of boxes with these flags and values; what is no number or word for yes counts as no."""
    numbers = {flag: np.asarray([flag_value(row.get(flag)) for row in rows]) for flag in _WORDS}
    crowd = numbers["crowd"] > 0
    return FlagColumns(
        (numbers["difficult"] > 0) | crowd,
        numbers["truncated"].clip(0, 1).astype(np.float32),
        numbers["occluded"].clip(0, 3).astype(np.int8),
        crowd,
    )


def flag_value(value: Any) -> float:
    """A flag as a number: 0 for no, and for -1, which means "not known"."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("true", "yes", "y", "t"):
            return 1.0
        try:
            value = float(text)
        except ValueError:
            return 0.0
    if not isinstance(value, bool | int | float):
        return 0.0
    return float(value) if 0 < value < np.inf else 0.0


def plain_word(text: str) -> str:
    """A column's or flag's name without case and separators: ``Is_Crowd`` is ``iscrowd``."""
    return "".join(c for c in text.strip().lower() if c.isalnum())
