"""The training batches of one epoch after another, and how long the run waited for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from frcnn.config import Config
from frcnn.data.feed.loader import Batch, Loader, eval_loader, train_loader
from frcnn.data.feed.tiles import tiled
from frcnn.data.sample import Dataset
from frcnn.model.preprocess import pad_batch, prepare


class Feed:
    """Iterating gives the batches of the coming epoch; the place in the data is the finished epochs.

    Attributes:
        epoch: of the next iteration, from 0.
        images: pictures given in the current epoch.
        waited: seconds of the current epoch in which the run waited for a batch.
    """

    def __init__(self, loader: Loader, epoch: int = 0, limit: int | None = None) -> None:
        """``limit``: batches of an epoch, where a time budget allows less than a whole one."""
        self.loader, self.epoch = loader, epoch
        self._limit = len(loader) if limit is None else min(limit, len(loader))
        self.images = 0
        self.waited = self._start = 0.0
        self._end: float | None = None

    def __len__(self) -> int:
        return self._limit

    def __iter__(self) -> Iterator[Batch]:
        self.loader.set_epoch(self.epoch)
        self.epoch += 1
        self.images, self.waited, self._end = 0, 0.0, None
        self._start = asked = time.perf_counter()
        for batch in islice(iter(self.loader), self._limit):
            now = time.perf_counter()
            self.waited += now - asked
            self.images += len(batch)
            yield batch
            asked = time.perf_counter()
        self._end = asked

    @property
    def elapsed(self) -> float:
        """Seconds of the current epoch so far, its validation left out."""
        return (time.perf_counter() if self._end is None else self._end) - self._start

    @property
    def images_per_second(self) -> float:
        """Pictures a second in the current epoch, the waiting included."""
        return self.images / self.elapsed if self.elapsed else 0.0

    @property
    def data_share(self) -> float:
        """Share of the current epoch's time in which the run waited for a batch."""
        return self.waited / self.elapsed if self.elapsed else 0.0


def make_loaders(
    train: Dataset, val: Dataset | None, config: Config, rank: int = 0, world: int = 1
) -> tuple[Loader, Loader | None]:
    """Training and validation batches of one rank; the pictures of ``train`` are tiles already."""
    first = train_loader(train, config, prepare, pad_batch, seed=config.train.seed, rank=rank, world=world)
    if val is None:
        return first, None
    val = tiled(val, config, seed=None)
    return first, eval_loader(val, config, prepare, pad_batch, config.eval.batch, rank=rank, world=world)
