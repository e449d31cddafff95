from __future__ import annotations

import json
from pathlib import Path

import pytest

from frcnn.files import write_atomic, write_text
from frcnn.training.folder import RunFolder
from frcnn.training.journal import Journal


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a folder"):
        RunFolder.create(tmp_path, name)


def test_folders_are_numbered_and_never_reused(tmp_path: Path) -> None:
    names = [RunFolder.create(tmp_path / "runs", "a").path.name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        RunFolder.create(tmp_path / "file", "a")


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_atomic(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_json_has_no_nan(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).write_json("a.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": None})
    assert json.loads(path.read_text()) == {"a": "nan", "b": [1.5, "inf"], "c": None}


def test_metrics_go_around(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.rows() == []
    folder.write_rows([])
    assert folder.rows() == []
    folder.write_rows([{"epoch": 1, "step": 3, "lr": 0.1234567, "AP": None}])
    assert folder.rows()[0]["lr"] == "0.123457" and folder.rows()[0]["AP"] == ""


def test_journal_keeps_what_was_said_before_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(False)
    journal.say("[red] early")
    journal.note("frozen: stem")
    journal.open(RunFolder(tmp_path))
    journal.say("late")
    assert [line.split(" ", 1)[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == [
        "[red] early",
        "frozen: stem",
        "late",
    ]
    assert (tmp_path / "notes.txt").read_text() == "frozen: stem\n"
    assert capsys.readouterr().err == "[red] early\nfrozen: stem\nlate\n"
    assert not journal.has_bar
