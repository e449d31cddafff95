"""Room 8: the streaming matcher against the dense one, the labels' rules, ignore regions, memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import targets_of
from torch import Tensor

from frcnn.boxes import iou
from frcnn.config import RoiConfig, RpnConfig
from frcnn.model.matching import dense_overlaps, ignored, match_anchors, match_rois, overlaps
from frcnn.structures import Proposals, Targets

SIZES = torch.tensor([[100.0, 100.0]])
RPN = RpnConfig()
RULES = ("ioa", "iou", "by_kind")


def no_objects(n: int, g: int) -> Targets:
    return Targets(torch.zeros(n, g, 4), torch.full((n, g), -1), torch.zeros(n, g, dtype=torch.bool))


@pytest.mark.parametrize(("anchors", "images", "objects"), [(0, 1, 0), (0, 2, 8), (5, 2, 0), (5, 2, 8)])
def test_nothing_matches_nothing(anchors: int, images: int, objects: int) -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30]]).expand(anchors, 4)
    targets = no_objects(images, objects)
    if anchors:
        for found in (overlaps(boxes, targets), dense_overlaps(boxes, targets)):
            assert found.best.shape == (images, anchors) and found.best.eq(0).all()
            assert found.index.eq(0).all() and not found.best_of_object.any()
        labels = match_anchors(boxes, SIZES.expand(images, 2), targets, RPN).labels
        assert labels.eq(0).all(), "a picture without objects is all background"
    else:
        assert match_anchors(boxes, SIZES.expand(images, 2), targets, RPN).labels.shape == (images, 0)


coordinate = st.integers(0, 8)
any_box = st.tuples(coordinate, coordinate, st.integers(0, 5), st.integers(0, 5)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Targets, Tensor]:
    """Boxes on small integers, so that overlaps tie, some without area, some to ignore, some padding."""
    n, a, g = draw(st.integers(1, 2)), draw(st.integers(1, 12)), draw(st.integers(1, 20))
    boxes = draw(st.lists(any_box, min_size=n * a, max_size=n * a))
    objects = draw(st.lists(any_box, min_size=n * g, max_size=n * g))
    kinds = draw(
        st.lists(st.sampled_from(["real", "padding", "ignore", "region"]), min_size=n * g, max_size=n * g)
    )
    usable = draw(st.lists(st.booleans(), min_size=n * a, max_size=n * a))
    labels = torch.tensor([{"real": 1, "padding": -1, "ignore": 2, "region": -1}[k] for k in kinds]).view(
        n, g
    )
    ignore = torch.tensor([k in ("ignore", "region") for k in kinds]).view(n, g)
    targets = Targets(torch.tensor(objects, dtype=torch.float32).view(n, g, 4), labels, ignore)
    return torch.tensor(boxes, dtype=torch.float32).view(n, a, 4), targets, torch.tensor(usable).view(n, a)


@settings(max_examples=150, deadline=None)
@given(problem=problems(), chunk=st.sampled_from([1, 3, 8, 64]))
def test_streaming_equals_dense_ties_included(problem: tuple[Tensor, Targets, Tensor], chunk: int) -> None:
    boxes, targets, usable = problem
    for mask in (None, usable):
        for rule in RULES:
            streamed = overlaps(boxes, targets, mask, rule, chunk)
            dense = dense_overlaps(boxes, targets, mask, rule)
            for name in ("best", "index", "best_of_object", "ignored_iou", "best_of_ignored"):
                assert getattr(streamed, name).equal(getattr(dense, name)), name
            torch.testing.assert_close(streamed.ignored_area, dense.ignored_area)


def hard(table: Tensor, a: int, g: int) -> bool:
    """Whether an ignored object would make the anchor positive."""
    value = float(table[a, g])
    return value >= 0.7 or (value > 0 and value == float(table[:, g].max()))


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_labels_follow_their_definition(problem: tuple[Tensor, Targets, Tensor]) -> None:
    boxes, targets, _ = problem
    anchors = boxes[0]
    n = len(targets.labels)
    got = match_anchors(anchors, SIZES.expand(n, 2), targets, RPN.model_copy(update={"ignore_rule": "iou"}))
    for i in range(n):
        real = targets.real[i].nonzero()[:, 0].tolist()
        skip = targets.ignore[i].nonzero()[:, 0].tolist()
        table = iou(anchors, targets.boxes[i])
        for a in range(len(anchors)):
            mine = {g: float(table[a, g]) for g in real}
            best = max(mine.values(), default=0.0)
            favourite = any(v > 0 and v == float(table[:, g].max()) for g, v in mine.items())
            if best >= 0.7 or favourite:
                expected = 1
            elif best >= 0.3 or any(hard(table, a, g) for g in skip):
                expected = -1
            else:
                expected = 0
            assert got.labels[i, a] == expected
            if best > 0:
                assert got.index[i, a] == min(g for g, v in mine.items() if v == best), "the first of equals"


def test_a_larger_random_problem_is_bit_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 3000, 2, generator=generator) * 300
    boxes = torch.cat([corner, corner + torch.rand(2, 3000, 2, generator=generator) * 100], -1)
    objects = boxes[:, :93] + torch.randn(2, 93, 4, generator=generator)
    targets = Targets(objects, torch.arange(93).remainder(5).expand(2, -1) - 1, torch.rand(2, 93) < 0.2)
    streamed, dense = overlaps(boxes, targets), dense_overlaps(boxes, targets)
    assert streamed.best.equal(dense.best) and streamed.index.equal(dense.index)
    assert streamed.best_of_object.equal(dense.best_of_object)


def test_an_object_that_no_anchor_touches_makes_no_anchor_positive() -> None:
    anchors = torch.tensor([[10.0, 10, 30, 30], [50, 50, 90, 90]])
    for config in (RPN, RPN.model_copy(update={"inside_only": True})):
        labels = match_anchors(anchors, SIZES, targets_of([[((0, 0, 2, 2), 0)]]), config).labels
        assert labels.tolist() == [[0, 0]]
    # an anchor over the border touches it, but is not trained
    over = torch.tensor([[-10.0, -10, 10, 10], [50, 50, 90, 90]])
    labels = match_anchors(
        over, SIZES, targets_of([[((0, 0, 2, 2), 0)]]), RPN.model_copy(update={"inside_only": True})
    )
    assert labels.labels.tolist() == [[-1, 0]]


def test_without_the_best_anchor_rule_only_the_threshold_counts() -> None:
    anchors = torch.tensor([[10.0, 10, 30, 30]])
    targets = targets_of([[((10, 10, 30, 20), 0)]])  # IoU 0.5
    assert match_anchors(anchors, SIZES, targets, RPN).labels.item() == 1
    assert (
        match_anchors(anchors, SIZES, targets, RPN.model_copy(update={"best_anchor": False})).labels.item()
        == -1
    )


ANCHORS = torch.tensor([[0.0, 0, 20, 20], [40, 40, 60, 60], [70, 70, 90, 90]])


def test_regions_ignore_by_area_and_positives_win() -> None:
    region = ((38.0, 38.0, 62.0, 55.0), -1)  # covers 0.75 of anchor 1
    labels = match_anchors(ANCHORS, SIZES, targets_of([[region]], [[True]]), RPN).labels
    assert labels.tolist() == [[0, -1, 0]]
    found = overlaps(ANCHORS, targets_of([[region]], [[True]]))
    assert ignored(found, 0.7).tolist() == [[False, True, False]]
    both = targets_of([[region, ((40, 40, 60, 60), 2)]], [[True, False]])
    assert match_anchors(ANCHORS, SIZES, both, RPN).labels.tolist() == [[0, 1, 0]], "positives win"
    half = targets_of([[((40, 40, 60, 50), -1)]], [[True]])
    assert match_anchors(ANCHORS, SIZES, half, RPN).labels[0, 1] == 0, "exactly half is not more than half"


def test_overlapping_regions_count_twice() -> None:
    thirds = [((40.0, 40.0, 60.0, 46.0), -1)] * 2  # 0.3 of the anchor each
    assert match_anchors(ANCHORS, SIZES, targets_of([thirds], [[True, True]]), RPN).labels[0, 1] == -1
    assert match_anchors(ANCHORS, SIZES, targets_of([thirds[:1]], [[True]]), RPN).labels[0, 1] == 0


def test_hard_objects_ignore_what_they_would_make_positive() -> None:
    config = RPN.model_copy(update={"ignore_rule": "iou"})
    hard = targets_of([[((40, 40, 60, 58), 1)]], [[True]])  # IoU 0.9 with anchor 1
    assert match_anchors(ANCHORS, SIZES, hard, config).labels.tolist() == [[0, -1, 0]]
    slight = targets_of([[((40, 40, 60, 52), 1)]], [[True]])  # IoU 0.6: more than half covered
    assert match_anchors(ANCHORS, SIZES, slight, config).labels.tolist() == [[0, -1, 0]], "its best anchor"
    by_iou = config.model_copy(update={"best_anchor": False})
    assert match_anchors(ANCHORS, SIZES, slight, by_iou).labels.tolist() == [[0, 0, 0]], "would be neutral"
    both = targets_of([[((40, 40, 60, 58), 1), ((40, 40, 60, 60), 0)]], [[True, False]])
    matches = match_anchors(ANCHORS, SIZES, both, config)
    assert matches.labels[0, 1] == 1 and matches.index[0, 1] == 1, (
        "positives win, and belong to the real object"
    )


def test_an_ignored_object_is_never_a_target() -> None:
    for rule in ("ioa", "iou"):
        config = RPN.model_copy(update={"ignore_rule": rule})
        labels = match_anchors(ANCHORS, SIZES, targets_of([[((40, 40, 60, 60), 1)]], [[True]]), config).labels
        assert labels.tolist() == [[0, -1, 0]]


def proposals_of(boxes: Tensor, valid: list[bool]) -> Proposals:
    n = len(boxes)
    shape = (1, n)
    return Proposals(boxes[None], torch.ones(shape), torch.zeros(shape).long(), torch.tensor([valid]))


def test_rois_have_their_own_thresholds_and_valid_mask() -> None:
    gt = ((0, 0, 10, 10), 2)
    table = [
        ((0, 0, 10, 10), True, 1),
        ((0, 0, 10, 5), True, 1),  # exactly 0.5
        ((0, 0, 10, 4.9), True, 0),
        ((0, 0, 10, 1), True, 0),  # exactly 0.1: in [0.1, 0.5)
        ((0, 0, 10, 0.9), True, -1),
        ((50, 50, 60, 60), True, -1),
        ((0, 0, 10, 10), False, -1),
        ((0, 0, 10, 4), False, -1),
    ]
    boxes = torch.tensor([row[0] for row in table], dtype=torch.float32)
    config = RoiConfig(negative_iou=(0.1, 0.5))
    matches = match_rois(proposals_of(boxes, [row[1] for row in table]), targets_of([[gt]]), config)
    assert matches.labels.tolist() == [[row[2] for row in table]]
    nothing = match_rois(proposals_of(boxes, [row[1] for row in table]), targets_of([[]]), RoiConfig())
    assert nothing.labels.tolist() == [[0, 0, 0, 0, 0, 0, -1, -1]]


@pytest.mark.parametrize("rule", ["ioa", "iou"])
def test_rois_in_regions_are_ignored(rule: str) -> None:
    boxes = torch.tensor([[40.0, 40, 60, 60], [0, 0, 10, 10]])
    targets = targets_of([[((40, 40, 60, 58), -1)]], [[True]])
    matches = match_rois(
        proposals_of(boxes, [True, True]), targets, RoiConfig.model_validate({"ignore_rule": rule})
    )
    assert matches.labels.tolist() == [[-1, 0]]


def test_each_ignored_box_is_taken_for_what_it_is() -> None:
    """``by_kind``: a region by the area it covers, an object with a class by what it would make positive."""
    config = RPN.model_copy(update={"ignore_rule": "by_kind", "best_anchor": False})
    region, slight = ((40, 40, 60, 52), -1), ((40, 40, 60, 52), 1)  # cover 0.6 of anchor 1, IoU 0.6
    for box, expected in ((region, -1), (slight, 0), (((40, 40, 60, 58), 1), -1)):
        labels = match_anchors(ANCHORS, SIZES, targets_of([[box]], [[True]]), config).labels
        assert labels.tolist() == [[0, expected, 0]]


def test_ignored_boxes_win_where_the_recipe_says_so() -> None:
    both = targets_of([[((38, 38, 62, 55), -1), ((40, 40, 60, 60), 2)]], [[True, False]])
    for wins, expected in ((False, 1), (True, -1)):
        config = RPN.model_copy(update={"ignore_wins": wins})
        assert match_anchors(ANCHORS, SIZES, both, config).labels[0, 1] == expected
        roi = RoiConfig(ignore_wins=wins)
        assert match_rois(proposals_of(ANCHORS, [True] * 3), both, roi).labels[0, 1] == expected


@pytest.mark.parametrize("inclusive", [False, True])
def test_edges_of_the_thresholds(inclusive: bool) -> None:
    half = targets_of([[((40, 40, 60, 50), 0)]])  # IoU of exactly 0.5 with anchor 1
    rpn = RpnConfig(negative_iou=0.5, best_anchor=False, negative_at_edge=inclusive)
    assert match_anchors(ANCHORS, SIZES, half, rpn).labels[0, 1] == (0 if inclusive else -1)
    roi = RoiConfig(positive_iou=0.5, positive_at_edge=inclusive)
    assert match_rois(proposals_of(ANCHORS, [True] * 3), half, roi).labels[0, 1] == (1 if inclusive else 0)
    gap = RoiConfig(positive_iou=0.5, positive_at_edge=inclusive, negative_iou=(0.1, 0.4))
    assert match_rois(proposals_of(ANCHORS, [True] * 3), half, gap).labels[0, 1] == (1 if inclusive else -1)


def test_flips_commute_with_the_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 80, (40, 2), generator=generator).float()
    anchors = torch.cat([corner, corner + torch.randint(5, 30, (40, 2), generator=generator)], -1)
    objects = [(b.tolist(), i % 3) for i, b in enumerate(anchors[:6] + torch.tensor([2.0, 1, 3, 0]))]
    skip = [[False, True, False, False, True, False]]

    def flip(boxes: Tensor) -> Tensor:
        return torch.stack([100 - boxes[..., 2], boxes[..., 1], 100 - boxes[..., 0], boxes[..., 3]], -1)

    targets = targets_of([objects], skip)
    mirrored = Targets(flip(targets.boxes), targets.labels, targets.ignore)
    for rule in RULES:
        for only in (False, True):
            config = RPN.model_copy(update={"ignore_rule": rule, "inside_only": only})
            straight = match_anchors(anchors, SIZES, targets, config)
            turned = match_anchors(flip(anchors), SIZES, mirrored, config)
            assert straight.labels.equal(turned.labels) and straight.index.equal(turned.index)
            assert straight.labels.unique().tolist() == [-1, 0, 1]


MEMORY = """
import sys, torch
from frcnn.config import AnchorConfig, RpnConfig
from frcnn.model.anchors import Anchors
from frcnn.model.matching import match_anchors
from frcnn.structures import Targets
def run(g):
    corner = torch.rand(1, g, 2, generator=torch.Generator().manual_seed(0)) * (height - 20)
    zero = torch.zeros(1, g)
    targets = Targets(torch.cat([corner, corner + 15], -1), zero.long(), zero.bool())
    sizes = torch.tensor([[float(height), float(width)]])
    labels = match_anchors(anchors, sizes, targets, RpnConfig()).labels
    with open("/proc/self/status") as file:  # getrusage begins at the peak of the process before this one
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    return peak, int((labels == 1).sum())
height, width, objects = map(int, sys.argv[1:])
anchors = Anchors(AnchorConfig(), [4, 8, 16, 32, 64])(height, width)
few, _ = run(8)
many, positive = run(objects)
print(len(anchors), (many - few) // 1024, positive)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize(
    ("height", "width", "objects", "limit"),
    [
        (400, 672, 500, 64),  # the dense table alone would take 134 MB
        pytest.param(800, 1344, 2000, 512, marks=pytest.mark.slow),  # and here 2.1 GB
    ],
)
def test_many_objects_cost_little_memory(height: int, width: int, objects: int, limit: int) -> None:
    arguments = [sys.executable, "-c", MEMORY, str(height), str(width), str(objects)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    count, megabytes, positive = (int(word) for word in done.stdout.split())
    assert (
        count == 3 * sum(-(-height // s) * -(-width // s) for s in (4, 8, 16, 32, 64)) and positive > objects
    )
    assert megabytes < limit
