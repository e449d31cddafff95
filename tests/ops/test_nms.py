"""The NMS mask against its plain reference, against torchvision, and its promises about types and masks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frcnn.ops import nms, nms_mask, nms_mask_reference


def sorted_boxes(rows: int, count: int, seed: int = 0, spread: float = 100.0, offset: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(rows, count, 2, generator=generator) * spread + offset
    return torch.cat([corners, corners + 2 + torch.rand(rows, count, 2, generator=generator) * 60], -1)


@pytest.mark.parametrize("shape", [(0, 0, 4), (0, 5, 4), (3, 0, 4)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    boxes = torch.zeros(shape)
    masks = torch.zeros(shape[:2], dtype=torch.bool)
    groups = torch.zeros(shape[:2], dtype=torch.long)
    for groups_given, valid in ((None, None), (groups, None), (None, masks), (groups, masks)):
        keep = nms_mask(boxes, 0.5, groups_given, valid)
        assert keep.shape == shape[:2] and keep.dtype == torch.bool
        assert keep.equal(nms_mask_reference(boxes, 0.5, groups_given, valid))


@pytest.mark.parametrize(
    ("second", "threshold", "kept"),
    [
        ((0, 0, 10, 10), 0.5, False),  # a copy
        ((0, 0, 10, 5), 0.5, True),  # IoU exactly the threshold: suppressed only above it
        ((0, 0, 10, 6), 0.5, False),
        ((20, 20, 30, 30), 0.0, True),  # apart
        ((0, 0, 10, 10), 1.0, True),
    ],
)
def test_two_boxes(second: tuple[float, ...], threshold: float, kept: bool) -> None:
    boxes = torch.tensor([[(0.0, 0, 10, 10), second]])
    assert nms_mask(boxes, threshold).tolist() == [[True, kept]]


def test_a_suppressed_box_does_not_suppress() -> None:
    chain = torch.tensor([[[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]])  # neighbours overlap by 0.43
    assert nms_mask(chain, 0.4).tolist() == [[True, False, True]]


def test_ties_keep_the_first() -> None:
    same = torch.tensor([[[0.0, 0, 10, 10]] * 5])
    assert nms_mask(same, 0.5).tolist() == [[True, False, False, False, False]]


def test_zero_area_boxes_stay_and_suppress_nothing() -> None:
    boxes = torch.tensor([[[5.0, 5, 5, 5], [0, 0, 10, 10], [5, 5, 5, 5], [5, 5, 5, 9]]])
    assert nms_mask(boxes, 0.0).equal(nms_mask_reference(boxes, 0.0))
    assert nms_mask(boxes, 0.0).all()


def test_invalid_boxes_neither_suppress_nor_survive() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]])
    valid = torch.tensor([[False, True, True]])
    assert nms_mask(boxes, 0.5, valid=valid).tolist() == [[False, True, False]]
    assert not nms_mask(boxes, 0.5, valid=torch.zeros_like(valid)).any()


def test_groups_do_not_touch_each_other() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10]] * 4])
    groups = torch.tensor([[90, 0, 90, 0]])
    assert nms_mask(boxes, 0.5, groups).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("given", [None, "groups", "valid"])
def test_threads_change_nothing(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = sorted_boxes(3, 700)
    groups = torch.arange(700).expand(3, -1) // 350 if given == "groups" else None
    valid = (torch.arange(700) % 7 > 0).expand(3, -1) if given == "valid" else None
    asked: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads: int) -> None:
            asked.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(nms, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(nms, "WORTH_THREADS", 1000)
    alone = nms_mask(boxes, 0.5, groups, valid)
    assert not asked
    monkeypatch.setattr(nms, "WORTH_THREADS", 300)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert nms_mask(boxes, 0.5, groups, valid).equal(alone) and 0 < alone.sum() < 2100
    with torch.inference_mode():
        assert nms_mask(boxes.clone(), 0.5, groups, valid).equal(alone)
    assert asked == [2, 2]
    if groups is None:
        assert nms_mask(boxes[:1], 0.5, None, None if valid is None else valid[:1]).equal(alone[:1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert nms_mask(boxes, 0.5, groups, valid).equal(alone)
    assert asked == [2, 2], "one group has nobody to share with, one thread neither"


@pytest.mark.parametrize("enough", [1, 5, 20, 60, 68, 119])
@pytest.mark.parametrize("spread", [30.0, 400.0])  # many suppressed, few suppressed
@pytest.mark.parametrize("masked", [False, True])
def test_enough_survivors_are_the_best(enough: int, spread: float, masked: bool) -> None:
    """Three groups whose scores interleave, with ties."""
    boxes = sorted_boxes(4, 120, spread=spread)
    groups = torch.arange(120).expand(4, -1) % 3
    scores = (1 - torch.arange(120) / 120 + 0.2 * groups).mul(30).round() / 30
    valid = (torch.arange(120) % 5 > 0).expand(4, -1) if masked else None
    every = nms_mask(boxes, 0.3, groups, valid)
    some = nms_mask(boxes, 0.3, groups, valid, scores, enough)
    assert not (some & ~every).any()
    for row in range(4):
        wanted = scores[row][every[row]].sort(descending=True).values[:enough]
        told = scores[row][some[row]].sort(descending=True).values
        assert told[:enough].equal(wanted)
        better = scores[row] > wanted[-1]
        assert some[row][better].equal(every[row][better])


def test_enough_looks_at_few_boxes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    greedy = nms._greedy

    def spy(boxes: Tensor, iou: float, groups: Tensor | None, valid: Tensor | None) -> Tensor:
        assert valid is not None
        asked.append(valid.sum(1).tolist())
        return greedy(boxes, iou, groups, valid)

    monkeypatch.setattr(nms, "_greedy", spy)
    apart = torch.arange(100.0)[:, None] * 10 + torch.tensor([0.0, 0, 5, 5])
    boxes = torch.stack(
        [apart, torch.zeros(100, 4) + torch.tensor([0.0, 0, 5, 5])]
    )  # none and all suppressed
    scores = torch.arange(100, 0, -1.0).expand(2, -1)
    assert nms_mask(boxes, 0.5, scores=scores, enough=8).sum(1).tolist() == [14, 1]
    assert asked == [[14, 14], [100]], "only the row with too few is looked at again"
    asked.clear()
    nan = scores.clone()
    nan[1, 0] = float("nan")
    assert nms_mask(boxes, 0.5, scores=nan, enough=8).sum(1).tolist() == [14, 1], "the first suppresses all"
    asked.clear()
    few = torch.arange(100).expand(2, -1) < 10
    assert nms_mask(boxes, 0.5, valid=few, scores=scores, enough=8).sum(1).tolist() == [10, 1]
    assert asked == [[10, 10]], "there are no more"


@pytest.mark.parametrize("enough", [-1, 3])
def test_enough_needs_scores(enough: int) -> None:
    with pytest.raises(ValueError, match=f"got {enough}"):
        nms_mask(torch.zeros(1, 5, 4), 0.5, enough=enough)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    rows=st.integers(1, 3),
    count=st.integers(1, 12),
    threshold=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0]),
)
def test_equals_the_reference(data: st.DataObject, rows: int, count: int, threshold: float) -> None:
    # small integers: many copies, overlaps of exactly the threshold, and boxes without area
    number = st.integers(0, 6)
    box = st.tuples(number, number, number, number).map(
        lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
    )
    row = st.lists(box, min_size=count, max_size=count)
    boxes = torch.tensor(data.draw(st.lists(row, min_size=rows, max_size=rows)), dtype=torch.float32)
    ints = st.lists(st.integers(0, 2), min_size=rows * count, max_size=rows * count)
    groups = torch.tensor(data.draw(ints)).view(rows, count)
    valid = torch.tensor(data.draw(ints)).view(rows, count) > 0
    for groups_given, mask in ((None, None), (groups, None), (None, valid), (groups, valid)):
        keep = nms_mask(boxes, threshold, groups_given, mask)
        assert keep.equal(nms_mask_reference(boxes, threshold, groups_given, mask))


def test_equals_torchvision_per_row() -> None:
    boxes = sorted_boxes(3, 300)
    scores = torch.arange(300, 0, -1).float()
    keep = nms_mask(boxes, 0.5)
    for i in range(3):
        assert keep[i].nonzero()[:, 0].equal(torchvision.ops.nms(boxes[i], scores, 0.5).sort().values)
    assert 0 < keep.sum() < keep.numel()


def test_equals_torchvisions_exact_batched_form() -> None:
    boxes = sorted_boxes(1, 400, seed=1, offset=1200.0)
    scores = torch.arange(400, 0, -1).float()
    groups = torch.randint(0, 7, (1, 400), generator=torch.Generator().manual_seed(0))
    expected = torchvision.ops.boxes._batched_nms_vanilla(boxes[0], scores, groups[0], 0.5)
    assert nms_mask(boxes, 0.5, groups)[0].nonzero()[:, 0].equal(expected.sort().values)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_input_equals_its_float32_values(kind: torch.dtype) -> None:
    half = sorted_boxes(2, 120, seed=2, offset=1100.0).to(kind)  # above 1,024: no coordinate is exact
    groups = torch.arange(120).remainder(3).expand(2, -1)
    assert nms_mask(half, 0.5).equal(nms_mask(half.float(), 0.5))
    assert nms_mask(half, 0.5, groups).equal(nms_mask_reference(half.float(), 0.5, groups))


def test_autocast_changes_nothing() -> None:
    boxes = sorted_boxes(2, 200, seed=3, offset=1500.0)
    plain = nms_mask(boxes, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert nms_mask(boxes, 0.5).equal(plain)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(B, k, 4\), got \(5, 4\)"):
        nms_mask(torch.zeros(5, 4), 0.5)
    with pytest.raises(ValueError, match=r"groups must be \(2, 5\).*got \(2, 4\)"):
        nms_mask(torch.zeros(2, 5, 4), 0.5, groups=torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="valid must be"):
        nms_mask(torch.zeros(2, 5, 4), 0.5, valid=torch.ones(5, dtype=torch.bool))


def test_the_operator_is_registered_as_torch_wants() -> None:
    boxes, groups = sorted_boxes(2, 20), torch.zeros(2, 20, dtype=torch.long)
    valid = torch.ones(2, 20, dtype=torch.bool)
    scores = torch.arange(20, 0, -1.0).repeat(2, 1)
    for extra in ((None, None), (groups, valid), (groups, valid, scores, 5), (None, None, scores, 19)):
        torch.library.opcheck(torch.ops.frcnn.nms_mask.default, (boxes, 0.5, *extra))
