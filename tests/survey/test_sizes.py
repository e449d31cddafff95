from __future__ import annotations

import numpy as np
import pytest

from frcnn.config import PreprocessConfig
from frcnn.survey.sizes import SIDE_EDGES, heights_widths, histogram, resize_factors


def test_a_histogram_of_nothing() -> None:
    found = histogram(np.zeros(0, np.float32), np.zeros(0, np.int64), 2, SIDE_EDGES)
    assert found.counts.sum() == 0 and found.counts.shape == (len(SIDE_EDGES), 2)
    assert (found.low, found.middle, found.high) == (0, 0, 0)


def test_steps_hold_their_lower_edge_and_the_last_is_open() -> None:
    values = np.asarray([0, 3.9, 4, 9, 1e6], np.float32)
    found = histogram(values, np.asarray([0, 0, 1, 1, 0]), 2, (0, 4, 8))
    assert found.counts.tolist() == [[2, 0], [0, 1], [1, 1]]
    assert found.to_dict()["counts"] == [2, 1, 2] and found.to_dict()["by_class"] == [[2, 0, 1], [0, 1, 1]]


@pytest.mark.parametrize(
    ("spec", "size", "expected"),
    [
        ({"min_size": 320, "max_size": 640}, (480, 640), (2 / 3, 2 / 3)),
        ({"min_size": 320, "max_size": 640}, (100, 400), (1.6, 1.6)),
        ({"fixed_size": (100, 300)}, (200, 100), (0.5, 3.0)),
        ({"min_size": 320, "max_size": 640, "tile": 640}, (3000, 4000), (0.5, 0.5)),
        ({"min_size": 320, "max_size": 640, "tile": 640}, (480, 640), (2 / 3, 2 / 3)),
        ({"min_size": 320, "max_size": 640}, (0, 0), (1, 1)),
    ],
)
def test_factors_are_those_of_training(
    spec: dict[str, object], size: tuple[int, int], expected: tuple[float, float]
) -> None:
    preprocess = PreprocessConfig.model_validate(spec)
    assert resize_factors(np.zeros((0, 2), np.int32), preprocess).shape == (0, 2)
    both = np.asarray([size, (50, 50), size], np.int32)
    factors = resize_factors(both, preprocess)
    assert factors[0] == pytest.approx(expected, rel=1e-3) and (factors[2] == factors[0]).all()


def test_heights_and_widths() -> None:
    assert heights_widths(np.asarray([[1, 2, 11, 5]], np.float32)).tolist() == [[3, 10]]
