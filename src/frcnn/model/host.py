"""How the libraries below PyTorch are set up on a CPU, once a process, before the first network is built."""

from __future__ import annotations

import ctypes
import os
import sys

KERNELS = "8192"
"""oneDNN keeps its compiled kernels in a cache of 1,024. Training under scale jitter needs a few hundred for
each padded size; compiling them again and again took 15 % of a step (0.73 -> 0.63 s over nine sizes, and no
more memory)."""
KEEP_BELOW = 1 << 30
"""glibc hands every block above 32 MiB back to the kernel when it is freed, and the next one of that size is
zeroed page by page again. Keeping blocks below 1 GiB in the heap takes a tenth off a training step (1.13 ->
1.03 s on one thread), with the same peak memory."""
CHOSEN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of ``mallopt(3)``."""


def prepare() -> None:
    """Set what the user has not set; a second call changes nothing."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)  # read when the first kernel is made
    if sys.platform == "linux" and not any(name in os.environ for name in CHOSEN):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, KEEP_BELOW)
            mallopt(M_TRIM_THRESHOLD, KEEP_BELOW)
