"""Which settings of torchvision's are best, who runs when, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comparison
import pytest
from comparison import Grid, Plan, compare, ranking, summary, tune
from provenance import NOT_RECORDED, Made
from records import DONE, Records
from sides import RIVAL, Bench

NOW = Made("now", "abc1234", {"torch": "2.0"})


def line(settings: str, ap: float | None, seconds: float = 100, **key: Any) -> dict[str, Any]:
    """A finished run of torchvision's in the tuning, unless ``key`` says otherwise."""
    whole = {"side": "torchvision", "data": "bccd", "train": "train", "test": "val", "mark": ""}
    return {
        "key": {**whole, "code": RIVAL, "source": NOW.source, "settings": settings.split(), **key},
        "stage": DONE,
        "session": "s",
        "commit": NOW.commit,
        "versions": NOW.versions,
        "seed": 0,
        "diverged": ap is None,
        "train_seconds": seconds,
        "metrics": {} if ap is None else {"AP": ap, "AP50": ap},
    }


def older(row: dict[str, Any]) -> dict[str, Any]:
    """The line as it was before runs recorded what they were made with."""
    row = {name: value for name, value in row.items() if name not in ("commit", "versions")}
    return {**row, "key": {name: value for name, value in row["key"].items() if name != "source"}}


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "made_with", lambda side: NOW)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes the place of both sides; a line for every run that was asked for."""
    found: list[str] = []

    def run(side: str, seconds: float) -> Any:
        def one(
            bench: Bench, dataset: str, settings: list[str], train: str, test: str, mark: str = ""
        ) -> Any:
            found.append(f"{side} {dataset} {' '.join(settings)} {train} {test} {mark}".strip())
            key = {"side": side, "data": dataset, "train": train, "test": test, "mark": mark}
            row = line(" ".join(settings), 0.5 + 0.01 * len(found), seconds, **key)
            bench.records.add(row)
            return row

        return one

    monkeypatch.setattr(comparison, "rival", run("torchvision", 500))
    monkeypatch.setattr(comparison, "ours", run("frcnn", 100))
    return found


def test_ranking_of_nothing(tmp_path: Path) -> None:
    assert ranking(Records(tmp_path / "none"), "bccd") == []


def test_ranking(tmp_path: Path) -> None:
    records = Records(tmp_path / "runs.jsonl")
    rows = [
        line("--lr 1 --seed 0", 0.40),
        line("--lr 1 --seed 1", 0.60, 200),
        line("--lr 2 --seed 0", 0.52, 300),
        line("--lr 3 --seed 0", 0.52, 200),
        line("--lr 4 --seed 0", None),
        line("--lr 5 --seed 0", 0.9, test="test"),  # the test part decides nothing
        line("--lr 5 --seed 0", 0.9, data="pennfudan"),
        line("--lr 5 --seed 0", 0.9, side="frcnn"),
        line("--lr 5 --seed 0", 0.9, code=RIVAL - 1),
        line("--lr 5 --seed 0 --max-steps 3", 0.9),
        line("--lr 2 --seed 0", 0.51, 300),  # made again
    ]
    for row in rows:
        records.add(row)
    found = [
        (" ".join(row.settings), round(row.ap, 6), row.seconds, row.runs) for row in ranking(records, "bccd")
    ]
    assert found == [
        ("--lr 3", 0.52, 200, 1),
        ("--lr 2", 0.51, 300, 1),
        ("--lr 1", 0.5, 150, 2),
        ("--lr 4", 0, 100, 1),
    ]


def test_ranking_of_what_was_made_with_the_same(tmp_path: Path) -> None:
    records = Records(tmp_path / "runs.jsonl")
    records.add(line("--lr 1 --seed 0", 0.4))
    records.add({**line("--lr 1 --seed 1", 0.6, source="other"), "commit": None})
    records.add(older(line("--lr 2 --seed 0", 0.9)))
    records.add({**line("--lr 3 --seed 0", 0.8), "versions": {"torch": "1.0"}})
    assert [(row.ap, row.runs, row.commits) for row in ranking(records, "bccd", NOW)] == [
        (0.4, 1, ("abc1234",))
    ]
    assert [(round(row.ap, 6), row.commits) for row in ranking(records, "bccd")] == [
        (0.9, (NOT_RECORDED,)),
        (0.8, ("abc1234",)),
        (0.5, ("abc1234", None)),
    ]


def test_grid_of_nothing_and_of_each_with_each() -> None:
    assert list(Grid(lr=()).settings()) == []
    words = [
        " ".join(w) for w in Grid((0.1, 0.2), (3,), ("fp32", "bf16"), (0, 1), ("--ema", "0.9")).settings()
    ]
    assert len(words) == len(set(words)) == 8
    assert words[0] == "--lr 0.1 --epochs 3 --precision fp32 --seed 0 --ema 0.9"


def test_tuning_sees_train_and_val_only(tmp_path: Path, called: list[str]) -> None:
    tune(Bench(tmp_path, tmp_path), ["bccd"], Grid((0.1,), (1, 2), ("fp32",)))
    assert called == [
        f"torchvision bccd --lr 0.1 --epochs {n} --precision fp32 --seed 0 train val" for n in (1, 2)
    ]


def test_summary_of_no_runs() -> None:
    assert summary([], "bccd") == {"torchvision": [], "frcnn": []}


def test_both_sides_in_turn_with_the_tuned_settings(tmp_path: Path, called: list[str]) -> None:
    bench, out = Bench(tmp_path, tmp_path), tmp_path / "results" / "x.json"
    bench.records.add(line("--lr 1 --seed 0", 0.5))
    bench.records.add(line("--lr 2 --seed 0", 0.6))
    settings = ["--epochs 9", "pennfudan: --epochs 7", "bccd: --epochs 8"]
    result = compare(bench, Plan(["bccd"], [0, 1], [0], ours=settings, name="n"), out)
    assert called == [
        "torchvision bccd --lr 2 --seed 0 trainval test n",
        "frcnn bccd --seed 0 --epochs 9 trainval test n",
        "frcnn bccd --seed 0 --epochs 8 trainval test n",
        "frcnn bccd --seed 1 --epochs 9 trainval test n",
        "frcnn bccd --seed 1 --epochs 8 trainval test n",
    ]
    written = json.loads(out.read_text())
    assert written["sessions"] == 1
    ours, other = written["summary"]["bccd"]["frcnn"]
    assert (ours["settings"], other["settings"]) == ("--epochs 9", "--epochs 8")
    assert ours["time_ratio"] == other["time_ratio"] == 5.0
    assert ours["runs"] == 2 and ours["AP"] == {"mean": 0.53, "median": 0.53, "min": 0.52, "max": 0.54}
    assert [row["ap"] for row in written["tuning"]["bccd"]] == [0.6, 0.5]
    assert {"date", "machine", "runs"} <= set(written) and result["runs"] == written["runs"]
    assert ours["same_session"] and ours["same_versions"] and ours["commits"] == ["abc1234"]


def test_what_a_results_file_says_of_older_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: list[str]
) -> None:
    bench, out = Bench(tmp_path, tmp_path, keep_older=True), tmp_path / "x.json"
    bench.records.add(older(line("--lr 1 --seed 0", 0.5)))
    words = f"--lr 1 --seed 0 --weights {tmp_path}/a.safetensors --config /home/me/b.yaml"
    found = older(line(words, 0.6, 500, train="trainval", test="test", mark="comparison"))
    found["session"] = "earlier"
    monkeypatch.setattr(comparison, "rival", lambda *_: found)
    result = compare(bench, Plan(["bccd"], [0], [0]), out)
    text = out.read_text()
    assert str(tmp_path) not in text and "/home/me" not in text and json.loads(text) == result
    theirs, ours = result["runs"]
    assert theirs["commit"] == theirs["versions"] == theirs["key"]["source"] == NOT_RECORDED
    assert (ours["commit"], ours["versions"]) == ("abc1234", {"torch": "2.0"})
    (block,), (mine,) = result["summary"]["bccd"].values()
    assert block["commits"] == [NOT_RECORDED] and not block["same_versions"]
    assert mine["time_ratio"] == 5.0 and not mine["same_session"] and mine["same_versions"]
    assert result["tuning"]["bccd"][0]["commits"] == [NOT_RECORDED] and result["sessions"] == 2


@pytest.mark.parametrize(
    ("change", "session", "versions"),
    [
        ({}, True, True),
        ({"session": "t"}, False, True),
        ({"versions": {"torch": "1.0"}}, True, False),
        ({"key": line("--seed 1", 0.6, side="frcnn", source="other")["key"]}, True, False),
        ({"key": line("--seed 1", 0.6, side="frcnn", code="other")["key"]}, True, False),
    ],
)
def test_runs_of_several_sessions_and_versions(change: dict[str, Any], session: bool, versions: bool) -> None:
    runs = [line("--lr 1 --seed 0", 0.5, 500)]
    runs += [line(f"--seed {seed}", 0.6, side="frcnn") for seed in (0, 1)]
    runs[-1] |= change
    (block,) = summary(runs, "bccd")["frcnn"]
    assert (block["same_session"], block["same_versions"], block["runs"]) == (session, versions, 2)
    (alone,) = summary(runs[1:], "bccd")["frcnn"]
    assert alone["same_session"] is None and alone["time_ratio"] is None


def test_settings_of_one_data_set() -> None:
    plan = Plan(["bccd"], [0], [0], ours=["bccd: --epochs 3", "--set a.b={x: 1}"])
    assert plan.settings("bccd") == [["--epochs", "3"], ["--set", "a.b={x:", "1}"]]
    assert Plan(["bccd"], [0], [0]).settings("bccd") == [[]]
    with pytest.raises(ValueError, match="pennfudan: --ours names settings of other data sets only"):
        Plan(["pennfudan"], [0], [0], ours=["bccd: --epochs 3"]).settings("pennfudan")


def test_comparison_without_tuning(tmp_path: Path, called: list[str]) -> None:
    bench, out = Bench(tmp_path, tmp_path), tmp_path / "x.json"
    with pytest.raises(ValueError, match="no tuning runs; run tune bccd first"):
        compare(bench, Plan(["bccd"], [0], [0]), out)
    bench.records.add(older(line("--lr 1 --seed 0", 0.5)))
    with pytest.raises(ValueError, match=r"no tuning runs \(--keep-older takes .*\); run tune bccd first"):
        compare(bench, Plan(["bccd"], [0], [0]), out)
    assert not called and not out.exists()
    compare(bench, Plan(["bccd"], [0], [0], ["--lr", "3", "--seed", "8"]), out)
    assert called[0] == "torchvision bccd --lr 3 --seed 0 trainval test comparison"
