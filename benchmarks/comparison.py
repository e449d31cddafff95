"""torchvision's settings tried on a validation part, and both sides in turn on the test part."""

from __future__ import annotations

import itertools
import json
import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provenance import NOT_RECORDED, Made, made_with
from records import DONE, Entry, Records, machine, settings_of
from sides import DATASETS, RIVAL, Bench, describe, ours, portable, rival, split_seed


@dataclass(frozen=True)
class Grid:
    """The settings of torchvision that are tried, each with each.

    Attributes:
        lr: highest learning rates, for the batch as it is.
        epochs: lengths of the schedule.
        precision: ``fp32`` and ``bf16``.
        seeds: every setting once with each.
        common: further options of every run.
    """

    lr: Sequence[float] = (0.005, 0.01, 0.02)
    epochs: Sequence[int] = (6, 12)
    precision: Sequence[str] = ("fp32", "bf16")
    seeds: Sequence[int] = (0,)
    common: Sequence[str] = ()

    def settings(self) -> Iterator[list[str]]:
        """Options of ``rival.py train``, short schedules first."""
        for epochs, precision, lr, seed in itertools.product(
            self.epochs, self.precision, self.lr, self.seeds
        ):
            yield [
                *("--lr", f"{lr:g}", "--epochs", str(epochs), "--precision", precision),
                *("--seed", str(seed), *self.common),
            ]


@dataclass(frozen=True)
class Tuned:
    """A setting of torchvision's and what it reached on the validation part.

    Attributes:
        settings: without the seed.
        ap: mean over the seeds.
        seconds: median of the trainings.
        runs: how many there are.
        commits: that they were made at, each once.
    """

    settings: tuple[str, ...]
    ap: float
    seconds: float
    runs: int
    commits: tuple[str | None, ...]


def tune(bench: Bench, datasets: Sequence[str], grid: Grid) -> None:
    """Try every setting on ``train`` and measure it on ``val``; the test part is not touched."""
    for dataset in datasets:
        for settings in grid.settings():
            rival(bench, dataset, settings, "train", "val")
        for row in ranking(bench.records, dataset, _wanted(bench)):
            reached = f"AP {row.ap:.4f} in {row.seconds:.0f} s (mean and median of {row.runs})"
            print(f"{dataset:<9} {reached}: {' '.join(row.settings)}")


def ranking(records: Records, dataset: str, made: Made | None = None) -> list[Tuned]:
    """All whole schedules of torchvision's measured on ``val``, the best mean AP first, then the fastest.

    Args:
        records: the finished runs; of one that was made again the latest counts.
        dataset: whose.
        made: what they have to be made with; None: all count.
    """
    groups: dict[tuple[str, ...], list[Entry]] = {}
    found = [entry for entry in records.read(DONE) if made is None or made.made(entry)]
    latest = {json.dumps(settings_of(entry["key"])): entry for entry in found}
    for entry in latest.values():
        key = entry["key"]
        whole = "--max-steps" not in key["settings"] and not key["mark"]
        wanted = (key["side"], key["data"], key["train"], key["test"], key["code"])
        if whole and wanted == ("torchvision", dataset, "train", "val", RIVAL):
            groups.setdefault(tuple(split_seed(key["settings"])[0]), []).append(entry)
    rows = [
        Tuned(
            settings,
            statistics.mean(entry["metrics"].get("AP") or 0.0 for entry in entries),
            statistics.median(entry["train_seconds"] for entry in entries),
            len(entries),
            tuple(_each_once(entry.get("commit", NOT_RECORDED) for entry in entries)),
        )
        for settings, entries in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row.ap, row.seconds))


def _wanted(bench: Bench) -> Made | None:
    """What the runs of the tuning have to be made with; None: anything."""
    return None if bench.keep_older else made_with("torchvision")


@dataclass(frozen=True)
class Plan:
    """What a comparison trains.

    Attributes:
        datasets: names.
        seeds: of frcnn's runs.
        rival_seeds: of torchvision's.
        rival: settings for torchvision; None: the best of the tuning, for each data set.
        ours: options of ``frcnn train``, each a setting of its own that is compared; ``""``: the default
            recipe as it is. ``bccd: --epochs 6`` is one for that data set only.
        name: of the comparison; another name trains anew.
    """

    datasets: Sequence[str]
    seeds: Sequence[int]
    rival_seeds: Sequence[int]
    rival: Sequence[str] | None = None
    ours: Sequence[str] = ("",)
    name: str = "comparison"

    def settings(self, dataset: str) -> list[list[str]]:
        """Of frcnn's on one data set, as words.

        Raises:
            ValueError: when there are none.
        """
        of_one = [text.partition(":") for text in self.ours]
        found = [
            shlex.split(rest if colon and name in DATASETS else name + colon + rest)
            for name, colon, rest in of_one
            if name not in DATASETS or name == dataset
        ]
        if not found:
            raise ValueError(f"{dataset}: --ours names settings of other data sets only; add one for it")
        return found


