"""``frcnn recipes``."""

from __future__ import annotations

import json
from typing import Any

import typer

from frcnn.commands import options
from frcnn.config import Config, PreprocessConfig
from frcnn.recipes import RECIPES
from frcnn.recipes import recipe as named_recipe
from frcnn.settings import to_yaml

CLASSES = 80
"""Parameters are counted for as many classes as COCO has."""


def recipes(name: options.RecipeName = None, as_json: options.AsJson = False) -> None:
    """List the recipes that train understands, or print all keys of one."""
    if name is not None:
        config = named_recipe(name)
        typer.echo(config.model_dump_json(indent=1) if as_json else to_yaml(config).rstrip())
        return
    rows = describe()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        classes = "" if row["detector"] == "rpn" else f" for {CLASSES} classes"
        millions = f"{row['parameters'] / 1e6:.1f} M parameters{classes}"
        typer.echo(f"{row['name']}\n  {row['description']}")
        typer.echo(f"  {row['backbone']}, {row['input']}, {millions}")


def describe() -> list[dict[str, Any]]:
    """A row for every recipe; parameters are counted on networks without memory."""
    import torch

    from frcnn.model.detector import build_network

    rows: list[dict[str, Any]] = []
    for name, make in RECIPES.items():
        config: Config = make()
        with torch.device("meta"):
            network = build_network(config, 1 if config.detector == "rpn" else CLASSES)
        rows.append(
            {
                "name": name,
                "description": " ".join((make.__doc__ or "").replace("``", "").split()),
                "detector": config.detector,
                "backbone": config.backbone.name,
                "pretrained": config.backbone.weights == "package",
                "input": input_size(config.preprocess),
                "parameters": sum(p.numel() for p in network.parameters()),
                "epochs": config.train.epochs,
                "batch": config.train.batch,
            }
        )
    return rows


def input_size(spec: PreprocessConfig) -> str:
    """The picture size in words."""
    if spec.fixed_size is not None:
        return f"{spec.fixed_size[0]}x{spec.fixed_size[1]}"
    return f"short side {spec.min_size}, long side up to {spec.max_size}"
