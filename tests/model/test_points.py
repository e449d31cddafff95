"""Rooms 5 and 8 of FCOS: where points stand, which object each of them learns, and what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from small import targets_of
from torch import Tensor

from frcnn.config import FcosConfig
from frcnn.model.points import (
    Points,
    centerness,
    decode_distances,
    encode_distances,
    match_points,
    per_point,
    point_targets,
    within,
)
from frcnn.structures import Matches, Targets

ONE = FcosConfig(size_ranges=((0, None),))
STRIDES = (8, 16, 32)
RANGES = FcosConfig(size_ranges=((0, 20), (20, 40), (40, None)))
SIZE = (96, 128)


def match(
    targets: Targets,
    config: FcosConfig = RANGES,
    strides: Sequence[int] = STRIDES,
    size: tuple[int, int] = SIZE,
    true: tuple[int, int] | None = None,
    chunk: int = 8,
) -> tuple[Matches, Tensor, Tensor]:
    """Matches, points and strides of pictures of one padded size."""
    made = Points(config, strides)
    points, levels = made(*size), made.level_sizes(*size)
    sizes = torch.tensor([true or size] * len(targets.labels), dtype=torch.float32)
    matches = match_points(points, sizes, targets, config, strides, levels, chunk)
    return matches, points, per_point(strides, levels, points.device)


def scattered(images: int, objects: int, seed: int = 0) -> Targets:
    """Random objects of all sizes, some of them ignored, some without a class, some padding."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, objects, 2, generator=generator) * 90
    side = 2 + torch.rand(images, objects, 2, generator=generator) ** 2 * 90
    labels = torch.randint(-1, 3, (images, objects), generator=generator)
    ignore = torch.rand(images, objects, generator=generator) < 0.15
    return Targets(torch.cat([corner, corner + side], -1).round(), labels, ignore)


# ------------------------------------------------------------------------------------------- empty cases


def test_no_cells_give_no_points() -> None:
    assert Points(ONE, [8])(0, 0).shape == Points(ONE, [8])(0, 16).shape == (0, 2)


@pytest.mark.parametrize("columns", [0, 8])
def test_pictures_without_objects_are_all_background(columns: int) -> None:
    targets = targets_of([[], []]).map(lambda t: t[:, :columns])
    matches, points, strides = match(targets)
    assert matches.labels.eq(0).all() and matches.index.eq(0).all()
    labels, distances, central = point_targets(points, strides, matches, targets)
    assert labels.eq(-1).all() and distances.eq(0).all() and central.eq(0).all()
    assert distances.shape == (2, len(points), 4)


def test_no_pictures_give_no_targets() -> None:
    targets = targets_of([[]]).map(lambda t: t[:0])
    made = Points(RANGES, STRIDES)
    points, levels = made(*SIZE), made.level_sizes(*SIZE)
    matches = match_points(points, torch.zeros(0, 2), targets, RANGES, STRIDES, levels)
    assert matches.labels.shape == (0, len(points))
    found = point_targets(points, per_point(STRIDES, levels, points.device), matches, targets)
    assert [t.shape for t in found] == [(0, len(points)), (0, len(points), 4), (0, len(points))]


def test_objects_without_area_have_no_point() -> None:
    matches, *_ = match(targets_of([[((12, 12, 12, 12), 0), ((20, 4, 60, 4), 1), ((60, 60, 20, 20), 1)]]))
    assert matches.labels.eq(0).all()


# --------------------------------------------------------------------------------------------- the points


def test_points_stand_at_the_centres_of_cells_rows_first() -> None:
    made = Points(FcosConfig(size_ranges=((0, 8), (8, None))), [8, 16])
    assert made.grids(16, 40) == [(2, 5), (1, 3)] and made.level_sizes(16, 40) == (10, 3)
    points = made(16, 40)
    expected = [(8.0 * column + 4, 8.0 * row + 4) for row in range(2) for column in range(5)]
    assert points.tolist() == [list(p) for p in [*expected, (8, 8), (24, 8), (40, 8)]]
    assert made(16, 40) is points, "kept"


def test_a_wrong_number_of_levels_is_named() -> None:
    with pytest.raises(ValueError, match=r"size_ranges for 3 levels, the features have 2: \['stride 8'"):
        Points(RANGES, [8, 16])


def test_numbers_of_levels_are_spread_over_their_points() -> None:
    assert per_point((8, 16), (0, 0), torch.device("cpu")).shape == (0,)
    assert per_point((8, 16), (3, 1), torch.device("cpu")).tolist() == [8, 8, 8, 16]


def test_points_in_the_padding_are_outside() -> None:
    points, sizes = Points(ONE, [8])(16, 24), torch.tensor([[16.0, 24.0], [12.0, 13.0]])
    assert within(points, sizes)[0].all()
    assert within(points, sizes)[1].tolist() == [True, True, False, False, False, False]


# ----------------------------------------------------------------------------------------------- matching


