"""What is set for the CPU's libraries, and that a user's own choice stays."""

from __future__ import annotations

import os

import pytest
import torch

from frcnn.commands.setup import choose_device
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


def test_it_is_set_before_the_first_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tensor before it, PyTorch would go without large pages for the rest of the process."""
    for name in host.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    seen: list[bool] = []

    def empty(*_: object, **__: object) -> None:
        seen.append(host.SETTINGS.items() <= os.environ.items())

    monkeypatch.setattr(torch, "empty", empty)
    assert choose_device("cpu") == torch.device("cpu")
    assert seen == [True]
