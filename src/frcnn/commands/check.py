"""``frcnn check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frcnn.commands.setup import DEFAULT_RECIPE, base_config, size_settings
from frcnn.commands.train import BadBoxes, BadImage, Settings
from frcnn.config import with_settings
from frcnn.files import write_text
from frcnn.recipes import recipe as named_recipe

if TYPE_CHECKING:
    from frcnn.data.sample import Dataset


def check(
    data: Annotated[Path, typer.Argument(help="Folder of the pictures and boxes.")],
    split: Annotated[str | None, typer.Option(help="One split of the data; default: all pictures.")] = None,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every picture completely.")] = False,
    recipe: Annotated[
        str, typer.Option(help="Whose picture size decides what is too small.")
    ] = DEFAULT_RECIPE,
    min_size: Annotated[int | None, typer.Option(min=16, help="Short side in training, pixels.")] = None,
    bad_boxes: Annotated[BadBoxes | None, typer.Option(help="As for train.")] = None,
    on_bad_image: Annotated[BadImage | None, typer.Option(help="As for train.")] = None,
    settings: Settings = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write everything that was found as JSON; - is stdout."),
    ] = None,
) -> None:
    """Look for faults in a data set; exit code 2 if there are errors."""
    config = base_config(recipe, None) or named_recipe(DEFAULT_RECIPE)
    policies = {"data.bad_boxes": bad_boxes, "data.on_bad_image": on_bad_image}
    common = [f"{key}={value}" for key, value in policies.items() if value is not None]
    config = with_settings(config, [*common, *size_settings(config, min_size), *(settings or ())])
    from frcnn.data.check import load_checked

    dataset, report = load_checked(data, split, config=config, decode=decode, clean=False)
    if json_file == "-":
        typer.echo(report.to_json())
    else:
        if json_file is not None:
            write_text(json_file, report.to_json() + "\n")
        typer.echo("\n".join([*class_table(dataset), report.format()]))
    if report.errors:
        raise typer.Exit(2)


def class_table(dataset: Dataset) -> list[str]:
    """One line a class: id, name, pictures that show it, boxes; then the splits."""
    rows = [("id", "name", "pictures", "boxes")]
    counts = zip(
        dataset.classes, dataset.class_images().tolist(), dataset.class_counts().tolist(), strict=True
    )
    rows += [(str(k), name, str(images), str(boxes)) for k, (name, images, boxes) in enumerate(counts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
        for row in rows
    ]
    splits = ", ".join(f"{name} {len(rows)}" for name, rows in dataset.splits.items())
    return [*lines, f"splits: {splits or 'none'}"]
