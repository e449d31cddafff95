"""Finds where the host would wait for a GPU: on a GPU itself, and without one on torch's ``meta`` device.

The tensors of that device have shapes and no numbers: who needs a number, or a shape that depends on one,
fails there. ``Kernels`` and ``Factories`` add what it would let pass though a GPU would wait. What kernels of
a GPU do inside is seen on a GPU only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
DECIDING = {
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"),
}
"""Operators that have a number or a shape for the host."""
INDEXING = (Tensor.__getitem__, Tensor.__setitem__)
COPYING = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
"""They bring numbers of the host to a device, and wait until they are there."""


class HostSyncError(RuntimeError):
    """The host would wait for the GPU here."""


class Kernels(TorchDispatchMode):
    """Refuses operators for which the host waits.

    Attributes:
        calls: of the others, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if _waits(name, args, kwargs):
            raise HostSyncError(f"{func} on {args[0].device}")
        self.calls[name] += 1
        return func(*args, **kwargs)


def _waits(name: str, args: Any, kwargs: Any) -> bool:
    first = args[0] if args and isinstance(args[0], Tensor) else None
    if name == "_to_copy" and first is not None:
        return kwargs.get("device", first.device) != first.device and not kwargs.get("non_blocking")
    if name == "copy_" and first is not None:
        return first.device != args[1].device and not (kwargs.get("non_blocking") or True in args[2:])
    if first is None or first.device != META:
        return False
    if name.strip("_").startswith("index") and isinstance(args[1], list | tuple):
        tensors = [each for each in args[1] if each is not None]
        return any(each.dtype in (torch.bool, torch.uint8) or each.device != META for each in tensors)
    return name in DECIDING


class Factories(TorchFunctionMode):
    """Refuses tensors made of numbers of the host: that device has a short way, which no operator sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        indexed = func in INDEXING and args[0].device == META and _lists(args[1])
        if indexed or (func in COPYING and made.device == META):
            raise HostSyncError(f"{func.__name__} with numbers of the host on {META}")
        return made


def _lists(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list | range | np.ndarray) for part in parts)


@contextmanager
def watching_meta() -> Iterator[Kernels]:
    with Factories(), Kernels() as kernels:
        yield kernels


@contextmanager
def watching_gpu() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
