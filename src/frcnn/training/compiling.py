"""``train.compile``: which padded sizes a run compiles its step for, so that each is compiled only once."""

from __future__ import annotations

from collections import Counter
from itertools import chain, islice

from frcnn.config import Config
from frcnn.data.feed.loader import Loader
from frcnn.data.feed.transforms import largest_scale
from frcnn.model.buckets import joined, padded_sizes
from frcnn.model.compiled import compile_detector
from frcnn.model.detector import Network

BATCHES = 256
"""Looked at to choose the sizes, at least; a whole epoch where that is more."""


def compile_training(network: Network, config: Config, train: Loader) -> None:
    """Compile the training step of ``network`` for the sizes that the run's batches are going to have.

    The choice depends on the data and the configuration alone, so a resumed run makes the same.

    Args:
        network: in training.
        config: ``train.compile`` is not ``none``.
        train: training batches; none is read.
    """
    mode = config.train.compile
    assert mode != "none"
    epochs = chain.from_iterable(train.plan(epoch) for epoch in range(config.train.epochs))
    batches = list(islice(epochs, max(BATCHES, len(train))))
    counts = padded_sizes(batches, config.preprocess)
    largest = largest_scale(config)
    everything = [[(size, largest) for batch in batches for size, _ in batch]]
    for size in padded_sizes(everything, config.preprocess):
        counts[size] += 0  # a batch of the largest pictures may still come
    images = Counter(len(batch) for batch in batches).most_common(1)[0][0]
    compile_detector(network, mode, training=True, images=images, sizes=joined(counts))
