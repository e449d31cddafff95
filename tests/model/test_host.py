"""What is set for the CPU's libraries, and that a user's own choice stays."""

from __future__ import annotations

import ctypes
import os
import sys
from types import SimpleNamespace

import pytest

from frcnn.model import host


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda name, value: seen.append((name, value)))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in (*host.CHOSEN, "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.delenv(name, raising=False)
    return seen


def test_nothing_is_chosen(calls: list[tuple[int, int]]) -> None:
    host.prepare()
    assert calls == [(-3, 1 << 30), (-1, 1 << 30)]
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "8192"


@pytest.mark.parametrize("name", host.CHOSEN)
def test_a_users_own_choice_stays(
    calls: list[tuple[int, int]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    host.prepare()
    assert calls == [] and os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(
    calls: list[tuple[int, int]], platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    host.prepare()
    assert calls == []


def test_a_c_library_without_the_call(calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    host.prepare()
    assert calls == []
