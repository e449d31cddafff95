from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from frcnn.data.packed import Packed
from frcnn.data.sample import DataError, Dataset, Objects, Pictures, did_you_mean


def make(counts: list[int], classes: tuple[str, ...] = ("a", "b")) -> Dataset:
    """Pictures with that many boxes each; box r is (r, 0, r + 1, 1) with label r % 2."""
    n, m = len(counts), sum(counts)
    rows = np.arange(m, dtype=np.float32)
    pictures = Pictures(
        Packed(f"p{i}.jpg" for i in range(n)),
        Packed(f"p{i}.xml" if c else "" for i, c in enumerate(counts)),
        np.arange(1, n + 1),
        np.full((n, 2), (60, 80), np.int32),
        np.zeros((n, 2), np.int32),
        np.ones(n, np.int8),
        np.full(n, "RGB", "U8"),
        np.full(n, 100),
    )
    boxes = np.stack([rows, rows * 0, rows + 1, rows * 0 + 1], 1)
    objects = Objects(
        np.cumsum([0, *counts]),
        boxes,
        (np.arange(m) % 2).astype(np.int32),
        np.zeros(m, bool),
        np.arange(m, dtype=np.int32),
    )
    return Dataset(Path("root"), "toy", classes, pictures, objects, {"first": np.arange(n // 2)})


def test_empty_data_set() -> None:
    data = make([])
    assert len(data) == 0 and list(data) == []
    assert data.class_counts().tolist() == [0, 0]
    assert len(data.subset([])) == 0
    with pytest.raises(IndexError):
        data[0]


def test_sample_of_a_picture() -> None:
    data = make([2, 0, 3])
    sample = data[2]
    assert (sample.path, sample.image_id, sample.size) == (Path("root/p2.jpg"), 3, (60, 80))
    assert sample.boxes[:, 0].tolist() == [2, 3, 4] and sample.boxes.dtype == np.float32
    assert sample.labels.tolist() == [0, 1, 0] and sample.labels.dtype == np.int64
    assert sample.ignore.dtype == bool
    empty = data[1]
    assert empty.boxes.shape == (0, 4) and empty.labels.shape == (0,) and empty.ignore.shape == (0,)
    assert data.annotation_path(1) is None and data.annotation_path(0) == Path("root/p0.xml")
    assert data[-1].image_id == 3
    assert data.background().tolist() == [False, True, False]


def test_a_sample_cannot_change_the_data_set() -> None:
    data = make([1])
    data[0].boxes[:] = 99
    data[0].ignore[:] = True
    assert data[0].boxes.tolist() == [[0, 0, 1, 1]] and not data[0].ignore.any()


def test_subset_keeps_ids_boxes_and_splits() -> None:
    data = make([2, 0, 3, 1])
    part = data.subset([3, 0])
    assert [s.image_id for s in part] == [4, 1]
    assert [s.boxes[:, 0].tolist() for s in part] == [[5], [0, 1]]
    assert part.objects.lines.tolist() == [5, 0, 1]
    assert part.splits["first"].tolist() == [1]
    assert [s.image_id for s in data.subset("first")] == [1, 2]
    assert "first" not in data.subset([3]).splits
    assert part.objects.owners().tolist() == [0, 1, 1]


def test_keep_drops_boxes_and_no_picture() -> None:
    objects = make([2, 0, 3]).objects.keep(np.asarray([False, True, False, False, True]))
    assert objects.offsets.tolist() == [0, 1, 1, 2]
    assert objects.boxes[:, 0].tolist() == [1, 4]


COLUMNS = ("truncated", "occluded", "crowd", "written")


def test_columns_that_are_left_out_are_zeros() -> None:
    for data in (make([]), make([2, 0, 1])):
        columns = [getattr(data.objects, name) for name in COLUMNS]
        assert [c.dtype for c in columns] == [np.float32, np.int8, bool, np.int32]
        assert all(c.shape == (len(data.objects.boxes),) and not c.any() for c in columns)
    sample = make([2, 0, 1])[0]
    assert [getattr(sample, name).tolist() for name in COLUMNS[:3]] == [[0, 0], [0, 0], [False, False]]


def test_columns_stay_with_their_boxes() -> None:
    data = make([2, 0, 3])
    rows = np.arange(5)
    data.objects.truncated[:], data.objects.occluded[:] = rows / 10, rows
    data.objects.crowd[:], data.objects.written[:] = rows == 3, rows + 7
    part = data.subset([2, 0])
    assert part.objects.occluded.tolist() == [2, 3, 4, 0, 1]
    assert part.objects.crowd.tolist() == [False, True, False, False, False]
    assert part.objects.written.tolist() == [9, 10, 11, 7, 8]
    np.testing.assert_array_equal(part.objects.truncated, part.objects.occluded / np.float32(10))
    kept = data.objects.keep(rows > 2)
    assert (kept.occluded.tolist(), kept.crowd.tolist()) == ([3, 4], [True, False])
    sample = data[2]
    assert (sample.occluded.tolist(), sample.crowd.tolist()) == ([2, 3, 4], [False, True, False])
    sample.occluded[:] = 9
    assert data.objects.occluded.tolist() == [0, 1, 2, 3, 4]


def test_every_array_counts_as_memory() -> None:
    data = make([10])
    sizes = [
        a.nbytes
        for part in (data.pictures, data.objects)
        for a in vars(part).values()
        if hasattr(a, "nbytes")
    ]
    packed = data.pictures.paths.bytes_used() + data.pictures.annotations.bytes_used()
    assert data.bytes_used() == sum(sizes) + packed


def test_the_written_name_of_a_box() -> None:
    data = make([2])
    assert [data.written_name(row) for row in (0, 1)] == ["a", "b"]
    data.objects.labels[0] = -1
    assert data.written_name(0) == ""
    assert replace(data, written=("DontCare", "b")).written_name(0) == "DontCare"


def test_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(DataError, match=r'no split "frist"; did you mean "first"\? splits here: first \(2\)'):
        make([1, 1, 1, 1]).subset("frist")


def test_counts_leave_ignored_boxes_out() -> None:
    data = make([2, 0, 3])
    data.objects.ignore[0] = True
    assert data.class_counts().tolist() == [2, 2]
    assert data.class_images().tolist() == [1, 2]
    assert data.class_presence().tolist() == [[False, True], [False, False], [True, True]]


@pytest.mark.parametrize(
    ("name", "hint"), [("", ""), ("hipped_rof", '; did you mean "hipped_roof"?'), ("xyz", "")]
)
def test_did_you_mean(name: str, hint: str) -> None:
    assert did_you_mean(name, ["hipped_roof", "flat"]) == hint


def test_a_hundred_thousand_boxes_are_small() -> None:
    data = make([10] * 10_000)
    assert data.bytes_used() < 100 * 100_000
    assert len(pickle.dumps(data)) < 100 * 100_000  # what a loader process receives
