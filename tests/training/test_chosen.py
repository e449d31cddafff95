from __future__ import annotations

import pytest
from tiny import tiny_config
from torch import nn

from frcnn.config import Config
from frcnn.model.detector import FasterRCNN, Network, build_network
from frcnn.training.chosen import choose_parameters


def network(**train: object) -> Network:
    config = tiny_config(**train)
    return FasterRCNN(config, 2)


def trained(model: Network) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_all_changes_nothing_and_says_nothing() -> None:
    model = network()
    before = trained(model)
    assert choose_parameters(model, "all") == [] and trained(model) == before


def test_the_last_tensors_in_order() -> None:
    model = network()
    names = [name for name, _ in model.named_parameters()]
    (line,) = choose_parameters(model, "last:8")
    assert trained(model) == names[-8:]
    assert line.startswith(f"train.parameters last:8: 8 of {len(names)} tensors are trained ({names[-8]}, ")
    assert line.endswith(", ...)")


def test_the_last_eight_of_vgg16_are_its_head() -> None:
    """What reference system S1 trains: fc6, fc7 and the two outputs, weight and bias."""
    from frcnn.recipes import recipe

    config = recipe("vgg16-dontcare")
    roi = config.roi.model_copy(update={"hidden": 8})
    model = build_network(config.model_copy(update={"roi": roi}), 2)
    choose_parameters(model, "last:8")
    layers = ("trunk.fc6", "trunk.fc7", "classes", "deltas")
    assert trained(model) == [f"box_head.{name}.{kind}" for name in layers for kind in ("weight", "bias")]


def test_a_pattern_is_looked_for_in_the_names() -> None:
    model = network()
    (line,) = choose_parameters(model, r"^rpn_head\.(objectness|deltas)\.bias$")
    assert trained(model) == ["rpn_head.objectness.bias", "rpn_head.deltas.bias"]
    assert "2 of" in line and line.endswith("(rpn_head.objectness.bias, rpn_head.deltas.bias)")


def test_what_is_frozen_stays_frozen() -> None:
    model = network(freeze=("backbone",))
    choose_parameters(model, "bias")
    assert trained(model) and not any(name.startswith(("backbone", "fpn")) for name in trained(model))


def test_batch_norms_that_are_not_chosen_keep_their_statistics() -> None:
    config = tiny_config()
    backbone = config.backbone.model_copy(update={"norm": "batch"})
    model = FasterRCNN(config.model_copy(update={"backbone": backbone}), 2)
    choose_parameters(model, "rpn_head|net.bn1")
    model.train()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert [name for name, m in norms.items() if m.training] == ["backbone.net.bn1"] and len(norms) > 1


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("last:0", r"'last:0': the network has \d+ tensors"),
        ("last:9999", r"'last:9999': the network has \d+ tensors"),
        ("last:x", "fits no tensor; the nearest are "),
        ("rpn_head.objectnes.bias", "fits no tensor; the nearest are rpn_head.objectness.bias, "),
        ("(", "is no regular expression"),
        ("zzz", "fits no tensor"),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence(wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        choose_parameters(network(), wanted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (tiny_config(freeze=("backbone", "rpn", "roi")), "all"),
        (tiny_config(freeze=("rpn", "roi")), "all"),
        (tiny_config(freeze=("backbone",)), "backbone"),
    ],
)
def test_nothing_left_is_an_error(config: Config, wanted: str) -> None:
    with pytest.raises(ValueError, match=r"nothing is left to train: .* frozen"):
        choose_parameters(FasterRCNN(config, 2), wanted)
