"""``frcnn bench``: options that change nothing are refused, and results are not lost."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from frcnn.bench import run as bench
from frcnn.bench.report import Report, Row, Section
from frcnn.bench.turns import Times
from frcnn.bench.workload import Contender
from frcnn.cli import run
from frcnn.commands import bench as command

MACHINE = {"date": "2026-01-02", "processor": "a processor", "threads": 1, "gpu": None, "versions": {}}


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[bench.Plan]:
    """What would have been measured; nothing is."""
    seen: list[bench.Plan] = []

    def note(plan: bench.Plan, _: object) -> Report:
        seen.append(plan)
        row = Row("frcnn fp32", Times((1.0, 2.0), 3.0), 2, contender=Contender("frcnn", "fp32"))
        return Report(MACHINE, {"infer": [Section("a title", [row])]}, [])

    monkeypatch.setattr(bench, "run", note)
    return seen


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ops", "--size", "64x64"], "--size 64x64: of no effect on bench ops; leave it out"),
        (["ops", "--batch", "2"], "--batch 2: of no effect on bench ops; leave it out"),
        (["ops", "--data", "folder"], "--data folder: of no effect on bench ops; leave it out"),
        (
            ["ops", "--weights", "w.pth", "--compile"],
            "--weights w.pth, --compile: of no effect on bench ops; leave them out",
        ),
        (["load", "--data", "d", "--rounds", "7"], "--rounds 7: of no effect on bench load; leave it out"),
        (
            ["load", "--device", "cpu", "--threads", "1", "--size", "64x64"],
            "--size 64x64, --device cpu, --threads 1: of no effect on bench load; leave them out",
        ),
        (
            ["load", "--weights", "w.pth", "--compile", "--quick"],
            "--weights w.pth, --compile, --quick: of no effect on bench load; leave them out",
        ),
    ],
)
def test_options_without_effect_are_refused(
    words: list[str], said: str, plans: list[bench.Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", *words]) == 2
    assert capsys.readouterr().err == f"frcnn: {said}\n"
    assert not plans


def test_weights_of_another_network_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"")
    assert run(["bench", "train", "--device", "cpu", "--weights", str(file)]) == 2
    assert f"--weights {file}: of no effect on bench train on cpu" in capsys.readouterr().err


def test_options_that_some_task_uses_are_taken(tmp_path: Path, plans: list[bench.Plan]) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"")
    options = ["--size", "64x96", "--batch", "3", "--data", str(tmp_path), "--weights", str(file)]
    assert run(["bench", "--device", "cpu", *options, "--rounds", "7", "--quick"]) == 0
    (plan,) = plans
    assert (plan.tasks, plan.size, plan.batch, plan.rounds) == (("train", "infer", "ops"), (64, 96), 3, 7)
    assert (plan.data, plan.weights, plan.quick) == (str(tmp_path), str(file), True)
    assert run(["bench", "ops", "--device", "cpu", "--rounds", "2", "--threads", "1", "--quick"]) == 0
    assert (plans[1].tasks, plans[1].rounds, plans[1].threads) == (("ops",), 2, 1)


@pytest.mark.parametrize("task", ["infer", "load"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "that is a folder; name a file"),
        ("missing/bench.json", "there is no folder missing; make it first"),
        ("a file/bench.json", "there is no folder a file; make it first"),
    ],
)
def test_a_file_that_cannot_be_written_is_found_before_the_work(
    task: str,
    name: str,
    said: str,
    plans: list[bench.Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("")
    assert run(["bench", task, "--json", name]) == 2
    assert capsys.readouterr().err == f"frcnn: --json {name}: {said}\n"
    assert not plans


def test_a_folder_that_may_not_be_written_to(
    plans: list[bench.Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "bench.json"
    monkeypatch.setattr(command, "tempfile", SimpleNamespace(TemporaryFile=refuse))
    assert run(["bench", "infer", "--json", str(file)]) == 2
    said = f"frcnn: --json {file}: cannot be written (Permission denied); name another file\n"
    assert capsys.readouterr().err == said
    assert not plans


def test_table_and_file(plans: list[bench.Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    assert run(["bench", "infer", "--device", "cpu", "--json", str(file)]) == 0
    assert "a title" in capsys.readouterr().out
    (section,) = json.loads(file.read_text(encoding="utf-8"))["infer"]
    assert section["contenders"][0]["rounds_made"] == 2
    assert [each.name for each in tmp_path.iterdir()] == ["bench.json"]  # nothing stays of the trial
    assert run(["bench", "infer", "--device", "cpu", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["infer"] == [section]


def test_the_table_is_shown_before_the_file_is_written(
    plans: list[bench.Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_text", full)
    assert run(["bench", "infer", "--device", "cpu", "--json", str(tmp_path / "bench.json")]) == 1
    said = capsys.readouterr()
    assert "a title" in said.out and "No space left on device" in said.err
