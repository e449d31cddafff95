"""How the libraries below PyTorch are set up on a CPU, once a process, before the first network is built.

All of it are variables that these libraries read when they are first used, that of large pages with the very
first tensor; what the user has set stays.
"""

from __future__ import annotations

import os

SETTINGS = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""oneDNN keeps its compiled kernels in a cache of 1,024. Training under scale jitter needs a few hundred for
each padded size; compiling them again and again took 15 % of a step (0.73 -> 0.63 s over nine sizes, and no
more memory).

PyTorch returns a large block of memory to the kernel when it is freed, and the next one is zeroed again, page
by page. Pages of 2 MiB make that cheap on Linux: 1.00 -> 0.89 s for a step on one thread. (Keeping the
blocks, by glibc's ``mallopt``, was as fast, but a run over 170 picture sizes grew to 9 GB.)
"""


def prepare() -> None:
    """Set what the user has not set; a second call changes nothing."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
