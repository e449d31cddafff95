"""``frcnn doctor``: what is installed, and whether the operators work on every device."""

from __future__ import annotations

import json
import sys

import typer

from frcnn.commands import options
from frcnn.doctor import examine


def doctor(as_json: options.AsJson = False) -> None:
    """Show versions and devices, and try the operators; exit code 1 if something is wrong."""
    health = examine()
    if as_json:
        typer.echo(json.dumps(health.to_dict(), indent=1))
    else:
        typer.echo("\n".join(health.lines()))
    for problem in health.problems:
        print(f"frcnn: {problem}", file=sys.stderr)
    if health.problems:
        raise typer.Exit(1)
