from __future__ import annotations

import json
from pathlib import Path

import pytest
from voc_files import Box, devkit

from frcnn.data.check import load_checked
from frcnn.data.open import open_dataset
from frcnn.data.sample import DataError, Dataset
from frcnn.data.split import (
    TrainVal,
    choose_training,
    read_splits,
    split_lines,
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


def test_a_share_that_is_asked_for_is_held_out_whatever_splits_there_are(tmp_path: Path) -> None:
    data = named(tmp_path, train=list("abc"), val=list("de"), test=["f"])
    assert ids(choose_training(data, TrainVal(share=0.4)), "val") == [4, 5]
    choice = TrainVal(share=0.4, asked=True)
    chosen = choose_training(data, choice)
    assert sorted(ids(chosen, "train") + ids(chosen, "val")) == [1, 2, 3] and len(ids(chosen, "val")) == 1
    assert split_lines(chosen, choice) == [
        "val 0.4: this share of the training pictures validates, and no split of the data does"
    ]
    scenes = TrainVal(share=0.4, asked=True, group_by="J(.*)")
    assert len(ids(choose_training(data, scenes), "val")) == 1, "groups go together with it"
    with pytest.raises(DataError, match=r"val 0\.4 and folds 3 both say what is held out; leave one"):
        choose_training(data, TrainVal(share=0.4, asked=True, folds=3))


def test_every_fold_can_be_trained_where_a_class_has_one_picture(tmp_path: Path) -> None:
    pictures = {f"{i:02}": DOG if i == 4 else CAT for i in range(9)}
    root = devkit(tmp_path, pictures)
    validated: list[int] = []
    for fold in range(3):
        choice = TrainVal(folds=3, fold=fold)
        data, report = load_checked(root, choice)
        assert 5 in ids(data, "train") and not report.errors
        validated += ids(data, "val")
        assert split_lines(data, choice)[1:] == [
            'class "dog" is on one picture only (JPEGImages/04.jpg), which trains and does not validate'
        ]
    assert sorted(validated) == [1, 2, 3, 4, 6, 7, 8, 9]


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
