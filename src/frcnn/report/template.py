"""The pages' templates: HTML files beside this one, everything that is put into them is escaped."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template


def page_template(name: str) -> Template:
    """The template of a page; ``include`` takes other files of this folder."""
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = share
    return environment.get_template(name)


def share(value: object, digits: int = 3) -> str:
    """A number with so many digits, or n/a."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "n/a"


def _source(name: str) -> str:
    return (files("frcnn.report") / name).read_text(encoding="utf-8")
