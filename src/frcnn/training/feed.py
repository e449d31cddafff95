"""The training batches of one epoch after another, and how long the run waited for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from frcnn.data.loader import Batch, Loader


class Feed:
    """Iterating gives the batches of the coming epoch; the position in the data is the number of finished epochs.

    Attributes:
        epoch: of the next iteration, from 0.
        images: pictures given in the current epoch.
        waited: seconds of the current epoch in which the run waited for a batch.
        elapsed: seconds from its first request to its latest.
    """

    def __init__(self, loader: Loader, epoch: int = 0, limit: int | None = None) -> None:
        """``limit``: batches of an epoch, where a time budget allows less than a whole one."""
        self.loader, self.epoch = loader, epoch
        self._limit = len(loader) if limit is None else min(limit, len(loader))
        self.images = 0
        self.waited = self.elapsed = 0.0

    def __len__(self) -> int:
        return self._limit

    def __iter__(self) -> Iterator[Batch]:
        self.loader.set_epoch(self.epoch)
        self.epoch += 1
        self.images, self.waited, self.elapsed = 0, 0.0, 0.0
        start = asked = time.perf_counter()
        for batch in islice(iter(self.loader), self._limit):
            now = time.perf_counter()
            self.waited += now - asked
            self.images += len(batch)
            yield batch
            asked = time.perf_counter()
            self.elapsed = asked - start

    @property
    def images_per_second(self) -> float:
        """Pictures a second in the current epoch, the waiting included."""
        return self.images / self.elapsed if self.elapsed else 0.0

    @property
    def data_share(self) -> float:
        """Share of the current epoch's time in which the run waited for a batch."""
        return self.waited / self.elapsed if self.elapsed else 0.0
