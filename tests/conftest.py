"""For all tests and the processes they start: no network. A user without it must not notice."""

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Examples are the same in every run and may take as long as a busy machine makes them take.
settings.load_profile("ci")
OFFLINE = Path(__file__).with_name("offline")

# Python loads ``sitecustomize`` from the first folder of its path that has one: this blocks child processes.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [
        str(OFFLINE),
        *(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(OFFLINE)),
    ]
)
# A worker of pytest-xdist is such a child and blocked already: a second hook would not know the first's list.
_BLOCK = vars(sys.modules["sitecustomize"]) if "sitecustomize" in sys.modules else {}
_ALLOWED = (_BLOCK if "ALLOWED" in _BLOCK else runpy.run_path(str(OFFLINE / "sitecustomize.py")))["ALLOWED"]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Numbers of a test do not depend on those before it in its worker."""
    torch.manual_seed(0)


@pytest.fixture
def loopback() -> Iterator[Callable[[int], str]]:
    """Lets one test, not the processes it starts, connect to a port of 127.0.0.1 -> the URL of that port."""

    def allow(port: int) -> str:
        _ALLOWED.add(("127.0.0.1", port))
        return f"http://127.0.0.1:{port}"

    yield allow
    _ALLOWED.clear()
