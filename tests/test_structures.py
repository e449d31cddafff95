"""The values between the stages: moved, mapped, flattened, never changed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from frcnn.structures import (
    Detections,
    FcosOutput,
    ImageBatch,
    Losses,
    Matches,
    Noise,
    Output,
    Proposals,
    RoiSamples,
    RpnOutput,
    Samples,
    Targets,
    TensorRecord,
    Trace,
)


def detections(n: int, d: int) -> Detections:
    shape = (n, d)
    valid = torch.zeros(shape, dtype=torch.bool)
    zero = torch.zeros(shape)
    return Detections(torch.zeros(n, d, 4), zero, zero.long(), valid, zero.long(), torch.ones(n).bool())


def losses() -> Losses:
    return Losses(*(torch.tensor(float(v)) for v in (1, 2, 3, 4)))


@pytest.mark.parametrize(("n", "d"), [(0, 0), (0, 3), (2, 0), (2, 3)])
def test_detections_per_image_of_nothing(n: int, d: int) -> None:
    parts = detections(n, d).per_image()
    assert len(parts) == n
    for boxes, scores, labels in parts:
        assert boxes.shape == (0, 4) and scores.shape == labels.shape == (0,)


def test_detections_per_image_keep_the_valid_ones_in_order() -> None:
    found = detections(2, 3)
    found.scores[0] = torch.tensor([0.9, 0.5, 0.2])
    found.valid[0, [0, 2]] = True
    (_, scores, _), (boxes, _, _) = found.per_image()
    assert scores.tolist() == pytest.approx([0.9, 0.2]) and len(boxes) == 0


@pytest.mark.parametrize(
    ("label", "ignore", "real"),
    [(0, False, True), (3, False, True), (3, True, False), (-1, True, False), (-1, False, False)],
)
def test_real_objects(label: int, ignore: bool, real: bool) -> None:
    targets = Targets(torch.zeros(1, 1, 4), torch.tensor([[label]]), torch.tensor([[ignore]]))
    assert targets.real.item() is real


def test_rpn_scores_are_logits_or_their_difference() -> None:
    one = torch.tensor([[1.0, -2.0]])
    two = torch.tensor([[[1.0, 4.0], [2.0, 0.0]]])
    rest = (torch.zeros(1, 2, 4), torch.zeros(2, 4), (2,))
    assert RpnOutput(one, *rest).scores.tolist() == [[1, -2]]
    assert RpnOutput(two, *rest).scores.tolist() == [[3, -2]]
    torch.testing.assert_close(RpnOutput(two, *rest).scores.sigmoid(), two.softmax(-1)[..., 1])


def test_losses_sum_up() -> None:
    assert losses().total.item() == 10
    assert list(losses().as_dict()) == ["rpn_objectness", "rpn_box", "roi_class", "roi_box", "total"]


def example(kind: type[TensorRecord]) -> TensorRecord:
    """Any record, with a tensor of its own in every field that has one."""
    if kind is Output:
        return Output(losses(), None)
    if kind is Trace:
        batch = example(ImageBatch)
        assert isinstance(batch, ImageBatch)
        return Trace(batch, (torch.ones(1), torch.ones(2)), example(RpnOutput), losses=losses())  # type: ignore
    values = {f.name: torch.arange(3.0) + i for i, f in enumerate(fields(kind))}  # type: ignore[arg-type]
    if kind in (RpnOutput, FcosOutput):
        return kind(**(values | {"level_sizes": (2, 1)}))  # type: ignore[arg-type]
    return kind(**values)


ALL = [
    ImageBatch,
    Targets,
    RpnOutput,
    Proposals,
    Matches,
    Samples,
    RoiSamples,
    Noise,
    Losses,
    Detections,
    Trace,
    Output,
]


@pytest.mark.parametrize("kind", ALL)
def test_every_record_can_be_mapped_moved_and_flattened(kind: type[TensorRecord]) -> None:
    record = example(kind)
    leaves, spec = tree_flatten(record)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    assert tensors
    doubled = record.map(lambda t: t * 2)
    assert type(doubled) is kind
    for before, after in zip(leaves, tree_flatten(doubled)[0], strict=True):
        if isinstance(before, torch.Tensor):
            assert after.equal(before * 2)
        else:
            assert after == before
    again = tree_unflatten(leaves, spec)
    assert type(again) is kind
    assert {f.name for f in fields(again)} == {f.name for f in fields(kind)}  # type: ignore[arg-type]
    moved = record.to("meta")
    assert all(t.device.type == "meta" for t in tree_flatten(moved)[0] if isinstance(t, torch.Tensor))
    assert all(t.device.type == "cpu" for t in tensors), "the record itself stays where it was"


@pytest.mark.parametrize("kind", ALL)
def test_every_record_is_frozen(kind: type[TensorRecord]) -> None:
    record = example(kind)
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(kind)[0].name, None)  # type: ignore[arg-type]


def test_detach_cuts_the_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    noise = Noise(weight * 2, weight * 3)
    assert noise.rpn.requires_grad and not noise.detach().rpn.requires_grad


def test_number_of_images() -> None:
    sizes = torch.zeros(3, 2)
    assert len(ImageBatch(torch.zeros(3, 3, 8, 8), sizes, sizes, sizes)) == 3
