"""The tiny data set of the training tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import PICTURES, write_voc


@pytest.fixture(scope="session")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training pictures, one of them empty, and three to validate on."""
    return write_voc(tmp_path_factory.mktemp("voc"), {"train": PICTURES, "val": PICTURES[1:4]})


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
