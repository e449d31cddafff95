from __future__ import annotations

import pytest

from frcnn.config import Config
from frcnn.data.split import AUTO, TrainVal
from frcnn.training.division import choose_pictures, held_out_share
from frcnn.training.options import TrainOptions


@pytest.mark.parametrize(
    ("val", "share"),
    [(None, None), ("", None), ("val", None), ("none", None), (0, 0.0), (0.3, 0.3), ("0.3", 0.3), ("0", 0.0)],
)
def test_a_share_is_told_from_a_split(val: str | float | None, share: float | None) -> None:
    assert held_out_share(val) == share


@pytest.mark.parametrize(
    ("val", "wanted"),
    [
        (None, TrainVal()),
        ("none", TrainVal(val="none")),
        ("part2", TrainVal(val="part2")),
        (0.3, TrainVal(asked=True)),
        ("0.3", TrainVal(asked=True)),
        ("0", TrainVal()),  # holds nothing out
    ],
)
def test_a_share_is_asked_for_by_the_option_alone(val: str | float | None, wanted: TrainVal) -> None:
    assert choose_pictures(TrainOptions(val=val), Config()) == wanted
    assert wanted.val == AUTO or not wanted.asked
