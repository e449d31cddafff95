"""``frcnn.train``: from a folder of pictures to a trained detector in a run folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from frcnn.config import Config
from frcnn.data.feed.loader import Loader
from frcnn.data.sample import Dataset
from frcnn.data.split import TrainVal, split_lines, write_splits
from frcnn.evaluation.report import Report
from frcnn.model.compiled import check_compile
from frcnn.model.detector import Network, build_network
from frcnn.precision import Precision, choose_precision
from frcnn.predict import Detector
from frcnn.settings import to_yaml
from frcnn.training import announce, forecast
from frcnn.training.chosen import choose_parameters
from frcnn.training.feed import make_loaders
from frcnn.training.folder import RunFolder
from frcnn.training.journal import Journal
from frcnn.training.optim import Schedule
from frcnn.training.options import TrainOptions, make_options
from frcnn.training.pictures import TrainData, choose_data
from frcnn.training.plan import (
    check_resumed,
    choose_device,
    raise_limits,
    resolve_config,
    starting_network,
)
from frcnn.training.stages import stage_notes
from frcnn.training.state import TrainState, load_state

CLOSING_SECONDS = 5.0
"""Of a time budget, kept for the report and the last files."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: everything it wrote.
        detector: the averaged weights of the best validation; without validation those of the last step.
        metrics: numbers of the best validation; empty without one.
        report: the whole report of the best validation; None without one, for a resumed run whose best epoch
            lies before, and where several devices trained (then ``evaluation.json`` has it).
    """

    folder: Path
    detector: Detector
    metrics: Mapping[str, float]
    report: Report | None


@dataclass(frozen=True)
class _Prepared:
    """Everything that is decided before the first step."""

    options: TrainOptions
    config: Config
    data: TrainData
    network: Network
    device: torch.device
    precision: Precision
    schedule: Schedule
    notes: tuple[str, ...]
    state: TrainState | None


def train(
    data: str | Path | Dataset | None,
    recipe: str | None = None,
    *,
    epochs: int | None = None,
    **common: Any,
) -> Run:
    """Train a detector on your pictures and boxes.

    Args:
        data: folder of a data set (its format is found out), or a ``Dataset``; None only with ``resume``.
        recipe: name of a recipe; None: ``lite0-fpn``, or that of the configuration, weights or run given.
        epochs: passes over the training pictures; None: the recipe's (or ``steps`` among the others).
        common: the other fields of ``TrainOptions``: ``name``, ``val``, ``batch``, ``time``, ``resume``,
            ``weights``, ``settings`` and so on.

    Returns:
        The run: its folder, the detector, and what validation said.

    Raises:
        ValueError: for options, configuration or data that cannot be used; nothing was trained or written.
        TrainingStopped: when the run failed after it began (exit code 1 on the command line).
        KeyboardInterrupt: after Ctrl-C; the weights were saved.
    """
    options = make_options({"epochs": epochs, **common})
    began = time.monotonic()
    budget = None if options.time is None else forecast.parse_time(options.time)
    try:
        import lightning.pytorch as _  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            f"training needs {error.name}: pip install '.[train]' in the folder of frcnn"
        ) from None
    with Journal(options.progress) as journal:
        prepared = _prepare(data, recipe, options, journal)
        loaders = make_loaders(prepared.data.train, prepared.data.val, prepared.config)
        if prepared.state is None:
            schedule = _schedule(prepared.config, len(loaders[0]), options.devices)
            prepared = replace(prepared, schedule=schedule)
        left = None if budget is None else began + budget - CLOSING_SECONDS
        prepared, evaluation = _look_ahead(prepared, loaders, left, journal)
        return _run(prepared, loaders, None if left is None else left - evaluation, journal)


def _prepare(
    data: str | Path | Dataset | None, recipe: str | None, options: TrainOptions, journal: Journal
) -> _Prepared:
    """Check everything; nothing is written."""
    state = None if options.resume is None else load_state(options.resume)
    config = resolve_config(recipe, options, state)
    device = choose_device(options.device, options.devices)
    folder = None if options.resume is None else _folder_of(options.resume).path
    chosen = choose_data(data, options, config, folder, state)
    journal.say(chosen.report.format())
    notes: list[str] = []
    if state is None or recipe is not None or options.config is not None:  # else the run's own limits hold
        config, notes = raise_limits(config, chosen.train)
    if state is not None:
        check_resumed(state, config, chosen)
        precision = Precision(state.precision, "as the run began")  # type: ignore[arg-type]
        choose_precision(precision.format, device)
        network = build_network(config, len(state.classes), options.parts)
        schedule = Schedule(**state.schedule)
        if config.train.steps:
            schedule = schedule.until(config.train.steps, state.epoch, state.step)
    else:
        precision = choose_precision(config.train.precision, device)
        network, loaded = starting_network(config, chosen.train.classes, options)
        notes = [*notes, *loaded, *stage_notes(config, chosen.train, options)]
        schedule = _schedule(config, 1, options.devices)
    notes += choose_parameters(network, config.train.parameters)
    network.to(device)
    if config.train.compile != "none":
        check_compile(network, config.train.compile)
    return _Prepared(options, config, chosen, network, device, precision, schedule, tuple(notes), state)


def _schedule(config: Config, batches: int, devices: int) -> Schedule:
    train = config.train
    schedule = Schedule(
        epochs=train.epochs,
        batches=-(-batches // devices),
        accumulate=train.accumulate,
        devices=devices,
        batch=train.batch,
        base_lr=train.lr,
        warmup=train.warmup,
        kind=train.schedule,
    )
    return schedule.until(train.steps) if train.steps else schedule


def _look_ahead(
    prepared: _Prepared, loaders: tuple[Loader, Loader | None], left: float | None, journal: Journal
) -> tuple[_Prepared, float]:
    """Say what is trained, measure, fit the schedule to a time budget; also gives validation seconds."""
    _announce(prepared, journal)
    if left is None and not prepared.options.forecast:
        return prepared, 0.0
    measured = forecast.measure_run(
        prepared.network, loaders[0], loaders[1], prepared.data.train, prepared.config, prepared.precision
    )
    if left is not None and prepared.state is None:
        seconds = left - time.monotonic()
        schedule, line = forecast.fit_budget(prepared.schedule, measured, seconds, prepared.options.epochs)
        journal.say(line)
        training = prepared.config.train.model_copy(update={"epochs": schedule.epochs, "steps": 0})
        config = prepared.config.model_copy(update={"train": training})
        prepared = replace(prepared, schedule=schedule, config=config)
    journal.say(measured.describe(prepared.schedule))
    return prepared, measured.evaluation


def _announce(prepared: _Prepared, journal: Journal) -> None:
    data, config, network = prepared.data, prepared.config, prepared.network
    journal.say(f"recipe {config.recipe} on {prepared.device}")
    if data.train.format:
        journal.say(f"data: {data.train.root} ({data.train.format})")
    journal.say("\n".join(announce.class_table(data.both.subset("train"), data.val)))
    for line in split_lines(data.both, TrainVal(**data.source["choice"])):
        journal.say(line)
    for line in announce.tile_lines(data.both.subset("train"), data.train, config):
        journal.say(line)
    if prepared.state is None:
        (journal.say if data.report.decoded else journal.note)(announce.decoding_line(data.report, data.both))
    frozen, pictures = announce.model_lines(network, config)
    journal.say(pictures)
    anchors, warn = announce.anchor_lines(data.train, network, config)
    (journal.note if warn else journal.say)(anchors)
    journal.say(prepared.precision.describe())
    notes = (*prepared.notes, *data.notes) if prepared.state is None else tuple(prepared.state.notes)
    for line in (frozen, *notes, *announce.check_notes(data.report), *announce.model_notes(network, config)):
        if line not in journal.notes:
            journal.note(line)
    if data.val is None:
        journal.note(
            "no validation: the averaged weights of the last step are final; no score thresholds are stored, "
            "so that prediction uses one score for all classes"
        )


def _run(
    prepared: _Prepared, loaders: tuple[Loader, Loader | None], deadline: float | None, journal: Journal
) -> Run:
    """Train and write everything."""
    from frcnn.training.fit import fit
    from frcnn.training.keeper import Keeper
    from frcnn.training.module import Task

    options, config, data, state = prepared.options, prepared.config, prepared.data, prepared.state
    journal.say(prepared.schedule.describe())
    if state is None:
        folder = RunFolder.create(options.runs, options.name or config.recipe)
        folder.write("config.yaml", to_yaml(config))
        write_splits(folder.path / "splits.json", data.both, data.source["choice"])
    else:
        assert options.resume is not None
        folder = _folder_of(options.resume)
        if state.config["train"]["steps"] != config.train.steps:
            folder.write("config.yaml", to_yaml(config))
    journal.open(folder)
    journal.say(
        f"run folder: {folder.path}" + ("" if state is None else f", resumed after epoch {state.epoch}")
    )
    keeper = Keeper(folder, data.train.classes, data.source, data.digest, journal)
    if state is not None:
        keeper.resume(state)
    task = Task(config, prepared.schedule, prepared.precision, folder, data.train, data.val, state)
    began = time.monotonic()
    fit(prepared.network, task, loaders, keeper, journal, prepared.device, deadline)
    facts = {
        "data": data.source["path"],
        "images": len(data.both.split_indices("train")) + len(data.val or ()),
        "seconds": time.monotonic() - began,
        "device": f"{prepared.device} x {options.devices}" if options.devices > 1 else str(prepared.device),
        "precision": prepared.precision.format,
    }
    folder.write_json("run.json", facts)
    validated = data.val is not None and folder.best.exists()
    return _finish(folder, options, keeper.best_report, journal, validated)


def _finish(
    folder: RunFolder, options: TrainOptions, report: Report | None, journal: Journal, validated: bool
) -> Run:
    if not validated:  # the last weights are final, also where the run went on from an earlier end
        shutil.copyfile(folder.last, folder.path / ".best.tmp")
        (folder.path / ".best.tmp").replace(folder.best)
    detector = Detector.load(folder.best, options.parts)
    if report is not None:
        journal.say(report.format())
    _write_page(folder, journal)
    journal.say(f"done: {folder.best}")
    stored = folder.path / "evaluation.json"
    metrics = json.loads(stored.read_text(encoding="utf-8"))["metrics"] if stored.exists() else {}
    return Run(folder.path, detector, {k: v for k, v in metrics.items() if v is not None}, report)


def _write_page(folder: RunFolder, journal: Journal) -> None:
    from frcnn.report.page import write_run_report

    write_run_report(folder.path)
    journal.say(f"report: {folder.path / 'report.html'}")


def _folder_of(run: str | Path) -> RunFolder:
    path = Path(run)
    return RunFolder(path if path.is_dir() else path.parent)
