"""3x3 convolutions by Winograd's filtering: the numbers of plain ones, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import BackboneConfig
from frcnn.model import winograd
from frcnn.model.backbones import Backbone
from frcnn.model.fused import NONE, RELU
from frcnn.model.winograd import Conv3x3, Kernel, convolve, kernel_for, learnt, suits, transform

SIZES = [(1, 1, 1), (1, 4, 4), (1, 6, 9), (2, 5, 13), (3, 7, 7), (1, 41, 67)]
"""Pictures, height, width: of one tile, of whole tiles, and with a rest."""


def made(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last)


def kernel(weight: Tensor, x: Tensor) -> Kernel:
    return kernel_for(transform(weight), x.shape)


def test_the_transforms_are_exact() -> None:
    """Of one tile, in fp64, by the definition of a convolution."""
    outputs, kernel, pixels = winograd._matrices()
    tile, filter = made(6, 6, dtype=torch.float64), made(3, 3, seed=1, dtype=torch.float64)
    found = outputs @ ((kernel @ filter @ kernel.T) * (pixels @ tile @ pixels.T)) @ outputs.T
    expected = [[(tile[i : i + 3, j : j + 3] * filter).sum() for j in range(4)] for i in range(4)]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [1, 7, 128])
def test_equal_to_a_plain_convolution(
    size: tuple[int, int, int], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "PIECE", piece)
    n, height, width = size
    x, weight, shift = made(n, 20, height, width), made(24, 20, 3, 3, seed=1) / 13, made(24, seed=2)
    expected = F.conv2d(x.double(), weight.double(), shift.double(), padding=1)
    for pixels in (x, channels_last(x)):
        found = convolve(pixels, kernel(weight, pixels), shift)
        assert found.shape == expected.shape and found.dtype == torch.float32
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert (found - expected).abs().max() < 1e-5
    bare = convolve(x, kernel(weight, x), None)
    assert (bare + shift[:, None, None] - expected).abs().max() < 1e-5


def test_activations() -> None:
    x, weight = 9 * made(1, 8, 6, 6), made(8, 8, 3, 3, seed=1)
    plain = convolve(x, kernel(weight, x), None, NONE)
    assert torch.equal(convolve(x, kernel(weight, x), None, ("relu", ())), plain.relu())
    assert torch.equal(convolve(x, kernel(weight, x), None, ("hardtanh", (0.0, 6.0))), plain.clamp(0, 6))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("least", [0, 1000])
def test_gradients_are_those_of_a_plain_convolution(
    size: tuple[int, int, int], biased: bool, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "PIECE", 12)
    monkeypatch.setattr(winograd, "LEARNT_CHANNELS", least)
    monkeypatch.setattr(winograd, "LEARNT_TILES", least)
    n, height, width = size
    given = made(n, 12, height, width), made(10, 12, 3, 3, seed=1) / 10, made(10, seed=2)
    towards = made(n, 10, height, width, seed=3)
    exact = [t.double().requires_grad_() for t in given]
    F.conv2d(exact[0], exact[1], exact[2] if biased else None, padding=1).backward(towards.double())
    leaves = [t.clone().requires_grad_() for t in given]
    learnt(channels_last(leaves[0]), leaves[1], leaves[2] if biased else None).backward(towards)
    for leaf, other in zip(leaves[: 2 + biased], exact, strict=False):
        assert leaf.grad is not None and other.grad is not None
        assert (leaf.grad - other.grad).abs().max() < 1e-5 * max(1.0, float(other.grad.abs().max()))


def test_only_what_is_wanted_is_computed() -> None:
    x, weight = made(1, 8, 8, 8), made(8, 8, 3, 3, seed=1).requires_grad_()
    learnt(x, weight, None).sum().backward()
    assert weight.grad is not None and x.grad is None
    x = x.requires_grad_()
    learnt(x, weight.detach(), None).sum().backward()
    assert x.grad is not None


def test_where_it_suits() -> None:
    x, weight = made(1, 128, 40, 40), made(128, 128, 3, 3)
    assert suits(x, weight) and suits(x, made(128, 128, 3, 3))
    assert not suits(x[:, :, :15], weight) and not suits(x[..., :15], weight)
    assert not suits(x[..., :16], made(512, 128, 3, 3)), "the kernel is larger than the map"
    assert not suits(made(1, 64, 40, 40), made(64, 64, 3, 3)), "few channels"
    assert not suits(x, made(128, 128, 1, 1)) and not suits(x, made(128, 128, 5, 5))
    for plain in ({"stride": (2, 2)}, {"padding": (0, 0)}, {"dilation": (2, 2)}, {"groups": 2}):
        assert not suits(x, weight, **plain)  # type: ignore[arg-type]
    assert not suits(x.double(), weight.double()) and not suits(x.bfloat16(), weight.bfloat16())
    assert not suits(x.to("meta"), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not suits(x, weight)
    torch.set_float32_matmul_precision("medium")
    try:
        assert not suits(x, weight)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_layer_is_the_plain_layer_with_the_same_parameters() -> None:
    torch.manual_seed(0)
    layer, plain = Conv3x3(128, 128), nn.Conv2d(128, 128, 3, padding=1)
    plain.load_state_dict(layer.state_dict())
    x = made(1, 128, 44, 41)
    with torch.no_grad():
        assert layer._kept is None and (layer(x) - plain(x)).abs().max() < 3e-5
        kept = layer._kept
        assert kept is not None
        layer(x)
        assert layer._kept is kept, "the kernel is transformed once"
        assert copy.deepcopy(layer)._kept is None
        layer.weight.mul_(2.0)
        plain.weight.mul_(2.0)
        assert (layer(x) - plain(x)).abs().max() < 6e-5, "and anew when it has changed"
    layer(x).square().mean().backward()
    plain(x).square().mean().backward()
    assert layer._kept is None
    for mine, other in zip(layer.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and other.grad is not None
        assert (mine.grad - other.grad).abs().max() < 1e-5 * float(other.grad.abs().max())


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        layer, x = Conv3x3(128, 128), made(1, 128, 44, 41)
        first = layer(x)
        layer.weight.mul_(2.0)
        assert layer._kept is None and not torch.equal(layer(x), first)


@pytest.mark.parametrize("train", [False, True])
def test_folded_convolutions_of_a_backbone_use_it(train: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With activations inside and residual sums, which come after."""
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="resnet18", levels=(1, 2, 3), norm="frozen")).eval()
    for key, value in backbone.named_buffers():  # else the last norm of every block multiplies by zero
        if key.endswith("weight"):
            value.uniform_(0.5, 1.5)
    x, calls = channels_last(made(2, 3, 160, 224)), list[int]()
    whole = convolve

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(1)
        return whole(*arguments)  # type: ignore[arg-type]

    def look() -> list[Tensor]:
        backbone.zero_grad()
        with torch.set_grad_enabled(train):
            maps = backbone(x)
        if train:
            sum(m.square().mean() for m in maps).backward()
            grads = [p.grad for p in backbone.parameters() if p.grad is not None]
            assert grads
            maps = [*maps, *grads]
        return [m.detach() for m in maps]

    monkeypatch.setattr(winograd, "convolve", counted)
    quick = look()
    assert calls
    monkeypatch.setattr(winograd, "suits", lambda *_: False)
    calls.clear()
    backbone = copy.deepcopy(backbone)  # without what it keeps
    for mine, other in zip(quick, look(), strict=True):
        assert (mine - other).abs().max() < 1e-4 * other.abs().max()
    assert not calls


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("images", "channels", "side"), [(0, 8, 9), (2, 8, 9), (1, 128, 24)])
def test_with_an_activation(
    low: bool, learns: bool, bias: bool, images: int, channels: int, side: int
) -> None:
    """In one call or two, with kept weights or not: the numbers of a plain convolution and a ReLU."""
    conv = Conv3x3(channels, channels, bias)
    for memory in (torch.contiguous_format, torch.channels_last):
        x = made(images, channels, side, side + 3).to(memory_format=memory)
        shift = None if conv.bias is None else conv.bias.double()
        expected = F.conv2d(x.double(), conv.weight.double(), shift, padding=1).relu()
        for _ in range(2):
            with torch.set_grad_enabled(learns), torch.autocast("cpu", torch.bfloat16, enabled=low):
                found = conv(x, RELU)
            assert found.dtype == (torch.bfloat16 if low else torch.float32) and found.shape == expected.shape
            assert found.requires_grad == learns
            assert torch.allclose(found.double(), expected, atol=2e-2 if low else 2e-5)


