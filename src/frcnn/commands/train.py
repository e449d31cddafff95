"""``frcnn train``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from frcnn.commands import options
from frcnn.commands.errors import CommandError
from frcnn.commands.setup import (
    DEFAULT_RECIPE,
    base_config,
    one_class_rename,
    require_training,
    settings_of,
    size_settings,
)
from frcnn.config import Config
from frcnn.recipes import recipe as named_recipe


def train(
    data: options.DataOrRun = None,
    recipe: options.Recipe = None,
    epochs: options.Epochs = None,
    steps: options.Steps = None,
    time: options.Time = None,
    batch: options.Batch = None,
    min_size: options.MinSize = None,
    lr: options.LearningRate = None,
    train_split: options.TrainSplit = None,
    val: options.ValSplit = None,
    group_by: options.GroupBy = None,
    folds: options.Folds = None,
    fold: options.Fold = None,
    splits: options.Splits = None,
    aug: options.Augment = None,
    tile: options.Tile = None,
    overlap: options.Overlap = None,
    one_class: options.OneClass = None,
    bad_boxes: options.BadBoxesOption = None,
    on_bad_image: options.BadImageOption = None,
    exif: options.ExifOption = None,
    dedupe: options.Dedupe = None,
    decode: options.DecodeFirst = None,
    seed: options.Seed = None,
    device: options.Device = "auto",
    devices: options.Devices = 1,
    precision: options.Precision = None,
    compiled: options.Compile = False,
    patience: options.Patience = None,
    weights: options.Weights = None,
    backbone_weights: options.BackboneWeights = None,
    rpn_weights: options.RpnWeights = None,
    proposals: options.GivenProposals = None,
    freeze: options.Freeze = None,
    config: options.Config = None,
    settings: options.Settings = None,
    name: options.Name = None,
    out: options.Runs = Path("runs"),
    save_every: options.SaveEvery = None,
    resume: options.Resume = None,
    deterministic: options.Deterministic = False,
) -> None:
    """Train a detector on your pictures and boxes."""
    require_training()
    if data is None and resume is None:
        raise CommandError("no data: give the folder of a data set, as in: frcnn train FOLDER", 2)
    chosen = base_config(recipe, config)
    sizes = [] if min_size is None else size_settings(chosen or _starting_config(weights, resume), min_size)
    common = settings_of(
        {
            "train.lr": lr,
            "train.patience": patience,
            "train.precision": precision,
            "train.deterministic": deterministic or None,
            "data.augment": None if aug is None else aug.value,
            "preprocess.tile": tile,
            "preprocess.overlap": overlap,
            "data.rename": one_class_rename(one_class),
            "data.on_bad_image": on_bad_image,
            "data.group_by": None if group_by is None else json.dumps(group_by),
            "data.folds": folds,
            "data.fold": fold,
            "data.exif": exif,
            "data.dedupe": dedupe,
        }
    )
    from frcnn.training.run import train as run_training

    run = run_training(
        data,
        recipe if config is None else None,
        epochs=epochs,
        steps=steps,
        save_every=save_every,
        freeze=None if freeze is None else split_names(freeze),
        batch=batch,
        seed=seed,
        config=None if config is None else chosen,
        settings=(*common, *sizes, *(settings or ())),
        name=name,
        runs=out,
        train=train_split,
        val=val,
        splits=splits,
        time=time,
        device=device,
        devices=devices,
        resume=resume,
        bad_boxes=None if bad_boxes is None else bad_boxes.value,
        decode=decode,
        weights=weights,
        backbone_weights=backbone_weights,
        rpn_weights=rpn_weights,
        proposals=proposals,
        compile=True if compiled else None,
    )
    typer.echo(f"next: frcnn predict {run.folder} PICTURES, or frcnn eval {run.folder} {data or 'DATA'}")


def split_names(values: Sequence[str]) -> tuple[str, ...]:
    """Names that were given one by one or with commas between them."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _starting_config(weights: Path | None, resume: Path | None) -> Config:
    """What sizes are relative to, where neither recipe nor file was given."""
    if resume is not None:
        raise CommandError("--min-size cannot change in a resumed run; leave it out", 2)
    if weights is None:
        return named_recipe(DEFAULT_RECIPE)
    from frcnn.weights.checkpoint import load_checkpoint

    return load_checkpoint(weights).config
