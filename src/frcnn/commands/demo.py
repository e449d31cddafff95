"""``frcnn demo``: from nothing to a trained, measured detector, with generated pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frcnn.commands.progress import progress
from frcnn.commands.setup import DEFAULT_RECIPE, require_training
from frcnn.files import write_text

SHOWN = 12


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run folder is made.")] = Path("runs"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training pictures.")] = 8,
    scale: Annotated[
        float, typer.Option(min=0.01, max=10, help="Factor on the number of pictures: 240, 40 and 60.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of pictures, weights and order.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Generate pictures, train on them, evaluate on others, write a report: under 5 minutes on 2 cores."""
    require_training()
    from frcnn.data.scenes import SPLITS, write_scenes
    from frcnn.evaluation.run import evaluate
    from frcnn.training.run import train
    from frcnn.writers import ResultWriter

    counts = {name: max(2, round(count * scale)) for name, count in SPLITS.items()}
    data = write_scenes(out / "demo-data", counts, seed)
    typer.echo(f"{sum(counts.values())} generated pictures: {data}")
    run = train(data, DEFAULT_RECIPE, epochs=epochs, seed=seed, name="demo", runs=out, device=device)

    from frcnn.data.open import open_dataset

    test = open_dataset(data, "test")
    with progress(len(test), "testing") as show:
        report = evaluate(run.detector, test, progress=show)
    write_text(run.folder / "test.json", report.to_json() + "\n")
    typer.echo(f"\non {len(test)} test pictures, which training never saw:\n{report.format()}")
    paths = [sample.path for sample in test][:SHOWN]
    with ResultWriter(run.folder / "test", run.detector.classes, root=data) as writer:
        for result in run.detector.predict_each(paths):
            writer.add(result)
    typer.echo(
        f"\nAP50 {report['AP50'] or 0:.3f} on the test pictures\n"
        f"report:   {run.folder / 'report.html'}\n"
        f"pictures: {run.folder / 'test' / 'pictures'}\n"
        f"next:     frcnn train FOLDER, with your own pictures and boxes"
    )
