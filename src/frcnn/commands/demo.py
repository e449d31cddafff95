"""``frcnn demo``: from nothing to a trained, measured detector, with generated pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frcnn.commands import options
from frcnn.commands.progress import progress
from frcnn.commands.setup import DEFAULT_RECIPE, require_training
from frcnn.files import write_text

if TYPE_CHECKING:
    from frcnn.data.sample import Dataset
    from frcnn.evaluation.report import Report
    from frcnn.training.run import Run

SHOWN = 8
"""Test pictures in the report."""


def demo(
    out: options.Runs = Path("runs"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training pictures.")] = 4,
    scale: Annotated[
        float, typer.Option(min=0.01, max=10, help="Factor on the number of pictures: 240, 40 and 60.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of pictures, weights and order.")] = 0,
    device: options.Device = "auto",
) -> None:
    """Generate pictures, train on them, evaluate on others, write a report: under 5 minutes on 2 cores."""
    require_training()
    from frcnn.data.open import open_dataset
    from frcnn.data.scenes.generate import SPLITS, write_scenes
    from frcnn.evaluation.run import evaluate
    from frcnn.training.run import train

    counts = {name: max(2, round(count * scale)) for name, count in SPLITS.items()}
    data = write_scenes(out / "demo-data", counts, seed)
    typer.echo(f"{sum(counts.values())} generated pictures: {data}")
    run = train(data, DEFAULT_RECIPE, epochs=epochs, seed=seed, name="demo", runs=out, device=device)
    test = open_dataset(data, "test")
    with progress(len(test), "testing") as show:
        report = evaluate(run.detector, test, progress=show)
    typer.echo(f"\non {len(test)} test pictures, which training never saw:\n{report.format()}")
    page = add_test(run, test, report)
    typer.echo(
        f"\nAP50 {report['AP50'] or 0:.3f} on the test pictures\n"
        f"report: {page}\n"
        f"next:   frcnn train FOLDER, with your own pictures and boxes"
    )


def add_test(run: Run, test: Dataset, report: Report) -> Path:
    """Put the test's numbers and pictures into the run's report, in the place of the validation's numbers.

    Returns:
        The page.
    """
    from frcnn.report.page import write_run_report

    evaluation = run.folder / "evaluation.json"
    if evaluation.exists():
        evaluation.replace(run.folder / "validation.json")
    write_text(evaluation, report.to_json() + "\n")
    facts: dict[str, Any] = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    facts["measured on"] = f"{len(test)} test pictures"
    write_text(run.folder / "run.json", json.dumps(facts, indent=1) + "\n")
    paths = [sample.path for sample in test][:SHOWN]
    for number, result in enumerate(run.detector.predict_each(paths)):
        result.plot().save(run.folder / "samples" / f"test-{number:02}.jpg", quality=92)
    return write_run_report(run.folder)
