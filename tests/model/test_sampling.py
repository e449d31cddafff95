"""Room 9: counts, masks, uniformity, and the targets of what was drawn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import targets_of
from torch import Tensor

from frcnn.boxes import encode_deltas
from frcnn.config import RoiConfig
from frcnn.model.sampling import jittered, roi_samples, rpn_targets, sample, sample_batch, with_objects
from frcnn.structures import Matches, Proposals, Samples

UNIT = (1.0, 1.0, 1.0, 1.0)


def brute_force(
    labels: list[int], noise: list[float], count: int, positives: int
) -> tuple[list[int], list[int]]:
    """The definition: the positives with the largest keys, then the negatives with the largest keys."""

    def best(label: int, most: int) -> list[int]:
        fitting = [i for i, value in enumerate(labels) if value == label]
        return sorted(fitting, key=lambda i: -noise[i])[:most]

    chosen = best(1, min(positives, count))
    return chosen, best(0, count - len(chosen))


@pytest.mark.parametrize(
    ("labels", "count", "positives", "expected"),
    [
        ([], 4, 2, (0, 0)),
        ([-1, -1, -1], 3, 1, (0, 0)),
        ([0, 0, 0, 0, 0], 4, 2, (0, 4)),
        ([1, 1, 1, 1, 1], 4, 2, (2, 0)),
        ([1, 0, -1, 1, 1, 0, 0], 4, 2, (2, 2)),
        ([1, 0, 0, 0, 0], 4, 2, (1, 3)),
        ([1, 1, 0, -1, -1], 4, 2, (2, 1)),
        ([1, 0], 8, 4, (1, 1)),  # more wanted than there are
        ([1, 1, 0, 0], 4, 0, (0, 2)),
    ],
)
def test_counts(labels: list[int], count: int, positives: int, expected: tuple[int, int]) -> None:
    table = torch.tensor([labels], dtype=torch.long)
    noise = torch.rand(table.shape, generator=torch.Generator().manual_seed(0))
    samples = sample(table, noise, count, positives)
    assert (
        samples.index.shape == samples.valid.shape == samples.foreground.shape == (1, min(count, len(labels)))
    )
    assert int(samples.foreground.sum()) == expected[0]
    assert int((samples.valid & ~samples.foreground).sum()) == expected[1]
    assert not (samples.foreground & ~samples.valid).any()


@settings(max_examples=100, deadline=None)
@given(
    labels=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=30),
    count=st.integers(1, 12),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_equals_the_definition(labels: list[int], count: int, share: float, seed: int) -> None:
    table = torch.tensor([labels])
    noise = torch.rand(table.shape, generator=torch.Generator().manual_seed(seed))
    samples = sample(table, noise, count, int(count * share))
    positive, negative = brute_force(labels, noise[0].tolist(), min(count, len(labels)), int(count * share))
    got = samples.index[samples.valid].tolist()
    assert got == positive + negative
    assert samples.index[samples.foreground].tolist() == positive
    assert samples.valid[0].tolist() == sorted(samples.valid[0].tolist(), reverse=True), (
        "valid ones stand first"
    )
    if got:
        assert set(samples.index[~samples.valid].tolist()) <= {got[0]}, "padding repeats a valid one"


def test_each_image_has_its_own_count_in_one_shape() -> None:
    labels = torch.tensor([[1, 1, 0, 0, 0], [-1, -1, -1, -1, -1], [0, -1, -1, -1, 1]])
    samples = sample(labels, torch.rand(3, 5, generator=torch.Generator().manual_seed(0)), 4, 2)
    assert samples.valid.sum(1).tolist() == [4, 0, 2]
    assert samples.foreground.sum(1).tolist() == [2, 0, 1]


def test_every_candidate_is_drawn_equally_often() -> None:
    labels = torch.tensor([[1] * 10 + [0] * 30 + [-1] * 5])
    rounds = 3000
    noise = torch.rand(rounds, 45, generator=torch.Generator().manual_seed(0))
    samples = sample(labels.expand(rounds, -1), noise, 8, 4)
    hits = torch.zeros(45).index_add_(0, samples.index.flatten(), samples.valid.float().flatten()) / rounds
    # 4 of 10 and 4 of 30; five standard deviations of a mean over 3,000 rounds
    torch.testing.assert_close(hits[:10], torch.full((10,), 4 / 10), rtol=0, atol=0.045)
    torch.testing.assert_close(hits[10:40], torch.full((30,), 4 / 30), rtol=0, atol=0.032)
    assert hits[40:].eq(0).all()


def test_noise_of_zero_still_draws() -> None:
    labels = torch.tensor([[1, 0, -1]])
    samples = sample(labels, torch.zeros(1, 3), 3, 1)
    assert samples.index[samples.valid].tolist() == [0, 1]


def boxes(count: int, seed: int) -> Tensor:
    corner = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 50
    return torch.cat([corner, corner + 10 + corner.flip(1)], -1)


def test_rpn_targets_are_the_deltas_of_the_foreground_only() -> None:
    anchors, targets = boxes(6, 0), targets_of([[(b.tolist(), 0) for b in boxes(3, 1)]])
    matches = Matches(torch.tensor([[1, 0, 1, -1, 0, 0]]), torch.tensor([[2, 1, 0, 0, 0, 0]]))
    chosen = torch.tensor([[2, 0, 1, 4]])
    foreground = torch.tensor([[True, True, False, False]])
    deltas = rpn_targets(anchors, matches, Samples(chosen, foreground, foreground | True), targets, UNIT)
    expected = encode_deltas(anchors[[2, 0]], targets.boxes[0, [0, 2]])
    torch.testing.assert_close(deltas[0, :2], expected)
    assert deltas[0, 2:].eq(0).all()


def test_rpn_targets_of_a_batch_without_objects_are_zero() -> None:
    for objects in (0, 8):
        targets = targets_of([[]])
        targets = targets.map(lambda t, g=objects: t[:, :g])
        matches = Matches(torch.zeros(1, 6).long(), torch.zeros(1, 6).long())
        samples = sample(matches.labels, torch.rand(1, 6), 4, 2)
        deltas = rpn_targets(boxes(6, 0), matches, samples, targets, UNIT)
        assert deltas.shape == (1, 4, 4) and deltas.eq(0).all()


def make_proposals(count: int) -> Proposals:
    shape = (1, count)
    return Proposals(
        boxes(count, 5)[None], torch.rand(shape), torch.ones(shape).long(), torch.ones(shape).bool()
    )


def test_objects_join_after_the_proposals_but_only_real_ones() -> None:
    targets = targets_of(
        [[((1, 2, 30, 40), 2), ((5, 5, 9, 9), 1), ((0, 0, 8, 8), -1)]], [[False, True, True]]
    )
    joined = with_objects(make_proposals(4), targets)
    assert joined.boxes.shape == (1, 12, 4)
    assert joined.valid.tolist() == [[True] * 4 + [True] + [False] * 7]
    assert joined.boxes[0, 4].tolist() == [1, 2, 30, 40]
    assert with_objects(make_proposals(0), targets).valid.sum() == 1


def test_roi_samples_carry_labels_and_targets() -> None:
    config = RoiConfig()
    targets = targets_of([[(boxes(1, 9)[0].tolist(), 2), (boxes(1, 8)[0].tolist(), 0)]])
    proposals = make_proposals(5)
    matches = Matches(torch.tensor([[1, 0, 1, -1, 0]]), torch.tensor([[1, 0, 0, 0, 0]]))
    samples = sample(matches.labels, torch.tensor([[0.9, 0.3, 0.5, 0.1, 0.2]]), 5, 2)
    rois = roi_samples(proposals, matches, samples, targets, config, background=7)
    assert rois.labels.tolist() == [[0, 2, 7, 7, -1]]
    assert rois.valid.tolist() == [[True] * 4 + [False]]
    assert rois.foreground.tolist() == [[True, True, False, False, False]]
    expected = encode_deltas(proposals.boxes[0, [0, 2]], targets.boxes[0, [1, 0]], config.delta_weights)
    torch.testing.assert_close(rois.box_targets[0, :2], expected)
    assert rois.box_targets[0, 2:].eq(0).all()
    assert rois.image_index.eq(0).all()
    assert rois.boxes[0, 4].equal(rois.boxes[0, 0]), "what is not valid repeats a valid RoI"


@pytest.mark.parametrize(
    ("labels", "count", "positives", "expected"),
    [
        ([[], []], 4, 2, (0, 0)),
        ([[-1, -1], [-1, -1]], 4, 2, (0, 0)),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], 2, 1, (0, 4)),
        ([[1, 1, 1, 1], [0, 0, 0, 0]], 2, 1, (2, 2)),  # one picture gives all positives
        ([[1, 1, 1, 1], [-1, -1, -1, 0]], 2, 1, (2, 1)),
        ([[1, 0, -1, 1], [0, 1, 0, 1]], 3, 2, (4, 2)),
    ],
)
def test_counts_over_the_whole_batch(
    labels: list[list[int]], count: int, positives: int, expected: tuple[int, int]
) -> None:
    table = torch.tensor(labels, dtype=torch.long)
    noise = torch.rand(table.shape, generator=torch.Generator().manual_seed(0))
    samples = sample_batch(table, noise, count, positives)
    assert samples.index.shape == (2, min(2 * count, table.shape[1]))
    assert int(samples.foreground.sum()) == expected[0]
    assert int((samples.valid & ~samples.foreground).sum()) == expected[1]
    for i in range(2):
        drawn = samples.index[i][samples.valid[i]]
        assert len(drawn.unique()) == len(drawn), "nothing is drawn twice"
        assert table[i, drawn].eq(samples.foreground[i][samples.valid[i]].long()).all()
    flat = sample(table.reshape(1, -1), noise.reshape(1, -1), 2 * count, 2 * positives)
    wanted = set(flat.index[0][flat.valid[0]].tolist())
    got = {i * table.shape[1] + int(a) for i in range(2) for a in samples.index[i][samples.valid[i]]}
    assert got == wanted, "the same as drawing from one long list"


def test_copies_of_objects_are_moved_by_at_most_their_share() -> None:
    sizes = torch.tensor([[100.0, 100.0]])
    nothing = jittered(torch.zeros(1, 0, 4), torch.zeros(1, 0, 4), 0.025, sizes)
    assert nothing.shape == (1, 0, 4)
    boxes = torch.tensor([[[10.0, 20, 50, 40], [0, 0, 100, 100]]])
    noise = torch.rand(1, 2, 4, generator=torch.Generator().manual_seed(0))
    moved = jittered(boxes, noise, 0.025, sizes)
    assert ((moved - boxes).abs() <= torch.tensor([[[1.0, 0.5, 1.0, 0.5], [2.5] * 4]])).all()
    assert (moved[0, 0] != boxes[0, 0]).all()
    assert moved.min() >= 0 and moved.max() <= 100, "cut at the picture"
    assert jittered(boxes, torch.full_like(boxes, 0.5), 0.025, sizes).equal(boxes)
    none = torch.zeros(1, 0)
    joined = with_objects(
        Proposals(torch.zeros(1, 0, 4), none, none.long(), none.bool()),
        targets_of([[((10, 20, 50, 40), 0), ((0, 0, 100, 100), 1)]]),
        torch.cat([moved, torch.zeros(1, 6, 4)], 1),
    )
    assert joined.boxes[:, :2].equal(moved) and joined.valid.sum() == 2


def test_normalised_targets_are_weighted_ones() -> None:
    targets = targets_of([[((10, 20, 50, 40), 0)]])
    one, first = torch.ones(1, 1), torch.zeros(1, 1).long()
    proposals = Proposals(torch.tensor([[[12.0, 18, 48, 44]]]), one, first, one.bool())
    matches, samples = Matches(one.long(), first), Samples(first, one.bool(), one.bool())
    tens = RoiConfig(delta_weights=(10.0, 10.0, 5.0, 5.0))
    tenths = RoiConfig(delta_weights=UNIT, target_std=(0.1, 0.1, 0.2, 0.2))
    a, b = (roi_samples(proposals, matches, samples, targets, c, 3).box_targets for c in (tens, tenths))
    torch.testing.assert_close(a, b)
    shifted = tenths.model_copy(update={"target_mean": (0.1, 0.0, -0.2, 0.0)})
    c = roi_samples(proposals, matches, samples, targets, shifted, 3).box_targets
    torch.testing.assert_close(c, b - torch.tensor([1.0, 0.0, -1.0, 0.0]))
