"""Room 3: declared channels and strides, freezing, and the kinds of norm."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torchvision
from torch import nn

from frcnn.config import BackboneConfig
from frcnn.model.backbones import Backbone
from frcnn.model.norms import FoldedConv, FrozenNorm
from frcnn.recipes import RECIPES, recipe

MOBILE = "torchvision/mobilenet_v3_large"


def make(name: str, **values: object) -> Backbone:
    levels = {"vgg16": (4,), MOBILE: (13, 16)}.get(name, (1, 2, 3, 4))
    return Backbone(BackboneConfig.model_validate({"name": name, "levels": levels} | values))


@cache
def of_recipe(name: str) -> Backbone:
    with torch.device("meta"):  # shapes need no weights
        return Backbone(recipe(name).backbone.model_copy(update={"weights": "none"}))


@pytest.mark.parametrize("name", RECIPES)
def test_declared_channels_and_strides_are_the_real_ones(name: str) -> None:
    backbone = of_recipe(name)
    with torch.device("meta"):
        maps = backbone(torch.empty(2, 3, 64, 128))
    assert len(maps) == len(backbone.channels) == len(backbone.strides)
    for feature, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert feature.shape == (2, channels, 64 // stride, 128 // stride)


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("r50-fpn", [256, 512, 1024, 2048], [4, 8, 16, 32]),
        ("vgg16", [512], [16]),
        ("lite0-fpn", [24, 40, 112, 320], [4, 8, 16, 32]),
        ("mobilenetv3-fpn", [160, 960], [32, 32]),
    ],
)
def test_known_channels_and_strides(name: str, channels: list[int], strides: list[int]) -> None:
    assert of_recipe(name).channels == channels and of_recipe(name).strides == strides


def test_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"no model 'resnet5O'.*resnet"):
        make("resnet5O")


def frozen_prefixes(backbone: Backbone) -> set[str]:
    frozen = [n for n, p in backbone.net.named_parameters() if not p.requires_grad]
    free = [n for n, p in backbone.net.named_parameters() if p.requires_grad]
    assert not set(frozen) & set(free)
    return {n.split(".")[0] for n in frozen}


@pytest.mark.parametrize(
    ("power", "expected"),
    [(0, set()), (1, {"conv1"}), (2, {"conv1", "layer1"}), (3, {"conv1", "layer1", "layer2"})],
)
def test_resnet_is_frozen_up_to_a_stride(power: int, expected: set[str]) -> None:
    backbone = make("resnet18", freeze=power, weights="somewhere.pt")
    assert frozen_prefixes(backbone) == expected


def test_resnet50_freezes_what_torchvision_freezes() -> None:
    """Three trainable layers of five: conv1 and layer1 stay as they are."""
    ours = make("resnet50", freeze=recipe("r50-fpn").backbone.freeze, weights="somewhere.pt")
    assert frozen_prefixes(ours) == {"conv1", "layer1"}


def test_vgg16_freezes_whole_stages() -> None:
    backbone = make("vgg16", freeze=1, weights="somewhere.pt")
    frozen = [n for n, p in backbone.net.named_parameters() if not p.requires_grad]
    free = [n for n, p in backbone.net.named_parameters() if p.requires_grad]
    assert frozen and free
    convolutions = [n for n, _ in backbone.net.named_parameters() if n.endswith("weight")]
    count = len([n for n in frozen if n.endswith("weight")])
    # conv1_1 to conv2_2: strides 1 and 2, as the classic detectors have it
    assert [n for n in frozen if n.endswith("weight")] == convolutions[:count]
    assert count == 4


def test_parameters_that_blocks_own_themselves_are_frozen_too() -> None:
    """ConvNeXt scales its residuals with a parameter of the block, not of a layer."""
    backbone = make("convnext_atto", levels=(0, 1, 2, 3), freeze=2, weights="somewhere.pt")
    free = [n for n, p in backbone.net.named_parameters() if p.requires_grad]
    assert frozen_prefixes(backbone) == {"stem_0", "stem_1", "stages_0"}
    assert free and not [n for n in free if n.startswith(("stem", "stages_0"))]


def test_nothing_is_frozen_from_scratch() -> None:
    assert frozen_prefixes(make("resnet18", freeze=3)) == set()


def picture() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", MOBILE])
def test_frozen_norm_gives_the_same_maps_as_batch_norm_in_eval_mode(name: str) -> None:
    torch.manual_seed(0)
    plain = make(name, norm="batch").eval()
    for norm in (m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    frozen = make(name, norm="frozen")
    state = {k: v for k, v in plain.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert set(frozen.state_dict()) == set(state), "the names stay, so that checkpoints fit both"
    frozen.load_state_dict(state)
    for training in (False, True):
        with torch.set_grad_enabled(training):
            for ours, theirs in zip(frozen.train(training)(picture()), plain(picture()), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())


def test_frozen_norm_has_no_parameters_and_the_convolutions_keep_theirs() -> None:
    plain, frozen = make("resnet18", norm="batch"), make("resnet18", norm="frozen")
    names = {n for n, _ in frozen.named_parameters()}
    assert names == {n for n, p in plain.named_parameters() if p.dim() == 4}
    sum(f.sum() for f in frozen(picture())).backward()
    assert all(p.grad is not None for p in frozen.parameters())


def test_epsilon_of_the_configuration_is_used() -> None:
    """The published ResNet-50 detector needs 0.0; with 1e-5 its numbers differ."""
    for norm in ("batch", "frozen"):
        backbone = make("resnet18", norm=norm, norm_eps=0.125)
        values = {m.eps for m in backbone.modules() if hasattr(m, "running_var")}
        assert values == {0.125}


def test_resnet50_equals_torchvisions_body() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    ours = make("resnet50", norm="frozen").eval()
    state = {k: v for k, v in theirs.state_dict().items() if k in ours.net.state_dict()}
    ours.net.load_state_dict(state)
    taps = torchvision.models._utils.IntermediateLayerGetter(
        theirs, {f"layer{i}": str(i) for i in range(1, 5)}
    )
    with torch.no_grad():
        for mine, other in zip(ours(picture()[:1]), taps(picture()[:1]).values(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", MOBILE])
def test_group_norm_replaces_every_batch_norm(name: str) -> None:
    backbone = make(name, norm="group")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    assert any(isinstance(m, nn.GroupNorm) for m in backbone.modules())
    one, two = backbone(picture()[:1]), backbone(picture())
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a[0], b[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("weights", "expected"), [("none", "batch"), ("package", "frozen"), ("file.pt", "frozen")]
)
def test_auto_norm_is_frozen_where_weights_are_loaded(weights: str, expected: str) -> None:
    assert BackboneConfig(weights=weights).resolved_norm == expected
    assert BackboneConfig(weights=weights, norm="group").resolved_norm == "group"


def test_folded_weights_are_kept_until_one_changes() -> None:
    backbone = make("resnet10t", norm="frozen").eval()
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    folded = [m for m in backbone.modules() if isinstance(m, FoldedConv)]
    assert folded
    with torch.inference_mode():
        first = backbone(picture)
        kept = [m._kept for m in folded]
        again = backbone(picture)
    assert all(m._kept is k is not None for m, k in zip(folded, kept, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with torch.no_grad():
        folded[0].norms[0].running_mean.add_(1.0)
        changed = backbone(picture)
    fresh = backbone(picture)  # with gradients nothing is kept
    assert all(m._kept is None for m in folded)
    assert not torch.equal(changed[0], first[0])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(changed, fresh, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_gradients_of_depthwise_convolutions(kernel: int, stride: int, dtype: torch.dtype) -> None:
    """Against the library's own gradients in fp32, of a norm that is not folded."""
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8, bias=False)
    norm = nn.BatchNorm2d(8).eval()
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        values.data.uniform_(0.5, 1.5, generator=generator)
    conv.weight.data.uniform_(-1, 1, generator=generator)
    picture = torch.rand(2, 8, 11, 14, generator=generator).to(memory_format=torch.channels_last)
    apart, folded = picture.clone().requires_grad_(), picture.to(dtype).requires_grad_()
    expected = norm(conv(apart))
    wish = torch.rand(expected.shape, generator=generator)
    expected.backward(wish)
    weight_gradient, conv.weight.grad = conv.weight.grad, None
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = FoldedConv(conv, FrozenNorm(norm))(folded)
    found.backward(wish.to(dtype))
    assert found.dtype == folded.grad.dtype == dtype and conv.weight.grad.dtype == torch.float32
    near = {"rtol": 3e-2, "atol": 0.1} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(found.float(), expected, **near)
    torch.testing.assert_close(folded.grad.float(), apart.grad, **near)
    torch.testing.assert_close(conv.weight.grad, weight_gradient, **near)
