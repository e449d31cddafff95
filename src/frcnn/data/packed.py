"""Many strings as two arrays: see ``sample.py`` for why."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Packed:
    """Many strings in one array of bytes with offsets.

    Attributes:
        text: (total bytes,) uint8.
        offsets: (n + 1,) int64.
    """

    __slots__ = ("offsets", "text")

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(s) for s in strings]
        self.text = np.frombuffer(b"".join(encoded), np.uint8)
        self.offsets: Ints = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        start, stop = self.offsets[index : index + 2]
        return os.fsdecode(self.text[start:stop].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Ints) -> Packed:
        """The chosen strings, in the given order."""
        return Packed(self[int(i)] for i in indices)

    def bytes_used(self) -> int:
        """Memory of the two arrays."""
        return self.text.nbytes + self.offsets.nbytes
