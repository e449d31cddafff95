"""Where the time goes until a batch is there, and how many pictures one loader process gives in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from PIL import Image
from torch import Tensor

from frcnn.bands import Pixels
from frcnn.config import Config, PreprocessConfig
from frcnn.data.check import load_checked
from frcnn.data.feed.examples import Example, Examples, Failure, Size
from frcnn.data.feed.loader import Collate, Loader, train_loader
from frcnn.data.feed.tiles import tiled
from frcnn.data.sample import DataError, Dataset, Sample
from frcnn.data.split import TrainVal
from frcnn.model.preprocess import pad_batch, prepare
from frcnn.settings import with_settings

SEED = 0
WARM = 2
"""Batches before the clock starts."""


@dataclass(frozen=True)
class Loading:
    """What was measured.

    Attributes:
        pictures: timed in one process, after ``WARM`` batches.
        decode: seconds in which files were read and decoded.
        transform: seconds in which pictures and boxes were varied.
        resize: seconds in which pictures were resized and made tensors.
        collate: seconds in which batches were put together.
        data: the data set's name.
        fed: pictures a second from a loader with one worker.
        size: short side of the pictures.
    """

    pictures: int
    decode: float
    transform: float
    resize: float
    collate: float
    data: str = ""
    fed: float = 0.0
    size: int = 0

    def lines(self) -> list[str]:
        """A table for people: milliseconds of a picture and shares."""
        parts = {n: getattr(self, n) for n in ("decode", "transform", "resize", "collate")}
        total = sum(parts.values())
        rows = [
            f"{name:<10} {1000 * seconds / self.pictures:8.2f} ms a picture {seconds / total:6.0%}"
            for name, seconds in (*parts.items(), ("all", total))
        ]
        head = f"{self.data}: {self.pictures} training pictures, short side {self.size}, in one process"
        return [head, *rows, f"a loader with one worker gives {self.fed:.1f} pictures a second"]


class _Timed(Examples):
    """Counts the seconds of decoding."""

    decoding = 0.0

    def _decoded(self, sample: Sample, least: Size | None) -> Pixels:
        began = time.perf_counter()
        picture = super()._decoded(sample, least)
        if isinstance(picture, Image.Image):
            picture.load()
        self.decoding += time.perf_counter() - began
        return picture


class _TimedPrepare:
    """``prepare`` that counts its seconds, with and without those of reading and varying the picture."""

    def __init__(self) -> None:
        self.total = self.reading = 0.0

    def __call__(
        self, size: Size, spec: PreprocessConfig, scale: float, read: Callable[[Size | None], Pixels]
    ) -> Tensor:
        def timed(least: Size | None) -> Pixels:
            began = time.perf_counter()
            picture = read(least)
            self.reading += time.perf_counter() - began
            return picture

        began = time.perf_counter()
        pixels = prepare(size, spec, scale, timed)
        self.total += time.perf_counter() - began
        return pixels


def measure_loading(data: str | Path, config: Config, pictures: int = 500) -> Loading:
    """Load training pictures of a data set as a run does: first here, part by part, then with one worker.

    Args:
        data: its folder; pictures that cannot be used are left out.
        config: recipe, size, variation and batch.
        pictures: about how many are loaded each time.

    Returns:
        Seconds and pictures a second.

    Raises:
        DataError: when the data set cannot be read.
    """
    config = with_settings(config, ["data.bad_boxes=drop", "data.on_bad_image=skip"])
    chosen, _ = load_checked(data, TrainVal(seed=SEED), config=config)
    dataset = tiled(chosen.subset("train"), config, seed=SEED)
    batches = max(pictures // config.train.batch, 1) + WARM
    here = with_settings(config, ["data.workers=0"])
    measured = _in_parts(dataset, here, batches)
    one = with_settings(config, ["data.workers=1"])
    loader = train_loader(dataset, one, prepare, pad_batch, seed=SEED)
    try:
        fed = _rate(loader, batches)
    finally:
        loader.close()
    return replace(measured, data=chosen.name, fed=fed, size=config.preprocess.min_size)


def _in_parts(dataset: Dataset, config: Config, batches: int) -> Loading:
    """The seconds of each part, in this process."""
    timed = _TimedPrepare()
    examples, collate = _Timed(dataset, config, timed, SEED), Collate(pad_batch, config.preprocess)
    loader = train_loader(dataset, config, prepare, pad_batch, seed=SEED)
    whole = joining = 0.0
    count = done = epoch = 0
    while done < batches:
        loader.set_epoch(epoch)
        assert loader.batch_sampler is not None
        for draws in islice(iter(loader.batch_sampler), batches - done):
            if done == WARM:
                timed.total = timed.reading = examples.decoding = whole = joining = 0.0
                count = 0
            began = time.perf_counter()
            items: list[Example | Failure] = [examples[draw] for draw in draws]  # type: ignore[index]
            ready = time.perf_counter()
            made = collate(items)
            joining += time.perf_counter() - ready
            whole += ready - began
            if isinstance(made, Failure):
                raise DataError(made.message)
            count, done = count + len(made), done + 1
        epoch += 1
    varying = whole - timed.total + timed.reading - examples.decoding
    return Loading(count, examples.decoding, varying, timed.total - timed.reading, joining)


def _rate(loader: Loader, batches: int) -> float:
    """Pictures a second."""
    began, count, done, epoch = time.perf_counter(), 0, 0, 0
    while done < batches:
        loader.set_epoch(epoch)
        for batch in islice(iter(loader), batches - done):
            count, done = count + len(batch), done + 1
            if done == WARM:
                began, count = time.perf_counter(), 0
        epoch += 1
    return count / (time.perf_counter() - began)
