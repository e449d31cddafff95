from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voc_files import Box, devkit

from frcnn.data.open import open_dataset
from frcnn.data.sample import DataError, Dataset
from frcnn.data.split import (
    TrainVal,
    choose_training,
    groups_of,
    read_splits,
    split_lines,
    stratified,
    stratified_folds,
    with_splits,
    write_splits,
)

CAT: list[Box] = [("cat", 1, 1, 10, 20)]
DOG: list[Box] = [("dog", 1, 1, 10, 20)]


@pytest.fixture
def plain(tmp_path: Path) -> Dataset:
    """20 pictures without splits: 10 cats, 5 dogs, 5 empty."""
    kinds = [CAT] * 10 + [DOG] * 5 + [[]] * 5
    return open_dataset(devkit(tmp_path / "plain", {f"{i:02}": boxes for i, boxes in enumerate(kinds)}))


def named(tmp_path: Path, **splits: list[str]) -> Dataset:
    pictures = {name: CAT if name < "d" else DOG for name in "abcdef"}
    return open_dataset(devkit(tmp_path / "named", pictures, splits))


def ids(data: Dataset, split: str) -> list[int]:
    return [s.image_id for s in data.subset(split)]


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


def test_without_splits_a_part_is_held_out(plain: Dataset) -> None:
    data = choose_training(plain, TrainVal(share=0.2))
    assert {n: len(rows) for n, rows in data.splits.items()} == {"train": 16, "val": 4}
    assert data.subset("val").class_images().tolist() == [2, 1]
    assert set(ids(data, "train")).isdisjoint(ids(data, "val"))


@pytest.mark.parametrize(
    ("choice", "train", "val"),
    [
        (TrainVal(), [1, 2, 3], [4, 5]),
        (TrainVal(val="none"), [1, 2, 3], []),
        (TrainVal(train="trainval", val="none"), [1, 2, 3, 4, 5], []),
        (TrainVal(train="train", val="test"), [1, 2, 3], [6]),
        (TrainVal(train="val", val="train"), [4, 5], [1, 2, 3]),
        (TrainVal(train="trainval", share=0), [1, 2, 3, 4, 5], []),
    ],
)
def test_named_splits(tmp_path: Path, choice: TrainVal, train: list[int], val: list[int]) -> None:
    data = choose_training(
        named(tmp_path, train=list("abc"), val=list("de"), trainval=list("abcde"), test=["f"]), choice
    )
    assert (ids(data, "train"), ids(data, "val") if val else []) == (train, val)
    assert ("val" in data.splits) == bool(val)
    assert len(data) == len(train) + len(val)


def test_a_validation_split_inside_the_training_pictures_is_not_used_unasked(tmp_path: Path) -> None:
    data = named(tmp_path, val=list("de"), trainval=list("abcde"), test=["f"])
    chosen = choose_training(data, TrainVal(train="trainval", share=0.4))
    assert sorted(ids(chosen, "train") + ids(chosen, "val")) == [1, 2, 3, 4, 5]
    overlapping = choose_training(data, TrainVal(train="trainval", val="val"))
    assert (ids(overlapping, "train"), ids(overlapping, "val")) == ([1, 2, 3, 4, 5], [4, 5])


def test_pictures_outside_the_test_split_train(tmp_path: Path) -> None:
    chosen = choose_training(named(tmp_path, test=["e", "f"]), TrainVal(val="none"))
    assert ids(chosen, "train") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (TrainVal(train="none"), 'cannot be "none"'),
        (TrainVal(train="trian"), 'no split "trian"; did you mean "train"'),
        (TrainVal(val="valid"), 'no split "valid"; did you mean "val"'),
        (TrainVal(val="val"), 'split "val" is empty'),
    ],
)
def test_splits_that_cannot_be_used(tmp_path: Path, choice: TrainVal, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        choose_training(named(tmp_path, train=list("abc"), val=[]), choice)


def test_no_split_for_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split is called train; name one of one, two for training"):
        choose_training(named(tmp_path, one=list("abc"), two=list("def")), TrainVal())


def test_splits_are_written_and_read(tmp_path: Path, plain: Dataset) -> None:
    chosen = choose_training(plain, TrainVal())
    file = tmp_path / "splits.json"
    write_splits(file, chosen)
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith("json")] == ["splits.json"]
    assert str(tmp_path) not in file.read_text()
    again = with_splits(plain, read_splits(file), file)
    assert ids(again, "train") == ids(chosen, "train") and ids(again, "val") == ids(chosen, "val")
    chosen = choose_training(again, TrainVal(seed=99))
    assert ids(chosen, "val") == ids(again, "val")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"splits": 3}', "{"])
def test_a_file_that_holds_no_splits(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(DataError, match="is not a file of splits"):
        read_splits(tmp_path / "s.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_splits(tmp_path / "other.json")


def test_splits_of_other_data_are_refused(tmp_path: Path, plain: Dataset) -> None:
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"splits": {"train": ["JPEGImages/99.jpg"], "val": ["JPEGImages/00.jpg"]}}))
    with pytest.raises(DataError, match=r"1 of its pictures are not in .*: JPEGImages/99\.jpg"):
        with_splits(plain, read_splits(file), file)


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


def test_folds_of_a_data_set(plain: Dataset) -> None:
    parts = [choose_training(plain, TrainVal(folds=5, fold=k, seed=3)) for k in range(5)]
    held = [ids(part, "val") for part in parts]
    every = [s.image_id for s in plain]
    assert sorted(i for part in held for i in part) == every
    assert all(sorted(ids(part, "train") + h) == every for part, h in zip(parts, held, strict=True))
    assert [part.subset("val").class_images().tolist() for part in parts] == [[2, 1]] * 5
    assert split_lines(parts[1], TrainVal(folds=5, fold=1)) == ["fold 1 of 0 to 4 validates (seed 0)"]
    grouped = TrainVal(folds=2, fold=1, group_by=r"/(\d)")
    chosen = choose_training(plain, grouped)
    assert {len(ids(chosen, name)) for name in ("train", "val")} == {10}
    assert split_lines(chosen, grouped)[0] == (
        "group-by '/(\\\\d)': 20 pictures in 2 groups, the largest of 10; 0 do not match, each of them a "
        "group of its own"
    )
    assert split_lines(chosen, TrainVal()) == []


def test_folds_leave_a_validation_split_alone(tmp_path: Path) -> None:
    data = named(tmp_path, train=list("abc"), val=list("de"), test=["f"])
    chosen = choose_training(data, TrainVal(folds=3, fold=0))
    assert sorted(ids(chosen, "train") + ids(chosen, "val")) == [1, 2, 3]


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (TrainVal(folds=4), "3 pictures do not make 4 folds; ask for fewer"),
        (
            TrainVal(folds=3, group_by="J(.)"),
            r"1 groups of pictures \(group_by 'J\(.\)'\) do not make 3 folds",
        ),
        (TrainVal(group_by="a"), "group_by 'a' changes nothing, because split \"val\" validates"),
        (TrainVal(folds=3, val="test"), 'folds 3 changes nothing, because split "test" validates'),
        (TrainVal(folds=3, val="none"), "folds 3 changes nothing, because there is no validation"),
    ],
)
def test_groups_and_folds_that_cannot_be(tmp_path: Path, choice: TrainVal, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        choose_training(named(tmp_path, train=list("abc"), val=list("de"), test=["f"]), choice)
