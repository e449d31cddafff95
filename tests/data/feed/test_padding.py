from __future__ import annotations

import numpy as np
import pytest

from frcnn.data.feed.padding import pad_given


def boxes(count: int) -> np.ndarray:
    return np.tile(np.array([[1, 2, 3, 4]], np.float32), (count, 1))


@pytest.mark.parametrize(
    ("counts", "padded"), [([0], 8), ([1], 8), ([8], 8), ([0, 9], 16), ([16, 3], 16), ([17], 24)]
)
def test_given_proposals_are_padded_with_boxes_without_area(counts: list[int], padded: int) -> None:
    given = pad_given([boxes(count) for count in counts])
    assert given.shape == (len(counts), padded, 4)
    real = (given[..., 2:] > given[..., :2]).all(-1)
    assert real.sum(1).tolist() == counts
    for row, count in zip(real, counts, strict=True):
        assert bool(row[:count].all())  # best first stays best first
