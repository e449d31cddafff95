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
finished run is a line of ``runs.jsonl`` in the work folder; whoever starts again makes only the missing ones
and those of another source or other packages. ``--keep-older`` takes such runs as they are. The file of
results names the commit and the versions of every run, and whether a ratio's runs were made in one session.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pennfudan
from comparison import Grid, Plan, compare, tune
from records import ChildError
from rival_options import add_training, training_words
from sides import DATASETS, ROOT, Bench, ours, rival


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn mistakes into one sentence."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    parser = _parser()
    options = parser.parse_args(words[:end])
    options.frcnn = words[end + 1 :]
    if options.frcnn and options.verb != "ours":
        parser.error("only ours takes options of frcnn train after --")
    data = Path(os.environ.get("FRCNN_DATA", ROOT.parent / "shared" / "data")).resolve()
    again, older = getattr(options, "again", False), getattr(options, "keep_older", False)
    bench = Bench(data, options.work.resolve(), again, older)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the child, too
    try:
        _run(bench, options)
    except (ValueError, ChildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; finished runs are kept, the same command goes on", file=sys.stderr)
        return 130
    return 0


def _run(bench: Bench, options: argparse.Namespace) -> None:
    if options.verb == "prepare":
        counts = pennfudan.prepare(bench.data / "pennfudan", bench.work / "pennfudan")
        print("pennfudan:", ", ".join(f"{name} {count}" for name, count in counts.items()))
    elif options.verb == "rival":
        rival(bench, options.dataset, training_words(options), options.train, options.test)
    elif options.verb == "ours":
        settings = ["--seed", str(options.seed), *options.frcnn]
        ours(bench, options.dataset, settings, options.train, options.test)
    elif options.verb == "tune":
        common = shlex.split(options.common)
        tune(
            bench,
            options.datasets,
            Grid(options.lr, options.epochs, options.precision, options.seeds, common),
        )
    else:
        rival_seeds = options.seeds if options.rival_seeds is None else options.rival_seeds
        chosen = None if options.rival is None else shlex.split(options.rival)
        plan = Plan(options.datasets, options.seeds, rival_seeds, chosen, options.ours or ("",), options.name)
        compare(bench, plan, options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    place = ROOT / "runs" / "benchmark-data"
    parser.add_argument(
        "--work", type=Path, default=place, help="folder to write to; default: runs/benchmark-data"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare", help="make Penn-Fudan a VOC data set")
    for name, what in (("rival", "one run of torchvision"), ("ours", "one run of frcnn")):
        verb = verbs.add_parser(name, help=what)
        verb.add_argument("dataset", choices=DATASETS)
        verb.add_argument("--train", default="train", metavar="SPLIT")
        verb.add_argument("--test", "--val", default="val", metavar="SPLIT", help="split to measure on")
        which = verb.add_mutually_exclusive_group()
        which.add_argument("--again", action="store_true", help="also where this run is finished")
        _add_keep_older(which)
        if name == "rival":
            add_training(verb)
        else:
            verb.add_argument("--seed", type=int, default=0)
            verb.epilog = "What stands after -- goes to frcnn train, as in: ours bccd -- --epochs 8"
    _add_tune(verbs.add_parser("tune", help="try torchvision's settings on the validation part"))
    _add_compare(verbs.add_parser("compare", help="both sides in turn, measured on the test part"))
    return parser


def _add_keep_older(verb: argparse._ActionsContainer) -> None:
    verb.add_argument(
        "--keep-older",
        action="store_true",
        help="take finished runs also where they were made with other code or packages, or an older recipe",
    )


def _add_tune(verb: argparse.ArgumentParser) -> None:
    grid = Grid()
    verb.add_argument("datasets", nargs="+", choices=DATASETS)
    _add_keep_older(verb)
    verb.add_argument("--lr", type=float, nargs="+", default=grid.lr)
    verb.add_argument("--epochs", type=int, nargs="+", default=grid.epochs)
    verb.add_argument("--precision", choices=("fp32", "bf16"), nargs="+", default=grid.precision)
    verb.add_argument("--seeds", type=int, nargs="+", default=grid.seeds)
    verb.add_argument("--common", default="", metavar="OPTIONS", help="of every run: --common='--ema 0.998'")


def _add_compare(verb: argparse.ArgumentParser) -> None:
    today = datetime.now(UTC).date().isoformat()
    out = ROOT / "benchmarks" / "results" / f"{today}-accuracy.json"
    verb.add_argument("datasets", nargs="+", choices=DATASETS)
    _add_keep_older(verb)
    verb.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    verb.add_argument("--rival-seeds", type=int, nargs="+", help="default: the same")
    verb.add_argument("--rival", metavar="OPTIONS", help="default: the best of the tuning")
    verb.add_argument(
        "--ours",
        action="append",
        metavar="OPTIONS",
        help="as in --ours='--epochs 8', or --ours='bccd: --epochs 8' for one data set; may be given many "
        "times; default: the default recipe as it is",
    )
    verb.add_argument("--name", default="comparison", help="another name trains anew")
    verb.add_argument("--out", type=Path, default=out, help="default: benchmarks/results/DATE-accuracy.json")


if __name__ == "__main__":
    sys.exit(main())
