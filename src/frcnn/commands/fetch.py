"""``frcnn fetch``."""

from __future__ import annotations

import typer

from frcnn.commands import options


def fetch(name: options.Published = None) -> None:
    """Fetch published weights by name, or list those that there are."""
    from frcnn.weights.fetch import PREFIX, in_cache, published
    from frcnn.weights.fetch import fetch as fetch_weights
    from frcnn.weights.torchvision import ARCHITECTURES

    if name is not None:
        path, _ = fetch_weights(name)
        typer.echo(path)
        return
    for arch, recipe in ARCHITECTURES.items():
        wanted = published(arch)
        place = "in the cache" if in_cache(wanted) else wanted.source
        typer.echo(f"{PREFIX}{arch}\n  equal to recipe {recipe}, {wanted.size}, {place}")
