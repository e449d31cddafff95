from __future__ import annotations

import pytest
import torch
from torch import nn

from frcnn.config import BackboneConfig
from frcnn.model.backbones import Backbone
from frcnn.model.stem import adapted, describe, stem_name, widen_stem


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 13])
def test_weights_for_other_channels(channels: int) -> None:
    weight = torch.randn(8, 3, 5, 5)
    found = adapted(weight, channels)
    assert found.shape == (8, channels, 5, 5)
    if channels % 3 == 0 or channels == 1:  # all channels alike are answered as by RGB
        torch.testing.assert_close(found.sum(1), weight.sum(1))
    if channels > 3:
        torch.testing.assert_close(found[:, 3], found[:, 0])
        torch.testing.assert_close(found[:, 0], weight[:, 0] * 3 / channels)


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "resnet18", "vgg16", "torchvision/mobilenet_v3_large"]
)
@pytest.mark.parametrize("channels", [1, 5])
def test_backbones_read_other_channels(name: str, channels: int) -> None:
    levels = {"vgg16": (4,), "torchvision/mobilenet_v3_large": (6, 16)}.get(name, (1, 2))
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name=name, levels=levels), channels)
    assert backbone.stem and backbone.net.get_parameter(f"{backbone.stem}.weight").shape[1] == channels
    maps = backbone(torch.rand(1, channels, 64, 64))
    assert [m.shape[1] for m in maps] == list(backbone.channels)


def test_gray_is_seen_as_its_rgb_copy() -> None:
    config = BackboneConfig(name="resnet18", levels=(1, 2), norm="frozen")
    rgb, gray = Backbone(config).eval(), Backbone(config, 1).eval()
    state = rgb.net.state_dict()
    name = f"{gray.stem}.weight"
    gray.net.load_state_dict({**state, name: adapted(state[name], 1)})
    pixels = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        for one, other in zip(gray(pixels), rgb(pixels.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_an_adapted_first_convolution_is_not_frozen() -> None:
    config = BackboneConfig(name="resnet18", levels=(1, 2), weights="some.file", freeze=2)
    frozen, free = Backbone(config), Backbone(config, 6)
    assert not frozen.net.get_parameter("conv1.weight").requires_grad
    assert free.net.get_parameter("conv1.weight").requires_grad
    assert not free.net.get_parameter("layer1.0.conv1.weight").requires_grad


def test_networks_without_such_a_convolution_are_named() -> None:
    for net in (nn.Sequential(), nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(3, 8, 1))):
        with pytest.raises(ValueError, match=r"takes RGB only; use preprocess\.channels=3"):
            stem_name(net)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False))
    assert widen_stem(net, 2) == "0" and net(torch.rand(1, 2, 9, 9)).shape == (1, 8, 7, 7)
    assert "added up" in describe(1) and "3/5" in describe(5)
