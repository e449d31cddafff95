from __future__ import annotations

import numpy as np
import pytest

from frcnn.data.packed import Packed


@pytest.mark.parametrize("strings", [[], [""], ["a", "", "größe/ü.jpg", "x" * 300], ["caf\udce9.jpg"]])
def test_packed_gives_strings_back(strings: list[str]) -> None:
    packed = Packed(strings)
    assert (list(packed), len(packed)) == (strings, len(strings))
    order = np.arange(len(strings))[::-1]
    assert list(packed.take(order)) == strings[::-1]
    assert packed.bytes_used() == sum(len(s.encode("utf-8", "surrogateescape")) for s in strings) + 8 * (
        len(strings) + 1
    )
