"""Batches as the network gets them: right boxes, repeatable, bad pictures named, no growth."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import tracemalloc
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frcnn.config import Config
from frcnn.data.feed.batching import Draw
from frcnn.data.feed.loader import (
    Batch,
    Collate,
    Example,
    Examples,
    Failure,
    eval_loader,
    pad_targets,
    train_loader,
    worker_count,
)
from frcnn.data.packed import Packed
from frcnn.data.sample import DataError, Dataset, Objects, Pictures, Sample
from frcnn.model.preprocess import pad_batch, prepare
from frcnn.settings import with_settings

SHAPES = [(60, 90), (90, 60), (64, 64), (60, 120), (120, 60), (200, 300), (61, 91)]


def make_dataset(
    root: Path, paths: list[str], shapes: list[tuple[int, int]], boxes: list[list[list[float]]]
) -> Dataset:
    n = len(paths)
    flat = np.array([b for part in boxes for b in part], np.float32).reshape(-1, 4)
    pictures = Pictures(
        Packed(paths),
        Packed([""] * n),
        np.arange(1, n + 1),
        np.array(shapes, np.int32).reshape(-1, 2),
        np.zeros((n, 2), np.int32),
        np.ones(n, np.int8),
        np.full(n, "RGB"),
        np.ones(n, np.int64),
    )
    offsets = np.cumsum([0, *[len(part) for part in boxes]])
    labels = (np.arange(len(flat)) % 3).astype(np.int32)
    ignore = np.arange(len(flat)) % 4 == 3
    objects = Objects(offsets, flat, labels, ignore, np.zeros(len(flat), np.int32))
    return Dataset(root, "made", ("a", "b", "c"), pictures, objects)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pictures that are black but for one white rectangle, which is their first box; the third has no box."""
    root = tmp_path_factory.mktemp("pictures")
    boxes: list[list[list[float]]] = []
    for i, (h, w) in enumerate(SHAPES):
        pixels = np.zeros((h, w, 3), np.uint8)
        box = [w // 5, h // 4, w // 2, h // 4 * 3]
        if i != 2:
            pixels[box[1] : box[3], box[0] : box[2]] = 255
        Image.fromarray(pixels).save(root / f"{i}.png")
        boxes.append([] if i == 2 else [box, [0, 0, 10 + i, 10]])
    return make_dataset(root, [f"{i}.png" for i in range(len(SHAPES))], SHAPES, boxes)


def config(*settings: str) -> Config:
    common = ["preprocess.min_size=64", "preprocess.max_size=128", "data.workers=0", "train.batch=2"]
    return with_settings(Config(), [*common, *settings])


def train(data: Dataset, *settings: str, epoch: int = 0, start: int = 0) -> list[Batch]:
    loader = train_loader(data, config(*settings), prepare, pad_batch, seed=3)
    loader.set_epoch(epoch, start)
    return list(loader)


BEFORE = set[int | None]()
"""Processes that other tests have left behind."""


@pytest.fixture(autouse=True)
def _others() -> None:
    BEFORE.clear()
    BEFORE.update(p.pid for p in multiprocessing.active_children())


def children() -> list[object]:
    return [p for p in multiprocessing.active_children() if p.is_alive() and p.pid not in BEFORE]


def equal(a: Batch, b: Batch) -> bool:
    tensors = zip(
        (*vars(a.images).values(), *vars(a.targets).values()),
        (*vars(b.images).values(), *vars(b.targets).values()),
        strict=True,
    )
    return all(x is y or torch.equal(x, y) for x, y in tensors) and (a.image_ids, a.paths) == (
        b.image_ids,
        b.paths,
    )


def test_no_pictures(dataset: Dataset) -> None:
    empty = dataset.subset([])
    assert list(eval_loader(empty, config(), prepare, pad_batch, 2)) == []
    with pytest.raises(ValueError, match="0 pictures make no batch of 2"):
        train_loader(empty, config(), prepare, pad_batch, seed=0)
    with pytest.raises(ValueError, match=r"lower train\.batch"):
        train_loader(dataset, config("train.batch=8"), prepare, pad_batch, seed=0, drop_last=True)


def test_pad_targets() -> None:
    def sample(count: int) -> Sample:
        boxes = np.arange(4 * count, dtype=np.float32).reshape(-1, 4)
        return Sample(Path("x"), 1, (9, 9), boxes, np.zeros(count, np.int64), np.ones(count, bool))

    empty = pad_targets([sample(0)])
    assert empty.boxes.shape == (1, 8, 4)
    assert not empty.real.any()
    assert not empty.ignore.any()
    targets = pad_targets([sample(9), sample(1)])
    assert targets.labels.shape == (2, 16)
    assert (targets.labels >= 0).sum(1).tolist() == [9, 1]
    assert targets.ignore.sum(1).tolist() == [9, 1]
    assert targets.boxes[0, 8].tolist() == [32.0, 33.0, 34.0, 35.0]
    assert targets.boxes.dtype == torch.float32


def test_an_ignored_crowd_is_a_region_in_training() -> None:
    boxes = np.ones((3, 4), np.float32)
    labels, yes, no = np.array([2, 2, -1]), True, False
    sample = Sample(
        Path("x"), 1, (9, 9), boxes, labels, np.array([yes, yes, yes]), crowd=np.array([yes, no, yes])
    )
    targets = pad_targets([sample])
    assert targets.labels[0, :4].tolist() == [-1, 2, -1, -1]
    assert targets.ignore[0, :4].tolist() == [True, True, True, False]


def test_a_flipped_picture_keeps_its_flags(dataset: Dataset) -> None:
    objects = dataset.objects
    count = len(objects.boxes)
    marked = replace(
        objects,
        truncated=np.linspace(0, 1, count, dtype=np.float32),
        occluded=(np.arange(count) % 4).astype(np.int8),
        crowd=np.arange(count) % 4 == 3,
    )
    data = replace(dataset, objects=marked)
    width = SHAPES[0][1]
    for index in (0, 2):  # the third has no box
        before = data[index]
        after = [
            Examples(data, config(f"data.flip={flip}"), prepare, 0)[Draw(index, 0, 1.0)] for flip in (0, 1)
        ]
        assert not any(isinstance(example, Failure) for example in after)
        plain, flipped = (example.sample for example in after if isinstance(example, Example))
        for name in ("labels", "ignore", "truncated", "occluded", "crowd"):
            for sample in (plain, flipped):
                np.testing.assert_array_equal(getattr(sample, name), getattr(before, name))
        if index == 0:
            scale = plain.boxes[0, 2] / before.boxes[0, 2]
            np.testing.assert_allclose(flipped.boxes[:, 0], width * scale - plain.boxes[:, 2], atol=1e-3)
    batch = train(data, "data.flip=1", "train.batch=7")[0]
    for i, image_id in enumerate(batch.image_ids):
        sample = data[image_id - 1]
        assert batch.targets.ignore[i, : len(sample.boxes)].tolist() == sample.ignore.tolist()


def test_evaluation_gives_each_picture_once_unvaried(dataset: Dataset) -> None:
    batches = list(eval_loader(dataset, config("data.flip=1"), prepare, pad_batch, 2))
    assert sorted(i for b in batches for i in b.image_ids) == list(range(1, 8))
    for batch in batches:
        assert batch.images.pixels.dtype == torch.uint8
        for i, (image_id, path) in enumerate(zip(batch.image_ids, batch.paths, strict=True)):
            sample = dataset[image_id - 1]
            assert path == str(sample.path)
            assert batch.images.original_sizes[i].tolist() == list(sample.size)
            count = len(sample.boxes)
            scaled = sample.boxes * batch.images.scales[i].flip(0).repeat(2).numpy()
            np.testing.assert_allclose(batch.targets.boxes[i, :count], scaled, rtol=1e-5)
            assert batch.targets.labels[i, :count].tolist() == sample.labels.tolist()
            assert batch.targets.ignore[i, :count].tolist() == sample.ignore.tolist()
            assert (batch.targets.labels[i, count:] == -1).all()


@pytest.mark.parametrize("flip", [0, 1])
def test_boxes_follow_the_pixels(dataset: Dataset, flip: int) -> None:
    checked = 0
    for batch in train(dataset, f"data.flip={flip}", "data.scale_jitter=[0.5, 1.5]"):
        for i, labels in enumerate(batch.targets.labels):
            if (labels < 0).all():
                continue
            bright = batch.images.pixels[i, 0] > 127
            rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(batch.targets.boxes[i, 0], np.array(found, float), atol=1.0)
            checked += 1
    assert checked == 6
    left = [
        b.targets.boxes[i, 0, 0] / b.images.sizes[i, 1]
        for b in train(dataset, f"data.flip={flip}")
        for i in [0]
    ]
    assert np.median(left) == pytest.approx(0.5 if flip else 0.2, abs=0.06)


def test_torchvision_method_arrives_as_floats(dataset: Dataset) -> None:
    batch = train(dataset, "preprocess.method=torchvision")[0]
    assert batch.images.pixels.dtype == torch.float32
    assert batch.images.pixels.min() == pytest.approx(-2.117, abs=0.01)


def test_number_of_workers_changes_nothing(dataset: Dataset) -> None:
    varied = ["data.brightness=0.3", "data.scale_jitter=[0.5, 1.5]"]
    alone = [train(dataset, *varied, epoch=e) for e in (0, 1)]
    loader = train_loader(dataset, config(*varied, "data.workers=2"), prepare, pad_batch, seed=3)
    for epoch in (0, 1):  # the same persistent workers serve both epochs
        loader.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader) == 4
        assert all(equal(a, b) for a, b in zip(batches, alone[epoch], strict=True))
    assert not equal(alone[0][0], alone[1][0])
    assert len(children()) == 2
    loader.set_epoch(0)
    assert equal(next(iter(loader)), alone[0][0]), "an epoch may be left early"
    loader.set_epoch(1)
    assert all(equal(a, b) for a, b in zip(loader, alone[1], strict=True))
    loader.close()
    assert not children()
    loader.set_epoch(1)
    assert equal(next(iter(loader)), alone[1][0]), "a closed loader starts again"
    loader.close()


