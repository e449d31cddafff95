"""The RPN head's gradients at the cells that have one: those of plain convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import RpnConfig
from frcnn.model import sparse
from frcnn.model.rpn import RpnHead
from frcnn.model.sparse import Layers, cells_of, few, outputs

SIZES = [(9, 13), (5, 7), (1, 4), (1, 1)]
CORNERS = [(0, 0, 0, 0), (0, 1, 8, 12), (0, 1, 8, 11), (1, 0, 4, 0), (2, 1, 0, 2), (3, 0, 0, 0)]
"""Level, picture, row and column of cells."""


def made(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def layers(channels: int = 6, width: int = 8, count: int = 5, dtype: torch.dtype = torch.float64) -> Layers:
    shapes = [(width, channels, 3, 3), (width,), (count, width, 1, 1), (count,)]
    return Layers(*(made(*shape, seed=i, dtype=dtype).requires_grad_() for i, shape in enumerate(shapes)))


def plain(maps: list[Tensor], given: Layers) -> list[Tensor]:
    hidden = [F.conv2d(map, given.hidden, given.hidden_shift, padding=1).relu() for map in maps]
    return [F.conv2d(map, given.output, given.output_shift) for map in hidden]


def gradients_at(reach: list[tuple[int, int, int, int]], images: int = 2, count: int = 5) -> list[Tensor]:
    """Gradients (N, K, H, W) that are zero but for one channel of these cells."""
    grads = [torch.zeros(images, count, *size, dtype=torch.float64) for size in SIZES]
    for i, (level, image, row, column) in enumerate(reach):
        grads[level][image, i % count, row, column] = 1.0 + i
    return grads


def check_gradients(grads: list[Tensor]) -> list[Tensor]:
    given = layers()
    maps = [made(len(grad), 6, *grad.shape[2:], seed=20 + i) for i, grad in enumerate(grads)]
    wanted = [*given.flat(), *(map.requires_grad_() for map in maps)]
    ours, theirs = outputs(maps, given), plain(maps, given)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-12)
    found = torch.autograd.grad(ours, wanted, grads)
    for mine, other in zip(found, torch.autograd.grad(theirs, wanted, grads), strict=True):
        assert mine.shape == other.shape and torch.allclose(mine, other, atol=1e-11)
    return list(found)


def test_no_image_and_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_dense", None)
    assert all(not grad.any() for grad in check_gradients(gradients_at([], images=0)))
    assert all(not grad.any() for grad in check_gradients(gradients_at([])))


def test_equal_to_plain_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_dense", None)
    assert all(grad.any() for grad in check_gradients(gradients_at(CORNERS)))


def test_gradients_everywhere_are_left_to_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_hidden_gradient", None)
    check_gradients([made(2, 5, *size, seed=40 + i) for i, size in enumerate(SIZES)])


@pytest.mark.parametrize("most", [0.0, 1.0])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_of_the_size_that_winograd_takes(
    most: float, memory: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp32, 128 channels, a map of 24 x 30 and one that is too small for it."""
    monkeypatch.setattr(sparse, "MOST", most)
    given = layers(128, 128, 15, torch.float32)
    exact = [tensor.detach().double().requires_grad_() for tensor in given.flat()]
    maps = [made(2, 128, *size, seed=i, dtype=torch.float32) for i, size in enumerate([(24, 30), (7, 8)])]
    maps = [map.to(memory_format=memory).requires_grad_() for map in maps]
    exact_maps = [map.detach().double().requires_grad_() for map in maps]
    grads = [torch.zeros(2, 15, 24, 30), torch.zeros(2, 15, 7, 8)]
    grads[0][:, 3, ::5, ::7], grads[1][1, :, 2, 2] = 1.0, -2.0
    ours, theirs = outputs(maps, given), plain(exact_maps, Layers(*exact))
    found = torch.autograd.grad(ours, [*given.flat(), *maps], grads)
    expected = torch.autograd.grad(theirs, [*exact, *exact_maps], [grad.double() for grad in grads])
    for mine, other in zip((*ours, *found), (*theirs, *expected), strict=True):
        assert (mine - other).abs().max() < 2e-5 * other.abs().max()


