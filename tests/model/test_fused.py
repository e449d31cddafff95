"""Convolution and activation in one call: the numbers and gradients of both apart."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from frcnn.config import BackboneConfig
from frcnn.model import fused
from frcnn.model.backbones import Backbone
from frcnn.model.fused import Activation, FusedActivation, activation
from frcnn.model.norms import FoldedConv

MOBILE = "torchvision/mobilenet_v3_large"
NAMES = {"resnet10t": (1, 2, 3, 4), "tf_efficientnet_lite0": (1, 2), MOBILE: (13, 16)}
needed = pytest.mark.skipif(not fused.AVAILABLE, reason="this PyTorch has no fused convolution for the CPU")


def make(name: str) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(BackboneConfig(name=name, levels=NAMES[name], norm="frozen")).eval()
    generator = torch.Generator().manual_seed(1)
    for key, value in backbone.named_buffers():  # statistics that do something
        if key.endswith(("bias", "running_mean")):
            value.uniform_(-0.5, 0.5, generator=generator)
    return backbone


def pixels(batch: int = 1, height: int = 64, width: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(batch, 3, height, width, generator=generator).to(memory_format=torch.channels_last)


def test_what_is_not_known_is_not_fused() -> None:
    assert activation(nn.SiLU()) is None and activation(nn.Identity()) == fused.NONE
    assert activation(nn.ReLU()) == ("relu", ()) and activation(nn.ReLU6()) == ("hardtanh", (0.0, 6.0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("low", [False, True])
def test_fused_is_equal_to_apart(name: str, low: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make(name)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
        together = [backbone(pixels()), backbone(pixels(2, 32, 64)), backbone(pixels())]
        monkeypatch.setattr(fused, "AVAILABLE", False)
        apart = [backbone(pixels()), backbone(pixels(2, 32, 64)), backbone(pixels())]
    for maps, others in zip(together, apart, strict=True):
        for a, b in zip(maps, others, strict=True):
            scale = b.float().abs().max()
            assert a.dtype == b.dtype and scale > 0
            assert (a.float() - b.float()).abs().max() < scale * (3e-2 if low else 1e-5)


@needed
@pytest.mark.parametrize(
    ("name", "inside", "behind"), [("resnet10t", 0, 7), ("tf_efficientnet_lite0", 32, 0)]
)
def test_activations_are_found(name: str, inside: int, behind: int) -> None:
    """Those of a residual sum are not: what they read is more than one convolution's output."""
    backbone = make(name)
    norms = [m.norms[0] for m in backbone.modules() if isinstance(m, FoldedConv)]
    wrapped = [m for m in backbone.modules() if isinstance(m, FusedActivation)]
    acts = [m for m in backbone.modules() if isinstance(m, FoldedConv) and m.act != fused.NONE]
    assert len(wrapped) == behind and len(acts) == behind + inside
    assert sum(not isinstance(norm.act, nn.Identity) for norm in norms) == inside


