"""Whether ``torch.compile`` works on this machine, found out by a small function.

It needs a compiler that pip does not install, and it does not exist for every platform.
"""

from __future__ import annotations

import torch
from torch import Tensor


class CompileError(ValueError):
    """``torch.compile`` cannot be used; the message says what to do."""


def check_compiler(device: torch.device | str) -> None:
    """Compile and run a small function.

    Raises:
        CompileError: when that does not work here, with the reason and what to do.
    """
    values = torch.linspace(-1, 1, 64, device=device)
    try:
        found = torch.compile(_probe, fullgraph=True, dynamic=False)(values)
    except Exception as error:  # whatever a compiler or driver may throw is the finding
        raise CompileError(
            f"torch.compile does not work on {torch.device(device).type} here ({reason_of(error)}); "
            f"{_advice(torch.device(device))}, or leave out --compile"
        ) from error
    if not torch.allclose(found, _probe(values)):
        raise CompileError(f"torch.compile gives wrong numbers on {device} here; leave out --compile")


def _probe(values: Tensor) -> Tensor:
    return (values.sin() + 1).relu().cumsum(0)


def reason_of(error: BaseException) -> str:
    """The first line of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200].rstrip(".")


def _advice(device: torch.device) -> str:
    if device.type == "cpu":
        return (
            "it needs a C++ compiler (apt install g++, xcode-select --install, or Visual Studio's Build "
            "Tools; the environment variable CXX names another one)"
        )
    return "it needs the Triton that belongs to this torch, and a C compiler"
