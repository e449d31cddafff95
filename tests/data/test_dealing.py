"""Pictures dealt into parts: shares of classes, scenes, folds, and classes that one picture shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.dealing import groups_of, keep_classes, stratified, stratified_folds
from frcnn.data.sample import DataError


@pytest.mark.parametrize(
    ("count", "share", "held"), [(0, 0.2, 0), (1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (9, 0, 0)]
)
def test_few_pictures(count: int, share: float, held: int) -> None:
    first, second = stratified(np.ones((count, 1), bool), share)
    assert (len(first), len(second)) == (count - held, held)


def test_every_class_and_the_background_is_held_out_in_proportion() -> None:
    rng = np.random.default_rng(3)
    present = rng.random((1000, 4)) < [0.5, 0.1, 0.02, 0.2]
    second = stratified(present, 0.2, seed=1)[1]
    assert 190 <= len(second) <= 210
    shares = present[second].sum(0) / present.sum(0)
    assert np.abs(shares - 0.2).max() < 0.06
    background = ~present.any(1)
    assert abs(background[second].sum() / background.sum() - 0.2) < 0.02


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(0, 4), st.floats(0.05, 0.9), st.integers(0, 5))
def test_both_parts_together_are_everything(count: int, classes: int, share: float, seed: int) -> None:
    present = np.random.default_rng(seed).random((count, classes)) < 0.3
    first, second = stratified(present, share, seed)
    assert sorted([*first, *second]) == list(range(count))
    assert len(first) and len(second)
    again = stratified(present, share, seed)
    assert (again[0] == first).all() and (again[1] == second).all()


def test_the_only_picture_of_a_class_trains() -> None:
    present = np.zeros((50, 2), bool)
    present[:, 0] = True
    present[17, 1] = True
    for seed in range(10):
        assert 17 in stratified(present, 0.2, seed)[0]


def test_the_seed_decides() -> None:
    present = np.ones((50, 1), bool)
    assert stratified(present, 0.2, 0)[1].tolist() != stratified(present, 0.2, 1)[1].tolist()


def scenes(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Classes and groups of pictures; scenes of even number show class 0, the others 1 and sometimes 2."""
    groups = np.repeat(np.arange(len(counts)), counts)
    present = np.stack([groups % 2 == 0, groups % 2 == 1, groups % 5 == 1], 1)
    return present, groups


@pytest.mark.parametrize(("count", "parts"), [(0, 3), (1, 3), (2, 2), (7, 7), (100, 5)])
def test_every_picture_is_in_one_fold(count: int, parts: int) -> None:
    present = np.arange(count)[:, None] % 3 == np.arange(3)
    folds = stratified_folds(present, parts, seed=4)
    sizes = np.bincount(folds, minlength=parts)
    assert len(folds) == count and sizes.max() - sizes.min() <= 1
    if count == 100:
        shown = np.asarray([present[folds == k].sum(0) for k in range(parts)])
        assert (shown.max(0) - shown.min(0)).max() <= 1
    assert (folds == stratified_folds(present, parts, seed=4)).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=30), st.floats(0.05, 0.6), st.integers(2, 6), st.integers(0, 3))
def test_scenes_stay_together(counts: list[int], share: float, parts: int, seed: int) -> None:
    present, groups = scenes(counts)
    first, second = stratified(present, share, seed, groups)
    assert sorted([*first, *second]) == list(range(len(groups)))
    assert not set(groups[first]) & set(groups[second])
    assert bool(len(second)) == (len(counts) > 1)
    folds = stratified_folds(present, parts, seed, groups)
    assert all(len(set(folds[groups == g])) == 1 for g in range(len(counts)))
    if len(counts) >= parts:
        assert set(folds) == set(range(parts))


