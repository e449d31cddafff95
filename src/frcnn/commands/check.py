"""``frcnn check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from frcnn.commands import options
from frcnn.commands.setup import (
    DEFAULT_RECIPE,
    base_config,
    one_class_rename,
    settings_of,
    size_settings,
)
from frcnn.files import write_text
from frcnn.recipes import recipe as named_recipe
from frcnn.settings import with_settings

if TYPE_CHECKING:
    from frcnn.data.sample import Dataset


def check(
    data: options.Data,
    split: options.Split = None,
    decode: options.Decode = False,
    recipe: options.SizeRecipe = DEFAULT_RECIPE,
    min_size: options.MinSize = None,
    one_class: options.OneClass = None,
    bad_boxes: options.BadBoxesOption = None,
    on_bad_image: options.BadImageOption = None,
    settings: options.Settings = None,
    json_file: options.JsonFile = None,
) -> None:
    """Look for faults in a data set; exit code 2 if there are errors."""
    config = base_config(recipe, None) or named_recipe(DEFAULT_RECIPE)
    policies = settings_of(
        {
            "data.rename": one_class_rename(one_class),
            "data.bad_boxes": bad_boxes,
            "data.on_bad_image": on_bad_image,
        }
    )
    config = with_settings(config, [*policies, *size_settings(config, min_size), *(settings or ())])
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
    """One line a class: id, name, pictures that show it, boxes; then the splits.

    Beside a class that was renamed stand its names in the annotations.
    """
    from frcnn.data.naming import shown_names

    rows = [("id", "name", "pictures", "boxes")]
    counts = zip(
        shown_names(dataset), dataset.class_images().tolist(), dataset.class_counts().tolist(), strict=True
    )
    rows += [(str(k), name, str(images), str(boxes)) for k, (name, images, boxes) in enumerate(counts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
        for row in rows
    ]
    splits = ", ".join(f"{name} {len(rows)}" for name, rows in dataset.splits.items())
    return [*lines, f"splits: {splits or 'none'}"]
