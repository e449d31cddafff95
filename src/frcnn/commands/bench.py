"""``frcnn bench``: our times and memory beside torchvision's."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from frcnn.commands import options
from frcnn.commands.errors import CommandError
from frcnn.commands.setup import DEFAULT_RECIPE, choose_device
from frcnn.files import write_text
from frcnn.recipes import recipe as named_recipe
from frcnn.settings import with_settings

LEAST_SIDE = 32


class Task(StrEnum):
    """What is measured."""

    train = "train"
    infer = "infer"
    ops = "ops"
    load = "load"


UNUSED = {
    Task.ops: ("size", "batch", "data", "weights", "compiled"),
    Task.load: ("rounds", "size", "weights", "device", "threads", "compiled", "quick"),
}
"""Parameters of ``bench`` that change nothing of what a task measures."""


def bench(
    context: typer.Context,
    task: Annotated[
        Task | None, typer.Argument(help="Default: train, infer and ops.", show_default=False)
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Of each; default: 3 to 7, as the time allows.", show_default=False),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Picture size; default: 320x426, to infer 800x1066.")
    ] = None,
    batch: options.Batch = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Data set; default: generated pictures.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="State dict of torchvision's fasterrcnn_resnet50_fpn; default: random.",
        ),
    ] = None,
    device: options.Device = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="On the CPU; default: as torch chooses.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Ours by torch.compile, too.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: does it run here?")] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write everything; - is stdout.")
    ] = None,
    settings: options.Settings = None,
) -> None:
    """Time our detectors and torchvision's in turn: same weights, same pictures, this machine; with "load",
    where the time goes until a batch of --data is there.
    """
    refuse_unused(context, task)
    if json_file is not None and json_file != "-":
        require_writable(Path(json_file))
    if task is Task.load:
        bench_loading(data, batch, settings or (), json_file)
        return
    if settings:
        raise CommandError(f"--set {settings[0]} is for bench load; the other workloads are fixed", 2)
    chosen = parse_size(size)
    if weights is not None and str(weights).startswith("torchvision:"):
        raise CommandError(
            f"--weights {weights}: bench puts the published file into torchvision's detector too; "
            "download it and name the file",
            2,
        )
    for path, what in ((data, "folder"), (weights, "file")):
        if path is not None and not path.exists():
            raise CommandError(f"{path}: no such {what}; check the path", 2)
    where = choose_device(device)
    from rich.console import Console

    from frcnn.bench.run import TASKS, Plan, run
    from frcnn.bench.table import show

    plan = Plan(
        (task.value,) if task else TASKS,
        rounds,
        where,
        threads or 0,
        chosen,
        batch,
        str(data or ""),
        str(weights or ""),
        quick,
        compiled,
        " ".join(["frcnn", *sys.argv[1:]]),
    )
    report = run(plan, lambda text: print(f"bench: {text}", file=sys.stderr, flush=True))
    text = json.dumps(report.to_dict(), indent=1)
    if json_file == "-":
        typer.echo(text)
        return
    show(report, Console(width=None if sys.stdout.isatty() else 160, highlight=False))
    if json_file is not None:  # last: what minutes of work have found is on the screen by now
        write_text(json_file, text + "\n")


def bench_loading(
    data: Path | None, batch: int | None, settings: Sequence[str], json_file: str | None
) -> None:
    """Print where the time of loading goes, for the default recipe with ``settings``.

    Raises:
        CommandError: without a data set.
    """
    if data is None:
        raise CommandError("bench load needs a data set, as in: frcnn bench load --data FOLDER", 2)
    from frcnn.bench.loading import measure_loading

    given = [] if batch is None else [f"train.batch={batch}"]
    found = measure_loading(data, with_settings(named_recipe(DEFAULT_RECIPE), [*given, *settings]))
    text = json.dumps(asdict(found), indent=1)
    if json_file == "-":
        typer.echo(text)
        return
    typer.echo("\n".join(found.lines()))
    if json_file is not None:
        write_text(json_file, text + "\n")


def refuse_unused(context: typer.Context, task: Task | None) -> None:
    """Make sure that every option that was given has an effect on the task.

    Raises:
        CommandError: naming those that have none.
    """
    names = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    given: list[str] = []
    for name in UNUSED.get(task, ()) if task else ():
        source, value = context.get_parameter_source(name), context.params[name]
        if source is not None and source.name == "COMMANDLINE":
            given.append(names[name] if value is True else f"{names[name]} {value}")
    if given:
        it = "it" if len(given) == 1 else "them"
        raise CommandError(f"{', '.join(given)}: of no effect on bench {task}; leave {it} out", 2)


def require_writable(path: Path) -> None:
    """Find out before minutes of work whether a file can be written.

    Raises:
        CommandError: when there is a folder of its name, none to put it into, or it may not be written there.
    """
    try:
        if path.is_dir():
            raise CommandError(f"--json {path}: that is a folder; name a file", 2)
        if not path.parent.is_dir():
            raise CommandError(f"--json {path}: there is no folder {path.parent}; make it first", 2)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(f"--json {path}: cannot be written ({reason}); name another file", 2) from None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``800x1066`` -> (800, 1066).

    Raises:
        CommandError: for anything else, or sides below ``LEAST_SIDE``.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if min(sides) < LEAST_SIDE:
        raise CommandError(
            f"--size {text}: height and width of at least {LEAST_SIDE} pixels needed, as in 800x1066", 2
        )
    return sides
