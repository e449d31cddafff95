"""``Detector.predict`` and ``frcnn.evaluate`` on tiles, with a network that finds coloured rectangles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_tiles import dataset_of

import frcnn.evaluation.collect
import frcnn.predict
from frcnn.config import PreprocessConfig
from frcnn.data.feed.tiles import tile_windows
from frcnn.evaluation.run import evaluate
from frcnn.inputs import cut_pictures
from frcnn.model.preprocess import normalise
from frcnn.predict import Detector
from frcnn.recipes import recipe
from frcnn.settings import ConfigError, with_settings
from frcnn.structures import Detections, ImageBatch

BOXES = [[20, 30, 60, 90], [130, 20, 190, 50], [100, 120, 290, 170]]
"""Red, green and blue on black; the last one is longer than a tile."""
SIZE = (200, 330)
SMALL = ("preprocess.min_size=96", "preprocess.max_size=160", "eval.batch=2", "eval.precision=fp32")
TILES = PreprocessConfig(tile=100, overlap=0.2)


def picture() -> np.ndarray:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(BOXES):
        pixels[y1:y2, x1:x2, channel] = 255
    return pixels


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_config(
        with_settings(recipe("lite0-fpn"), [*SMALL, "backbone.weights=none"]), ["a", "b", "c"]
    )


def find(_: object, batch: ImageBatch, limits: Any = None) -> Detections:
    """The rectangle of every channel; label 0."""
    most = len(BOXES)
    boxes, valid = torch.zeros(len(batch), most, 4), torch.zeros(len(batch), most, dtype=torch.bool)
    for i in range(len(batch)):
        height, width = batch.sizes[i].int().tolist()
        for k in range(most):
            rows, columns = (batch.pixels[i, k, :height, :width] > 127).nonzero(as_tuple=True)
            if len(rows):
                corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                boxes[i, k] = torch.stack(corners) / batch.scales[i].flip(0).repeat(2)
                valid[i, k] = True
    scores = torch.linspace(0.9, 0.8, most).repeat(len(batch), 1)
    zeros = torch.zeros(len(batch), most, dtype=torch.int64)
    return Detections(boxes, scores, zeros, valid, zeros, torch.ones(len(batch), dtype=torch.bool))


def test_no_pictures(detector: Detector) -> None:
    assert detector.predict([], tile=64) == []
    assert list(cut_pictures([], TILES)) == []


def test_objects_on_seams_are_found_once(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frcnn.predict, "detect", find)
    for pixels in (picture(), Image.fromarray(picture())):
        for tile, overlap in ((100, 0.2), (150, 0.5), (64, 0.4)):
            results = detector.predict([pixels, picture()[:90, :70]], tile=tile, overlap=overlap)
            boxes = results[0].boxes
            expected = np.array(BOXES, np.float32)
            order = np.lexsort(boxes.T[::-1])
            assert len(boxes) == len(BOXES)
            assert np.abs(boxes[order] - expected[np.lexsort(expected.T[::-1])]).max() < 3
            assert results[0].size == SIZE
            assert len(results[1]) == 1, "a second picture keeps to itself"
    assert len(detector.predict(picture(), tile=100, max_dets=2)[0]) == 2


def test_a_limit_that_is_reached_is_said(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frcnn.predict, "detect", find)
    one, empty = picture(), np.zeros((*SIZE, 3), np.uint8)
    one[:, 100:] = 0  # the red rectangle alone
    for tile, many in ((0, 3), (100, 3)):
        limits = {1: [True, True, False], many: [True, False, False], many + 1: [False, False, False]}
        for most, expected in limits.items():
            results = detector.predict([picture(), one, empty], tile=tile, max_dets=most)
            assert [r.capped for r in results] == expected, (tile, most)
    low = replace(detector, config=detector.config.with_limits(1))
    assert [r.capped for r in low.predict([picture(), empty], tile=100)] == [True, False]
    assert detector.predict(one, tile=100, max_dets=1)[0][:0].capped, "a selection is of the same result"


def test_pieces_are_the_pictures_own_pixels() -> None:
    pixels = picture()
    pieces = list(cut_pictures([pixels, pixels[:50, :50]], TILES))
    windows = tile_windows(SIZE, 100, 0.2).tolist()
    assert [list(p.window or ()) for p in pieces] == [*windows, []]
    assert [p.index for p in pieces] == [0] * len(windows) + [1]
    assert [p.last for p in pieces] == [False] * (len(windows) - 1) + [True, True]
    for _, _, part, window, _ in pieces[:-1]:
        assert window is not None
        x1, y1, x2, y2 = window
        assert np.array_equal(np.asarray(part.pixels), pixels[y1:y2, x1:x2])


def test_a_tile_larger_than_the_picture_changes_nothing(detector: Detector, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in ((90, 120), (120, 90), (64, 64))]
    plain = detector.predict(pictures, score=0.0)
    assert sum(map(len, plain)) > 10, "a network of random weights finds something"
    for tile in (120, 4000):
        for a, b in zip(plain, detector.predict(pictures, score=0.0, tile=tile, overlap=0.5), strict=True):
            assert np.array_equal(a.boxes, b.boxes)
            assert np.array_equal(a.scores, b.scores)
            assert np.array_equal(a.labels, b.labels)
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    data = dataset_of(tmp_path, [(90, 120), (120, 90), (64, 64)], [[[5, 5, 60, 60]], [[1, 1, 40, 40]], []])
    reports = [evaluate(d, data, score=0.0).to_json() for d in (detector, detector.with_tiles(200))]
    assert reports[0] == reports[1]


def test_evaluation_merges_tiles(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frcnn.evaluation.collect, "detect", find)
    Image.fromarray(picture()).save(tmp_path / "0.png")
    Image.fromarray(picture()).save(tmp_path / "1.png")
    data = dataset_of(tmp_path, [SIZE, SIZE], [BOXES, BOXES])
    data.objects.labels[:] = 0
    told: list[int] = []
    report = evaluate(detector.with_tiles(100), data, progress=told.append)
    assert report["AP75"] == 1
    assert report["AP50"] == 1
    assert told[-1] == 2, "progress is in pictures"
    whole = evaluate(detector, data)
    assert whole["AP50"] == 1


@pytest.mark.parametrize(("tile", "in_full"), [(0, False), (400, False), (200, True)])
def test_a_file_is_seen_as_in_evaluation(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile: int, in_full: bool
) -> None:
    seen: list[torch.Tensor] = []

    def look(model: object, batch: ImageBatch, limits: Any = None) -> Detections:
        seen.append(normalise(batch, detector.config.preprocess).pixels)
        return find(model, batch, limits)

    def pixels() -> torch.Tensor:
        every = torch.cat(seen)
        seen.clear()
        return every

    monkeypatch.setattr(frcnn.evaluation.collect, "detect", look)
    monkeypatch.setattr(frcnn.predict, "detect", look)
    files = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(files):
        noise = np.random.default_rng(i).integers(0, 256, (240, 320, 3), np.uint8)
        Image.fromarray(noise).save(path, "JPEG")
    cutting = detector.with_tiles(tile)
    evaluate(cutting, dataset_of(tmp_path, [(240, 320)] * 2, [[[5, 5, 60, 60]]] * 2))
    evaluated = pixels()
    cutting.predict(files)
    assert torch.equal(pixels(), evaluated)
    cutting.predict([np.asarray(Image.open(path)) for path in files])
    assert torch.equal(pixels(), evaluated) == in_full, "whole pictures are decoded at half their size"
    if tile == 0:
        assert torch.equal(detector.trace(files).batch.pixels, evaluated)


def test_tiles_stay_with_the_model(detector: Detector, tmp_path: Path) -> None:
    assert detector.with_tiles(None) is detector
    tiled = detector.with_tiles(100, 0.3)
    assert tiled.model is detector.model
    assert detector.config.preprocess.tile == 0
    tiled.save(tmp_path / "m.safetensors")
    spec = Detector.load(tmp_path / "m.safetensors").config.preprocess
    assert (spec.tile, spec.overlap) == (100, 0.3)
    assert tiled.with_tiles(0).config.preprocess.tile == 0


@pytest.mark.parametrize(("tile", "overlap", "message"), [(7, None, "tile 7 shows"), (64, 0.01, "overlap")])
def test_what_cannot_be_cut_is_said(detector: Detector, tile: int, overlap: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detector.predict(picture(), tile=tile, overlap=overlap)
