"""Runs are kept: a crash, Ctrl-C or a cut line costs at most the run that was under way."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import sides
from records import DONE, TRAINED, ChildError, Records, machine, run_child, versions

KEY = {"side": "torchvision", "settings": ["--lr", "0.1"]}
REPORT = {"metrics": {"AP": 0.5, "AP50": 0.75}, "counts": {}, "settings": {}, "classes": []}


class Children:
    """Takes the place of ``run_child``: writes down the commands, and fails where told."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.fail: BaseException | None = None
        self.at = ""
        self.code = 0

    def __call__(
        self, command: Sequence[str], log: Path, allowed: Sequence[int] = (0,)
    ) -> tuple[int, float, str]:
        """As ``run_child``: a training of 100 s, an evaluation of 5 s."""
        self.commands.append(list(command))
        if self.fail is not None and self.at in command:
            raise self.fail
        training = "train" in command[:4]
        out = "" if training else "a line before\n" + json.dumps(REPORT)
        return (self.code, 100.0, out) if training else (0, 5.0, out)

    @property
    def verbs(self) -> list[str]:
        """Side and verb of every command."""
        return [f"{'frcnn' if '-m' in c else 'rival'} {c[3 if '-m' in c else 2]}" for c in self.commands]


@pytest.fixture
def bench(tmp_path: Path) -> sides.Bench:
    (tmp_path / "data" / "bccd").mkdir(parents=True)
    return sides.Bench(tmp_path / "data", tmp_path / "work")


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    found = Children()
    monkeypatch.setattr(sides, "run_child", found)
    return found


def test_no_file(tmp_path: Path) -> None:
    records = Records(tmp_path / "none.jsonl")
    assert records.read(DONE) == [] and records.find(KEY, DONE) is None


def test_the_latest_line_of_a_key(tmp_path: Path) -> None:
    records = Records(tmp_path / "new" / "runs.jsonl")
    for number, key in enumerate((KEY, {**KEY, "seed": 1}, KEY)):
        records.add({"key": key, "stage": DONE, "number": number})
    records.add({"key": KEY, "stage": TRAINED, "number": 9})
    found = records.find(KEY, DONE)
    assert found is not None and found["number"] == 2
    assert [entry["number"] for entry in records.read(DONE)] == [0, 1, 2]


def test_line_that_a_crash_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = Records(tmp_path / "runs.jsonl")
    records.add({"key": KEY, "stage": DONE})
    with records.path.open("a") as file:
        file.write('{"key": {"side"')
    assert len(records.read(DONE)) == 1 and "runs.jsonl:2: not whole" in capsys.readouterr().err
    records.add({"key": KEY, "stage": DONE})
    assert len(records.read(DONE)) == 2


def test_child_that_says_nothing(tmp_path: Path) -> None:
    code, seconds, out = run_child([sys.executable, "-c", ""], tmp_path / "log.txt")
    assert (code, out) == (0, "") and seconds > 0


def test_child_that_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('out'); sys.exit('no such thing')"]
    log = tmp_path / "logs" / "log.txt"
    with pytest.raises(ChildError, match=r"ended with code 1 .*\n(.*\n)*no such thing"):
        run_child(command, log)
    assert log.read_text() == "no such thing\nout\n"
    assert run_child(command, log, (0, 1))[0] == 1


def test_facts_name_hardware_and_versions() -> None:
    assert machine()["cores"] >= 1 and machine()["processor"]
    assert versions()["torch"][0].isdigit() and versions()["frcnn"] != "not installed"


def test_finished_run_is_not_made_again(bench: sides.Bench, children: Children) -> None:
    first = sides.rival(bench, "bccd", ["--lr", "0.01"], "train", "val")
    assert children.verbs == ["rival train", "rival eval"]
    assert first["train_seconds"] == 100 and first["metrics"]["AP"] == 0.5 and first["eval_seconds"] == 5
    assert sides.rival(bench, "bccd", ["--lr", "1e-2", "--epochs", "6"], "train", "val") == first  # the same
    assert len(children.commands) == 2
    sides.rival(bench, "bccd", ["--lr", "0.01"], "trainval", "test")
    sides.rival(bench, "bccd", ["--lr", "0.01"], "train", "val", "another comparison")
    sides.rival(sides.Bench(bench.data, bench.work, True), "bccd", ["--lr", "0.01"], "train", "val")
    assert len(children.commands) == 8


def test_evaluation_that_fails_keeps_the_training(bench: sides.Bench, children: Children) -> None:
    children.fail, children.at = ChildError("out of memory"), "eval"
    with pytest.raises(ChildError):
        sides.ours(bench, "bccd", ["--seed", "1"], "train", "val")
    assert bench.records.read(DONE) == [] and len(bench.records.read(TRAINED)) == 1
    children.fail = None
    done = sides.ours(bench, "bccd", ["--seed", "1"], "train", "val")
    assert children.verbs == ["frcnn train", "frcnn eval", "frcnn eval"]
    assert done["seed"] == 1 and done["train_seconds"] == 100 and len(bench.records.read(DONE)) == 1


def test_stopped_training_begins_anew(bench: sides.Bench, children: Children) -> None:
    children.fail, children.at = KeyboardInterrupt(), "train"
    with pytest.raises(KeyboardInterrupt):
        sides.ours(bench, "bccd", [], "train", "val")
    place = children.commands[0]
    left = Path(place[place.index("--out") + 1]) / place[place.index("--name") + 1]
    left.mkdir(parents=True)  # frcnn would call its next run "...-2", and the old one would be measured
    children.fail = None
    sides.ours(bench, "bccd", [], "train", "val")
    assert not left.exists() and children.verbs == ["frcnn train", "frcnn train", "frcnn eval"]


def test_diverged_training_is_finished(bench: sides.Bench, children: Children) -> None:
    children.code = sides.DIVERGED
    done = sides.rival(bench, "bccd", ["--lr", "9"], "train", "val")
    assert done["diverged"] and "loss not finite" in sides.describe(done)
    assert children.verbs == ["rival train"] and bench.records.find(done["key"], DONE) == done


def test_recorded_commands_name_no_place(bench: sides.Bench, children: Children) -> None:
    rows = [run(bench, "bccd", [], "train", "val") for run in (sides.rival, sides.ours)]
    lines = [line for row in rows for line in row["commands"]]
    assert len(lines) == 4 and not any(str(bench.work.parent) in line for line in lines)
    assert not any(str(sides.ROOT) in line or sys.executable in line for line in lines)
    assert lines[0].startswith("python benchmarks/rival.py train $FRCNN_DATA/bccd --out WORK/torchvision/")
    assert lines[2].startswith("frcnn train $FRCNN_DATA/bccd --bad-boxes drop --train train --val none")


def test_changed_recipe_is_another_run(
    bench: sides.Bench, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides.ours(bench, "bccd", [], "train", "val")
    from frcnn import recipes

    changed = recipes.lite0_fpn()
    changed = changed.model_copy(update={"train": changed.train.model_copy(update={"epochs": 77})})
    monkeypatch.setitem(recipes.RECIPES, "lite0-fpn", lambda: changed)
    sides.ours(bench, "bccd", [], "train", "val")
    assert children.verbs.count("frcnn train") == 2


@pytest.mark.parametrize(("name", "hint"), [("bccd", "FRCNN_DATA"), ("pennfudan", "run prepare first")])
def test_data_that_is_not_there(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        sides.rival(sides.Bench(tmp_path, tmp_path), name, [], "train", "val")