@pytest.mark.parametrize("most", [0.0, 1.0])
@pytest.mark.parametrize("learns", [(0,), (1,), (2, 3), (4,), (6, 7)])
def test_only_what_learns_gets_one(
    most: float, learns: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers 0 to 3 are the parameters, the others the maps."""
    monkeypatch.setattr(sparse, "MOST", most)
    maps = [made(2, 6, *size, seed=i) for i, size in enumerate(SIZES)]
    tensors = [*layers().flat(), *maps]
    tensors = [tensor.detach().requires_grad_(i in learns) for i, tensor in enumerate(tensors)]
    for make in (outputs, plain):
        found = make(tensors[4:], Layers(*tensors[:4]))
        sum(
            (map.sin() * grad).sum() for map, grad in zip(found, gradients_at(CORNERS), strict=True)
        ).backward()
        if make is outputs:
            first = [tensor.grad for tensor in tensors]
            for tensor in tensors:
                tensor.grad = None
    for i, (mine, tensor) in enumerate(zip(first, tensors, strict=True)):
        assert (mine is not None) == (i in learns)
        assert mine is None or (tensor.grad is not None and torch.allclose(mine, tensor.grad, atol=1e-11))


def test_what_is_no_number_is_not_lost() -> None:
    head = RpnHead(6, 3, RpnConfig(batch_size=1))
    nn.init.ones_(head.conv[0].bias)  # no cell is cut off by the activation
    logits, _ = head([torch.ones(1, 6, 4, 5, requires_grad=True)])
    (logits[0, 7] * float("nan")).backward()
    for module in (head.objectness, head.conv[0]):
        assert module.weight.grad is not None and module.weight.grad.isnan().any()
    head.zero_grad()
    head([torch.full((1, 6, 4, 5), float("nan"))])[0][0, 7].backward()
    assert head.conv[0].weight.grad is not None and head.conv[0].weight.grad.isnan().any()


def test_cells() -> None:
    grad = torch.zeros(2, 3, 4, 5)
    assert len(cells_of(grad).index) == 0 and len(cells_of(grad[:0]).index) == 0
    grad[0, 1, 0, 2], grad[1, 2, 3, 4], grad[1, 0, 3, 4] = -1.0, float("nan"), 2.0
    assert cells_of(grad).index.tolist() == [2, 39]


def test_few() -> None:
    maps = [torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 1, 5)]
    assert few(0, []) and few(10, maps) and not few(11, maps)


def plain_head(head: RpnHead, features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Its layers one after the other, as they are."""
    hidden = [head.conv(feature) for feature in features]
    logits = torch.cat([head._flatten_logits(head.objectness(map)) for map in hidden], 1)
    deltas = torch.cat([head.deltas(map).permute(0, 2, 3, 1).flatten(1) for map in hidden], 1)
    return logits.unflatten(1, (-1, 2)) if head.outputs == 2 else logits, deltas.unflatten(1, (-1, 4))


def loss(logits: Tensor, deltas: Tensor) -> Tensor:
    rows, index = torch.arange(2)[:, None], torch.tensor([[0, 5, 351], [17, 200, 120]])
    return logits[rows, index].square().sum() + deltas[rows, index].sin().sum()


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", ["sigmoid", "interleaved", "grouped"])
def test_the_head_learns_as_its_layers_would(kind: str, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the same numbers where nothing is recorded."""
    monkeypatch.setattr(sparse, "_dense", None)
    objectness = (
        {"objectness": "sigmoid"} if kind == "sigmoid" else {"objectness": "softmax", "channel_order": kind}
    )
    head = RpnHead(6, 3, RpnConfig.model_validate({**objectness, "depth": depth, "batch_size": 3})).double()
    other = copy.deepcopy(head)
    features = [made(2, 6, *size, seed=i) for i, size in enumerate(SIZES)]
    with torch.no_grad():
        before = head(features)
    found, expected = head(features), plain_head(other, features)
    for mine, kept, theirs in zip(found, before, expected, strict=True):
        assert torch.allclose(mine.double(), theirs, atol=1e-6) and torch.allclose(mine, kept, atol=1e-6)
    loss(*found).backward()
    loss(*expected).backward()
    for (name, mine), theirs in zip(head.named_parameters(), other.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6), name


def test_a_kernel_kept_for_detection_is_forgotten() -> None:
    """An optimiser may write to ``data``, which no version of a tensor tells."""
    head = RpnHead(128, 3, RpnConfig(batch_size=1))
    features = [made(1, 128, 24, 30, dtype=torch.float32)]
    for _ in range(2):
        with torch.no_grad():
            before = head(features)[0]
        head(features)[0][0, 5].backward()
        for parameter in head.parameters():
            assert parameter.grad is not None or parameter.ndim == 1 or parameter is head.deltas.weight
            if parameter.grad is not None:
                parameter.data.sub_(parameter.grad)
        with torch.no_grad():
            after, fresh = head(features)[0], copy.deepcopy(head)(features)[0]
        assert torch.equal(after, fresh) and not torch.equal(after, before)


def test_in_low_precision_as_exact_as_convolutions() -> None:
    """Against the gradients in fp32: bf16's own error, as plain convolutions have it."""
    torch.manual_seed(0)
    head = RpnHead(32, 3, RpnConfig(batch_size=28)).to(memory_format=torch.channels_last)
    features = [
        made(2, 32, *size, seed=i, dtype=torch.float32) for i, size in enumerate([(24, 30), (12, 15)])
    ]
    index = torch.cat([torch.arange(0, 2700, 193), torch.arange(1000, 1014)])  # neighbours, too

    def weights(low: bool, of: RpnHead) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            maps = [feature.clone().requires_grad_() for feature in features]
            logits, deltas = of(maps) if of is head else plain_head(of, maps)
            (logits[:, index].float().sin().sum() + deltas[:, index].float().cos().sum()).backward()
        grads = [tensor.grad for tensor in (*of.parameters(), *maps)]
        assert all(grad is not None and grad.dtype == torch.float32 for grad in grads)
        return torch.cat([grad.flatten() for grad in grads if grad is not None])

    plain_one, exact_one = copy.deepcopy(head), copy.deepcopy(head)
    ours, theirs, exact = weights(True, head), weights(True, plain_one), weights(False, exact_one)
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm() < 0.02 * exact.norm()


CHANGES = [
    "kernel",
    "norm",
    "hook",
    "hook of the outputs",
    "backward hook",
    "output",
    "no bias",
    "padding",
    "forward",
]


@pytest.mark.parametrize("change", [*CHANGES, "many", "nothing"])
def test_plain_layers_where_it_does_not_serve(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody put into the head works in training as in detection."""
    config = RpnConfig(output_kernel=3 if change == "kernel" else 1, batch_size=30 if change == "many" else 4)
    head = RpnHead(6, 3, config)
    heard: list[nn.Module] = []
    if change == "norm":
        head.conv.insert(1, nn.GroupNorm(2, 6))
    elif change == "hook":
        head.conv[0].register_forward_hook(lambda module, *_: heard.append(module))
    elif change == "hook of the outputs":
        head.deltas.register_forward_hook(lambda module, *_: heard.append(module))
    elif change == "backward hook":
        head.conv.register_full_backward_hook(lambda *_: None)
    elif change == "padding":
        head.conv[0].padding_mode = "reflect"
    elif change == "forward":
        head.objectness.forward = lambda x: 2 * nn.Conv2d.forward(head.objectness, x)  # type: ignore[method-assign]
    elif change == "output":
        head.deltas = nn.Sequential(head.deltas)  # type: ignore[assignment]
    elif change == "no bias":
        head.objectness.register_parameter("bias", None)
    features = [made(1, 6, 4, 5, dtype=torch.float32)]
    monkeypatch.setattr(sparse, "outputs", None)
    if change == "nothing":
        with pytest.raises(TypeError):
            head(features)
        return
    logits, deltas = head(features)
    expected = plain_head(head, features)
    assert torch.allclose(logits, expected[0], atol=1e-6) and torch.allclose(deltas, expected[1], atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(head(features)[0], logits, atol=1e-6)
    assert len(heard) == (3 if change.startswith("hook") else 0)


def test_a_head_without_hidden_layers() -> None:
    head = RpnHead(6, 3, RpnConfig(batch_size=4))
    head.conv = nn.Sequential()
    features = [made(1, 6, 4, 5, dtype=torch.float32)]
    assert torch.equal(head(features)[0], plain_head(head, features)[0])
