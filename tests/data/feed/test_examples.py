"""Pictures as workers make them: the same whatever the number of workers, with all that travels."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frcnn.config import PRESETS, Config
from frcnn.data import proposals
from frcnn.data.feed.batching import Draw
from frcnn.data.feed.examples import Example, Examples, Failure
from frcnn.data.feed.loader import Batch, train_loader
from frcnn.data.open import open_dataset
from frcnn.data.packed import Packed
from frcnn.data.sample import Dataset, Objects, Pictures
from frcnn.model.preprocess import pad_batch, prepare
from frcnn.settings import with_settings

SHAPES = [(60, 90), (90, 60), (64, 64), (60, 120), (120, 60), (200, 300), (61, 91)]
EVERYTHING = (
    "data.augment=strong",
    "data.mosaic=0.5",
    "data.copy_paste=0.7",
    "data.flip_vertical=0.5",
    "data.quarter_turns=0.75",
    "data.large_scale_jitter=[0.7, 1.4]",
    "data.multi_scale=[48, 64, 80]",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pictures of noise with one white rectangle, which is their box; the third has none."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    boxes = []
    for i, (h, w) in enumerate(SHAPES):
        pixels = rng.integers(0, 100, (h, w, 3), dtype=np.uint8)
        box = [w // 5, h // 4, w // 2, h // 4 * 3]
        if i != 2:
            pixels[box[1] : box[3], box[0] : box[2]] = 255
            boxes.append(box)
        Image.fromarray(pixels).save(root / f"{i}.png")
    n, count = len(SHAPES), len(boxes)
    pictures = Pictures(
        Packed(f"{i}.png" for i in range(n)),
        Packed([""] * n),
        np.arange(1, n + 1),
        np.array(SHAPES, np.int32),
        np.zeros((n, 2), np.int32),
        np.ones(n, np.int8),
        np.full(n, "RGB"),
        np.ones(n, np.int64),
    )
    offsets = np.cumsum([0, *[i != 2 for i in range(n)]])
    labels, ignore = np.arange(count, dtype=np.int32) % 3, np.arange(count) == 5
    objects = Objects(offsets, np.array(boxes, np.float32), labels, ignore, np.zeros(count, np.int32))
    return Dataset(root, "made", ("a", "b", "c"), pictures, objects)


def config(*settings: str) -> Config:
    common = ["preprocess.min_size=64", "preprocess.max_size=128", "data.workers=0", "train.batch=2"]
    return with_settings(Config(), [*common, *settings])


def equal(a: Batch, b: Batch) -> bool:
    tensors = zip(
        (*vars(a.images).values(), *vars(a.targets).values()),
        (*vars(b.images).values(), *vars(b.targets).values()),
        strict=True,
    )
    same = all(x is y or torch.equal(x, y) for x, y in tensors)
    return same and (a.image_ids, a.paths, a.skipped) == (b.image_ids, b.paths, b.skipped)


@pytest.mark.parametrize("workers", [1, 2])
def test_number_of_workers_changes_nothing(dataset: Dataset, workers: int) -> None:
    loaders = [
        train_loader(dataset, config(*EVERYTHING, f"data.workers={n}"), prepare, pad_batch, seed=3)
        for n in (0, workers)
    ]
    seen = []
    for epoch in (0, 3, 0):
        pair = []
        for loader in loaders:
            loader.set_epoch(epoch)
            pair.append(list(loader))
        assert all(equal(a, b) for a, b in zip(*pair, strict=True))
        seen.append(pair[0])
    loaders[1].close()
    assert all(equal(a, b) for a, b in zip(seen[0], seen[2], strict=True)), "an epoch repeats"
    assert not equal(seen[0][0], seen[1][0])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_keeps_to_the_planned_shapes(dataset: Dataset, preset: str) -> None:
    loader = train_loader(dataset, config(f"data.augment={preset}"), prepare, pad_batch, seed=1)
    for epoch in range(4):
        loader.set_epoch(epoch)
        for plan, batch in zip(loader.plan(epoch), loader, strict=True):
            planned = [size for size, _ in plan]
            assert batch.images.original_sizes.tolist() == [list(map(float, size)) for size in planned]
            boxes, sizes = batch.targets.boxes, batch.images.sizes.flip(1).repeat(1, 2)[:, None]
            assert ((boxes >= 0) & (boxes <= sizes + 1e-3)).all()
            assert batch.images.pixels.dtype == torch.uint8


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("part", ["quarter_turns=1", "flip_vertical=1", "zoom_out=1", "iou_crop=1"])
@pytest.mark.parametrize("method", ["pillow", "torchvision"])
def test_boxes_follow_the_pixels(dataset: Dataset, part: str, turned: bool, method: str) -> None:
    settings = config("data.augment=none", f"data.{part}", f"preprocess.method={method}")
    examples = Examples(dataset, settings, prepare, 0)
    checked = 0
    for index in range(len(dataset)):
        for epoch in range(4):
            example = examples[Draw(index, epoch, 1.0, turned)]
            assert isinstance(example, Example)
            boxes = example.sample.boxes
            assert example.sample.size == (SHAPES[index][::-1] if turned else SHAPES[index])
            if not len(boxes):
                continue
            pixels = example.pixels[0].float()
            if pixels.min() < 0:
                pixels = pixels * 0.229 * 255 + 0.485 * 255
            bright = pixels > 180
            rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(boxes[0], np.array(found, float), atol=1.6)
            checked += 1
    assert checked == 24


def test_given_proposals_travel_or_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    rows = [dataset[i].boxes for i in range(len(dataset))]
    proposals.write(file, [s.path for s in dataset], [(b, np.ones(len(b), np.float32)) for b in rows])
    given = proposals.attach(dataset, proposals.read(file))
    settings = (*EVERYTHING, "data.mosaic=0", "data.copy_paste=0")
    checked = 0
    for batch in train_loader(given, config(*settings), prepare, pad_batch, seed=2):
        assert batch.images.given is not None
        for i in range(len(batch)):
            real = batch.targets.real[i]
            if real.any():
                assert torch.allclose(batch.images.given[i, 0], batch.targets.boxes[i, 0], atol=1e-3)
                checked += 1
    assert checked > 3
    for part in ("mosaic", "copy_paste"):
        with pytest.raises(ValueError, match=f"{part} 0.5.* cannot be mixed; set both to 0"):
            train_loader(given, config(f"data.{part}=0.5"), prepare, pad_batch, seed=2)


def test_a_bad_partner_costs_no_picture(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    paths = [str(tmp_path / "bad.png") if i == 6 else f"{dataset.root}/{i}.png" for i in range(7)]
    broken = replace(dataset, pictures=replace(dataset.pictures, paths=Packed(paths)))
    settings = config("data.augment=none", "data.mosaic=1", "data.on_bad_image=skip")
    seen = [Examples(broken, settings, prepare, 0)[Draw(i, e, 1.0)] for i in range(7) for e in range(6)]
    assert [isinstance(e, Example) and e.skipped for e in seen] == [False] * 36 + [True] * 6
    strict = Examples(broken, config("data.augment=none", "data.mosaic=1"), prepare, 0)
    failures = [e for i in range(6) for e in [strict[Draw(i, 0, 1.0)]] if isinstance(e, Failure)]
    assert failures, "with three partners of seven some picture meets the bad one"
    assert all("bad.png" in failure.message for failure in failures)


def test_evaluation_is_never_varied(dataset: Dataset) -> None:
    varied, plain = config(*EVERYTHING), config("data.augment=none")
    for index in range(len(dataset)):
        pair = [Examples(dataset, c, prepare, None)[Draw(index, 0, 1.0)] for c in (varied, plain)]
        assert isinstance(pair[0], Example) and isinstance(pair[1], Example)
        assert torch.equal(pair[0].pixels, pair[1].pixels)
        assert np.array_equal(pair[0].sample.boxes, pair[1].sample.boxes)


def test_the_data_set_stays_as_it_is(dataset: Dataset) -> None:
    before = {
        name: getattr(dataset.objects, name).copy() for name in ("boxes", "labels", "ignore", "truncated")
    }
    list(train_loader(dataset, config(*EVERYTHING), prepare, pad_batch, seed=0))
    assert all(np.array_equal(getattr(dataset.objects, name), value) for name, value in before.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "ending", "preset", "limit"),
    [
        ((3000, 4000), "png", "none", 0.4),  # before the resize: 0.6
        ((3000, 4000), "png", "recipe", 0.4),
        ((480, 640), "jpg", "none", 0.6),
        ((480, 640), "jpg", "recipe", 1.0),
    ],
)
def test_colours_cost_less_than_decoding_and_resizing(
    tmp_path: Path, size: tuple[int, int], ending: str, preset: str, limit: float
) -> None:
    scene = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    scene.resize(size[::-1]).save(tmp_path / f"a.{ending}")
    (tmp_path / "boxes.csv").write_text(f"path,x1,y1,x2,y2,class\na.{ending},0,0,30,30,thing\n")
    data = open_dataset(tmp_path)
    common = ["preprocess.min_size=320", "preprocess.max_size=640", f"data.augment={preset}", "data.flip=0"]
    colours = ["data.brightness=0.3", "data.contrast=0.3", "data.saturation=0.3"]
    plain, varied = (
        Examples(data, with_settings(Config(), [*common, *more]), prepare, 0)
        for more in ([f"{word.partition('=')[0]}=0" for word in colours], colours)
    )

    def seconds(examples: Examples, epoch: int) -> float:
        start = time.process_time()  # others on the machine must not decide
        assert isinstance(examples[Draw(0, epoch, 1.0)], Example)
        return time.process_time() - start

    rounds = 10 if size[0] > 1000 else 60
    turns = [(seconds(plain, epoch), seconds(varied, epoch)) for epoch in range(rounds)]
    without, having = map(min, zip(*turns, strict=True))
    assert having - without < limit * without
