"""The same pictures in every format are the same data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from one_set import CLASSES, FLAGGED, HOLDS, PLAIN, SIZES, WRITERS, coco

from frcnn.config import Config, DataConfig
from frcnn.data.check import load_checked
from frcnn.data.naming import source_numbers
from frcnn.data.open import open_dataset
from frcnn.data.sample import DataError, Dataset, Sample
from frcnn.data.split import TrainVal
from frcnn.settings import with_settings

RENAME = DataConfig(rename={"traffic_light": "traffic light"})


def opened(root: Path, kind: str, things: dict = PLAIN) -> Dataset:  # type: ignore[type-arg]
    root.mkdir(parents=True, exist_ok=True)
    WRITERS[kind](root, things)
    return open_dataset(root, config=RENAME if kind == "kitti" else None)


def by_name(data: Dataset) -> dict[str, Sample]:
    return {sample.path.stem: sample for sample in data}


@pytest.mark.parametrize("kind", WRITERS)
def test_classes_boxes_and_splits_are_the_same(tmp_path: Path, kind: str) -> None:
    data = opened(tmp_path, kind)
    assert data.classes == CLASSES
    found = by_name(data)
    assert {name: sample.size for name, sample in found.items()} == SIZES
    for name, things in PLAIN.items():
        assert [data.classes[k] for k in found[name].labels] == [t.name for t in things]
        expected = np.asarray([t.box for t in things]).reshape(-1, 4)
        np.testing.assert_allclose(found[name].boxes, expected, atol=0.01)
        assert not found[name].ignore.any()
    splits = {
        name: sorted(Path(data.pictures.paths[i]).stem for i in rows) for name, rows in data.splits.items()
    }
    assert splits == {"train": ["a", "b"], "val": ["c"]}


@pytest.mark.parametrize("kind", WRITERS)
def test_flags_are_the_same_where_the_format_has_them(tmp_path: Path, kind: str) -> None:
    found = by_name(opened(tmp_path, kind, FLAGGED))
    for name, things in FLAGGED.items():
        for flag, values in (
            ("difficult", found[name].ignore),
            ("truncated", found[name].truncated),
            ("occluded", found[name].occluded),
        ):
            expected = [getattr(t, flag) and flag in HOLDS[kind] for t in things]
            assert values.astype(bool).tolist() == expected, flag


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_trained_on_is_the_same(tmp_path: Path, kind: str) -> None:
    """After the check and its policies, as ``train`` has it."""
    config = with_settings(Config(), ["preprocess.min_size=60", "preprocess.max_size=1300"])
    targets = {}
    for which in ("voc", kind):
        root = tmp_path / which
        if not root.exists():
            root.mkdir()
            WRITERS[which](root, PLAIN)
        own = config.model_copy(update={"data": RENAME if which == "kitti" else DataConfig()})
        data, report = load_checked(root, TrainVal("train", "none"), config=own)
        assert not report.errors
        targets[which] = by_name(data)
    assert targets["voc"].keys() == targets[kind].keys() == {"a", "b"}
    for name, sample in targets["voc"].items():
        other = targets[kind][name]
        np.testing.assert_allclose(other.boxes, sample.boxes, atol=0.01)
        np.testing.assert_array_equal(other.labels, sample.labels)
        np.testing.assert_array_equal(other.ignore, sample.ignore)


@pytest.mark.parametrize("ids", [(0, 1, 2, 3), (1, 2, 3, 4), (90, 7, 1, 13), (3, 0, 2, 1)])
def test_numbers_of_coco_mean_nothing(tmp_path: Path, ids: tuple[int, ...]) -> None:
    coco(tmp_path, PLAIN, ids)
    data = open_dataset(tmp_path)
    assert data.classes == CLASSES and source_numbers(data) == [str(k) for k in ids]
    assert [data.classes[k] for k in by_name(data)["a"].labels] == [t.name for t in PLAIN["a"]]


def test_the_numbers_of_the_files_are_known(tmp_path: Path) -> None:
    assert source_numbers(opened(tmp_path / "voc", "voc")) == ["-"] * 4
    assert source_numbers(opened(tmp_path / "yolo", "yolo")) == ["3", "2", "1", "0"]
    merged = open_dataset(tmp_path / "yolo", config=DataConfig(rename={"Cyclist": "Person"}))
    assert merged.classes == ("Car", "Person", "traffic light")
    assert source_numbers(merged) == ["3", "1, 2", "0"]


def test_classes_are_chosen_in_the_order_of_the_list(tmp_path: Path) -> None:
    opened(tmp_path, "yolo")
    chosen = open_dataset(
        tmp_path, config=DataConfig(classes=("Person", "Car"), rename={"Cyclist": "Person"})
    )
    assert chosen.classes == ("Person", "Car") and len(chosen) == 3
    assert by_name(chosen)["b"].labels.tolist() == [0, 0] and by_name(chosen)["a"].labels.tolist() == [1, 0]
    report = load_checked(tmp_path, config=Config(data=DataConfig(classes=("Car",))), clean=False)[1]
    notes = [f.message for f in report.with_code("D07")]
    assert 'class "Cyclist" with 1 boxes is not in data.classes' in notes and len(notes) == 3


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"classes": ("Car", "Persn")}, '"Persn" is in the class list and not in .*; did you mean "Person"?'),
        (
            {"classes": ("zebra",)},
            '"zebra" is in the class list and not in .*; they have Car, Cyclist, Person',
        ),
        (
            {"rename": {"Cyclists": "Person"}},
            'no class "Cyclists" in the annotations; did you mean "Cyclist"?',
        ),
    ],
)
def test_a_name_that_is_not_in_the_data_is_an_error(
    tmp_path: Path, kind: str, config: dict[str, object], message: str
) -> None:
    opened(tmp_path, kind)
    chosen = DataConfig.model_validate(config)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path, config=chosen)
    assert len(open_dataset(tmp_path, config=chosen, absent="warn")) == 3  # as eval reads other data


def test_a_given_list_is_held_to_the_data_too(tmp_path: Path) -> None:
    opened(tmp_path, "csv")
    with pytest.raises(DataError, match='"zebra" is in the class list and not in the annotations; they have'):
        open_dataset(tmp_path, classes=[*CLASSES, "zebra"])
