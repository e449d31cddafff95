"""Every preset, and tiles, on the real data sets: what a training batch holds is possible and repeats."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest
import torch

from frcnn.config import PRESETS, Config
from frcnn.data.feed.loader import Batch, train_loader
from frcnn.data.feed.tiles import tiled
from frcnn.data.open import open_dataset
from frcnn.data.sample import Dataset
from frcnn.model.preprocess import pad_batch, prepare
from frcnn.recipes import recipe
from frcnn.settings import with_settings

ROOT = Path(os.environ.get("FRCNN_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = pytest.mark.slow


def opened(name: str, *settings: str) -> tuple[Dataset, Config]:
    if not (ROOT / name).is_dir():
        pytest.skip(f"{name} is not here: set FRCNN_DATA to the folder that holds {name}/")
    config = with_settings(recipe("lite0-fpn"), ["data.workers=0", *settings])
    return open_dataset(ROOT / name, config=config.data), config


def batches(data: Dataset, config: Config, count: int = 8) -> list[Batch]:
    loader = train_loader(data, config, prepare, pad_batch, seed=5)
    loader.set_epoch(1)
    return list(islice(loader, count))


def check(batch: Batch) -> None:
    boxes, shown = batch.targets.boxes, batch.targets.real | batch.targets.ignore
    limits = batch.images.sizes.flip(1).repeat(1, 2)[:, None]
    assert ((boxes >= 0) & (boxes <= limits + 1e-3)).all()
    sides = boxes[..., 2:] - boxes[..., :2]
    assert (sides[batch.targets.real] >= 1).all(), "objects to learn can be seen"
    assert (sides[shown] >= 0).all()
    for i, (height, width) in enumerate(batch.images.sizes.int().tolist()):
        assert batch.images.pixels[i, :, :height, :width].float().std() > 5, "a picture shows something"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["bccd", "pennfudan", "kitti-sample"])
def test_presets(name: str, preset: str) -> None:
    data, config = opened(name, f"data.augment={preset}", "data.bad_boxes=drop")
    first, again = batches(data, config), batches(data, config)
    assert sum(int(batch.targets.real.sum()) for batch in first) > 0
    for a, b in zip(first, again, strict=True):
        check(a)
        assert torch.equal(a.images.pixels, b.images.pixels)
        assert torch.equal(a.targets.boxes, b.targets.boxes)


@pytest.mark.parametrize(("name", "tile"), [("bccd", 256), ("pennfudan", 300), ("kitti-sample", 375)])
def test_tiles_hold_every_object(name: str, tile: int) -> None:
    data, config = opened(name, f"preprocess.tile={tile}", "data.augment=light", "data.bad_boxes=drop")
    cut = tiled(data, config, seed=0)
    assert len(cut) > len(data)
    for batch in batches(cut, config):
        check(batch)
    parents = {sample.image_id: sample for sample in data}
    for sample in cut:
        assert sample.window is not None or sample.size == parents[sample.image_id].size
    real = ~data.objects.ignore
    assert int((~cut.objects.ignore).sum()) >= int(real.sum()) * 0.98, "an object is lost to no tile"
