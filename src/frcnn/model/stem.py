"""Part of room 3: the first convolution, for pictures with another number of channels than RGB.

Letters: C channels, O outputs of the convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RGB = 3


def stem_name(net: nn.Module) -> str:
    """The name of the first convolution.

    Raises:
        ValueError: when there is none that reads three channels.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != RGB or module.groups != 1:
                break
            return name
    raise ValueError(
        "the backbone does not begin with a convolution of three channels, so it takes RGB only; "
        "use preprocess.channels=3 or another backbone"
    )


def widen_stem(net: nn.Module, channels: int) -> str:
    """Make the first convolution read C channels, in place, from the weights that it has.

    Returns:
        Its name.
    """
    name = stem_name(net)
    old = net.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    with torch.no_grad():
        weight = adapted(old.weight, channels)
    old.in_channels, old.weight = channels, nn.Parameter(weight, old.weight.requires_grad)
    return name


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Weights (O, 3, h, w) of RGB -> (O, C, h, w).

    One channel: the sum of the three, so that a gray picture gives what its RGB copy gave. Others: those of
    red, green and blue in turn, times 3 / C, so that the outputs keep their size.
    """
    if channels == RGB:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(channels) % RGB] * (RGB / channels)


def describe(channels: int) -> str:
    """In words, what ``adapted`` does."""
    if channels == 1:
        return (
            "the weights of red, green and blue are added up (3 times their mean), as for a gray RGB picture"
        )
    return f"the weights of red, green and blue are repeated in turn and multiplied by 3/{channels}"
