"""Which pictures make a batch: all of them, once, alike together, the same for every rank."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.feed.batching import BatchVariation, EvalBatches, TrainBatches
from frcnn.data.feed.transforms import sample_generator


def sizes(count: int, seed: int = 0) -> np.ndarray:
    """Landscape, portrait and square pictures, mixed."""
    shapes = np.array([(320, 480), (480, 320), (400, 400), (300, 700)])
    return shapes[np.random.default_rng(seed).integers(0, 4, count)].astype(np.int32)


def indices(batches: TrainBatches | EvalBatches) -> list[list[int]]:
    return [[draw.index for draw in batch] for batch in batches]


def test_no_pictures_no_batches() -> None:
    none = np.zeros((0, 2), np.int32)
    assert indices(TrainBatches(none, 4, seed=0)) == []
    assert indices(EvalBatches(none, 4)) == []
    assert len(TrainBatches(none, 4, seed=0)) == len(EvalBatches(none, 4)) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_every_picture_once_and_equal_counts_on_all_ranks(
    count: int, batch: int, world: int, epoch: int
) -> None:
    per_rank = []
    for rank in range(world):
        batches = TrainBatches(sizes(count), batch, seed=5, rank=rank, world=world)
        batches.set_epoch(epoch)
        per_rank.append(indices(batches))
        assert len(per_rank[-1]) == len(batches) == -(-count // (batch * world))
        assert all(1 <= len(b) <= batch for b in per_rank[-1])
    seen = [i for rank in per_rank for b in rank for i in b]
    assert set(seen) == set(range(count))
    rest = count % (batch * world)
    assert len(seen) == count + (max(world - rest, 0) if rest else 0), (
        "repeated only to give every rank a picture"
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 3))
def test_evaluation_sees_every_picture_once(count: int, batch: int, world: int) -> None:
    parts = [indices(EvalBatches(sizes(count), batch, rank, world)) for rank in range(world)]
    assert sorted(i for part in parts for b in part for i in b) == list(range(count))
    counts = [len(part) for part in parts]
    assert max(counts) - min(counts) <= 1


def test_epochs_differ_and_repeat() -> None:
    def epoch(number: int, seed: int = 0) -> list[list[int]]:
        batches = TrainBatches(sizes(40), 4, seed=seed)
        batches.set_epoch(number)
        return indices(batches)

    assert epoch(3) == epoch(3)
    assert epoch(3) != epoch(4)
    assert epoch(3) != epoch(3, seed=1)


def test_start_batch_continues_exactly_and_holds_once() -> None:
    batches = TrainBatches(sizes(50), 4, seed=0, variation=BatchVariation((0.5, 2.0)))
    batches.set_epoch(2)
    whole = list(batches)
    batches.set_epoch(2, start_batch=7)
    assert list(batches) == whole[7:]
    assert list(batches) == whole
    assert len(batches) == len(whole)


def test_alike_pictures_come_together() -> None:
    shapes = sizes(400)
    batches = TrainBatches(shapes, 4, seed=0)
    mixed = [b for b in indices(batches) if len({tuple(shapes[i]) for i in b}) > 1]
    assert len(mixed) <= 4 * 3, "at most the borders between four shapes in every chunk of 32 batches"
    order = [tuple(shapes[b[0]]) for b in indices(batches)]
    assert sum(a != b for a, b in pairwise(order)) > 40, "but the batches are shuffled"
    evaluation = [{tuple(shapes[i]) for i in b} for b in indices(EvalBatches(shapes, 4))]
    assert sum(len(s) > 1 for s in evaluation) <= 3


def test_drop_last_leaves_other_pictures_out_every_epoch() -> None:
    batches = TrainBatches(sizes(11), 4, seed=0, drop_last=True)
    left_out = []
    for epoch in range(4):
        batches.set_epoch(epoch)
        got = indices(batches)
        assert [len(b) for b in got] == [4, 4]
        left_out.append(frozenset(range(11)) - {i for b in got for i in b})
    assert len(set(left_out)) > 1


def test_scale_is_one_for_a_batch_and_the_same_on_all_ranks() -> None:
    ranks = [
        list(TrainBatches(sizes(64), 4, seed=1, variation=BatchVariation((0.5, 1.5)), rank=r, world=2))
        for r in range(2)
    ]
    scales = [[{draw.scale for draw in batch} for batch in rank] for rank in ranks]
    assert scales[0] == scales[1]
    assert all(len(s) == 1 for s in scales[0])
    flat = [s.pop() for s in scales[0]]
    assert 0.5 <= min(flat) < 0.9 < 1.1 < max(flat) <= 1.5


def test_wrong_numbers_are_named() -> None:
    for kwargs in ({"rank": 2, "world": 2}, {"rank": -1, "world": 1}):
        with pytest.raises(ValueError, match="rank"):
            TrainBatches(sizes(4), 4, seed=0, **kwargs)
    with pytest.raises(ValueError, match="batches of 0"):
        TrainBatches(sizes(4), 0, seed=0)


def test_unknown_sizes_count_as_square() -> None:
    unknown = np.array([[0, 0], [100, 100], [100, 300]], np.int32)
    assert indices(EvalBatches(unknown, 1)) == [[2], [0], [1]]


def test_a_batch_has_one_training_size_and_lies_one_way() -> None:
    variation = BatchVariation((1.0, 1.0), (0.5, 1.0, 1.5), 0.5)
    ranks = [
        list(TrainBatches(sizes(400), 4, seed=1, variation=variation, rank=r, world=2)) for r in range(2)
    ]
    assert all(len({(d.scale, d.turned) for d in batch}) == 1 for batches in ranks for batch in batches)
    drawn = [[(batch[0].scale, batch[0].turned) for batch in batches] for batches in ranks]
    assert drawn[0] == drawn[1], "ranks see batches of one size at a time"
    assert {scale for scale, _ in drawn[0]} == {0.5, 1.0, 1.5}
    assert {turned for _, turned in drawn[0]} == {True, False}


def test_a_part_changes_no_other_draw() -> None:
    def drawn(variation: BatchVariation) -> list[tuple[int, float, bool]]:
        batches = TrainBatches(sizes(200), 4, seed=0, variation=variation)
        return [(d.index, d.scale, d.turned) for batch in batches for d in batch]

    def column(place: int, *variation: Any) -> list[Any]:
        return [row[place] for row in drawn(BatchVariation(*variation))]

    plain, jittered = ((1.0, 1.0), (), 0.0), ((0.5, 2.0), (), 0.0)
    sized, turned = ((1.0, 1.0), (0.5, 1.0), 0.0), ((1.0, 1.0), (), 0.5)
    every = ((0.5, 2.0), (0.5, 1.0), 0.5)
    assert not any(column(2, *plain)) and set(column(1, *plain)) == {1.0}
    assert all(column(0, *variation) == column(0, *every) for variation in (plain, jittered, sized, turned))
    assert column(2, *turned) == column(2, *every) and len(set(column(2, *every))) == 2
    product = [a * b for a, b in zip(column(1, *jittered), column(1, *sized), strict=True)]
    assert product == column(1, *every) and len(set(product)) > 40


def test_scales_are_drawn_after_the_order() -> None:
    """What a recipe shows stays the same to the bit."""
    alike = np.full((8, 2), 100, np.int32)
    batches = list(TrainBatches(alike, 4, seed=3, variation=BatchVariation((0.5, 2.0), (1.0,), 0.3)))
    generator = sample_generator(3, 0)
    order = generator.permutation(generator.permutation(8).reshape(2, 4))
    assert [[draw.index for draw in batch] for batch in batches] == order.tolist()
    assert [batch[0].scale for batch in batches] == [generator.uniform(0.5, 2.0) for _ in range(2)]