def test_scenes_are_held_out_in_proportion() -> None:
    rng = np.random.default_rng(0)
    present, groups = scenes(rng.integers(1, 30, 80).tolist())
    second = stratified(present, 0.2, 1, groups)[1]
    assert abs(len(second) / len(groups) - 0.2) < 0.03
    assert np.abs(present[second].sum(0) / present.sum(0) - 0.2).max() < 0.05
    folds = stratified_folds(present, 5, 1, groups)
    assert np.abs(np.bincount(folds) / len(groups) - 0.2).max() < 0.05


@pytest.mark.parametrize(
    ("pattern", "numbers", "found"),
    [
        (r"^s\d+", [0, 0, 1, 2], [True, True, True, False]),
        (r"^s(\d)", [0, 0, 1, 2], [True, True, True, False]),
        (r"_(\d+)", [0, 1, 0, 2], [True, True, True, False]),
        (r"(s1)|s2", [0, 0, 1, 2], [True, True, True, False]),
        (r".", [0, 0, 0, 1], [True] * 4),
    ],
)
def test_groups_of_paths(pattern: str, numbers: list[int], found: list[bool]) -> None:
    groups, matched = groups_of(["s1_1.jpg", "s1_2.jpg", "s2_1.jpg", "x.jpg"], pattern)
    assert (groups.tolist(), matched.tolist()) == (numbers, found)


def test_groups_that_are_none() -> None:
    assert [len(v) for v in groups_of([], "x")] == [0, 0]
    assert groups_of(["ab", "b"], "b$")[0].tolist() == [0, 0]
    groups, _ = groups_of(["b", "a/b", "c"], "^a/(b)")
    assert groups.tolist() == [0, 1, 2]  # a picture that is called as a group is none of it
    with pytest.raises(DataError, match=r"'zz' is found in no path of a picture; one of them is 'b'"):
        groups_of(["a", "b"], "zz")
    with pytest.raises(DataError, match=r"'\(' is not a regular expression"):
        groups_of(["a"], "(")


def test_a_class_in_one_part_alone_trains_in_each() -> None:
    none = np.zeros(0, np.int64)
    assert len(keep_classes(none, np.zeros((0, 2), bool))) == 0
    everywhere = np.ones(4, bool)
    folds = np.array([0, 0, 1, 1])
    assert keep_classes(folds, np.stack([everywhere, ~everywhere], 1)).tolist() == [0, 0, 1, 1]
    once = np.array([False, False, False, True])
    assert keep_classes(folds, np.stack([everywhere, once], 1)).tolist() == [0, 0, 1, -1]
    twice = np.array([True, True, False, False])  # of two pictures in one part one is enough
    assert keep_classes(folds, np.stack([everywhere, twice], 1)).tolist() == [-1, 0, 1, 1]
    assert folds.tolist() == [0, 0, 1, 1], "the input stays as it was"


def test_no_part_becomes_empty_and_scenes_move_whole() -> None:
    own = np.eye(2, dtype=bool)
    assert keep_classes(np.array([0, 1]), own).tolist() == [0, 1]
    folds, groups = np.array([0, 0, 1, 1, 0]), np.array([0, 0, 1, 1, 2])
    shows = np.array([[True, True], [True, False], [True, False], [True, False], [True, False]])
    assert keep_classes(folds, shows, groups).tolist() == [-1, -1, 1, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(12, 60), st.integers(1, 6), st.integers(2, 5), st.integers(0, 5))
def test_every_class_can_be_learnt_in_every_fold(count: int, classes: int, parts: int, seed: int) -> None:
    present = np.random.default_rng(seed).random((count, classes)) < 0.1
    present[0] = True
    dealt = stratified_folds(present, parts, seed)
    kept = keep_classes(dealt, present)
    assert set(kept) - {-1} == set(range(parts))
    moved = kept != dealt
    assert moved.sum() <= classes and (kept[moved] == -1).all()
    for fold in range(parts):
        assert present[kept != fold].any(0).all() or (kept == fold).sum() <= 1
