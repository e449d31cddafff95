"""``frcnn check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from frcnn.commands import options
from frcnn.commands.errors import CommandError
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
    cache: options.Cache = True,
    recipe: options.SizeRecipe = DEFAULT_RECIPE,
    min_size: options.MinSize = None,
    tile: options.Tile = None,
    overlap: options.Overlap = None,
    one_class: options.OneClass = None,
    bad_boxes: options.BadBoxesOption = None,
    on_bad_image: options.BadImageOption = None,
    exif: options.ExifOption = None,
    dedupe: options.Dedupe = None,
    settings: options.Settings = None,
    anchors: options.FittedAnchors = None,
    strict: options.Strict = False,
    json_file: options.JsonFile = None,
    html_file: options.HtmlFile = None,
) -> None:
    """Look for faults in a data set, and at its objects as a network sees them; exit code 2 if there are
    errors.
    """
    config = base_config(recipe, None) or named_recipe(DEFAULT_RECIPE)
    common = settings_of(
        {
            "preprocess.tile": tile,
            "preprocess.overlap": overlap,
            "data.rename": one_class_rename(one_class),
            "data.bad_boxes": bad_boxes,
            "data.on_bad_image": on_bad_image,
            "data.exif": exif,
            "data.dedupe": dedupe,
        }
    )
    config = with_settings(config, [*common, *size_settings(config, min_size), *(settings or ())])
    if anchors is not None and config.detector == "fcos":
        raise CommandError(
            f"--anchors: recipe {config.recipe} has points instead of anchors; leave it out", 2
        )
    from frcnn.data.check import load_checked
    from frcnn.report.check_page import write_check_page
    from frcnn.survey.document import as_text, document
    from frcnn.survey.lines import survey_lines
    from frcnn.survey.survey import survey

    dataset, report = load_checked(data, split, config=config, decode=decode, clean=False, cache=cache)
    report = report.strict() if strict else report
    found = survey(dataset, config, fit=anchors is not None)
    if html_file is not None:
        write_check_page(html_file, dataset, report, found, config)
        typer.echo(f"page with pictures: {html_file}", err=True)
    if json_file is not None:
        text = as_text(document(dataset, report, found, config, decode))
        typer.echo(text) if json_file == "-" else write_text(json_file, text + "\n")
    if json_file != "-":
        typer.echo("\n".join([*class_table(dataset), *survey_lines(found), report.format()]))
    if report.errors:
        raise typer.Exit(2)


def class_table(dataset: Dataset) -> list[str]:
    """The format, then a line a class: id, name, its number in the files, pictures that show it, boxes; then
    the splits.

    Beside a class that was renamed stand its names in the annotations.
    """
    from frcnn.data.naming import shown_names, source_numbers

    rows = [("id", "name", "source-id", "pictures", "boxes")]
    images, boxes = dataset.class_images().tolist(), dataset.class_counts().tolist()
    counts = zip(shown_names(dataset), source_numbers(dataset), images, boxes, strict=True)
    rows += [
        (str(k), name, number, str(images), str(boxes))
        for k, (name, number, images, boxes) in enumerate(counts)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"format: {dataset.format}"] + [
        "  ".join(f"{cell:{'<' if k == 1 else '>'}{widths[k]}}" for k, cell in enumerate(row)) for row in rows
    ]
    splits = ", ".join(f"{name} {len(rows)}" for name, rows in dataset.splits.items())
    return [*lines, f"splits: {splits or 'none'}"]
