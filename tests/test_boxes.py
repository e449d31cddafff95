"""Geometry: the empty case, known values, and what must hold for all boxes."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frcnn.boxes import (
    MAX_LOG_SCALE,
    area,
    ciou,
    clip,
    decode_deltas,
    encode_deltas,
    giou,
    inside,
    intersection,
    ioa,
    iou,
)

EMPTY = torch.zeros(0, 4)
UNIT = torch.tensor([[0.0, 0.0, 10.0, 20.0]])


@st.composite
def boxes(draw: st.DrawFn, least: float = 0.5) -> Tensor:
    """One box with sides of at least ``least`` px, coordinates up to 2,000."""
    x, y = (draw(st.floats(-500, 1500, width=32)) for _ in range(2))
    w, h = (draw(st.floats(least, 1024, width=32)) for _ in range(2))
    return torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32)


def random_boxes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(*shape, 2, generator=generator) * 100
    return torch.cat([corners, corners + 1 + torch.rand(*shape, 2, generator=generator) * 60], -1)


def test_nothing_gives_nothing() -> None:
    other = random_boxes(3)
    sizes = torch.tensor([[10.0, 10.0]])
    assert area(EMPTY).shape == (0,)
    for pairwise in (iou, ioa, intersection):
        assert pairwise(EMPTY, EMPTY).shape == (0, 0)
        assert pairwise(EMPTY, other).shape == (0, 3)
        assert pairwise(other, EMPTY).shape == (3, 0)
    assert encode_deltas(EMPTY, EMPTY).shape == (0, 4)
    assert decode_deltas(EMPTY, EMPTY).shape == (0, 4)
    assert giou(EMPTY, EMPTY).shape == (0,)
    assert clip(EMPTY[None], sizes).shape == (1, 0, 4)
    assert inside(EMPTY[None], sizes).shape == (1, 0)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 0, 0), 0.0),
        ((0, 0, 10, 20), 200.0),  # half-open: no + 1
        ((5, 5, 6, 6), 1.0),
        ((10, 0, 0, 20), 0.0),  # inverted in one axis
        ((10, 20, 0, 0), 0.0),  # inverted in both: not 200
    ],
)
def test_area(box: tuple[float, ...], expected: float) -> None:
    assert area(torch.tensor(box)).item() == expected


@pytest.mark.parametrize(
    ("a", "b", "overlap", "share"),
    [
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0, 0.0),  # no area: 0, never NaN
        ((3, 3, 3, 9), (0, 0, 10, 10), 0.0, 0.0),
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0, 1.0),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0, 0.0),  # they touch
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3, 0.5),
        ((2, 2, 4, 4), (0, 0, 10, 10), 0.04, 1.0),  # contained
        ((0, 0, 10, 10), (2, 2, 4, 4), 0.04, 0.04),
    ],
)
def test_iou_and_ioa(a: tuple[float, ...], b: tuple[float, ...], overlap: float, share: float) -> None:
    first, second = torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32)
    assert iou(first, second).item() == pytest.approx(overlap, abs=1e-7)
    assert iou(second, first).item() == pytest.approx(overlap, abs=1e-7)
    assert ioa(first, second).item() == pytest.approx(share, abs=1e-7)


def test_iou_equals_torchvision_and_broadcasts_over_images() -> None:
    a, b = random_boxes(2, 30), random_boxes(2, 17, seed=1)
    both = iou(a, b)
    assert both.shape == (2, 30, 17)
    for i in range(2):
        torch.testing.assert_close(both[i], torchvision.ops.box_iou(a[i], b[i]))
    torch.testing.assert_close(iou(a[0], b)[1], torchvision.ops.box_iou(a[0], b[1]))


def test_arithmetic_is_float32_for_half_precision_input() -> None:
    a = torch.tensor([[1024.0, 1024, 1536, 1536]])
    b = torch.tensor([[1280.0, 1280, 1792, 1792]])
    for kind in (torch.float16, torch.bfloat16):
        assert iou(a.to(kind), b.to(kind)).dtype == torch.float32
        assert torch.equal(iou(a.to(kind), b.to(kind)), iou(a, b))
        assert torch.equal(encode_deltas(a.to(kind), b.to(kind)), encode_deltas(a, b))
        assert decode_deltas(a.to(kind), torch.zeros(1, 4, dtype=kind)).equal(a)
    with torch.autocast("cpu", torch.bfloat16):
        assert iou(a, b).dtype == torch.float32 and iou(a, b)[0, 0] == iou(a.double(), b.double())[0, 0]


def test_ciou_equals_torchvision() -> None:
    assert ciou(EMPTY, EMPTY).shape == (0,)
    corner = torch.rand(60, 2, generator=torch.Generator().manual_seed(3)) * 20
    a = torch.cat([corner, corner + 1 + torch.rand(60, 2) * 20], 1).requires_grad_()
    b = torch.cat([corner.flip(0), corner.flip(0) + 1 + torch.rand(60, 2) * 20], 1)
    expected = 1 - torchvision.ops.complete_box_iou_loss(a, b)
    torch.testing.assert_close(ciou(a, b), expected, rtol=1e-4, atol=1e-5)
    ours, theirs = (torch.autograd.grad(v.sum(), a)[0] for v in (ciou(a, b), expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert ciou(UNIT, UNIT).item() == pytest.approx(1.0)
    assert ciou(torch.zeros(1, 4), torch.zeros(1, 4)).isfinite().all()


def test_giou_equals_torchvision() -> None:
    a, b = random_boxes(40), random_boxes(40, seed=2)
    expected = torchvision.ops.generalized_box_iou(a, b).diagonal()
    torch.testing.assert_close(giou(a, b), expected)
    assert giou(UNIT, UNIT).item() == 1.0
    assert giou(torch.zeros(1, 4), torch.zeros(1, 4)).isfinite().all()


def test_clip_cuts_each_image_to_its_own_size_and_keeps_its_argument() -> None:
    given_boxes = torch.tensor([[-5.0, -6, 50, 60]]).expand(2, 1, 4).clone()
    before = given_boxes.clone()
    cut = clip(given_boxes, torch.tensor([[20.0, 30.0], [100.0, 40.0]]))
    assert cut.tolist() == [[[0, 0, 30, 20]], [[0, 0, 40, 60]]]
    assert given_boxes.equal(before)


def test_inside_counts_the_border_as_in() -> None:
    sizes = torch.tensor([[20.0, 30.0]])
    table = {
        (0, 0, 30, 20): True,
        (0, 0, 30.5, 20): False,
        (0, 0, 30, 20.5): False,
        (-0.5, 0, 3, 3): False,
        (0, -0.5, 3, 3): False,
        (20, 0, 20, 0): True,
    }
    found = inside(torch.tensor([list(table)]), sizes)
    assert found.tolist() == [list(table.values())]


@pytest.mark.parametrize(
    ("reference", "box", "expected"),
    [
        ((0, 0, 10, 20), (0, 0, 10, 20), (0, 0, 0, 0)),
        ((0, 0, 10, 20), (10, 0, 20, 20), (1, 0, 0, 0)),
        ((0, 0, 10, 20), (0, 10, 10, 30), (0, 0.5, 0, 0)),
        ((0, 0, 10, 20), (-5, 0, 15, 20), (0, 0, math.log(2), 0)),
        ((0, 0, 10, 20), (0, 5, 10, 15), (0, 0, 0, -math.log(2))),
    ],
)
def test_encode(reference: tuple[float, ...], box: tuple[float, ...], expected: tuple[float, ...]) -> None:
    ours = encode_deltas(torch.tensor([reference]), torch.tensor([box]), (1.0, 2.0, 3.0, 4.0))
    scaled = [e * w for e, w in zip(expected, (1, 2, 3, 4), strict=True)]
    assert ours[0].tolist() == pytest.approx(scaled, abs=1e-6)


@settings(deadline=None)
@given(reference=boxes(), box=boxes())
def test_encode_and_decode_are_inverse(reference: Tensor, box: Tensor) -> None:
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        deltas = encode_deltas(reference, box, weights)
        back = decode_deltas(reference, deltas, weights, max_log_scale=20.0)
        torch.testing.assert_close(back, box, rtol=1e-4, atol=2e-3)
        again = encode_deltas(reference, back, weights)
        # a coordinate of 2,000 is known to 1e-4 px: relative to a side of half a pixel that is 2e-4
        torch.testing.assert_close(again, deltas, rtol=1e-3, atol=2e-2)


@settings(deadline=None)
@given(a=boxes(), b=boxes())
def test_iou_is_symmetric_bounded_and_one_for_itself(a: Tensor, b: Tensor) -> None:
    value = iou(a, b).item()
    assert 0.0 <= value <= 1.0 + 1e-6
    assert value == iou(b, a).item()
    assert iou(a, a).item() == 1.0
    assert giou(a, b).item() <= value + 1e-6


def test_coding_equals_torchvision() -> None:
    reference, box = random_boxes(50), random_boxes(50, seed=4)
    coder = torchvision.models.detection._utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(
        encode_deltas(reference, box, (10.0, 10.0, 5.0, 5.0)), coder.encode_single(box, reference)
    )
    deltas = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 8
    torch.testing.assert_close(
        decode_deltas(reference, deltas, (10.0, 10.0, 5.0, 5.0)), coder.decode_single(deltas, reference)
    )


def test_decode_limits_the_scale_and_keeps_the_callers_tensors() -> None:
    deltas = torch.tensor([[0.0, 0.0, 50.0, 88.0]])
    before, reference = deltas.clone(), UNIT.clone()
    decoded = decode_deltas(reference, deltas)
    assert (decoded[0, 2] - decoded[0, 0]).item() == pytest.approx(10 * math.exp(MAX_LOG_SCALE), rel=1e-5)
    assert deltas.equal(before) and reference.equal(UNIT)


def test_degenerate_boxes_give_finite_deltas() -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    for a, b in ((point, UNIT), (UNIT, point), (point, point), (UNIT, UNIT[:, [2, 3, 0, 1]])):
        assert encode_deltas(a, b).isfinite().all()


@settings(max_examples=30, deadline=None)
@given(box=boxes(), reference=boxes(), width=st.integers(600, 2000))
def test_flipping_a_picture_flips_the_horizontal_delta(box: Tensor, reference: Tensor, width: int) -> None:
    def flip(b: Tensor) -> Tensor:
        return torch.stack([width - b[:, 2], b[:, 1], width - b[:, 0], b[:, 3]], -1)

    deltas = encode_deltas(reference, box)
    flipped = encode_deltas(flip(reference), flip(box))
    expected = deltas * torch.tensor([-1.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(flipped, expected, rtol=1e-3, atol=2e-2)
    torch.testing.assert_close(iou(flip(reference), flip(box)), iou(reference, box), rtol=1e-2, atol=1e-3)