@needed
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("low", [False, True])
def test_gradients_are_those_of_apart(name: str, low: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    whole = torch.ops.mkldnn._convolution_pointwise

    def counted(*given: object) -> torch.Tensor:
        calls.append(given[7])
        return whole(*given)

    def learn(backbone: Backbone) -> list[torch.Tensor]:
        x = pixels(2).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            maps = backbone(x)
        sum(m.float().square().mean() for m in maps).backward()
        grads = [p.grad for p in backbone.parameters() if p.grad is not None]
        assert len(grads) > 10 and x.grad is not None
        return [*(m.detach().float() for m in maps), *grads, x.grad]

    with monkeypatch.context() as patch:
        patch.setattr(torch.ops.mkldnn, "_convolution_pointwise", counted)
        together = learn(make(name))
    assert {"relu", "hardtanh"} & set(calls), "in one call"
    monkeypatch.setattr(fused, "AVAILABLE", False)
    for mine, other in zip(together, learn(make(name)), strict=True):
        assert mine.dtype == other.dtype
        apart = (mine.double() - other.double()).norm()
        assert apart <= (5e-2 if low else 1e-4) * other.double().norm()


@needed
@pytest.mark.parametrize("act", [("none", ()), ("relu", ()), ("hardtanh", (0.0, 6.0))])
@pytest.mark.parametrize(("groups", "kernel", "stride"), [(1, 1, 1), (1, 3, 2), (4, 3, 1), (2, 5, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_layer_learns_as_apart(
    act: Activation, groups: int, kernel: int, stride: int, dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16 and not fused.LOW_AVAILABLE:
        pytest.skip("no bf16 on this processor")
    given = (
        6 * torch.randn(2, 8, 9, 11).to(memory_format=torch.channels_last),
        torch.randn(12, 8 // groups, kernel, kernel),
        torch.randn(12),
    )
    apart = [t.to(dtype).clone().requires_grad_() for t in given]
    out = F.conv2d(*apart, (stride, stride), kernel // 2, 1, groups)
    out = {"none": lambda x: x, "relu": F.relu, "hardtanh": F.relu6}[act[0]](out)
    towards = torch.randn(out.shape)
    out.backward(towards.to(dtype))
    mine = [given[0].to(dtype).clone().requires_grad_(), *(t.clone().requires_grad_() for t in given[1:])]
    geometry = ((kernel // 2,) * 2, (stride, stride), (1, 1))
    found = fused.learnt(mine[0], mine[1], mine[2], geometry, groups, act)
    found.backward(towards.to(dtype))
    near = 3e-2 if dtype == torch.bfloat16 else 1e-5
    assert found.dtype == dtype and (found - out).abs().max() < near * out.abs().max()
    for leaf, other in zip(mine, apart, strict=True):
        assert leaf.grad is not None and other.grad is not None and leaf.grad.dtype == leaf.dtype
        assert (leaf.grad - other.grad).norm() < near * other.grad.norm()


@needed
def test_a_layer_has_second_derivatives() -> None:
    x, weight, shift = torch.randn(1, 4, 5, 6), torch.randn(6, 4, 3, 3), torch.randn(6)

    def penalty(x: torch.Tensor, weight: torch.Tensor, one_call: bool) -> torch.Tensor:
        if one_call:
            out = fused.learnt(x, weight, shift, ((1, 1), (1, 1), (1, 1)), 1, fused.RELU)
        else:
            out = F.conv2d(x, weight, shift, padding=1).relu()
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weight)
        return second

    found, expected = (
        penalty(x.clone().requires_grad_(), weight.clone().requires_grad_(), each) for each in (True, False)
    )
    assert expected.abs().max() > 1 and torch.allclose(found, expected, rtol=1e-3, atol=1e-2)


@needed
def test_a_copy_packs_for_itself() -> None:
    backbone = make("resnet10t")
    with torch.inference_mode():
        expected = backbone(pixels())
        twin = copy.deepcopy(backbone)
        assert all(m._kept is None for m in twin.modules() if isinstance(m, FoldedConv))
        assert torch.equal(twin(pixels())[0], expected[0])


@needed
def test_weights_made_in_inference_mode_are_packed_every_time() -> None:
    """Their versions are not counted, and the activation behind relies on the packed way."""
    with torch.inference_mode():
        backbone, ordinary = copy.deepcopy(make("resnet10t")), make("resnet10t")
        assert next(backbone.parameters()).is_inference()
        assert torch.equal(backbone(pixels())[0], ordinary(pixels())[0])
        next(backbone.parameters()).mul_(2.0)
        assert not torch.equal(backbone(pixels())[0], ordinary(pixels())[0])


@needed
def test_bf16_without_the_operators_support_takes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stem sees float32 pixels, though autocast computes in bf16."""
    backbone = make("resnet10t")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = backbone(pixels())

        def refuse(*_: object) -> None:
            raise RuntimeError("mkldnn bf16 path needs the cpu support")

        monkeypatch.setattr(fused, "LOW_AVAILABLE", False)
        monkeypatch.setattr("frcnn.model.norms.pack", refuse)
        monkeypatch.setattr("frcnn.model.norms.convolve", refuse)
        backbone.eval()  # nothing is kept
        found = backbone(pixels())
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype == torch.bfloat16
        assert (mine.float() - theirs.float()).abs().max() < 3e-2 * theirs.float().abs().max()


def test_weights_that_are_changed_through_their_data_count_after_eval() -> None:
    """As weights that are averaged and swapped for an evaluation are."""
    backbone, other = make("resnet10t"), make("resnet10t")
    with torch.inference_mode():
        before = backbone(pixels())[0]
    for mine, theirs in zip(backbone.parameters(), other.parameters(), strict=True):
        theirs.data.mul_(1.1)
        mine.data.copy_(theirs.data)
    backbone.eval()
    with torch.inference_mode():
        after, fresh = backbone(pixels())[0], other(pixels())[0]
    assert torch.equal(after, fresh) and not torch.equal(after, before)


def test_weights_for_one_call_are_not_kept_for_the_next() -> None:
    """Tensors that are gone leave their addresses to others of the same version."""
    backbone = make("resnet10t")
    names = [name for name, _ in backbone.named_parameters()]
    with torch.no_grad():
        for factor in (1.0, 1.1, 1.2, 1.3):
            passing = {name: factor * backbone.get_parameter(name) for name in names}
            found = torch.func.functional_call(backbone, passing, (pixels(),))[0]
            del passing
            fixed = make("resnet10t")
            for parameter in fixed.parameters():
                parameter.mul_(factor)
            assert torch.equal(found, fixed(pixels())[0]), factor


@pytest.mark.parametrize("low", [False, True])
def test_other_formats_take_the_plain_way(low: bool) -> None:
    """Autocast leaves double precision alone."""
    backbone = make("resnet10t").double()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
        assert backbone(pixels().double())[0].dtype == torch.float64


def test_what_is_kept_does_not_outlive_a_move() -> None:
    backbone = make("resnet10t")
    with torch.inference_mode():
        backbone(pixels())
    layers = [m for m in backbone.modules() if isinstance(m, FoldedConv)]
    assert any(layer._kept for layer in layers)
    backbone.to(torch.float64)
    assert not any(layer._kept for layer in layers)
