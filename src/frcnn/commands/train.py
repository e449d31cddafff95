"""``frcnn train``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from frcnn.commands.errors import CommandError
from frcnn.commands.setup import DEFAULT_RECIPE, base_config, require_training, size_settings
from frcnn.config import Config
from frcnn.recipes import RECIPES
from frcnn.recipes import recipe as named_recipe


class BadBoxes(StrEnum):
    """What becomes of boxes that cannot be used."""

    error = "error"
    drop = "drop"


class BadImage(StrEnum):
    """What becomes of pictures that cannot be read."""

    error = "error"
    skip = "skip"


class Precision(StrEnum):
    """Arithmetic of the training step."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the configuration; may be given many times."),
]


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of the pictures and boxes (not needed with --resume).", show_default=False
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(RECIPES)}; default {DEFAULT_RECIPE}.", show_default=False),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training pictures.")] = None,
    time: Annotated[
        str | None, typer.Option(metavar="30m", help="Fit the schedule to this much time: 90s, 30m, 1h30m.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures of a step on one device.")] = None,
    min_size: Annotated[
        int | None, typer.Option(min=16, help="Short side in pixels; the limit of the long side moves along.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate for 16 pictures a step; scaled by the real number.")
    ] = None,
    train_split: Annotated[
        str | None, typer.Option("--train", metavar="SPLIT", help="Split to train on.")
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="Split to validate on, a share to hold out (0.2), or none."),
    ] = None,
    bad_boxes: Annotated[
        BadBoxes | None,
        typer.Option(help="Boxes without area, not finite or outside: stop, or leave them out."),
    ] = None,
    on_bad_image: Annotated[
        BadImage | None, typer.Option(help="Pictures that cannot be read: stop, or leave them out.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of weights, order, variation and held-out part.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Number of devices that share a step.")] = 1,
    precision: Annotated[Precision | None, typer.Option(help="Arithmetic of the training step.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Stop after so many validations without a better AP; 0: never.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Model file to start from.")] = None,
    backbone_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Backbone weights in torchvision's or timm's naming.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration as YAML.")] = None,
    settings: Settings = None,
    name: Annotated[str | None, typer.Option(help="Of the run folder; default: the recipe's.")] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where run folders are made.")] = Path("runs"),
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with a run; it keeps its configuration and data."),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Repeatable also on a GPU; slower.")
    ] = False,
) -> None:
    """Train a detector on your pictures and boxes."""
    require_training()
    if data is None and resume is None:
        raise CommandError("no data: give the folder of a data set, as in: frcnn train FOLDER", 2)
    chosen = base_config(recipe, config)
    keys = {
        "train.lr": lr,
        "train.patience": patience,
        "train.precision": precision,
        "train.deterministic": True if deterministic else None,
        "data.on_bad_image": on_bad_image,
    }
    common = [f"{key}={value}" for key, value in keys.items() if value is not None]
    if min_size is not None:
        common += size_settings(chosen or _starting_config(weights, resume), min_size)
    from frcnn.training.run import train as run_training

    run = run_training(
        data,
        recipe if config is None else None,
        epochs=epochs,
        batch=batch,
        seed=seed,
        config=None if config is None else chosen,
        settings=(*common, *(settings or ())),
        name=name,
        runs=out,
        train=train_split,
        val=val,
        time=time,
        device=device,
        devices=devices,
        resume=resume,
        bad_boxes=None if bad_boxes is None else bad_boxes.value,
        weights=weights,
        backbone_weights=backbone_weights,
    )
    typer.echo(f"next: frcnn predict {run.folder} PICTURES, or frcnn eval {run.folder} DATA --split test")


def _starting_config(weights: Path | None, resume: Path | None) -> Config:
    """What sizes are relative to, where neither recipe nor file was given."""
    if resume is not None:
        raise CommandError("--min-size cannot change in a resumed run; leave it out", 2)
    if weights is None:
        return named_recipe(DEFAULT_RECIPE)
    from frcnn.weights.checkpoint import load_checkpoint

    return load_checkpoint(weights).config
