from collections import Counter

import pytest
import torch
from small import batch_of, change, small, targets_of

from frcnn.model.buckets import (
    MOST_SIZES,
    OBJECTS,
    SPARE,
    commonest,
    fitting,
    joined,
    pad_objects,
    pad_pictures,
    padded_sizes,
)
from frcnn.model.preprocess import normalise
from frcnn.structures import ImageBatch

SPEC = change(small("lite0-fpn"), preprocess={"min_size": 64, "max_size": 128}).preprocess


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([], {}),
        ([[]], {}),
        ([[((0, 0), 1.0)]], {}),  # a file whose header could not be read
        ([[((100, 100), 1.0)]], {(64, 64): 1}),
        ([[((100, 150), 1.0)]], {(64, 96): 1}),
        ([[((100, 150), 1.0), ((150, 100), 1.0)]], {(96, 96): 1}),
        ([[((100, 150), 1.0)], [((200, 300), 1.0)], [((100, 150), 1.25)]], {(64, 96): 2, (96, 128): 1}),
        ([[((10, 1000), 1.0)]], {(32, 128): 1}),
    ],
)
def test_padded_sizes(
    batches: list[list[tuple[tuple[int, int], float]]], expected: dict[tuple[int, int], int]
) -> None:
    assert padded_sizes(batches, SPEC) == expected


def test_padded_sizes_are_those_of_the_loaders_batches() -> None:
    batch = batch_of(change(small("lite0-fpn")), [(70, 90), (33, 95)])
    spec = SPEC.model_copy(update={"min_size": 10_000, "max_size": 10_000})  # none of these is resized
    assert tuple(batch.pixels.shape[-2:]) == (96, 96)
    one = padded_sizes([[((70, 90), 70 / 10_000 * 90 / 70)]], spec)
    assert one == {(96, 96): 1}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({}, ()), ({(64, 64): 1}, ((64, 64),)), ({(64, 64): 1, (64, 96): 3}, ((64, 96), (64, 64)))],
)
def test_commonest(counts: dict[tuple[int, int], int], expected: tuple[tuple[int, int], ...]) -> None:
    assert commonest(counts) == expected


def test_commonest_leaves_out_rare_sizes() -> None:
    counts = {(32 * i, 32): i for i in range(1, 10)}
    assert commonest(counts) == tuple((32 * i, 32) for i in range(9, 3, -1))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, ()),
        ({(64, 64): 1}, ((64, 64),)),
        ({(64, 96): 5, (96, 64): 5}, ((64, 96), (96, 64), (96, 96))),  # a batch of both may come
        ({(3200, 3200): 99, (3200, 3168): 1}, ((3200, 3200),)),  # next to nothing to add
    ],
)
def test_joined(counts: dict[tuple[int, int], int], expected: tuple[tuple[int, int], ...]) -> None:
    assert joined(counts) == expected


def test_joined_sizes_hold_every_batch_and_are_few() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = torch.randint(4, 20, (500, 2), generator=generator) * 32
    counts = Counter((h, w) for h, w in sides.tolist())
    sizes = joined(counts)
    assert 1 < len(sizes) <= MOST_SIZES
    assert all(fitting(size, sizes) for size in counts)
    assert fitting((max(h for h, _ in counts), max(w for _, w in counts)), sizes) is not None
    used = sum(fitting(size, sizes)[0] * fitting(size, sizes)[1] * n for size, n in counts.items())  # type: ignore[index]
    needed, one = sum(h * w * n for (h, w), n in counts.items()), 19 * 32 * 19 * 32 * counts.total()
    assert SPARE < used / needed - 1 < (one / needed - 1) / 2


@pytest.mark.parametrize(
    ("size", "expected"),
    [((65, 1), None), ((64, 64), (64, 64)), ((33, 60), (64, 64)), ((60, 65), (64, 96)), ((64, 97), None)],
)
def test_fitting(size: tuple[int, int], expected: tuple[int, int] | None) -> None:
    assert fitting(size, []) is None
    assert fitting(size, [(64, 96), (64, 64)]) == expected


@pytest.mark.parametrize("name", ["lite0-fpn", "r50-fpn"])
def test_further_padding_is_zero_after_normalising(name: str) -> None:
    config = small(name)
    batch = batch_of(config, [(40, 50), (64, 60)])
    assert pad_pictures(batch, (64, 64)) is batch
    grown = pad_pictures(batch, (96, 128))
    assert grown.pixels.shape == (2, 3, 96, 128)
    assert grown.pixels.is_contiguous(memory_format=torch.channels_last)
    before, after = (normalise(b, config.preprocess).pixels for b in (batch, grown))
    assert torch.equal(after[..., :64, :64], before)
    assert not after[..., 64:, :].any() and not after[..., 64:].any()


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_further_padding_leaves_channels_and_proposals(channels: int) -> None:
    pixels, ones = torch.randint(1, 255, (2, channels, 32, 64), dtype=torch.uint8), torch.ones(2, 2)
    given = torch.rand(2, 8, 4)
    grown = pad_pictures(ImageBatch(pixels, 32 * ones, ones, 32 * ones, given), (64, 96))
    assert grown.pixels.shape == (2, channels, 64, 96) and grown.pixels.dtype == torch.uint8
    assert torch.equal(grown.pixels[..., :32, :64], pixels)
    assert not grown.pixels[..., 32:, :].any() and not grown.pixels[..., 64:].any()
    assert grown.given is given


@pytest.mark.parametrize(("g", "padded"), [(0, 8), (1, 8), (8, 8), (9, 32), (600, 2048), (2049, 2056)])
def test_objects_are_padded_to_few_counts(g: int, padded: int) -> None:
    targets = targets_of([[((1.0, 2, 30, 40), 1)] * g, []], [[True] * g, []])
    found = pad_objects(targets)
    assert found.labels.shape == (2, padded) and found.boxes.shape == (2, padded, 4)
    assert padded in OBJECTS or found is targets
    assert torch.equal(found.boxes[:, :g], targets.boxes[:, :g])
    assert found.ignore.sum() == g and found.ignore.dtype == torch.bool
    assert (found.labels[:, g:] == -1).all() and not found.ignore[:, g:].any()
