"""Which pictures make a batch: a pure function of (seed, epoch, rank), pictures of similar shape together.

The samplers send each worker the epoch and the scale along with the index, so that persistent workers need no
other message and can repeat every picture.

Letters: n pictures. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from frcnn.data.feed.transforms import sample_generator, scale_jitter

ASPECT_STEP = 1.1
"""Pictures whose height / width differ by less than this factor count as alike."""
CHUNK = 32
"""Batches that are grouped by aspect among themselves: more group tighter, fewer mix better."""
BATCHES = 2**32 - 1
"""In place of a picture's position: what is drawn for batches, by part ..."""
SIZES, TURNS = range(2)
"""... and which part."""


class Draw(NamedTuple):
    """One picture of one epoch: what the samplers send to the workers.

    Attributes:
        index: position in the data set.
        epoch: from 0.
        scale: factor on the limits of the size.
        turned: whether the picture is laid on its side.
    """

    index: int
    epoch: int
    scale: float
    turned: bool = False


@dataclass(frozen=True)
class BatchVariation:
    """What pictures of a batch have in common, since different sizes would only be padded to the largest.

    Attributes:
        scale: limits of a factor on the size.
        sizes: further factors, one of which is drawn; none: 1.
        turned: probability that the pictures are laid on their side.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    sizes: tuple[float, ...] = ()
    turned: float = 0.0

    def draw(
        self, scales: np.random.Generator, sizes: np.random.Generator, turns: np.random.Generator
    ) -> tuple[float, bool]:
        """The scale of a batch, and whether it is turned. Each part has a generator of its own, so that none
        changes what the others draw.
        """
        factor = scale_jitter(self.scale, scales)
        if self.sizes:
            factor *= self.sizes[int(sizes.integers(len(self.sizes)))]
        return factor, bool(turns.random() < self.turned)


class TrainBatches:
    """Batches of an epoch: shuffled, pictures of similar aspect together, every picture once.

    All ranks have the same number of batches. If the pictures do not divide, the last ones (other ones every
    epoch) make smaller batches; with fewer of them than ranks, some appear on two ranks. ``drop_last`` leaves
    them out. A batch has one scale and lies one way.
    """

    def __init__(
        self,
        sizes: NDArray[np.int32],
        batch: int,
        *,
        seed: int,
        variation: BatchVariation | None = None,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
    ) -> None:
        if not 0 <= rank < world or batch < 1:
            raise ValueError(
                f"rank {rank} of {world} with batches of {batch}; need 0 <= rank < world, batch >= 1"
            )
        self._shape = _shape_class(sizes)
        self._batch, self._rank, self._world, self._drop_last = batch, rank, world, drop_last
        self._seed, self._variation = seed, variation or BatchVariation()
        self._epoch = self._start = 0

    def __len__(self) -> int:
        pictures, step = len(self._shape), self._batch * self._world
        return pictures // step if self._drop_last else -(-pictures // step)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch of the next iteration, and the first batch of it that is still wanted."""
        self._epoch, self._start = epoch, start_batch

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, start, self._start = self._epoch, self._start, 0
        batches, variations = self._plan(epoch)
        for indices, (scale, turned) in list(zip(batches, variations, strict=True))[start:]:
            yield [Draw(int(i), epoch, scale, turned) for i in indices]

    def _plan(self, epoch: int) -> tuple[list[NDArray[np.int64]], list[tuple[float, bool]]]:
        """This rank's batches and what is drawn for each."""
        generator = sample_generator(self._seed, epoch)
        order = generator.permutation(len(self._shape))
        step = self._batch * self._world
        whole, rest = np.split(order, [len(order) // step * step])
        for start in range(0, len(whole), step * CHUNK):
            part = whole[start : start + step * CHUNK]  # a view: sorted in place, ties stay shuffled
            part[:] = part[np.argsort(self._shape[part], kind="stable")]
        whole = generator.permutation(whole.reshape(-1, self._world, self._batch))  # (steps, world, batch)
        batches = list(whole[:, self._rank])
        if len(rest) and not self._drop_last:
            rest = np.resize(rest, max(len(rest), self._world))
            rest = rest[np.argsort(self._shape[rest], kind="stable")]
            batches.append(np.array_split(rest, self._world)[self._rank])
        sizes, turns = (sample_generator(self._seed, epoch, BATCHES, part) for part in (SIZES, TURNS))
        return batches, [self._variation.draw(generator, sizes, turns) for _ in batches]


class EvalBatches:
    """Batches in order of the aspect, every picture once over all ranks, nothing random."""

    def __init__(self, sizes: NDArray[np.int32], batch: int, rank: int = 0, world: int = 1) -> None:
        order = np.argsort(_shape_class(sizes), kind="stable")[rank::world]
        self._batches = [order[i : i + batch] for i in range(0, len(order), batch)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        for indices in self._batches:
            yield [Draw(int(i), 0, 1.0) for i in indices]


def _shape_class(sizes: NDArray[np.int32]) -> NDArray[np.int64]:
    """(n,) class of the aspect of each (height, width); pictures of unknown size count as square."""
    height, width = np.maximum(sizes, 1).T.astype(np.float64)
    return np.rint(np.log(height / width) / np.log(ASPECT_STEP)).astype(np.int64)
