"""The averaged weights: what is evaluated, and what ``best.safetensors`` and ``last.safetensors`` hold."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Average(Generic[Network]):
    """A second network whose parameters follow those of the first as a moving average.

    The decay is min(decay, (1 + t) / (10 + t)) at update t = 1, 2, ..., because in a short run
    the average would else stay near its start. Buffers (the statistics of a batch norm) are copied.

    Attributes:
        network: the averaged network; the trained one itself where ``decay`` is 0.
        updates: how often it was updated.
    """

    def __init__(self, network: Network, decay: float) -> None:
        """``decay`` in [0, 1); 0 averages nothing."""
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(network).requires_grad_(False) if decay else network

    def current_decay(self) -> float:
        """Share of the old average that the latest update kept."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Move towards the weights of ``network`` after an optimizer step."""
        if not self.decay:
            return
        self.updates += 1
        # a frozen parameter never moves, so only what is trained needs the arithmetic
        mine_now: list[Tensor] = []
        theirs_now: list[Tensor] = []
        for mine, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            if theirs.requires_grad:
                mine_now.append(mine)
                theirs_now.append(theirs)
        torch._foreach_lerp_(mine_now, theirs_now, 1 - self.current_decay())
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return self.network.state_dict()

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Continue from saved averaged weights."""
        self.network.load_state_dict(state)
        self.updates = updates
