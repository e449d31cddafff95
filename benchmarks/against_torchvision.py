"""Accuracy for the time: frcnn's default recipe and torchvision's Faster R-CNN, on the same pictures.

Usage, from the project's folder, with BCCD and Penn-Fudan below ``$FRCNN_DATA`` (else ``../shared/data``)::

    python benchmarks/against_torchvision.py prepare
    python benchmarks/against_torchvision.py rival bccd --lr 0.01 --epochs 6 --train train --test val
    python benchmarks/against_torchvision.py ours bccd --train train --test val -- --epochs 8
    python benchmarks/against_torchvision.py tune bccd pennfudan
    python benchmarks/against_torchvision.py compare bccd pennfudan --seeds 0 1 2

Both sides start from the same ImageNet weights of the backbone. ``tune`` tries torchvision's settings on the
validation part; ``compare`` trains torchvision with the best of them and frcnn as it is, in turn, on
``trainval``, measures both on ``test`` with the same evaluation, and writes a file of results.

A run's time is that of its training command, from before the process starts until it has ended: imports,
reading, all epochs, and the weights on the disk. The evaluation is another command and not in it. Every
finished run is a line of ``runs.jsonl`` in the work folder; whoever starts again makes only the missing ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pennfudan
from records import ChildError, Entry, Records, load, run_child
from rival_options import DIVERGED, add_training

ROOT = Path(__file__).resolve().parent.parent
DATASETS = ("bccd", "pennfudan")
RIVAL = 1
"""Part of the key of torchvision's runs; raise it when ``rival.py`` trains otherwise than before."""
SESSION = f"{datetime.now(UTC).isoformat(timespec='seconds')} {os.getpid()}"
"""Of this start of the script: runs of one session were made one after the other."""
GRID = {"lr": (0.005, 0.01, 0.02), "epochs": (6, 12), "precision": ("fp32", "bf16")}


@dataclass(frozen=True)
class Bench:
    """Where things are.

    Attributes:
        data: folder that holds ``bccd`` and ``pennfudan`` as their authors published them.
        work: for everything that is written.
        again: make runs anew that are finished.
    """

    data: Path
    work: Path
    again: bool = False

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


