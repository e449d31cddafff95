"""Batches from a data set: pictures are read, varied and resized in workers; every epoch is repeatable.

Letters: n pictures, N pictures of a batch, g objects of a picture, G padded objects, P padded proposals.

What a batch holds depends on (seed, epoch, position) only: not on the number of workers, not on whether the
run was resumed.

This module may not import ``frcnn.model``; the caller passes the two functions that make the network's
pixels, ``frcnn.model.preprocess.prepare`` and ``pad_batch``.
"""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from frcnn.config import Config, PreprocessConfig
from frcnn.data.feed.batching import BatchVariation, EvalBatches, TrainBatches
from frcnn.data.feed.examples import Example, Examples, Failure, Prepare, Size
from frcnn.data.feed.padding import pad_given, pad_targets
from frcnn.data.feed.transforms import turned_chance
from frcnn.data.sample import DataError, Dataset
from frcnn.structures import ImageBatch, Targets, TensorRecord

Pad = Callable[[list[Tensor], list[Size], PreprocessConfig], ImageBatch]
"""(pictures, original sizes, specification) -> batch: ``frcnn.model.preprocess.pad_batch``."""


@dataclass(frozen=True)
class Batch(TensorRecord):
    """What the loader gives for one step.

    Attributes:
        images: N padded pictures, with their proposals where the data set has some.
        targets: their objects in pixels of the resized pictures.
        image_ids: N ids of the data set.
        paths: N files.
        skipped: files of this batch that could not be read (``on_bad_image: skip``). Their pictures are black
            and covered by one region without a class that is to be ignored, so they teach nothing. The number
            of pictures stays, so that no shape changes; who trains counts them, who measures leaves them out.
        windows: where each picture lies in its file, (x1, y1, x2, y2); None: it is all of it.
    """

    images: ImageBatch
    targets: Targets
    image_ids: tuple[int, ...]
    paths: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    windows: tuple[tuple[int, int, int, int] | None, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def unread(self) -> tuple[int, ...]:
        """Positions of the pictures that could not be read."""
        return tuple(i for i, path in enumerate(self.paths) if path in self.skipped)


class Collate:
    """Makes a batch of examples; runs inside the workers."""

    def __init__(self, pad: Pad, spec: PreprocessConfig) -> None:
        self._pad, self._spec = pad, spec

    def __call__(self, items: list[Example | Failure]) -> Batch | Failure:
        """A batch, or the failures of its pictures, one a line."""
        failures = [item.message for item in items if isinstance(item, Failure)]
        if failures:
            return Failure("\n".join(failures))
        examples = [item for item in items if isinstance(item, Example)]
        samples = [example.sample for example in examples]
        given = [example.given for example in examples if example.given is not None]
        images = self._pad([e.pixels for e in examples], [s.size for s in samples], self._spec)
        return Batch(
            replace(images, given=pad_given(given)) if given else images,
            pad_targets(samples),
            tuple(s.image_id for s in samples),
            tuple(str(s.path) for s in samples),
            tuple(str(e.sample.path) for e in examples if e.skipped),
            tuple(s.window for s in samples),
        )


class Loader(DataLoader[Example | Failure]):
    """A torch ``DataLoader`` that yields ``Batch``.

    Its length is that of a whole epoch, also when an iteration starts in the middle of one.
    """

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch; call it before iterating. ``start_batch`` holds for the next iteration only."""
        if isinstance(self.batch_sampler, TrainBatches):
            self.batch_sampler.set_epoch(epoch, start_batch)

    def plan(self, epoch: int = 0) -> Iterator[list[tuple[Size, float]]]:
        """(height, width) and scale of every picture of every batch of an epoch; nothing is read."""
        assert isinstance(self.dataset, Examples)
        batches = copy.copy(self.batch_sampler)
        if isinstance(batches, TrainBatches):
            batches.set_epoch(epoch)
        assert isinstance(batches, TrainBatches | EvalBatches)
        for draws in batches:
            yield [(self.dataset.size(draw), draw.scale) for draw in draws]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """The batches.

        Raises:
            DataError: naming the files, when pictures of a batch cannot be read.
        """
        for item in super().__iter__():
            if isinstance(item, Failure):
                self.close()
                raise DataError(item.message)
            yield item

    def close(self) -> None:
        """End the worker processes now; the next iteration starts new ones.

        Without it they end when the loader is collected, which takes 5 seconds for each in an unlucky order.
        """
        iterator, self._iterator = self._iterator, None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()  # torch has no public name for it


def train_loader(
    dataset: Dataset,
    config: Config,
    prepare: Prepare,
    pad: Pad,
    *,
    seed: int,
    rank: int = 0,
    world: int = 1,
    drop_last: bool = False,
) -> Loader:
    """Batches of ``config.train.batch`` varied pictures, for one of ``world`` ranks.

    Raises:
        ValueError: when there is not a single batch, or pictures with given proposals are to be mixed.
    """
    batches = TrainBatches(
        dataset.pictures.sizes,
        config.train.batch,
        seed=seed,
        variation=BatchVariation(
            config.data.scale_jitter,
            tuple(side / config.preprocess.min_size for side in config.data.multi_scale),
            turned_chance(config.data),
        ),
        rank=rank,
        world=world,
        drop_last=drop_last,
    )
    if not len(batches):
        raise ValueError(
            f"{len(dataset)} pictures make no batch of {config.train.batch} x {world}; lower train.batch"
        )
    return _loader(Examples(dataset, config, prepare, seed), batches, config, pad, world)


def eval_loader(
    dataset: Dataset, config: Config, prepare: Prepare, pad: Pad, batch: int, *, rank: int = 0, world: int = 1
) -> Loader:
    """Every picture once as it is, similar shapes together.

    With several ranks their numbers of batches may differ by one.
    """
    batches = EvalBatches(dataset.pictures.sizes, batch, rank, world)
    return _loader(Examples(dataset, config, prepare, None), batches, config, pad, world)


def worker_count(workers: int, world: int = 1) -> int:
    """Loader processes of one rank: as asked, or for -1 its share of the cores but one, at most 8.

    0 means in the process itself; -1 gives that on a single core.
    """
    if workers >= 0:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // world - 1, 0), 8)


def _loader(
    examples: Examples, batches: TrainBatches | EvalBatches, config: Config, pad: Pad, world: int
) -> Loader:
    workers = min(worker_count(config.data.workers, world), len(batches))
    return Loader(
        examples,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=Collate(pad, config.preprocess),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else every epoch would advance the global generator
    )


def _start_worker(_: int) -> None:
    # Ctrl-C reaches the whole process group; the workers must outlive it so that the run can end in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
