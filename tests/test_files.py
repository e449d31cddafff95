from __future__ import annotations

import os
from pathlib import Path

import pytest

from frcnn.files import write_bytes, write_text


def test_empty_new_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"
    write_bytes(target, b"")
    assert target.read_bytes() == b""
    write_text(target, "ä\n")
    assert target.read_bytes() == b"\xc3\xa4\n" and list(target.parent.iterdir()) == [target]
    assert os.name == "nt" or target.stat().st_mode & 0o777 == 0o644


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_text(target, "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
