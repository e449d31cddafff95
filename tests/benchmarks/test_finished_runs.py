"""Runs are kept: a crash, Ctrl-C or a cut line costs at most the run that was under way."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import sides
from provenance import Made
from records import DONE, TRAINED, ChildError, Records, machine, run_child

KEY = {"side": "torchvision", "settings": ["--lr", "0.1"]}
OLD = (
    '{"key": {"side": "torchvision", "data": "bccd", "train": "train", "test": "val", "settings": ["--lr", '
    '"0.02", "--epochs", "6", "--precision", "bf16", "--channels-last", "--seed", "0"], "mark": "", '
    '"code": 2}, "stage": "done", "began": "2026-11-21T12:01:48+00:00", '
    '"session": "2026-11-21T12:01:48+00:00 31382", '
    '"commands": ["python benchmarks/rival.py train $FRCNN_DATA/bccd --out WORK/torchvision/f68fc21ff4a3/'
    'model.safetensors --train train --lr 0.02", "python benchmarks/rival.py eval WORK/torchvision/'
    'f68fc21ff4a3/model.safetensors $FRCNN_DATA/bccd --split val"], "seed": 0, "train_seconds": 1997.74, '
    '"load_before": 0.61, "load_after": 1.3, "diverged": false, "metrics": {"AP": 0.388114281765, "AP50": '
    '0.791839412421}, "eval_seconds": 102.95, "counts": {"detections": 7048, "capped_images": 17, '
    '"inexact_images": 0}, "measured": {"protocol": "coco", "iou": "0.50:0.95", "max_dets": 100}, "classes": '
    '{"RBC": {"AP": 0.468857074877, "AP50": 0.811394997201}}}\n'
)
"""A line as it was before runs recorded what they were made with."""
OLD_SETTINGS = ["--lr", "0.02", "--precision", "bf16", "--channels-last"]
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
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Made]:
    """What both sides are made with; a test may change it."""
    found = {side: Made(f"{side} 1", "abc1234", {"torch": "2.0"}) for side in ("torchvision", "frcnn")}
    monkeypatch.setattr(sides, "made_with", found.__getitem__)
    return found


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch, made: dict[str, Made]) -> Children:
    found = Children()
    monkeypatch.setattr(sides, "run_child", found)
    return found


def test_no_file(tmp_path: Path) -> None:
    records = Records(tmp_path / "none.jsonl")
    assert records.read(DONE) == [] and records.alike(KEY, DONE) == []


def test_lines_of_a_key(tmp_path: Path) -> None:
    records = Records(tmp_path / "new" / "runs.jsonl")
    for number, key in enumerate((KEY, {**KEY, "seed": 1}, {**KEY, "source": "a"})):
        records.add({"key": key, "stage": DONE, "number": number})
    records.add({"key": KEY, "stage": TRAINED, "number": 9})
    for key in (KEY, {**KEY, "source": "b"}):
        assert [entry["number"] for entry in records.alike(key, DONE)] == [0, 2]
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
    program = r"import os; os.write(1, b'out\n'); os.write(2, b'no such thing\n'); os._exit(1)"
    command = [sys.executable, "-c", program]  # each line in one piece: two processes write into the log
    log = tmp_path / "logs" / "log.txt"
    with pytest.raises(ChildError, match=r"ended with code 1 .*\n(.*\n)*no such thing"):
        run_child(command, log)
    assert sorted(log.read_text().splitlines()) == ["no such thing", "out"]
    assert run_child(command, log, (0, 1))[0] == 1


def test_child_can_be_followed(tmp_path: Path) -> None:
    """It ends well once its own line stands in the log."""
    log = tmp_path / "log.txt"
    program = f"""
import pathlib, sys, time
print("epoch 1", flush=True)
for _ in range(600):
    if "epoch 1" in pathlib.Path({str(log)!r}).read_text():
        sys.exit(0)
    time.sleep(0.05)
