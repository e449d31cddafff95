"""``frcnn convert``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import typer

from frcnn.commands import options
from frcnn.commands.progress import progress
from frcnn.commands.setup import one_class_rename, settings_of
from frcnn.config import Config
from frcnn.settings import with_settings


def convert(
    data: options.Data,
    out: options.NewFolder,
    to: options.ConvertTo,
    split: options.Split = None,
    link: options.Link = False,
    one_class: options.OneClass = None,
    on_bad_image: options.BadImageOption = None,
    settings: options.Settings = None,
) -> None:
    """Write a data set as COCO, Pascal VOC or YOLO, and say what that form does not hold."""
    policies = settings_of({"data.rename": one_class_rename(one_class), "data.on_bad_image": on_bad_image})
    config = with_settings(Config(), [*policies, *(settings or ())])
    from frcnn.conversion.run import convert as write

    with ExitStack() as stack:
        bars: list[Callable[[int], None]] = []

        def show(done: int, total: int) -> None:
            if not bars:  # how many there are is known once they are read
                bars.append(stack.enter_context(progress(total, "converting")))
            bars[0](done)

        done = write(data, out, to.value, split=split, link=link, config=config.data, progress=show)
    typer.echo(done.format())