def test_targets_worked_out_by_hand() -> None:
    """Points (4, 4), (12, 4), (20, 4), (4, 12), (12, 12), (20, 12); the object holds the first two."""
    targets = targets_of([[((2, 2, 14, 10), 5)]])
    matches, points, strides = match(targets, ONE, (8,), (16, 24))
    assert matches.labels.tolist() == [[1, 1, 0, 0, 0, 0]]
    labels, distances, central = point_targets(points, strides, matches, targets)
    assert labels.tolist() == [[5, 5, -1, -1, -1, -1]]
    assert distances[0, :2].tolist() == [[0.25, 0.25, 1.25, 0.75], [1.25, 0.25, 0.25, 0.75]]
    assert not distances[0, 2:].any() and not central[0, 2:].any()
    assert central[0, :2].tolist() == pytest.approx([math.sqrt(2 / 10 * 2 / 6)] * 2)


def test_a_point_on_a_side_is_not_inside() -> None:
    matches, *_ = match(targets_of([[((4, 4, 20, 12), 0)]]), ONE, (8,), (16, 24))
    assert matches.labels.eq(0).all()
    matches, *_ = match(targets_of([[((3.9, 3.9, 20, 12), 0)]]), ONE, (8,), (16, 24))
    assert matches.labels.tolist() == [[1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_the_smallest_object_wins_and_of_equals_the_first(chunk: int) -> None:
    large, small, same = (0.0, 0, 24, 16), (0.0, 0, 16, 8), (1.0, 0, 17, 8)
    for objects, expected in (
        ([(large, 0), (small, 1)], [1, 1, 0, 0, 0, 0]),
        ([(small, 1), (large, 0)], [0, 0, 1, 1, 1, 1]),
        ([(large, 0), (small, 1), (same, 2)], [1, 1, 0, 0, 0, 0]),
        ([(large, 0), (same, 2), (small, 1)], [1, 1, 0, 0, 0, 0]),
    ):
        matches, *_ = match(targets_of([objects]), ONE, (8,), (16, 24), chunk=chunk)
        assert matches.labels.eq(1).all() and matches.index[0].tolist() == expected


@pytest.mark.parametrize(
    ("radius", "taken"), [(19, [8]), (20, [8, 16]), (21, [16]), (40, [16, 32]), (41, [32]), (500, [32])]
)
def test_a_level_takes_what_lies_in_its_range_both_ends_included(radius: float, taken: list[int]) -> None:
    """A point in the middle of a square of side 2 r has r as its largest distance, all others have more."""
    for stride, sizes in zip(STRIDES, RANGES.size_ranges, strict=True):
        x = y = 1.5 * stride
        targets = targets_of([[((x - radius, y - radius, x + radius, y + radius), 0)]])
        config = FcosConfig(size_ranges=(sizes,))
        matches, points, _ = match(targets, config, (stride,))
        middle = (points == torch.tensor([x, y])).all(1)
        assert matches.labels[0, middle].tolist() == [int(stride in taken)]


def test_the_radius_leaves_points_near_the_centre() -> None:
    targets = targets_of([[((0, 0, 40, 40), 0)]])
    for radius, count in ((0, 25), (0.5, 1), (1, 1), (1.5, 9), (100, 25)):
        config = FcosConfig(size_ranges=((0, None),), centre_radius=radius)
        assert match(targets, config, (8,), (40, 40))[0].labels.sum() == count


def test_points_in_ignored_boxes_are_neither_and_objects_win_over_them() -> None:
    objects = [((0, 0, 16, 16), 0), ((0, 0, 8, 8), 1), ((16, 0, 24, 8), -1)]
    matches, *_ = match(targets_of([objects], [[True, False, True]]), ONE, (8,), (16, 24))
    assert matches.labels.tolist() == [[1, -1, -1, -1, -1, 0]]  # object, ignored object, region, ...
    assert matches.index[0, 0] == 1


def test_the_padding_is_neither_trained_as_object_nor_as_background() -> None:
    targets = targets_of([[((0, 0, 13, 12), 0)]])
    matches, *_ = match(targets, ONE, (8,), (16, 24), (12, 13))
    assert matches.labels.tolist() == [[1, 1, -1, -1, -1, -1]]
    matches, *_ = match(targets_of([[((0, 0, 24, 16), 0)]]), ONE, (8,), (16, 24), (12, 13))
    assert matches.labels.tolist() == [[1, 1, -1, -1, -1, -1]], "also where an object reaches into it"


def one_point(
    x: float, y: float, level: int, targets: Targets, image: int, config: FcosConfig
) -> tuple[int, int]:
    """Label and object of a point by plain Python."""
    low, high = config.size_ranges[level]
    best, mine, ignored = math.inf, 0, False
    for g, (x1, y1, x2, y2) in enumerate(targets.boxes[image].tolist()):
        sides = (x - x1, y - y1, x2 - x, y2 - y)
        if min(sides) <= 0:
            continue
        ignored = ignored or bool(targets.ignore[image, g])
        near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < config.centre_radius * STRIDES[level]
        if config.centre_radius and not near:
            continue
        if (
            targets.real[image, g]
            and low <= max(sides) <= (high or math.inf)
            and (x2 - x1) * (y2 - y1) < best
        ):
            best, mine = (x2 - x1) * (y2 - y1), g
    return (1, mine) if best < math.inf else (-1 if ignored else 0, 0)


@pytest.mark.parametrize("radius", [0.0, 1.5])
def test_equals_plain_python_on_scattered_objects(radius: float) -> None:
    config = RANGES.model_copy(update={"centre_radius": radius})
    targets = scattered(2, 21)
    matches, points, strides = match(targets, config)
    assert {-1, 0, 1} == set(matches.labels.unique().tolist())
    assert {8, 16, 32} == set(strides[matches.labels[0] == 1].tolist())
    for image in range(2):
        for i, ((x, y), stride) in enumerate(zip(points.tolist(), strides.tolist(), strict=True)):
            level = STRIDES.index(int(stride))
            found = (int(matches.labels[image, i]), int(matches.index[image, i]))
            assert found == one_point(x, y, level, targets, image, config), (x, y, stride)


def test_chunks_change_nothing() -> None:
    targets = scattered(3, 40, seed=1)
    every = [match(targets, chunk=chunk)[0] for chunk in (1, 7, 8, 64)]
    for a, b in pairwise(every):
        assert a.labels.equal(b.labels) and a.index.equal(b.index)


def test_a_flipped_picture_has_flipped_targets() -> None:
    targets = scattered(2, 24, seed=2)
    x1, y1, x2, y2 = targets.boxes.unbind(-1)
    mirrored = Targets(torch.stack([SIZE[1] - x2, y1, SIZE[1] - x1, y2], -1), targets.labels, targets.ignore)
    (matches, points, strides), (flipped, *_) = match(targets), match(mirrored)
    here = point_targets(points, strides, matches, targets)
    there = point_targets(points, strides, flipped, mirrored)
    start = 0
    for rows, columns in Points(RANGES, STRIDES).grids(*SIZE):
        part, start = slice(start, start + rows * columns), start + rows * columns

        def turned(values: Tensor, part: slice = part, rows: int = rows) -> Tensor:
            return values[:, part].unflatten(1, (rows, -1)).flip(2).flatten(1, 2)

        assert turned(flipped.labels).equal(matches.labels[:, part])
        assert turned(there[0]).equal(here[0][:, part])
        torch.testing.assert_close(turned(there[1])[..., [2, 1, 0, 3]], here[1][:, part])
        torch.testing.assert_close(turned(there[2]), here[2][:, part])


# ----------------------------------------------------------------------------------- distances, centerness


def test_decoding_is_the_inverse_of_encoding() -> None:
    assert decode_distances(torch.zeros(0, 2), torch.zeros(0, 4), torch.zeros(0)).shape == (0, 4)
    targets = scattered(4, 40, seed=3)
    matches, points, strides = match(targets)
    _, distances, _ = point_targets(points, strides, matches, targets)
    positive = matches.labels == 1
    boxes = decode_distances(points, distances, strides)[positive]
    wanted = targets.boxes.gather(1, matches.index[..., None].expand(-1, -1, 4))[positive]
    assert len(wanted) > 50 and (distances[positive] > 0).all()
    torch.testing.assert_close(boxes, wanted)
    again = encode_distances(points, decode_distances(points, distances, strides), strides)
    torch.testing.assert_close(again, distances)


def test_distances_below_0_count_as_0() -> None:
    point, stride = torch.tensor([[10.0, 20.0]]), torch.tensor([8.0])
    distances = torch.tensor([[-3.0, 1.0, 2.0, -0.5]])
    assert decode_distances(point, distances, stride).tolist() == [[10, 12, 26, 20]]
    assert distances.tolist() == [[-3.0, 1.0, 2.0, -0.5]], "the caller's stay as they are"


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ((0, 0, 0, 0), 0.0),
        ((1, 1, 1, 1), 1.0),
        ((0, 1, 2, 1), 0.0),
        ((1, 3, 4, 3), 0.5),
        ((2, 1, 8, 4), 0.25),
    ],
)
def test_centerness(distances: tuple[float, ...], expected: float) -> None:
    assert centerness(torch.tensor(distances, dtype=torch.float32)).item() == pytest.approx(expected)
    assert centerness(torch.zeros(0, 4)).shape == (0,)


def test_targets_are_float32_under_autocast() -> None:
    targets = scattered(2, 16, seed=4)
    matches, points, strides = match(targets)
    plain = point_targets(points, strides, matches, targets)
    with torch.autocast("cpu", torch.bfloat16):
        again, *_ = match(targets)
        found = point_targets(points, strides, again, targets)
    assert again.labels.equal(matches.labels) and again.index.equal(matches.index)
    assert all(a.equal(b) and a.dtype == b.dtype for a, b in zip(found, plain, strict=True))
    assert found[1].dtype == found[2].dtype == torch.float32
