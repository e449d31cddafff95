"""The base of the values that pass between the stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class TensorRecord:
    """Base of the dataclasses below: moves and maps all their tensors at once."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``function`` to every tensor (also those inside tuples) and return a new record."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, TensorRecord):
                return value.map(function)
            if isinstance(value, tuple):
                return tuple(apply(v) for v in value)
            return value

        return replace(self, **{f.name: apply(getattr(self, f.name)) for f in fields(self)})  # type: ignore[type-var]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Move every tensor to ``device``."""
        return self.map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Pin every tensor, so that the copy to a GPU can run beside the step."""
        return self.map(lambda t: t.pin_memory())

    def detach(self) -> Self:
        """Cut every tensor from the graph."""
        return self.map(lambda t: t.detach())
