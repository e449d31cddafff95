"""Tiles: where they lie, what becomes of boxes, which of them are trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from frcnn.config import Config
from frcnn.data import proposals
from frcnn.data.feed.loader import eval_loader, train_loader
from frcnn.data.feed.tiles import never_shown, picture_limit, tile_windows, tiled
from frcnn.data.packed import Packed
from frcnn.data.sample import DataError, Dataset, Objects, Pictures
from frcnn.model.preprocess import pad_batch, prepare
from frcnn.settings import with_settings


def config(tile: int, *more: str) -> Config:
    common = [
        f"preprocess.tile={tile}",
        "preprocess.min_size=64",
        "preprocess.max_size=128",
        "data.workers=0",
    ]
    return with_settings(Config(), [*common, *more])


def dataset_of(root: Path, sizes: list[tuple[int, int]], boxes: list[list[list[float]]]) -> Dataset:
    n = len(sizes)
    pictures = Pictures(
        Packed(f"{i}.png" for i in range(n)),
        Packed([""] * n),
        np.arange(1, n + 1),
        np.array(sizes, np.int32).reshape(-1, 2),
        np.zeros((n, 2), np.int32),
        np.ones(n, np.int8),
        np.full(n, "RGB"),
        np.ones(n, np.int64),
    )
    flat = np.array([box for part in boxes for box in part], np.float32).reshape(-1, 4)
    count = len(flat)
    objects = Objects(
        np.cumsum([0, *map(len, boxes)]),
        flat,
        np.arange(count, dtype=np.int32) % 3,
        np.zeros(count, bool),
        np.arange(count, dtype=np.int32),
        crowd=np.arange(count) % 2 == 1,
    )
    splits = {"train": np.arange(n)[::2], "val": np.arange(n)[1::2]}
    return Dataset(root, "made", ("a", "b", "c"), pictures, objects, splits)


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([0, 32, 300, 1024]), st.floats(0.05, 0.75))
@settings(max_examples=60)
def test_tiles_cover_the_picture_and_overlap(height: int, width: int, tile: int, overlap: float) -> None:
    if tile == 32:
        height, width = height % 300 + 1, width % 300 + 1
    windows = tile_windows((height, width), tile, overlap)
    assert windows.dtype == np.int32
    assert windows[0, :2].tolist() == [0, 0]
    assert windows[-1, 2:].tolist() == [width, height]
    sides = windows[:, 2:] - windows[:, :2]
    wanted = [min(width, tile), min(height, tile)] if tile else [width, height]
    assert (sides == wanted).all()
    for axis, side in ((0, width), (1, height)):
        starts = np.unique(windows[:, axis])
        if not tile or side <= tile:
            assert starts.tolist() == [0]
        else:
            assert np.diff(starts).max(initial=0) <= tile * (1 - overlap) + 1, "rounded to a pixel"
    assert len(windows) == len(np.unique(windows[:, 0])) * len(np.unique(windows[:, 1]))


def test_nothing_to_cut_is_the_same_object(tmp_path: Path) -> None:
    empty = dataset_of(tmp_path, [], [])
    assert tiled(empty, config(100), seed=0) is empty
    small = dataset_of(tmp_path, [(90, 100)], [[[1, 1, 5, 5]]])
    for tile in (0, 100, 5000):
        assert tiled(small, config(tile), seed=0) is small
        assert tiled(small, config(tile), seed=None) is small


def test_boxes_are_cut_and_those_that_show_little_are_ignored(tmp_path: Path) -> None:
    boxes = [[[10.0, 10, 30, 30], [70, 40, 110, 60], [76, 70, 96, 90]]]
    data = dataset_of(tmp_path, [(100, 180)], boxes)
    cut = tiled(data, config(100), seed=None)
    assert cut.pictures.windows.tolist() == [[0, 0, 100, 100], [80, 0, 180, 100]]
    first, second = cut
    assert first.window == (0, 0, 100, 100)
    assert first.image_id == second.image_id == 1
    assert first.boxes.tolist() == [[10, 10, 30, 30], [70, 40, 100, 60], [76, 70, 96, 90]]
    assert first.ignore.tolist() == [False, False, False]
    assert second.boxes.tolist() == [[0, 40, 30, 60], [0, 70, 16, 90]]
    assert second.labels.tolist() == [1, 2]
    assert second.crowd.tolist() == [True, False]
    assert first.truncated.tolist() == [0, 0.25, 0]
    strict = tiled(data, config(100, "data.min_visible=0.78"), seed=None)
    assert strict[0].ignore.tolist() == [False, True, False]
    assert strict[1].ignore.tolist() == [True, False]
    assert not data.objects.ignore.any(), "the input stays as it was"


def test_objects_that_no_tile_shows_enough_of(tmp_path: Path) -> None:
    empty = dataset_of(tmp_path, [], [])
    assert never_shown(empty, config(100)).tolist() == []
    boxes = [[[100.0, 100, 1600, 1600], [10, 10, 100, 100], [400, 400, 600, 600], [0, 0, 1900, 1900]]]
    data = dataset_of(tmp_path, [(2000, 2000)], boxes)
    data.objects.ignore[3] = True
    assert never_shown(data, config(512)).tolist() == [True, False, False, False]
    assert not never_shown(data, config(1024)).any()
    assert not never_shown(data, config(0)).any() and not never_shown(data, config(2000)).any()
    assert not never_shown(data, config(512, "data.min_visible=0.1")).any()
    strict = never_shown(data, config(512, "data.min_visible=0.9"))
    assert strict.tolist() == [True, False, False, False], "some tile shows 90 % of the box on its seam"


def test_small_pictures_among_large_ones_stay_whole(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [(50, 60), (100, 180), (100, 100)], [[[1, 1, 5, 5]], [], [[1, 1, 5, 5]]])
    cut = tiled(data, config(100), seed=None)
    assert [sample.window for sample in cut] == [None, (0, 0, 100, 100), (80, 0, 180, 100), None]
    assert [sample.image_id for sample in cut] == [1, 2, 2, 3]
    assert {name: rows.tolist() for name, rows in cut.splits.items()} == {"train": [0, 3], "val": [1, 2]}
    assert tiled(cut, config(100), seed=None) is cut, "tiles are not cut again"
    assert cut.subset([3, 1])[1].window == (0, 0, 100, 100)


def test_training_keeps_few_tiles_without_objects(tmp_path: Path) -> None:
    boxes = [[[5.0, 5, 25, 25], [900, 900, 930, 930]], [], [[500, 500, 520, 520]]]
    data = dataset_of(tmp_path, [(1000, 1000)] * 3, boxes)
    every, kept = tiled(data, config(100), seed=None), tiled(data, config(100), seed=7)
    assert len(every) == 3 * 13 * 13
    for i in range(3):
        tiles = np.flatnonzero(kept.pictures.ids == i + 1)
        shown = int((~kept.background()[tiles]).sum())
        whole = np.flatnonzero(every.pictures.ids == i + 1)
        assert shown == int((~every.background()[whole]).sum()), "no object is lost"
        assert len(tiles) - shown == max(shown, 1)
    again, other = tiled(data, config(100), seed=7), tiled(data, config(100), seed=8)
    assert np.array_equal(kept.pictures.windows, again.pictures.windows)
    assert not np.array_equal(kept.pictures.windows, other.pictures.windows)


def test_pixels_are_those_of_the_tile(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (100, 180, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    data = tiled(dataset_of(tmp_path, [(100, 180)], [[[10, 10, 30, 30]]]), config(64), seed=None)
    seen = 0
    for batch in eval_loader(data, config(64), prepare, pad_batch, 2):
        for i, window in enumerate(batch.windows):
            assert window is not None
            x1, y1, x2, y2 = window
            expected = torch.from_numpy(pixels[y1:y2, x1:x2].copy()).permute(2, 0, 1)
            assert torch.equal(batch.images.pixels[i], expected), "64 pixels are not resized"
            seen += 1
    assert seen == len(data) == 8


def test_tiles_are_varied_like_pictures_whatever_the_workers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (150, 180, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    data = dataset_of(tmp_path, [(150, 180)] * 2, [[[10, 10, 60, 60]], [[100, 20, 170, 90]]])
    settings_ = config(100, "data.augment=strong", "data.mosaic=0.5", "train.batch=2")
    cut = tiled(data, settings_, seed=1)
    runs = []
    for workers in (0, 2):
        loader = train_loader(
            cut, with_settings(settings_, [f"data.workers={workers}"]), prepare, pad_batch, seed=1
        )
        runs.append([(b.images.pixels, b.targets.boxes, b.windows) for b in loader])
        loader.close()
    for (a, boxes, windows), (b, others, more) in zip(*runs, strict=True):
        assert torch.equal(a, b) and torch.equal(boxes, others) and windows == more


def test_a_picture_that_shrank_is_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (120, 100)).save(tmp_path / "0.png")
    data = tiled(dataset_of(tmp_path, [(100, 180)], [[]]), config(100), seed=None)
    with pytest.raises(DataError, match=r"0\.png: .*100x120.*fewer than"):
        list(eval_loader(data, config(100), prepare, pad_batch, 2))


def test_given_proposals_are_not_cut(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [(100, 180)], [[]])
    file = tmp_path / "p.safetensors"
    proposals.write(file, [s.path for s in data], [(np.zeros((0, 4)), np.zeros(0))])
    given_too = replace(data, proposals=proposals.attach(data, proposals.read(file)).proposals)
    with pytest.raises(ValueError, match=r"tile 100 cuts pictures.*--tile 0"):
        tiled(given_too, config(100), seed=0)


def test_how_many_detections_count(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [(100, 180)], [[[1.0, 1, 5, 5]] * 90])
    assert picture_limit(dataset_of(tmp_path, [], []), config(100), 100) == 100
    assert picture_limit(data, config(0), 100) == 100
    assert picture_limit(data, config(100), 100) == 135
    assert picture_limit(data, config(100), 300) == 300
