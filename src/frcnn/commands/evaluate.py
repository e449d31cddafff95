"""``frcnn eval``."""

from __future__ import annotations

import sys

import typer

from frcnn.commands import options
from frcnn.commands.progress import progress
from frcnn.commands.setup import choose_device, model_file
from frcnn.files import write_text


def evaluate(
    model: options.Model,
    data: options.Data,
    split: options.Split = None,
    protocol: options.Protocol = options.ProtocolChoice.coco,
    score: options.Floor = None,
    max_dets: options.MaxDets = None,
    bad_boxes: options.BadBoxesOption = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
    out: options.OutOrNot = None,
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
