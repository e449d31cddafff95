"""``frcnn eval``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from frcnn.commands.progress import progress
from frcnn.commands.setup import choose_device, model_file
from frcnn.commands.train import BadBoxes
from frcnn.files import write_text


class Protocol(StrEnum):
    """Rules of an evaluation."""

    coco = "coco"


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file, or run folder.")],
    data: Annotated[Path, typer.Argument(help="Folder of the pictures and boxes.")],
    split: Annotated[str | None, typer.Option(help="One split of the data; default: all pictures.")] = None,
    protocol: Annotated[Protocol, typer.Option(help="How matches are counted.")] = Protocol.coco,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score that enters; default: the model's.")
    ] = None,
    max_dets: Annotated[
        int | None, typer.Option(min=1, help="Detections of a picture; default: the model's.")
    ] = None,
    bad_boxes: Annotated[
        BadBoxes | None,
        typer.Option(help="Boxes without area, not finite or outside: stop, or leave them out."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write evaluation.json and classes.csv there.")
    ] = None,
) -> None:
    """Measure a detector on annotated pictures."""
    where = choose_device(device)
    from frcnn.data.check import load_checked
    from frcnn.evaluation.run import evaluate as measure
    from frcnn.predict import Detector

    detector = Detector.load(model_file(model)).to(where)
    config = detector.config
    if bad_boxes is not None:
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"bad_boxes": bad_boxes.value})}
        )
    dataset, found = load_checked(data, split, config=config)
    print(found.summary(), file=sys.stderr)
    with progress(len(dataset), "evaluating") as show:
        report = measure(
            detector, dataset, protocol=protocol.value, score=score, max_dets=max_dets, progress=show
        )
    if out is not None:
        write_text(out / "evaluation.json", report.to_json() + "\n")
        write_text(out / "classes.csv", report.to_csv())
    typer.echo(report.to_json() if as_json else report.format(color=sys.stdout.isatty()))