def test_kept_weights_are_few_and_follow_the_weight() -> None:
    conv = Conv3x3(8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for side in range(3, 3 + 2 * winograd.KEPT):
            conv(made(1, 8, side, side), RELU)
        assert conv._kept is not None and 0 < len(conv._kept[2]) <= winograd.KEPT
        x = made(1, 8, 3, 3)
        before = conv(x, RELU)
        conv.weight.mul_(2)
        assert not torch.equal(conv(x, RELU), before) and torch.equal(
            conv(x, RELU), copy.deepcopy(conv)(x, RELU)
        )
    with torch.inference_mode():
        made_here = Conv3x3(8, 8)
        assert torch.allclose(
            made_here(x, RELU), F.conv2d(x, made_here.weight, made_here.bias, padding=1).relu(), atol=1e-5
        )


def test_maps_of_many_sizes_share_kernels() -> None:
    """Twice round, so that every size meets kernels that another one has left."""
    conv = Conv3x3(128, 128)
    sizes = [(1, 44, 41), (1, 64, 80), (2, 80, 64), (1, 128, 96), (3, 41, 44), (1, 24, 24), (2, 18, 130)]
    with torch.no_grad():
        for n, height, width in sizes * 2:
            x = made(n, 128, height, width, seed=height)
            assert suits(x, conv.weight)
            expected = F.conv2d(x, conv.weight, conv.bias, padding=1)
            assert torch.allclose(conv(x), expected, atol=5e-5)
    assert conv._kept is not None
    kept = conv._kept[2]
    assert ("kernel", winograd.PIECE) in kept and 1 < len(kept) <= winograd.KEPT_KERNELS
    with torch.no_grad():
        for tiles in range(10):
            conv._keep(("kernel", 1000 + tiles), lambda: None, winograd.KEPT_KERNELS)
    assert list(kept) == [("kernel", 1006 + i) for i in range(4)], "the oldest go"


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((1, 256, 200, 272), 2, 68),
        ((1, 256, 50, 68), 7, 17),  # 13 rows in two pieces
        ((4, 256, 80, 108), 1, 27),
        ((2, 256, 9, 520), 1, 65),
        ((500, 256, 9, 9), 1, 1),
        ((1, 256, 1, 1), 1, 1),
        ((0, 256, 0, 0), 1, 1),
    ],
)
def test_pieces(size: tuple[int, int, int, int], rows: int, columns: int) -> None:
    piece = winograd.piece_of(size)
    assert (piece.rows, piece.columns) == (rows, columns)
    assert piece.tiles == max(size[0], 1) * rows * columns
    n, h, w = size[0], -(-size[2] // 4), -(-size[3] // 4)
    if n:
        made_in_all = -(-h // rows) * rows * -(-w // columns) * columns
        assert h * w <= made_in_all <= 1.2 * h * w, "little is made twice"
        assert piece.tiles <= max(1.5 * winograd.PIECE, n)


def test_second_derivatives_are_those_of_a_plain_convolution() -> None:
    x, weight = made(1, 6, 9, 8), made(5, 6, 3, 3, seed=1)

    def penalty(x: Tensor, weight: Tensor, quick: bool) -> Tensor:
        out = learnt(x, weight, None) if quick else F.conv2d(x, weight, padding=1)
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weight)
        return second

    found, expected = (
        penalty(x.clone().requires_grad_(), weight.clone().requires_grad_(), quick) for quick in (True, False)
    )
    assert expected.abs().max() > 1 and torch.allclose(found, expected, rtol=1e-3, atol=1e-2)


def test_double_numbers_stay_double_under_autocast() -> None:
    conv = Conv3x3(8, 8).double()
    x = made(1, 8, 5, 5, dtype=torch.float64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert conv(x, RELU).dtype == torch.float64