def test_resume_in_the_middle_is_exact(dataset: Dataset) -> None:
    whole = train(dataset, epoch=1)
    rest = train(dataset, epoch=1, start=2)
    assert len(rest) == len(whole) - 2
    assert all(equal(a, b) for a, b in zip(rest, whole[2:], strict=True))


def test_iterating_leaves_the_global_generator_alone(dataset: Dataset) -> None:
    before = torch.get_rng_state()
    train(dataset)
    assert torch.equal(torch.get_rng_state(), before)


def broken(dataset: Dataset, root: Path, content: bytes | None) -> Dataset:
    """The same data set with one file cut short (or gone) after it was opened."""
    paths = list(dataset.pictures.paths)
    if content is not None:
        (root / "broken.png").write_bytes(content)
    paths[1] = str(root / "broken.png")
    return replace(dataset, pictures=replace(dataset.pictures, paths=Packed(paths)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_picture_is_one_sentence_with_its_name(dataset: Dataset, tmp_path: Path, workers: int) -> None:
    data = broken(dataset, tmp_path, (dataset.root / "1.png").read_bytes()[:90])
    for loader in (
        train_loader(data, config(f"data.workers={workers}"), prepare, pad_batch, seed=0),
        eval_loader(data, config(f"data.workers={workers}"), prepare, pad_batch, 2),
    ):
        with pytest.raises(DataError, match=r"broken\.png") as caught:
            list(loader)
        assert not children(), "no worker outlives the error"
        assert "Traceback" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("known_size", [True, False])
def test_skipped_pictures_are_named_and_teach_nothing(
    dataset: Dataset, tmp_path: Path, known_size: bool
) -> None:
    data = broken(dataset, tmp_path, None)
    if not known_size:
        sizes = data.pictures.sizes.copy()  # the header was unreadable when the data set was opened
        sizes[1] = 0
        data = replace(data, pictures=replace(data.pictures, sizes=sizes))
    batches = train(data, "data.on_bad_image=skip")
    assert [p for b in batches for p in b.skipped] == [str(tmp_path / "broken.png")]
    assert sorted(i for b in batches for i in b.image_ids) == list(range(1, 8)), (
        "no picture moves, no shape changes"
    )
    for batch in batches:
        for i, path in enumerate(batch.paths):
            if path in batch.skipped:
                assert not batch.images.pixels[i].any()
                assert not batch.targets.real[i].any()
                assert batch.targets.ignore[i].sum() == 1
                assert batch.targets.boxes[i, 0].tolist() == [0, 0, *batch.images.sizes[i].flip(0).tolist()]


def test_evaluation_names_skipped_pictures_by_their_position(dataset: Dataset, tmp_path: Path) -> None:
    data = broken(dataset, tmp_path, None)
    settings = config("data.on_bad_image=skip", "data.mosaic=1")  # nothing is mixed, which might help
    batches = list(eval_loader(data, settings, prepare, pad_batch, 2))
    assert sorted(i for b in batches for i in b.image_ids) == list(range(1, 8))
    assert [b.image_ids[i] for b in batches for i in b.unread] == [2]
    assert [p for b in batches for p in b.skipped] == [str(tmp_path / "broken.png")]
    whole = list(eval_loader(dataset, settings, prepare, pad_batch, 2))
    assert not any(b.unread or b.skipped for b in whole)
    assert [b.images.pixels.shape for b in batches] == [b.images.pixels.shape for b in whole]


def test_a_picture_that_changed_size_is_an_error(dataset: Dataset, tmp_path: Path) -> None:
    Image.new("RGB", (33, 44)).save(tmp_path / "broken.png")
    with pytest.raises(DataError, match=r"broken\.png: .*44x33.*90x60"):
        train(broken(dataset, tmp_path, None))


def test_batch_moves_and_is_a_value(dataset: Dataset) -> None:
    batch = train(dataset)[0]
    moved = batch.to("meta")
    assert moved.images.pixels.device.type == "meta"
    assert moved.targets.boxes.device.type == "meta"
    assert moved.paths == batch.paths
    assert len(moved) == 2
    with pytest.raises(AttributeError):
        batch.paths = ()  # type: ignore[misc]


def test_what_goes_to_a_spawned_worker_can_be_pickled(dataset: Dataset) -> None:
    examples = pickle.loads(pickle.dumps(Examples(dataset, config(), prepare, 0)))
    collate = pickle.loads(pickle.dumps(Collate(pad_batch, config().preprocess)))
    loader = train_loader(dataset, config(), prepare, pad_batch, seed=0)
    draws = next(iter(loader.batch_sampler))
    again = collate([examples[draw] for draw in pickle.loads(pickle.dumps(draws))])
    assert equal(again, next(iter(loader)))


def test_worker_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_count(0) == 0
    assert worker_count(5) == 5
    for cores, world, expected in [(1, 1, 0), (2, 1, 1), (4, 1, 3), (64, 1, 8), (16, 4, 3), (2, 2, 0)]:
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert worker_count(-1, world) == expected


def test_memory_does_not_grow_over_epochs(dataset: Dataset) -> None:
    """100,000 boxes on 5,000 pictures that are one file: start-up and iterating cost a fixed amount."""
    pictures, each = 5_000, 20
    boxes = np.tile(np.array([[1.0, 1, 30, 30]], np.float32), (pictures * each, 1))
    many = dataset.subset(np.zeros(pictures, np.int64))
    objects = Objects(
        np.arange(pictures + 1) * each,
        boxes,
        np.zeros(len(boxes), np.int32),
        np.zeros(len(boxes), bool),
        np.zeros(len(boxes), np.int32),
    )
    many = replace(many, objects=objects)
    tracemalloc.start()
    loader = train_loader(
        many, config("preprocess.min_size=16", "preprocess.max_size=32"), prepare, pad_batch, seed=0
    )
    marks = []
    for epoch in range(4):
        loader.set_epoch(epoch)
        for batch in islice(loader, 60):
            assert len(batch) == 2
        del batch
        gc.collect()
        marks.append(tracemalloc.get_traced_memory()[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert marks[3] - marks[1] < 50_000
    assert peak < 10_000_000, "the plan of an epoch is arrays, not one object for every picture"
