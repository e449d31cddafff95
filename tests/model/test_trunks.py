"""torchvision's MobileNetV3 as a backbone: cut, freezing, folding, pretrained files, one training step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection.backbone_utils import _mobilenet_extractor

from frcnn.config import BackboneConfig
from frcnn.model.backbones import Backbone
from frcnn.model.detector import FasterRCNN
from frcnn.model.norms import FoldedConv, FrozenNorm
from frcnn.model.trunks import NAMES, TorchvisionFeatures
from frcnn.predict import Detector
from frcnn.recipes import recipe
from frcnn.weights.imagenet import load_backbone

NAME = NAMES[0]


@pytest.mark.parametrize("levels", [(), (17,), (-1, 3), (16, 13), (13, 13)], ids=str)
def test_levels_it_does_not_have(levels: tuple[int, ...]) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="0 to 16, in rising order") as caught:
        TorchvisionFeatures(NAME, levels)
    assert str(levels) in str(caught.value)


def test_another_name_is_answered_with_those_that_can_be_used() -> None:
    with pytest.raises(ValueError, match=r"'torchvision/resnet50'.*torchvision/mobilenet_v3_large can be"):
        TorchvisionFeatures("torchvision/resnet50", (4,))


def test_layers_behind_the_last_level_are_not_built() -> None:
    with torch.device("meta"):
        net = TorchvisionFeatures(NAME, (3, 6))
    assert (net.channels, net.strides) == ([24, 40], [4, 8])
    assert [name for name, _ in net.named_children()] == [str(i) for i in range(7)]
    assert net.stages == [(2, "1"), (4, "3"), (8, "6")]


@pytest.mark.parametrize(("power", "trainable"), [(0, 6), (1, 5), (2, 4), (3, 3), (4, 2), (5, 0)])
def test_freezes_what_torchvision_freezes(power: int, trainable: int) -> None:
    """A power of the stride for each number of torchvision's trainable layers."""
    with torch.device("meta"):
        theirs = _mobilenet_extractor(torchvision.models.mobilenet_v3_large(), True, trainable).body
        config = BackboneConfig(name=NAME, levels=(13, 16), norm="batch", freeze=power, weights="file.pt")
        ours = Backbone(config).net
    free = {name for name, p in ours.named_parameters() if p.requires_grad}
    assert free == {name for name, p in theirs.named_parameters() if p.requires_grad}
    assert bool(free) == (trainable > 0)


def test_the_recipe_freezes_torchvisions_default() -> None:
    """Three trainable layers of six: everything up to stride 8 stays as it is."""
    assert recipe("mobilenetv3-fpn").backbone.freeze == recipe("mobilenetv3-320-fpn").backbone.freeze == 3


def test_every_norm_is_folded_and_squeeze_and_excitation_is_left_alone() -> None:
    net = Backbone(BackboneConfig(name=NAME, levels=(13, 16), norm="frozen")).net
    norms = [m for m in net.modules() if isinstance(m, FrozenNorm)]
    assert norms and all(norm.folded for norm in norms)
    assert sum(isinstance(m, FoldedConv) for m in net.modules()) == len(norms)
    gates = [m for m in net.modules() if isinstance(m, torchvision.ops.SqueezeExcitation)]
    assert gates and all(type(gate.fc1) is type(gate.fc2) is nn.Conv2d for gate in gates)


def test_a_classifiers_weights_give_its_features() -> None:
    """torchvision's ImageNet file fits by name, and the epsilon is the one it was trained with."""
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v3_large(weights=None).eval()
    for norm in (m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_var, 0.01, 0.1)
        nn.init.normal_(norm.running_mean, std=0.1)
    ours = Backbone(BackboneConfig(name=NAME, levels=(13, 16), norm="frozen")).eval()
    assert load_backbone(ours, theirs.state_dict(), "test") == len(ours.net.state_dict())
    picture = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        middle, last = ours(picture)
        expected = theirs.features[:14](picture)
        torch.testing.assert_close(middle, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        expected = theirs.features(picture)
        torch.testing.assert_close(last, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_one_training_step_has_gradients_where_it_should(tmp_path: Path, norm: str) -> None:
    base = recipe("mobilenetv3-320-fpn")
    update = {
        "backbone": base.backbone.model_copy(update={"norm": norm, "weights": "file.pt"}),
        "preprocess": base.preprocess.model_copy(update={"min_size": 96, "max_size": 128}),
        "roi": base.roi.model_copy(update={"hidden": 16, "batch_size": 16}),
    }
    config = base.model_copy(update=update)
    torch.manual_seed(0)
    detector = Detector(FasterRCNN(config, 2), config, ("a", "b"))
    pictures = [torch.rand(3, 96, 120), torch.rand(3, 100, 90)]
    targets = [
        {"boxes": torch.tensor([[10.0, 10, 80, 80]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    losses = detector.trace(pictures, targets).losses
    assert losses is not None and losses.total.isfinite() and losses.total > 0
    losses.total.backward()
    for name, parameter in detector.model.named_parameters():
        stem = name.startswith("backbone.net.") and int(name.split(".")[2]) <= 6
        assert parameter.requires_grad is not stem, name
        if stem:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
