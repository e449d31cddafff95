"""Part of room 3: the backbone's normalisation - frozen and folded into the convolutions before it, or by
groups.

Letters: N images, C channels, H, W a map's size.

A frozen batch norm is a fixed scale and shift a channel. Folded into the convolution's weights it saves
two passes over every map, and their gradients. The weights stay trainable: while gradients are recorded,
folding happens in every forward pass, on tensors the size of the weights; without gradients the result is
kept until a weight changes, a gradient is recorded, or somebody calls ``train()`` or ``eval()``: a weight
that is changed through its ``data`` tells nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, GroupNormAct
from timm.layers.padding import pad_same, pad_same_arg
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from frcnn.model import winograd
from frcnn.model.depthwise import depthwise
from frcnn.model.fused import (
    NONE,
    FusedActivation,
    activate,
    activation,
    computed_in,
    convolve,
    fuses,
    learnt,
    pack,
)

PROBE = 64
Weight = Tensor | winograd.Kernel
"""As it is, packed, or transformed."""


class FrozenNorm(nn.Module):
    """Batch norm with fixed statistics and fixed scale and shift, then the activation of the layer it
    replaces.
    """

    def __init__(self, source: nn.BatchNorm2d) -> None:
        """Take over the numbers, epsilon and activation of a batch norm."""
        super().__init__()
        self.eps = source.eps
        self.folded = False
        self.fused = False
        self.act = source.act if isinstance(source, BatchNormAct2d) else nn.Identity()
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(source, name)
            self.register_buffer(name, value.detach().clone())
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(C,) each: norm(x) = x * scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) -> the same shape."""
        if not self.folded:
            scale, shift = self.scale_and_shift()
            x = x * scale[:, None, None].to(x.dtype) + shift[:, None, None].to(x.dtype)
        return x if self.fused and fuses(x) else self.act(x)