sys.exit(1)
"""
    assert run_child([sys.executable, "-c", program], log)[2] == "epoch 1\n"


def test_facts_name_hardware() -> None:
    assert machine()["cores"] >= 1 and machine()["processor"]


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
    assert children.verbs == ["rival train"] and bench.records.alike(done["key"], DONE) == [done]


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
    first = sides.ours(bench, "bccd", [], "train", "val")
    from frcnn import recipes

    changed = recipes.lite0_fpn()
    changed = changed.model_copy(update={"train": changed.train.model_copy(update={"epochs": 77})})
    monkeypatch.setitem(recipes.RECIPES, "lite0-fpn", lambda: changed)
    kept = sides.Bench(bench.data, bench.work, keep_older=True)
    assert sides.ours(kept, "bccd", [], "train", "val") == first and len(children.commands) == 2
    sides.ours(bench, "bccd", [], "train", "val")
    assert children.verbs.count("frcnn train") == 2


def test_a_run_says_what_it_was_made_with(
    bench: sides.Bench, children: Children, made: dict[str, Made]
) -> None:
    made["torchvision"] = Made("t", None, {"torch": "2.1"})
    rows = [run(bench, "bccd", [], "train", "val") for run in (sides.rival, sides.ours)]
    assert [row["key"]["source"] for row in rows] == ["t", "frcnn 1"]
    assert [row["commit"] for row in rows] == [None, "abc1234"]
    assert [row["versions"] for row in rows] == [{"torch": "2.1"}, {"torch": "2.0"}]


@pytest.mark.parametrize(
    "other", [Made("frcnn 2", "abc1234", {"torch": "2.0"}), Made("frcnn 1", "abc1234", {"torch": "2.1"})]
)
def test_other_code_or_packages_are_another_run(
    bench: sides.Bench,
    children: Children,
    made: dict[str, Made],
    other: Made,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = sides.ours(bench, "bccd", [], "train", "val")
    assert "keep-older" not in capsys.readouterr().out
    made["frcnn"] = other
    kept = sides.Bench(bench.data, bench.work, keep_older=True)
    assert sides.ours(kept, "bccd", [], "train", "val") == old and len(children.commands) == 2
    new = sides.ours(bench, "bccd", [], "train", "val")
    assert new != old and children.verbs.count("frcnn train") == 2
    assert "--keep-older takes the latest" in capsys.readouterr().out
    made["frcnn"] = Made("frcnn 1", "abc1234", {"torch": "2.0"})
    for either in (bench, kept):  # what fits comes before what is later
        assert sides.ours(either, "bccd", [], "train", "val") == old
    assert children.verbs.count("frcnn train") == 2


def test_another_commit_of_the_same_source_is_the_same_run(
    bench: sides.Bench, children: Children, made: dict[str, Made]
) -> None:
    first = sides.ours(bench, "bccd", [], "train", "val")
    made["frcnn"] = Made("frcnn 1", "def5678", {"torch": "2.0"})
    assert sides.ours(bench, "bccd", [], "train", "val") == first and first["commit"] == "abc1234"


def test_training_of_other_code_is_not_evaluated(
    bench: sides.Bench, children: Children, made: dict[str, Made]
) -> None:
    children.fail, children.at = ChildError("out of memory"), "eval"
    with pytest.raises(ChildError):
        sides.ours(bench, "bccd", [], "train", "val")
    children.fail = None
    made["frcnn"] = Made("frcnn 2", "def5678", {"torch": "2.0"})
    done = sides.ours(bench, "bccd", [], "train", "val")
    assert children.verbs == ["frcnn train", "frcnn eval", "frcnn train", "frcnn eval"]
    assert done["commit"] == "def5678" and done["key"]["source"] == "frcnn 2"


def test_lines_from_before_are_still_read(bench: sides.Bench, children: Children) -> None:
    bench.records.path.parent.mkdir(parents=True)
    bench.records.path.write_text(OLD, encoding="utf-8")
    kept = sides.Bench(bench.data, bench.work, keep_older=True)
    assert sides.rival(kept, "bccd", OLD_SETTINGS, "train", "val") == json.loads(OLD)
    assert not children.commands
    sides.rival(kept, "bccd", OLD_SETTINGS, "trainval", "test")
    assert children.verbs == ["rival train", "rival eval"]
    anew = sides.rival(bench, "bccd", OLD_SETTINGS, "train", "val")
    assert anew["train_seconds"] == 100 and len(children.commands) == 4


def test_no_path_of_this_machine(bench: sides.Bench) -> None:
    text = f"--a {bench.work}/x --b={bench.data}/y {sides.ROOT}/benchmarks/z.py --config /home/me/a.yaml"
    shown = "--a WORK/x --b=$FRCNN_DATA/y benchmarks/z.py --config a.yaml"
    assert sides.portable(bench, {"runs": [text, ("--c=/one/two/", 3)]}) == {"runs": [shown, ["--c=two", 3]]}
    for text in ("", "AP/AP50, 1 / 2", "tf/x", "https://a.b/c"):
        assert sides.portable(bench, text) == text


@pytest.mark.parametrize(("name", "hint"), [("bccd", "FRCNN_DATA"), ("pennfudan", "run prepare first")])
def test_data_that_is_not_there(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        sides.rival(sides.Bench(tmp_path, tmp_path), name, [], "train", "val")
