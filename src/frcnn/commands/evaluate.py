"""``frcnn eval``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from frcnn.commands import options
from frcnn.commands.errors import CommandError
from frcnn.commands.progress import progress
from frcnn.commands.setup import choose_device, model_file, one_class_rename, settings_of
from frcnn.config import Config
from frcnn.files import write_text
from frcnn.settings import with_settings

if TYPE_CHECKING:
    from frcnn.config import DataConfig

TEST, VAL = "test", "val"


def evaluate(
    model: options.Model,
    data: options.Data,
    split: options.EvalSplit = None,
    splits: options.Splits = None,
    protocol: options.Protocol = None,
    score: options.Floor = None,
    max_dets: options.MaxDets = None,
    tile: options.DetectTile = None,
    overlap: options.DetectOverlap = None,
    one_class: options.OneClass = None,
    bad_boxes: options.BadBoxesOption = None,
    on_bad_image: options.BadImageOption = None,
    exif: options.ExifOption = None,
    dedupe: options.Dedupe = None,
    device: options.Device = "auto",
    precision: options.DetectPrecision = None,
    compiled: options.Compile = False,
    as_json: options.AsJson = False,
    out: options.OutOrNot = None,
    settings: options.DataSettings = None,
    proposals: options.GivenProposals = None,
) -> None:
    """Measure a detector on annotated pictures."""
    changes = data_settings(settings or ())
    where = choose_device(device)
    from frcnn.data.check import load_checked
    from frcnn.data.proposals import attach, check_second_stage, read
    from frcnn.evaluation.protocols import choose_protocol
    from frcnn.evaluation.run import evaluate as measure
    from frcnn.predict import Detector

    detector = Detector.load(model_file(model)).to(where).with_tiles(tile, overlap)
    config = detector.config
    rule = choose_protocol(config.detector, None if protocol is None else protocol.value)
    if compiled:
        detector.compile()
    policies = settings_of(
        {
            "data.rename": one_class_rename(one_class),
            "data.bad_boxes": bad_boxes,
            "data.on_bad_image": on_bad_image,
            "data.exif": exif,
            "data.dedupe": dedupe,
        }
    )
    config = with_settings(config, [*policies, *changes])
    detector = replace(detector, config=config)  # pictures are decoded as they were checked
    split, file, line = choose_split(model, data, split, config.data, splits)
    dataset, found = load_checked(data, split, config=config, splits=file, absent="warn")
    unread = found.with_code("D13")
    lines = [found.summary(), *found.flag_lines(), *([found.format(unread)] if unread else []), line]
    print(*lines, sep="\n", file=sys.stderr)
    if proposals is not None:
        check_second_stage(config)
        dataset = attach(dataset, read(proposals))
    with progress(len(dataset), "evaluating") as show:
        report = measure(
            detector,
            dataset,
            protocol=rule,
            score=score,
            max_dets=max_dets,
            precision=None if precision is None else precision.value,
            progress=show,
        )
    if detector.model.compiled is not None:
        print(detector.model.compiled.summary(), file=sys.stderr)
    try:  # what took so long is on the screen where it cannot be written, and the other way round
        typer.echo(report.to_json() if as_json else report.format(color=sys.stdout.isatty()))
    finally:
        if out is not None:
            write_text(out / "evaluation.json", report.to_json() + "\n")
            write_text(out / "classes.csv", report.to_csv())


def data_settings(settings: Sequence[str]) -> list[str]:
    """What ``--set`` may change in an evaluation: how the data are read.

    Raises:
        CommandError: naming the keys that are part of the model.
    """
    keys = [setting.partition("=")[0].strip().removeprefix("model.") for setting in settings]
    sections = set(Config.model_fields) - {"data"}
    fixed = [key for key in keys if key.partition(".")[0] in sections]
    if fixed:
        raise CommandError(
            f"--set {', '.join(fixed)}: the model decides about that; only keys of data can be set "
            "here, such as data.format (score, max-dets, tile, overlap and precision are options)",
            2,
        )
    return list(settings)


def choose_split(
    model: Path, data: Path, split: str | None, config: DataConfig, splits: Path | None = None
) -> tuple[str | None, Path | None, str]:
    """Which pictures are measured: those a user names, else the ones that training has seen least of.

    Args:
        model: model file or run folder; a run knows which pictures it held out.
        data: folder of the data set.
        split: that the user named, or None.
        config: how the data set is read.
        splits: file of splits that the user named, or its run.

    Returns:
        The split, or None for all pictures; the run's ``splits.json`` where it belongs to this data set; and
        a line that says what was chosen.

    Raises:
        DataError: when the data set or the run's splits cannot be read.
    """
    from frcnn.data.open import read_dataset
    from frcnn.data.split import read_splits

    if splits is not None:
        return _named_splits(splits / "splits.json" if splits.is_dir() else splits, split)
    file = model / "splits.json"
    of_run: dict[str, list[str]] = read_splits(file) if file.is_file() else {}
    if split is not None and not of_run.get(split):
        return split, None, f"measured on split {split} of the data"
    whole, _ = read_dataset(data, config=config)
    if not {name for members in of_run.values() for name in members} <= set(whole.pictures.paths):
        of_run.clear()  # a run may well be measured on other data
    if split is None and len(whole.splits.get(TEST, ())):
        split = TEST
    elif split is None and of_run.get(VAL):
        split = VAL
    if split is None:
        return None, None, "measured on all pictures; those the model was trained on may be among them"
    if of_run.get(split):
        return split, file, f"measured on split {split} of the run ({file})"
    return split, None, f"measured on split {split} of the data"


def _named_splits(file: Path, split: str | None) -> tuple[str, Path, str]:
    """What ``choose_split`` returns for a file of splits."""
    from frcnn.data.sample import DataError
    from frcnn.data.split import read_splits

    names = read_splits(file)
    chosen = split or next((name for name in (TEST, VAL) if names.get(name)), None)
    if chosen is None or not names.get(chosen):
        known = ", ".join(f"{name} ({len(members)})" for name, members in names.items()) or "none"
        raise DataError(f"{file}: no pictures for split {chosen or 'val'}; name one of its splits: {known}")
    return chosen, file, f"measured on split {chosen} of {file}"
