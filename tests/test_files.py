from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from frcnn.files import printable, write_atomic, write_bytes, write_text


def test_empty_new_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"
    write_bytes(target, b"")
    assert target.read_bytes() == b""
    write_text(target, "ä\n")
    assert target.read_bytes() == b"\xc3\xa4\n" and list(target.parent.iterdir()) == [target]
    assert os.name == "nt" or target.stat().st_mode & 0o777 == 0o644


def test_text_that_is_no_unicode(tmp_path: Path) -> None:
    assert printable("") == "" and printable("ä → \U0001f600\n") == "ä → \U0001f600\n"
    name = os.fsdecode(b"caf\xe9.jpg")
    assert printable(name) == r"caf\udce9.jpg"
    write_text(tmp_path / "a.json", json.dumps({"ä": name}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ä": name}


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


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError) as found:
        write_atomic(tmp_path / "a.txt", full)
    assert (found.value.errno, found.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
    assert not list(tmp_path.iterdir())
