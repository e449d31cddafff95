"""The settings of torchvision's training; not in ``rival.py``, so that reading them loads no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

DIVERGED = 3
"""Exit code of a training whose loss is not finite."""


def add_training(parser: argparse.ArgumentParser) -> None:
    """The settings of a training, with the defaults of the comparison."""
    parser.add_argument("--lr", type=float, default=0.005, help="for the batch as it is")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument(
        "--norm", choices=("eval", "frozen"), default="eval", help="form of the fixed batch norm"
    )
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--clip", type=float, default=10.0, help="largest norm of the gradient; 0: none")
    parser.add_argument("--warmup", type=int, default=100, help="steps; at most a tenth of the run")
    parser.add_argument("--ema", type=float, default=0.0, help="decay of averaged weights; 0: none")
    parser.add_argument("--min-size", type=int, nargs="+", default=[320], help="several: one is drawn")
    parser.add_argument("--max-size", type=int, default=640)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=0, help="stop early, to try it out; 0: do not")


def training_options(words: Sequence[str]) -> argparse.Namespace:
    """Every setting, from words as ``rival.py train`` takes them."""
    parser = argparse.ArgumentParser("settings of torchvision's training")
    add_training(parser)
    return parser.parse_args(list(words))


def training_words(options: argparse.Namespace) -> list[str]:
    """The settings as words, in one order; those at their defaults are left out, but for the main ones."""
    words: list[str] = []
    for name, default in vars(training_options([])).items():
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
