"""What is set for the CPU's libraries, and that a user's own choice stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frcnn.model import host


def test_nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in host.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    host.prepare()
    assert {name: os.environ[name] for name in host.SETTINGS} == host.SETTINGS


@pytest.mark.parametrize("name", host.SETTINGS)
def test_a_users_own_choice_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    host.prepare()
    assert os.environ[name] == "7"


LARGE = """
import re, sys
from importlib import import_module
import_module(sys.argv[1])
import torch
large = torch.ones(8 << 20)
at = large.data_ptr()
for block in re.split(r"(?=^[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read(), flags=re.M)[1:]:
    first, last = (int(end, 16) for end in block.split()[0].split("-"))
    if first <= at < last:
        print("hg" in re.search(r"VmFlags: (.*)", block)[1].split())
"""
"""Whether a large tensor asks for large pages, once a module is there: with a tensor made before the variable
is set, PyTorch goes without them for the rest of the process."""


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no such pages here")
@pytest.mark.parametrize("module", ["frcnn", "frcnn.training.run", "frcnn.predict", "frcnn.bench.run"])
@pytest.mark.parametrize("choice", [None, "0"])
def test_it_is_set_before_the_first_tensor(module: str, choice: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in host.SETTINGS}
    environment |= {} if choice is None else {"THP_MEM_ALLOC_ENABLE": choice}
    done = subprocess.run(
        [sys.executable, "-c", LARGE, module], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(choice is None)