def prepare(bench: Bench) -> None:
    """Make the VOC data set of Penn-Fudan."""
    counts = pennfudan.prepare(bench.data / "pennfudan", bench.work / "pennfudan")
    print("pennfudan:", ", ".join(f"{name} {count}" for name, count in counts.items()))


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
    """
    key = {"side": "torchvision", "data": dataset, "train": train, "test": test, "settings": list(settings)}
    key |= {"mark": mark, "code": RIVAL}
    folder, data = bench.work / "torchvision" / _digest(json.dumps(key)), str(bench.folder(dataset))
    script, weights = str(ROOT / "benchmarks/rival.py"), str(folder / "model.safetensors")
    training = [sys.executable, script, "train", data, "--out", weights, "--train", train, *settings]
    testing = [sys.executable, script, "eval", weights, data, "--split", test]
    return _run(bench, key, folder, training, testing)


def ours(bench: Bench, dataset: str, settings: Sequence[str], train: str, test: str, mark: str = "") -> Entry:
    """The same for frcnn; ``settings`` are options of ``frcnn train``."""
    from frcnn.commands.setup import DEFAULT_RECIPE
    from frcnn.recipes import recipe
    from frcnn.settings import to_yaml

    named = settings[settings.index("--recipe") + 1] if "--recipe" in settings else DEFAULT_RECIPE
    key = {"side": "frcnn", "data": dataset, "train": train, "test": test, "settings": list(settings)}
    key |= {"mark": mark, "code": _digest(to_yaml(recipe(named)))}
    name = _digest(json.dumps(key) + datetime.now(UTC).isoformat())  # frcnn never writes into an old folder
    folder, data = bench.work / "frcnn" / name, str(bench.folder(dataset))
    command = [sys.executable, "-m", "frcnn"]
    training = [*command, "train", data, "--bad-boxes", "drop", "--train", train, "--val", "none", *settings]
    training += ["--out", str(folder.parent), "--name", name]
    testing = [*command, "eval", str(folder), data, "--split", test, "--bad-boxes", "drop", "--json"]
    return _run(bench, key, folder, training, testing)


def _run(bench: Bench, key: Entry, folder: Path, training: Sequence[str], testing: Sequence[str]) -> Entry:
    """Train, measure, record; a finished run is only looked up."""
    known = None if bench.again else bench.records.find(key)
    if known is not None:
        print("finished before:", describe(known), flush=True)
        return known
    logs, began, busy = bench.work / "logs" / folder.name, datetime.now(UTC), load()
    print(f"{key['side']} {key['data']} {' '.join(key['settings'])} (log: {logs}-train.txt)", flush=True)
    code, seconds, _ = run_child(training, Path(f"{logs}-train.txt"), (0, DIVERGED))
    entry: Entry = {"key": key, "began": began.isoformat(timespec="seconds"), "session": SESSION}
    entry |= {"commands": [_portable(bench, training), _portable(bench, testing)], "seed": _seed(key)}
    entry |= {"train_seconds": seconds, "load_before": busy, "load_after": load()}
    entry |= {"diverged": code == DIVERGED, "metrics": {}, "eval_seconds": None}
    if code == 0:
        _, entry["eval_seconds"], out = run_child(testing, Path(f"{logs}-eval.txt"))
        report = json.loads(out[out.index("{") :])
        entry |= {"metrics": report["metrics"], "counts": report["counts"], "measured": report["settings"]}
        entry["classes"] = {row["name"]: {"AP": row["ap"], "AP50": row["ap50"]} for row in report["classes"]}
    bench.records.add(entry)
    print(describe(entry), flush=True)
    return entry


def describe(entry: Mapping[str, Any]) -> str:
    """One line of a finished run."""
    key, metrics = entry["key"], entry["metrics"]
    reached = "loss not finite" if entry["diverged"] else f"AP {metrics['AP']:.4f} AP50 {metrics['AP50']:.4f}"
    return (
        f"{key['side']:<11} {key['data']:<9} {key['train']}->{key['test']} {' '.join(key['settings'])}: "
        f"{reached}, training {entry['train_seconds']:.0f} s"
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _seed(key: Mapping[str, Any]) -> int:
    settings = key["settings"]
    return int(settings[settings.index("--seed") + 1]) if "--seed" in settings else 0


def _portable(bench: Bench, command: Sequence[str]) -> str:
    """A command as anyone may type it: no path of this machine."""
    line = " ".join(command).replace(f"{sys.executable} -m frcnn", "frcnn").replace(sys.executable, "python")
    for path, name in (
        (bench.work, "WORK"),
        (bench.data, "$FRCNN_DATA"),
        (ROOT / "benchmarks", "benchmarks"),
    ):
        line = line.replace(str(path), name)
    return line


def rival_settings(options: argparse.Namespace) -> list[str]:
    """The options of ``rival.py train`` that differ from its defaults, and the seed."""
    parser = argparse.ArgumentParser()
    add_training(parser)
    words: list[str] = []
    for name, default in vars(parser.parse_args([])).items():
        value = getattr(options, name)
        if value != default or name in ("lr", "epochs", "precision", "seed"):
            flag = "--" + name.replace("_", "-")
            values = value if isinstance(value, list) else [value]
            words += (
                [flag]
                if value is True
                else [flag, *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
            )
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn mistakes into one sentence."""
    options = _parser().parse_args(arguments)
    data = Path(os.environ.get("FRCNN_DATA", ROOT.parent / "shared" / "data")).absolute()
    bench = Bench(data, options.work.absolute(), getattr(options, "again", False))
    try:
        if options.verb == "prepare":
            prepare(bench)
        elif options.verb == "rival":
            rival(bench, options.dataset, rival_settings(options), options.train, options.test)
        elif options.verb == "ours":
            settings = ["--seed", str(options.seed), *options.frcnn]
            ours(bench, options.dataset, settings, options.train, options.test)
    except (ValueError, ChildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; finished runs are kept, the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "benchmark-data", help="folder to write to"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare", help="make Penn-Fudan a VOC data set")
    for name in ("rival", "ours"):
        verb = verbs.add_parser(name, help="one run of " + ("torchvision" if name == "rival" else "frcnn"))
        verb.add_argument("dataset", choices=DATASETS)
        verb.add_argument("--train", default="train", metavar="SPLIT")
        verb.add_argument("--test", "--val", default="val", metavar="SPLIT", help="split to measure on")
        verb.add_argument("--again", action="store_true", help="also where this run is finished")
        if name == "rival":
            add_training(verb)
        else:
            verb.add_argument("--seed", type=int, default=0)
            verb.add_argument("frcnn", nargs="*", help="after --: options of frcnn train")
    return parser


if __name__ == "__main__":
    sys.exit(main())
