"""Which pictures a run trains on and which it validates on, from what its user said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from frcnn.config import Config
from frcnn.data.split import AUTO, NONE, TrainVal, read_splits
from frcnn.training.options import TrainOptions


def held_out_share(val: str | float | None) -> float | None:
    """The share that ``TrainOptions.val`` says; None where it says something else."""
    if val is None or isinstance(val, float | int):
        return None if val is None else float(val)
    try:
        return float(val)
    except ValueError:
        return None


def choose_pictures(options: TrainOptions, config: Config) -> TrainVal:
    """How the pictures are divided where no file says it."""
    named = isinstance(options.val, str) and held_out_share(options.val) is None
    val = str(options.val) if named else AUTO
    held_out = config.data
    asked = bool(held_out_share(options.val))
    return TrainVal(
        options.train or AUTO,
        val,
        held_out.val,
        config.train.seed,
        held_out.group_by,
        held_out.folds,
        held_out.fold,
        asked,
    )


def splits_file(options: TrainOptions, run: Path | None, choice: TrainVal) -> tuple[Path | None, TrainVal]:
    """The file that says which pictures are used, and the choice where another run's file decides it.

    Raises:
        DataError: when the file holds no splits.
        ValueError: when something else chooses pictures, too.
    """
    if run is not None:
        return (run / "splits.json" if (run / "splits.json").exists() else None), choice
    if options.splits is None:
        return None, choice
    others = {
        "--train": options.train,
        "--val": options.val,
        "group_by": choice.group_by,
        "folds": choice.folds,
    }
    for name, value in others.items():
        if value:
            raise ValueError(
                f"splits {options.splits} and {name} {value} both choose pictures; leave one out"
            )
    file = Path(options.splits)
    named = read_splits(file / "splits.json" if file.is_dir() else file)
    val = "val" if named.get("val") else NONE
    return (file / "splits.json" if file.is_dir() else file), replace(
        choice, train="train", val=val, share=0.0
    )
