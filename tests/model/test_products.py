"""Matrix products by the library of the convolutions: the numbers of plain ones, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from frcnn.model import products
from frcnn.model.products import Linear, linear, pack, side_by_side, suits

SHAPES = [(0, 3, 2), (1, 1, 1), (7, 33, 5), (64, 300, 91), (130, 17, 64)]
"""Rows, columns in, columns out."""


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def anyhow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of any size but the empty one, in which nothing is multiplied."""
    monkeypatch.setattr(products, "LEAST", 1)


@pytest.mark.usefixtures("anyhow")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_equal_to_a_plain_product(shape: tuple[int, int, int], biased: bool, turned: bool) -> None:
    """Turned: the input is a view, and so is the gradient."""
    rows, columns, out = shape
    given = [made(rows, columns), made(out, columns, seed=1), made(out, seed=2)]
    towards = made(rows, out, seed=3)
    if turned:
        given[0], towards = given[0].T.contiguous().T, towards.T.contiguous().T
    exact = [t.double().requires_grad_() for t in given]
    expected = F.linear(exact[0], exact[1], exact[2] if biased else None)
    expected.backward(towards.double())
    leaves = [t.detach().requires_grad_() for t in given]
    found = linear(leaves[0], leaves[1], leaves[2] if biased else None)
    found.backward(towards)
    assert found.dtype == torch.float32 and torch.allclose(found.double(), expected, atol=1e-4)
    for leaf, other in zip(leaves[: 2 + biased], exact, strict=False):
        assert leaf.grad is not None and other.grad is not None
        assert torch.allclose(leaf.grad.double(), other.grad, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(linear(given[0], given[1], given[2] if biased else None), found)


@pytest.mark.usefixtures("anyhow")
def test_only_what_is_wanted_is_computed() -> None:
    x, weight = made(8, 9), made(5, 9, seed=1).requires_grad_()
    linear(x, weight, None).sum().backward()
    assert weight.grad is not None and x.grad is None
    x.requires_grad_()
    linear(x, weight.detach(), None).sum().backward()
    assert x.grad is not None


def test_where_it_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.zeros(64, 1024), torch.zeros(64, 1024)
    assert suits(x, weight) == products.AVAILABLE
    assert not suits(x[:63], weight), "too small"
    assert not suits(x.double(), weight.double()) and not suits(x.bfloat16(), weight.bfloat16())
    assert not suits(x[None], weight) and not suits(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not suits(x, weight)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not suits(x, weight) and not pack(weight[None], 64).is_mkldnn
    with FakeTensorMode() as mode:
        assert not suits(mode.from_tensor(x), mode.from_tensor(weight))
    monkeypatch.setattr(products, "AVAILABLE", False)
    assert not suits(x, weight)


@pytest.mark.usefixtures("anyhow")
def test_second_derivatives_are_refused() -> None:
    x, weight = made(4, 3).requires_grad_(), made(2, 3, seed=1).requires_grad_()
    (first,) = torch.autograd.grad(linear(x, weight, None).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_layer_is_the_plain_layer_with_the_same_parameters() -> None:
    torch.manual_seed(0)
    layer, plain = Linear(512, 128), nn.Linear(512, 128)
    plain.load_state_dict(layer.state_dict())
    for rows in (0, 3, 100):
        x = made(rows, 512)
        assert suits(x, layer.weight) == (rows == 100 and products.AVAILABLE)
        assert torch.allclose(layer(x), plain(x), atol=1e-5)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16 and torch.equal(layer(x), plain(x))


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (3, 36, 8, 5), (70, 4, 16, 32), (5, 36, 20, 24)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("available", [False, True])
def test_side_by_side(
    size: tuple[int, int, int, int], biased: bool, available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "AVAILABLE", available and products.AVAILABLE)
    rows, groups, columns, out = size
    x, weights, bias = (
        made(rows, groups, columns),
        made(groups, out, columns, seed=1),
        made(groups, out, seed=2),
    )
    expected = torch.stack([x[:, g] @ weights[g].T for g in range(groups)], 1)
    packed = pack(weights, rows)
    assert packed.is_mkldnn == products.AVAILABLE
    found = side_by_side(x, packed, bias if biased else None)
    assert found.is_contiguous() and torch.allclose(found, expected + bias if biased else expected, atol=1e-5)
    other = made(rows + 9, groups, columns, seed=4)
    again = torch.stack([other[:, g] @ weights[g].T for g in range(groups)], 1)
    assert torch.allclose(side_by_side(other, packed, None), again, atol=1e-5), "packed for other rows"