def compare(bench: Bench, plan: Plan, out: Path) -> Entry:
    """Train both sides in turn on ``trainval``, measure them on ``test``, write a file of results.

    Raises:
        ValueError: when torchvision was not tuned on a data set and no settings are given.
    """
    chosen = {dataset: _rival_settings(bench, plan, dataset) for dataset in plan.datasets}
    mine = {dataset: plan.settings(dataset) for dataset in plan.datasets}
    runs: list[Entry] = []
    for seed in sorted({*plan.seeds, *plan.rival_seeds}):
        for dataset in plan.datasets:
            if seed in plan.rival_seeds:
                settings = [*chosen[dataset], "--seed", str(seed)]
                runs.append(rival(bench, dataset, settings, "trainval", "test", plan.name))
            if seed in plan.seeds:
                for words in mine[dataset]:
                    settings = ["--seed", str(seed), *words]
                    runs.append(ours(bench, dataset, settings, "trainval", "test", plan.name))
    runs = [_shown(run) for run in runs]
    tuning = {dataset: ranking(bench.records, dataset, _wanted(bench)) for dataset in plan.datasets}
    result: Entry = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "start": "both sides: the same ImageNet weights of the backbone (tf_efficientnet_lite0)",
        "time": "of the training command: start of the process, imports, reading, all epochs, weights saved",
        "sessions": len({run["session"] for run in runs}),
        "summary": {dataset: summary(runs, dataset) for dataset in plan.datasets},
        "tuning": {dataset: [vars(row) for row in rows] for dataset, rows in tuning.items()},
        "runs": runs,
    }
    result = portable(bench, result)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for run in runs:
        print(describe(run))
    print(json.dumps(result["summary"], indent=2), f"written: {out}", sep="\n")
    return result


def _shown(run: Entry) -> Entry:
    """A run as the file of results holds it: what older lines do not say is said to be missing."""
    found = {"commit": NOT_RECORDED, "versions": NOT_RECORDED, **run}
    return {**found, "key": {**run["key"], "source": run["key"].get("source", NOT_RECORDED)}}


def summary(runs: Sequence[Mapping[str, Any]], dataset: str) -> Entry:
    """Mean, least and highest of both sides on one data set, a block for every setting, and how their times
    compare.

    ``same_versions`` says of a block whether all its runs were made with one recipe, one source and the same
    packages; false where that is not known. ``time_ratio`` is torchvision's median time over that of a
    setting of frcnn's, and ``same_session`` whether all runs of both were made in one session, one after the
    other; both are None without torchvision.
    """
    found: Entry = {"torchvision": [], "frcnn": []}
    for side, blocks in found.items():
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for run in runs:
            if run["key"]["side"] == side and run["key"]["data"] == dataset:
                groups.setdefault(" ".join(split_seed(run["key"]["settings"])[0]), []).append(run)
        for settings, mine in groups.items():
            block: Entry = {"settings": settings, "runs": len(mine), "seeds": [run["seed"] for run in mine]}
            block["commits"] = _each_once(run["commit"] for run in mine)
            made = _each_once((run["key"]["code"], run["key"]["source"], run["versions"]) for run in mine)
            block["same_versions"] = len(made) == 1 and NOT_RECORDED not in made[0]
            block["sessions"] = _each_once(run["session"] for run in mine)
            block["train_seconds"] = _spread([run["train_seconds"] for run in mine])
            for name in ("AP", "AP50"):
                block[name] = _spread([run["metrics"].get(name) or 0.0 for run in mine])
            blocks.append(block)
    theirs = found["torchvision"][0] if found["torchvision"] else None
    for block in found["frcnn"]:
        block["time_ratio"] = block["same_session"] = None
        if theirs is not None:
            ratio = theirs["train_seconds"]["median"] / block["train_seconds"]["median"]
            block["time_ratio"] = round(ratio, 2)
            block["same_session"] = len({*theirs["sessions"], *block["sessions"]}) == 1
    return found


def _each_once(values: Iterable[Any]) -> list[Any]:
    """In the order in which they come; they need not be hashable."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": round(statistics.mean(values), 4),
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def _rival_settings(bench: Bench, plan: Plan, dataset: str) -> list[str]:
    if plan.rival is not None:
        return split_seed(plan.rival)[0]
    rows = ranking(bench.records, dataset, _wanted(bench))
    if not rows:
        older = " (--keep-older takes those of other versions)" if ranking(bench.records, dataset) else ""
        raise ValueError(
            f"{dataset}: torchvision has no tuning runs{older}; run tune {dataset} first, or give --rival"
        )
    return list(rows[0].settings)
