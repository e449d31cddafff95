"""The script as people call it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import against_torchvision
import pennfudan
import pytest
from against_torchvision import main
from devkits import ten
from records import DONE, ChildError, Records


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FRCNN_DATA", str(tmp_path / "data"))
    return str(tmp_path / "work")


def test_nothing_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "required: verb" in capsys.readouterr().err


def test_prepare_without_data(work: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--work", work, "prepare"]) == 1
    assert "error: " in (said := capsys.readouterr().err) and "FRCNN_DATA" in said


def test_prepare(work: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ten(tmp_path / "data" / "pennfudan")
    assert main(["--work", work, "prepare"]) == 0
    assert capsys.readouterr().out == "pennfudan: test 3, train 5, trainval 7, val 2\n"


def test_words_after_two_dashes_go_to_frcnn(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(against_torchvision, "ours", lambda *arguments: found.append(arguments[1:]))
    assert main(["--work", work, "ours", "bccd", "--seed", "2", "--", "--epochs", "8"]) == 0
    assert found == [("bccd", ["--seed", "2", "--epochs", "8"], "train", "val")]
    with pytest.raises(SystemExit):
        main(["--work", work, "tune", "bccd", "--", "--epochs", "8"])


def test_older_runs_are_kept_where_asked(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []
    for verb in ("rival", "ours", "tune", "compare"):
        monkeypatch.setattr(against_torchvision, verb, lambda bench, *_: found.append(bench.keep_older))
        assert (
            main(["--work", work, verb, "bccd"]) == main(["--work", work, verb, "bccd", "--keep-older"]) == 0
        )
    assert found == [False, True] * 4
    with pytest.raises(SystemExit):
        main(["--work", work, "ours", "bccd", "--keep-older", "--again"])


@pytest.mark.parametrize(("error", "code"), [(ChildError("ended"), 1), (KeyboardInterrupt(), 130)])
def test_ends_in_a_sentence(
    work: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(against_torchvision, "rival", fail)
    assert main(["--work", work, "rival", "bccd"]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_a_whole_comparison(work: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ten(tmp_path / "data" / "pennfudan")
    pennfudan.prepare(tmp_path / "data" / "pennfudan", Path(work) / "pennfudan")
    small, out = "--min-size 64 --max-size 128", str(tmp_path / "out.json")
    tune = ["--work", work, "tune", "pennfudan", "--lr", "0.001", "--epochs", "1", "--precision", "fp32"]
    assert main([*tune, f"--common={small}"]) == 0
    words = ["--work", work, "compare", "pennfudan", "--seeds", "3", "--out", out]
    words += ["--ours=--epochs 1 --min-size 64"]
    assert main(words) == 0
    result = json.loads(Path(out).read_text(encoding="utf-8"))
    runs = [(run["key"]["side"], run["seed"], run["measured"]["images"]) for run in result["runs"]]
    assert runs == [("torchvision", 3, 3), ("frcnn", 3, 3)]
    assert all(run["train_seconds"] > 0 and run["metrics"]["AP"] is not None for run in result["runs"])
    block = result["summary"]["pennfudan"]["frcnn"][0]
    assert block["time_ratio"] > 0 and block["same_session"] and block["same_versions"]
    assert all(run["versions"]["torch"][0].isdigit() for run in result["runs"])
    assert str(tmp_path) not in Path(out).read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(words) == 0 and capsys.readouterr().out.count("finished ") == 2
    assert len(Records(Path(work) / "runs.jsonl").read(DONE)) == 3
