"""Peak memory of a step, and whether there is enough for it."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from frcnn.bench.workload import Workload

KIB = 1024
FAILED = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")
"""In the messages of allocators."""
CALLS = 2
"""Steps of a child: the optimizer's state appears in the first, so the second has the peak."""
TIME_LIMIT = 900.0
BYTES_PER_PIXEL = {("train", "lite0"): 2600, ("train", "r50"): 3200, ("infer", "r50"): 900}
"""Growth of the more demanding side per padded pixel of the batch, weights left out (measured on a CPU)."""
BASE_BYTES = 2_000_000_000
"""Python, libraries, and the weights of both sides."""


class TooLargeError(ValueError):
    """Something does not fit into memory; the message says what to do."""


class NoFigureError(ValueError):
    """The process that measures memory gave no figure; the message says why."""


def available(device: torch.device) -> int | None:
    """Bytes that can still be taken; None where that cannot be found out."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    free = [value for value in (_meminfo(), _cgroup()) if value is not None]
    return min(free) if free else None


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith("MemAvailable:")]
    return int(found[0].split()[1]) * KIB if found else None


def _cgroup() -> int | None:
    """What a container may still take, caches of files not counted as taken."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(stat.get("inactive_file", 0))


def needed(workload: Workload) -> int:
    """An estimate of the bytes that a workload takes."""
    per_pixel = BYTES_PER_PIXEL.get((workload.task, workload.network), max(BYTES_PER_PIXEL.values()))
    return BASE_BYTES + per_pixel * workload.pixels


def require_memory(workload: Workload) -> None:
    """Refuse a workload before it is begun.

    Raises:
        TooLargeError: when it needs more memory than there is.
    """
    free, need = available(workload.torch_device), needed(workload)
    if free is not None and need > free:
        raise TooLargeError(
            f"{workload.title} needs about {need / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free; "
            "use a smaller --size or --batch"
        )


@contextmanager
def enough_memory(what: str, advice: str = "use a smaller --size or --batch") -> Iterator[None]:
    """Turn a failed allocation into a sentence.

    Raises:
        TooLargeError: naming ``what``, with ``advice``.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TooLargeError(f"{what}: not enough memory; {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host's or a device's allocator failed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (any(words in text for words in FAILED))


def cuda_peak(call: Callable[[], object], device: torch.device, calls: int = CALLS) -> int | None:
    """Bytes that a step takes on top of what lies on the device; None where there is no CUDA device."""
    if device.type != "cuda":
        return None
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(calls):
        call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def release(device: torch.device) -> None:
    """Give back what the steps of a workload held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def resident_growth(call: Callable[[], object], calls: int = CALLS) -> int | None:
    """Bytes by which this process grows at its peak during ``calls`` calls; None where the system does not
    tell. Meant for a fresh process: memory that was freed before may be used again unseen.
    """
    gc.collect()
    _give_back()
    if not _forget_peak():
        return None
    before = _status("VmRSS")
    for _ in range(calls):
        call()
    return _status("VmHWM") - before


def _forget_peak() -> bool:
    """Let the peak begin anew at the present size (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * KIB
    raise OSError(f"/proc/self/status has no {name}")


def _give_back() -> None:
    """Hand freed memory of the C library back to the system, where it can."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def measure_in_child(order: dict[str, Any]) -> dict[str, Any]:
    """Run ``frcnn.bench.child`` in a fresh process.

    Args:
        order: what it shall measure; see there.

    Returns:
        What it answered: ``{"bytes": int or None}``.

    Raises:
        NoFigureError: when it took too long, ran out of memory, could not be started, or failed otherwise,
            with the last line it wrote.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "frcnn.bench.child"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
    except subprocess.TimeoutExpired:
        raise NoFigureError(f"the process that measures it took more than {TIME_LIMIT:.0f} s") from None
    except OSError as error:  # no memory for a second process, for one
        reason = error.strerror or str(error)
        raise NoFigureError(f"the process that measures it could not be started ({reason})") from None
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode == -9 or "memory" in last.lower():
        raise NoFigureError("the process that measures it ran out of memory")
    raise NoFigureError(f"the process that measures it failed: {last}")
