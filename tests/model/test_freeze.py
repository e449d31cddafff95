"""Stages that keep their weights: nothing in them moves, and what they alone would learn is not lowered."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from frcnn.config import Config
from frcnn.model.detector import Network, build_network
from frcnn.recipes import recipe
from frcnn.structures import ImageBatch, Targets
from frcnn.weights.checkpoint import restore


def tiny(detector: str = "two_stage", freeze: tuple[str, ...] = (), norm: str = "batch") -> Config:
    base = recipe("lite0-fpn")
    update = {
        "detector": detector,
        "backbone": base.backbone.model_copy(update={"weights": "none", "norm": norm}),
        "fpn": base.fpn.model_copy(update={"channels": 16, "norm": "batch"}),
        "roi": base.roi.model_copy(update={"hidden": 16, "batch_size": 16, "cascade": (0.6,)}),
        "train": base.train.model_copy(update={"freeze": freeze}),
    }
    return base.model_copy(update=update)


def network(detector: str = "two_stage", freeze: tuple[str, ...] = (), norm: str = "batch") -> Network:
    torch.manual_seed(0)
    return build_network(tiny(detector, freeze, norm), 1)


def step(model: Network) -> None:
    """One step of plain descent."""
    torch.manual_seed(1)
    sizes = torch.tensor([[64.0, 96.0]] * 2)
    images = ImageBatch(torch.randn(2, 3, 64, 96), sizes, torch.ones(2, 2), sizes)
    boxes = torch.tensor([[[8.0, 8.0, 50.0, 40.0]]] * 2)
    targets = Targets(boxes, torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.bool))
    losses = model.train()(images, targets, model.draw_noise(images, targets, 0)).losses
    assert losses is not None
    model.total(losses).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad


def moved(model: Network) -> set[str]:
    """The first part of the names of all tensors, statistics included, that a step changes."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    step(model)
    return {k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}


EVERYTHING = {"backbone", "fpn", "rpn_head", "box_head", "later_heads"}


@pytest.mark.parametrize(
    ("freeze", "left"),
    [
        ((), EVERYTHING),
        (("backbone",), {"rpn_head", "box_head", "later_heads"}),
        (("rpn",), EVERYTHING - {"rpn_head"}),
        (("roi",), {"backbone", "fpn", "rpn_head"}),
        (("backbone", "rpn"), {"box_head", "later_heads"}),
    ],
)
@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_only_what_is_left_moves(freeze: tuple[str, ...], left: set[str], norm: str) -> None:
    model = network(freeze=freeze, norm=norm)
    assert model.frozen == freeze and moved(model) == left


@pytest.mark.parametrize(
    ("detector", "freeze", "names"),
    [
        ("two_stage", (), ("rpn_objectness", "rpn_box", "roi_class", "roi_box")),
        ("two_stage", ("backbone",), ("rpn_objectness", "rpn_box", "roi_class", "roi_box")),
        ("two_stage", ("rpn",), ("roi_class", "roi_box")),
        ("two_stage", ("roi", "backbone"), ("rpn_objectness", "rpn_box")),
        ("rpn", ("backbone",), ("rpn_objectness", "rpn_box")),
        ("rpn", ("rpn",), ()),
    ],
)
def test_losses_of_a_frozen_stage_are_no_part_of_the_total(
    detector: str, freeze: tuple[str, ...], names: tuple[str, ...]
) -> None:
    model = network(detector, freeze)
    assert model.trained_losses == names
    if names:
        losses = model.losses(*(torch.tensor(10.0**i) for i in range(len(model.losses.names()))))
        every = model.losses.names()
        assert float(model.total(losses)) == sum(10.0 ** every.index(name) for name in names)


def test_training_mode_leaves_the_frozen_stage_alone_also_in_copies() -> None:
    model = network(freeze=("backbone",))
    for one in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        one.train()
        assert one.training and one.rpn_head.training  # type: ignore[union-attr]
        assert not any(m.training for part in (one.backbone, one.fpn) for m in part.modules())
        assert not one.eval().training


def test_a_copy_holds_its_own_modules() -> None:
    model = network(freeze=("backbone",))
    other = copy.deepcopy(model)
    model.backbone.train()
    other.train()
    assert model.backbone.training and not other.backbone.training


def test_a_held_module_keeps_its_statistics() -> None:
    model = network()
    norm = next(m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d))
    model.hold(norm)
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    step(model)
    assert torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


@pytest.mark.parametrize(("detector", "stage"), [("rpn", "roi"), ("fcos", "rpn")])
def test_a_stage_that_is_not_there_is_named(detector: str, stage: str) -> None:
    config = tiny(detector, (stage,))
    if detector == "fcos":
        sizes = ((0, 64), (64, 128), (128, 256), (256, 512), (512, None))
        config = config.model_copy(update={"fcos": config.fcos.model_copy(update={"size_ranges": sizes})})
    with pytest.raises(ValueError, match=f"'lite0-fpn' has no stage '{stage}' to freeze; it has backbone"):
        build_network(config, 1)


def test_weights_of_a_frozen_model_are_loaded_and_used() -> None:
    model = network(freeze=("backbone", "rpn"))
    step(model)
    other = build_network(model.config, 1)
    restore(other, model.state_dict(), "memory")
    sizes = torch.tensor([[64.0, 64.0]])
    images = ImageBatch(torch.randn(1, 3, 64, 64), sizes, torch.ones(1, 2), sizes)
    with torch.no_grad():
        mine, theirs = model.eval()(images).detections, other.eval()(images).detections
    assert mine is not None and theirs is not None and torch.equal(mine.boxes, theirs.boxes)