class FoldedConv(nn.Module):
    """A convolution that carries the scale and shift of the frozen norm behind it; same parameter names."""

    def __init__(self, source: nn.Conv2d, norm: FrozenNorm) -> None:
        """Take over the parameters of ``source``; ``norm`` is left with its activation only.

        Raises:
            ValueError: for a convolution that is not padded with a number of zeros.
        """
        super().__init__()
        if isinstance(source.padding, str) or source.padding_mode != "zeros":
            raise ValueError(
                f"a convolution padded {source.padding!r} with {source.padding_mode!r} cannot be folded; "
                "give a number of zeros"
            )
        self.weight = source.weight
        self.bias = source.bias
        self.stride, self.padding, self.dilation, self.groups = (
            source.stride,
            source.padding,
            source.dilation,
            source.groups,
        )
        self.same = isinstance(source, Conv2dSame)
        channels = {source.in_channels, source.out_channels}
        self.depthwise = channels == {source.groups}
        self.norms = (norm,)  # in a tuple, so that its buffers are not registered twice
        self._kept: tuple[tuple[object, ...], list[Tensor], Weight, Tensor] | None = None
        self.act = activation(norm.act) or NONE
        norm.folded, norm.fused = True, activation(norm.act) is not None

    def __getstate__(self) -> dict[str, Any]:
        """A copy folds for itself."""
        return {**super().__getstate__(), "_kept": None}

    def train(self, mode: bool = True) -> Self:
        """As that of every module; folds anew next time."""
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Moved, or of another format: what is kept would hold the old memory."""
        self._kept = None
        return super()._apply(fn, recurse)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) -> (N, C', H', W'), convolved and normalised, and activated where it ``fuses``."""
        learns, act = torch.is_grad_enabled(), self.act if fuses(x, computed_in(x)) else NONE
        if self.depthwise and x.device.type == "cpu" and learns:
            x, self._kept = x.to(computed_in(x)), None
            return depthwise(x, *self._fold(), self.stride, self._sides(x), self.dilation, act)
        if self.same:
            x = pad_same(x, list(self.weight.shape[-2:]), list(self.stride), list(self.dilation))
        weight, shift = self._folded(x)
        if isinstance(weight, winograd.Kernel):
            return winograd.convolve(x, weight, shift, act)
        if weight.is_mkldnn:
            return convolve(x.to(shift.dtype), weight, shift, self._geometry(), self.groups, self.act)
        padding = 0 if self.same else self.padding
        if learns and self._quick(x, weight):
            return activate(winograd.learnt(x, weight, shift), act)
        if learns and act != NONE:
            return learnt(x.to(computed_in(x)), weight, shift, self._geometry(), self.groups, act)
        return F.conv2d(x, weight, shift, self.stride, padding, self.dilation, self.groups)

    def _folded(self, x: Tensor) -> tuple[Weight, Tensor]:
        """Weight and shift (C',), packed where ``x`` is on the fused way, kept while nothing changes."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            self._kept = None
            return self._fold()
        if self.weight.is_inference():  # has no version that would tell of a change
            return self._pack(x, *self._fold())
        kind, norm = x.device.type, self.norms[0]
        low = _low_format(x)
        found = (self.weight, self.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        sources = [t for t in found if t is not None]
        versions = ((t.data_ptr(), t._version) for t in sources)
        shaped = fuses(x, computed_in(x)) or (kind == "cpu" and low is None)  # made by the size
        state = (low, kind, x.shape if shaped else (), *versions)
        kept = self._kept  # read once: another thread may keep its own meanwhile
        if kept is None or kept[0] != state:
            held = [t.detach() for t in sources]  # so that no other weight gets their address
            self._kept = kept = (state, held, *self._pack(x, *self._fold()))
        return kept[2:]

    def _pack(self, x: Tensor, weight: Tensor, shift: Tensor) -> tuple[Weight, Tensor]:
        """Both in the format to compute in, transformed where that is quick; packed where ``fuses``, as the
        activation is left out then.
        """
        low = _low_format(x)
        if low is not None:
            weight, shift = weight.to(low), shift.to(low)
        if low is None and self._quick(x, weight):
            return winograd.kernel_for(winograd.transform(weight), x.shape), shift
        if weight.dtype == computed_in(x) and fuses(x, weight.dtype):
            weight = pack(weight, self._geometry(), self.groups, x.shape)
        return weight, shift

    def _quick(self, x: Tensor, weight: Tensor) -> bool:
        padding = (0, 0) if self.same else self.padding
        return winograd.suits(x, weight, self.stride, padding, self.dilation, self.groups)

    def _sides(self, x: Tensor) -> Sequence[int]:
        """Zeros on the left, right, top and bottom."""
        kernel, stride, dilation = (
            list(each) for each in (self.weight.shape[2:], self.stride, self.dilation)
        )
        if self.same:
            return pad_same_arg(list(x.shape[2:]), kernel, stride, dilation)
        top, left = self.padding
        return left, left, top, top

    def _geometry(self) -> tuple[Sequence[int], ...]:
        return (0, 0) if self.same else self.padding, self.stride, self.dilation

    def _fold(self) -> tuple[Tensor, Tensor]:
        scale, shift = self.norms[0].scale_and_shift()
        weight = self.weight * scale[:, None, None, None]
        return weight, shift if self.bias is None else shift + self.bias * scale


def _low_format(x: Tensor) -> torch.dtype | None:
    """What autocast computes in on the device of ``x``; None where it is off, there is none, or ``x`` is of
    double precision, which it leaves alone.
    """
    kind = x.device.type
    if x.dtype == torch.float64:
        return None
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else None


def freeze_norms(net: nn.Module, fold: bool = True) -> None:
    """Replace every batch norm by a frozen one, in place, and fold it into the convolution before it."""
    replaced: dict[nn.Module, FrozenNorm] = {}
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                replaced[child] = FrozenNorm(child)
                setattr(parent, name, replaced[child])
    if fold and replaced:
        pairs = _convolutions_before_norms(net)
        for parent in list(net.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Conv2d) and child in pairs:
                    setattr(parent, name, FoldedConv(child, pairs[child]))
        _fuse_activations(net)


@torch.no_grad()
def _convolutions_before_norms(net: nn.Module) -> dict[nn.Module, FrozenNorm]:
    """Which convolution feeds which norm, and nothing else: seen by passing a small picture through."""
    made: dict[int, nn.Conv2d] = {}
    kept: list[Tensor] = []  # ids are only unique while the tensors live
    pairs: dict[nn.Module, FrozenNorm] = {}

    def after_conv(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        if module.padding_mode == "zeros" and not isinstance(module.padding, str):
            made[id(output)] = module
            kept.append(output)

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        conv = made.get(id(inputs[0]))
        if conv is not None and isinstance(module, FrozenNorm):
            pairs[conv] = module

    hooks = [m.register_forward_hook(after_conv) for m in net.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before_norm) for m in net.modules() if isinstance(m, FrozenNorm)]
    _probe(net, hooks)
    return pairs


def _probe(net: nn.Module, hooks: list[RemovableHandle]) -> None:
    """Pass a small picture through and take the hooks off again."""
    training = net.training
    with torch.inference_mode(False), torch.no_grad():  # tensors that count their versions
        channels = next((p.shape[1] for p in net.parameters() if p.ndim == 4), 3)  # of the first convolution
        net.eval()(torch.zeros(1, channels, PROBE, PROBE))
    net.train(training)
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def _fuse_activations(net: nn.Module) -> None:
    """Let convolutions apply the activation modules behind their norms, where these work in place.

    What an activation overwrites nobody else can want, so nothing but it reads the norm's output. A sum that
    is added in place before the activation shows in the tensor's version.
    """
    convs = {conv.norms[0]: conv for conv in net.modules() if isinstance(conv, FoldedConv)}
    made: dict[tuple[int, int], FoldedConv] = {}
    kept: list[Tensor] = []
    found: dict[nn.Module, FoldedConv] = {}
    uses: Counter[nn.Module] = Counter()

    def after_norm(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, FrozenNorm) and module in convs and type(module.act) is nn.Identity:
            made[id(output), output._version] = convs[module]
            kept.append(output)

    def before_act(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        uses[module] += 1
        conv = made.get((id(inputs[0]), inputs[0]._version))
        if conv is not None and getattr(module, "inplace", False):
            found[module] = conv

    acts = [m for m in net.modules() if type(m) in (nn.ReLU, nn.ReLU6)]
    hooks = [m.register_forward_hook(after_norm) for m in net.modules() if isinstance(m, FrozenNorm)]
    hooks += [m.register_forward_pre_hook(before_act) for m in acts]
    _probe(net, hooks)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            known = activation(child)
            if child in found and uses[child] == 1 and known is not None:
                found[child].act = known
                setattr(parent, name, FusedActivation(child))


def group_norms(net: nn.Module) -> None:
    """Replace every batch norm by group norm, in place (Wu and He 2018)."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNormAct2d):
                group: nn.Module = GroupNormAct(child.num_features, num_groups=groups(child.num_features))
                group.drop, group.act = child.drop, child.act
            elif isinstance(child, nn.BatchNorm2d):
                group = nn.GroupNorm(groups(child.num_features), child.num_features)
            else:
                continue
            setattr(parent, name, group)


def groups(channels: int) -> int:
    """The largest number of groups up to 32 that divides the channels."""
    return max(g for g in range(1, 33) if channels % g == 0)
