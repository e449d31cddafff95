"""``frcnn show``."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frcnn.commands import options
from frcnn.commands.setup import (
    DEFAULT_RECIPE,
    base_config,
    one_class_rename,
    settings_of,
    size_settings,
)
from frcnn.recipes import recipe as named_recipe
from frcnn.settings import with_settings

if TYPE_CHECKING:
    from frcnn.config import Config
    from frcnn.data.sample import Dataset
    from frcnn.report.sheet import Shown

QUALITY = 90


def show(
    data: options.Data,
    aug: options.Augment = None,
    n: Annotated[int, typer.Option("--n", min=1, max=400, help="Number of pictures.")] = 16,
    split: options.Split = None,
    seed: options.ShowSeed = 0,
    out: options.SheetOut = Path("sheet.jpg"),
    recipe: options.Recipe = None,
    min_size: options.MinSize = None,
    tile: options.Tile = None,
    overlap: options.Overlap = None,
    one_class: options.OneClass = None,
    exif: options.ExifOption = None,
    settings: options.Settings = None,
) -> None:
    """Draw a sheet of what the network sees in training: varied, resized and padded, with the boxes."""
    config = base_config(recipe, None) or named_recipe(DEFAULT_RECIPE)
    common = settings_of(
        {
            "data.augment": None if aug is None else aug.value,
            "preprocess.tile": tile,
            "preprocess.overlap": overlap,
            "data.rename": one_class_rename(one_class),
            "data.bad_boxes": "drop",
            "data.on_bad_image": "skip",
            "data.exif": exif,
            "data.workers": 0,
        }
    )
    config = with_settings(config, [*common, *size_settings(config, min_size), *(settings or ())])
    from frcnn.data.check import load_checked
    from frcnn.data.feed.tiles import tiled
    from frcnn.files import write_atomic
    from frcnn.report.sheet import contact_sheet

    dataset, report = load_checked(data, split, config=config)
    print(report.summary(), file=sys.stderr)
    whole = len(dataset)
    dataset = tiled(dataset, config, seed=seed)
    pictures = seen(dataset, config, n, seed)
    kind = f"tiles of {whole} pictures" if len(dataset.pictures.windows) else "pictures"
    what = f"{len(pictures)} {'of' if len(pictures) <= len(dataset) else 'views of'} {len(dataset)} {kind}"
    preset = "" if config.data.augment == "recipe" else f"preset {config.data.augment}, "
    title = [
        f"{data.resolve().name}: {what}, recipe {config.recipe}, {preset}seed {seed}",
        config.data.describe(),
    ]
    sheet = contact_sheet(pictures, dataset.classes, title)
    write_atomic(out, lambda file: sheet.save(file, format=sheet_format(out), quality=QUALITY))
    typer.echo("\n".join([*title, f"written to {out}"]))


def seen(dataset: Dataset, config: Config, count: int, seed: int) -> list[Shown]:
    """The first pictures of the first epochs, as the network sees them."""
    from frcnn.data.feed.loader import train_loader
    from frcnn.model.preprocess import pad_batch, prepare
    from frcnn.report.sheet import shown_pictures

    loader = train_loader(dataset, config, prepare, pad_batch, seed=seed)
    pictures: list[Shown] = []
    epoch = 0
    while len(pictures) < count:  # a small data set is shown again, varied anew
        loader.set_epoch(epoch)
        for batch in islice(loader, -(-(count - len(pictures)) // config.train.batch)):
            pictures += shown_pictures(batch, config.preprocess)
        epoch += 1
    return pictures[:count]


def sheet_format(out: Path) -> str:
    """Pillow's name of the format of a file.

    Raises:
        ValueError: for an ending that is not a picture's.
    """
    from PIL import Image

    formats = {ending: kind for ending, kind in Image.registered_extensions().items() if kind in Image.SAVE}
    try:
        return formats[out.suffix.lower()]
    except KeyError:
        raise ValueError(f"{out}: {out.suffix or 'no ending'} is not a picture's; use .jpg or .png") from None
