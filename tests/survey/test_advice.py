from __future__ import annotations

import numpy as np
import pytest

from frcnn.config import PreprocessConfig
from frcnn.survey.advice import advise_size

SPEC = PreprocessConfig(min_size=320, max_size=640)


def advise(original: float, picture: float, spec: PreprocessConfig = SPEC, odd: int = 0):
    """Advice for 100 objects of one short side in pictures of one size, ``odd`` of them 1 px."""
    sides = np.full(100, original, np.float32)
    sides[:odd] = 1
    now = min(spec.fixed_size) if spec.fixed_size else spec.min_size
    return advise_size(sides * (now / picture), sides, np.full(100, picture, np.float32), spec)


def test_without_an_object() -> None:
    none = np.zeros(0, np.float32)
    found = advise_size(none, none, none, SPEC)
    assert (found.kind, found.min_size) == ("none", 320)


@pytest.mark.parametrize(
    ("original", "picture", "kind", "min_size", "tile", "text"),
    [
        (48, 480, "enough", 128, 0, "large enough (128 px is the smallest at which 95% have)"),
        (18, 480, "enough", 320, 0, "at 320 px: large enough"),
        (12, 480, "larger", 480, 0, "train with --min-size 480, the smallest at which 95% have"),
        (7, 480, "larger", 832, 0, "--min-size 832"),
        (
            20,
            3000,
            "tile",
            1824,
            512,
            "it would take 1824 px, which is too large: train, evaluate and predict with --tile 512",
        ),
        (2, 480, "limits", 2880, 0, "5% have less than 2.0 px in the pictures themselves"),
    ],
)
def test_the_smallest_size_is_named(
    original: float, picture: float, kind: str, min_size: int, tile: int, text: str
) -> None:
    found = advise(original, picture)
    assert (found.kind, found.min_size, found.tile) == (kind, min_size, tile)
    assert text in found.text


def test_the_advice_holds() -> None:
    found = advise(12, 480)
    again = advise(12, 480, PreprocessConfig(min_size=found.min_size, max_size=2 * found.min_size))
    assert again.kind == "enough" and again.large_enough == 1
    smaller = found.min_size - 32
    assert advise(12, 480, PreprocessConfig(min_size=smaller, max_size=2 * smaller)).kind == "larger"


def test_five_of_a_hundred_may_be_small() -> None:
    assert advise(48, 480, odd=5).kind == "enough"
    assert advise(48, 480, odd=6).kind != "enough"


def test_a_fixed_size_is_enlarged_as_a_whole() -> None:
    found = advise(12, 480, PreprocessConfig(fixed_size=(320, 640)))
    assert "--set 'preprocess.fixed_size=[480,960]'" in found.text
