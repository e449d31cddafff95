"""Which padded sizes are compiled: every other size would be compiled anew, which takes longer than it saves.

Sizes are (height, width); G is the number of padded objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from frcnn.config import PreprocessConfig
from frcnn.model.preprocess import Size, target_size
from frcnn.structures import ImageBatch, Targets

MOST_SIZES = 6
OBJECTS = (8, 32, 128, 512, 2048)
"""G is padded to one of these where it is part of a compiled shape."""
SPARE = 0.02
"""Two sizes become one where this adds no more than this share to the pixels of the whole run."""


def padded_sizes(batches: Iterable[Sequence[tuple[Size, float]]], spec: PreprocessConfig) -> Counter[Size]:
    """How often every padded size comes.

    Args:
        batches: the (height, width) of every picture file of a batch, and its scale.
        spec: how pictures are resized and padded.
    """
    found: Counter[Size] = Counter()
    for batch in batches:
        sizes = [target_size(*size, spec, scale) for size, scale in batch if min(size) > 0]
        if sizes:
            height, width = (-(-max(side) // spec.pad_multiple) for side in zip(*sizes, strict=True))
            found[height * spec.pad_multiple, width * spec.pad_multiple] += 1
    return found


def commonest(counts: Mapping[Size, int], most: int = MOST_SIZES) -> tuple[Size, ...]:
    """The sizes that come most often: for detection, where nothing is padded further than usual."""
    return tuple(size for size, _ in Counter(counts).most_common(most))


def joined(counts: Mapping[Size, int], most: int = MOST_SIZES, spare: float = SPARE) -> tuple[Size, ...]:
    """At most ``most`` sizes into which all of ``counts`` fit, with little more to compute: for training.

    Two sizes at a time become the one that holds both, the pair first that adds fewest pixels, as long as
    there are too many or it adds next to nothing. The last one holds every picture beside every other.
    """
    if not counts:
        return ()
    weights = Counter({size: count for size, count in counts.items()})
    weights[max(h for h, _ in counts), max(w for _, w in counts)] += 0
    total = sum(h * w * n for (h, w), n in weights.items())
    while len(weights) > 1:
        pairs = [(a, b) for a in weights for b in weights if a < b]
        costs = [_cost(a, b, weights) for a, b in pairs]
        cost = min(costs)
        if len(weights) <= most and cost > spare * total:
            break
        a, b = pairs[costs.index(cost)]
        weights[max(a[0], b[0]), max(a[1], b[1])] += weights.pop(a) + weights.pop(b)
    return tuple(sorted(weights, key=lambda size: size[0] * size[1]))


def _cost(a: Size, b: Size, weights: Mapping[Size, int]) -> int:
    """Pixels that are added when both become one."""
    area = max(a[0], b[0]) * max(a[1], b[1])
    return sum((area - h * w) * weights[h, w] for h, w in (a, b))


def fitting(size: Size, sizes: Iterable[Size]) -> Size | None:
    """The smallest of ``sizes`` that holds ``size``; None: there is none."""
    holding = [(h, w) for h, w in sizes if h >= size[0] and w >= size[1]]
    return min(holding, key=lambda s: s[0] * s[1], default=None)


def pad_pictures(batch: ImageBatch, size: Size) -> ImageBatch:
    """The batch padded further to ``size``, with 0 as the rest of the padding has it after normalising; what
    else it holds (given proposals) stays.
    """
    channels, height, width = batch.pixels.shape[1:]
    if (height, width) == size:
        return batch
    rows_first = batch.pixels.new_zeros((len(batch), *size, channels))  # channels-last in memory
    pixels = rows_first.permute(0, 3, 1, 2)
    pixels[:, :, :height, :width] = batch.pixels
    return replace(batch, pixels=pixels)


def pad_objects(targets: Targets, counts: Sequence[int] = OBJECTS) -> Targets:
    """The objects padded to the next of ``counts``; more than the last are left as they are."""
    g = targets.labels.shape[1]
    more = next((count - g for count in counts if count >= g), 0)

    def pad(values: Tensor, value: float, last: int = 0) -> Tensor:
        return F.pad(values, (0, 0) * last + (0, more), value=value)

    return (
        Targets(pad(targets.boxes, 0, 1), pad(targets.labels, -1), pad(targets.ignore, 0))
        if more
        else targets
    )
