"""One run of one side of the comparison: its commands, its settings, and the line that it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provenance import Made, made_with
from records import DONE, TRAINED, Entry, Records, load, run_child
from rival_options import DIVERGED, training_options, training_words

ROOT = Path(__file__).resolve().parent.parent
DATASETS = ("bccd", "pennfudan")
RIVAL = 2
"""Part of the key of torchvision's runs; raise it when ``rival.py`` trains otherwise than before, so that not
even ``--keep-older`` takes older runs."""
SESSION = f"{datetime.now(UTC).isoformat(timespec='seconds')} {os.getpid()}"
"""Of this start of the script: runs of one session were made one after the other."""
ELSEWHERE = re.compile(r"(?<![^\s=:,'\"(\[{])/(?!/)[^\s,'\")\]}]+")
"""A path from the root of the file system, alone or after ``=`` and the like: ``--config=/home/a.yaml``."""


@dataclass(frozen=True)
class Bench:
    """Where things are.

    Attributes:
        data: folder that holds ``bccd`` and ``pennfudan`` as their authors published them.
        work: for everything that is written.
        again: make runs anew that are finished.
        keep_older: take a finished run also where it was made with other code or packages, or of another
            recipe of the same name.
    """

    data: Path
    work: Path
    again: bool = False
    keep_older: bool = False

    @property
    def records(self) -> Records:
        """The finished runs."""
        return Records(self.work / "runs.jsonl")

    def folder(self, dataset: str) -> Path:
        """The VOC data set of this name.

        Raises:
            ValueError: when it is not there.
        """
        place = self.data / "bccd" if dataset == "bccd" else self.work / dataset
        if not place.is_dir():
            hint = (
                "set FRCNN_DATA to the folder that holds bccd/" if dataset == "bccd" else "run prepare first"
            )
            raise ValueError(f"{place}: no such folder; {hint}")
        return place


def rival(
    bench: Bench, dataset: str, settings: Sequence[str], train: str, test: str, mark: str = ""
) -> Entry:
    """Train and measure torchvision's detector, or find the finished run.

    Args:
        bench: where things are.
        dataset: ``bccd`` or ``pennfudan``.
        settings: options of ``rival.py train``, seed included.
        train: split to learn from.
        test: split to measure on.
        mark: runs of one comparison; the time of another run does not count there.

    Returns:
        The line of the run.

    Raises:
        ChildError: when a command fails.
    """
    settings = training_words(training_options(settings))  # the same options in the same order are one run
    made = made_with("torchvision")
    key = _key("torchvision", dataset, settings, (train, test), mark, RIVAL, made)
    folder, data = _folder(bench, key), str(bench.folder(dataset))
    script, weights = str(ROOT / "benchmarks" / "rival.py"), str(folder / "model.safetensors")
    training = [sys.executable, script, "train", data, "--out", weights, "--train", train, *settings]
    testing = [sys.executable, script, "eval", weights, data, "--split", test]
    return _run(bench, key, made, training, testing)


def ours(bench: Bench, dataset: str, settings: Sequence[str], train: str, test: str, mark: str = "") -> Entry:
    """The same for frcnn; ``settings`` are options of ``frcnn train``.

    A changed recipe is another run, and so is any other source of the package, unless older runs are kept.
    """
    from frcnn.commands.setup import DEFAULT_RECIPE
    from frcnn.recipes import recipe
    from frcnn.settings import to_yaml

    named = settings[settings.index("--recipe") + 1] if "--recipe" in settings else DEFAULT_RECIPE
    made = made_with("frcnn")
    key = _key("frcnn", dataset, settings, (train, test), mark, _digest(to_yaml(recipe(named))), made)
    folder, data = _folder(bench, key), str(bench.folder(dataset))
    command = [sys.executable, "-m", "frcnn"]
    training = [*command, "train", data, "--bad-boxes", "drop", "--train", train, "--val", "none", *settings]
    training += ["--out", str(folder.parent), "--name", folder.name]
    testing = [*command, "eval", str(folder), data, "--split", test, "--bad-boxes", "drop", "--json"]
    testing += ["--precision", "fp32"]  # as the rival is evaluated
    return _run(bench, key, made, training, testing)


def _key(
    side: str,
    dataset: str,
    settings: Sequence[str],
    splits: tuple[str, str],
    mark: str,
    code: str | int,
    made: Made,
) -> Entry:
    """What makes two runs the same."""
    return {
        "side": side,
        "data": dataset,
        "train": splits[0],
        "test": splits[1],
        "settings": list(settings),
        "mark": mark,
        "code": code,
        "source": made.source,
    }


def _folder(bench: Bench, key: Entry) -> Path:
    return bench.work / str(key["side"]) / _digest(json.dumps(key))


def _run(bench: Bench, key: Entry, made: Made, training: Sequence[str], testing: Sequence[str]) -> Entry:
    """Train, measure, record; what is finished is only looked up."""
    known = _finished(bench, key, made)
    if known is not None:
        print(f"finished {known['began']}: {describe(known)}", flush=True)
        return known
    trained = [] if bench.again else _same(bench.records.alike(key, TRAINED), key, made)
    entry = dict(trained[-1] if trained else _train(bench, key, made, training, testing))
    if not entry["diverged"]:
        _, seconds, out = run_child(testing, _log(bench, key, "eval"))
        report = json.loads(out[out.index("{") :])
        entry |= {"eval_seconds": seconds, "metrics": report["metrics"]}
        entry |= {"counts": report["counts"], "measured": report["settings"]}
        entry["classes"] = {row["name"]: {"AP": row["ap"], "AP50": row["ap50"]} for row in report["classes"]}
    entry["stage"] = DONE
    bench.records.add(entry)
    print(describe(entry), flush=True)
    return entry


def _finished(bench: Bench, key: Entry, made: Made) -> Entry | None:
    """The latest finished run that was made with the same, or, where older ones are kept, with anything."""
    alike = [] if bench.again else bench.records.alike(key, DONE)
    found = _same(alike, key, made) or (alike if bench.keep_older else [])
    if alike and not found:
        print(
            f"{len(alike)} finished with another recipe, code or packages, not taken; "
            "--keep-older takes the latest",
            flush=True,
        )
    return found[-1] if found else None


def _same(entries: Sequence[Entry], key: Entry, made: Made) -> list[Entry]:
    """Those of the same recipe, source and packages."""
    return [entry for entry in entries if entry["key"] == key and made.made(entry)]


def _train(bench: Bench, key: Entry, made: Made, training: Sequence[str], testing: Sequence[str]) -> Entry:
    """Train and record that, so that an evaluation that fails does not cost the training."""
    log, began, busy = _log(bench, key, "train"), datetime.now(UTC), load()
    print(f"{key['side']} {key['data']} {' '.join(key['settings'])} (log: {log})", flush=True)
    shutil.rmtree(_folder(bench, key), ignore_errors=True)  # of a run that was stopped
    code, seconds, _ = run_child(training, log, (0, DIVERGED))
    entry: Entry = {
        "key": key,
        "stage": TRAINED,
        "began": began.isoformat(timespec="seconds"),
        "session": SESSION,
        "commit": made.commit,
        "versions": dict(made.versions),
        "commands": [_portable(bench, training), _portable(bench, testing)],
        "seed": split_seed(key["settings"])[1],
        "train_seconds": seconds,
        "load_before": busy,
        "load_after": load(),
        "diverged": code == DIVERGED,
        "metrics": {},
    }
    bench.records.add(entry)
    return entry


def _log(bench: Bench, key: Entry, name: str) -> Path:
    return bench.work / "logs" / f"{_folder(bench, key).name}-{name}.txt"


def describe(entry: Mapping[str, Any]) -> str:
    """One line of a finished run."""
    key, metrics = entry["key"], entry["metrics"]
    numbers = [f"{name} {metrics.get(name) or 0:.4f}" for name in ("AP", "AP50")]
    reached = "loss not finite" if entry["diverged"] else " ".join(numbers)
    return (
        f"{key['side']:<11} {key['data']:<9} {key['train']}->{key['test']} {' '.join(key['settings'])}: "
        f"{reached}, training {entry['train_seconds']:.0f} s"
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def split_seed(settings: Sequence[str]) -> tuple[list[str], int]:
    """Settings without their seed, and the seed."""
    if "--seed" not in settings:
        return list(settings), 0
    place = settings.index("--seed")
    return [*settings[:place], *settings[place + 2 :]], int(settings[place + 1])


def _portable(bench: Bench, command: Sequence[str]) -> str:
    """A command as anyone may type it: no path of this machine."""
    line = " ".join(command).replace(f"{sys.executable} -m frcnn", "frcnn").replace(sys.executable, "python")
    return portable(bench, line)


def portable(bench: Bench, value: Any) -> Any:
    """The same text, list or mapping without a path of this machine."""
    if isinstance(value, Mapping):
        return {name: portable(bench, each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [portable(bench, each) for each in value]
    if not isinstance(value, str):
        return value
    for path, name in (
        (bench.work, "WORK"),
        (bench.data, "$FRCNN_DATA"),
        (ROOT / "benchmarks", "benchmarks"),
    ):
        value = value.replace(str(path), name)
    return ELSEWHERE.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], value)
