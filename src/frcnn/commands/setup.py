"""What several verbs do first: find a model file, choose a device, put a configuration together."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from frcnn.commands.errors import CommandError
from frcnn.config import Config
from frcnn.recipes import RECIPES
from frcnn.recipes import recipe as named_recipe
from frcnn.settings import ConfigError, load_yaml

if TYPE_CHECKING:
    import torch

DEFAULT_RECIPE = "lite0-fpn"


def require_training() -> None:
    """Make sure that the training engine is there.

    Raises:
        CommandError: with the line that installs it.
    """
    if importlib.util.find_spec("lightning") is None:
        raise CommandError(
            'training needs Lightning; install it in the folder of frcnn with: pip install ".[train]"', 2
        )


def model_file(path: Path) -> Path:
    """A model file, or the best one of a run folder.

    Raises:
        ValueError: when there is none.
    """
    if not path.is_dir():
        return path  # a missing file is named by the reader of checkpoints
    for name in ("best.safetensors", "last.safetensors"):
        if (path / name).is_file():
            return path / name
    raise ValueError(
        f"{path}: no best.safetensors or last.safetensors in this folder; give a model file or a run"
    )


def base_config(recipe: str | None, file: Path | None) -> Config | None:
    """The configuration that a recipe or a file names; None where neither was given.

    A file need not be whole: what it leaves out comes from ``recipe``, or from the recipe that it names.

    Raises:
        ConfigError: for an unknown recipe, an unreadable file, an unknown key or a bad value.
    """
    if file is None:
        return None if recipe is None else named_recipe(recipe)
    return load_yaml(file, named_recipe(recipe or _recipe_of(file)))


def _recipe_of(file: Path) -> str:
    """The recipe that a configuration file builds on; one that holds every section needs none."""
    try:
        values: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return DEFAULT_RECIPE  # load_yaml says what is wrong with it
    name = values.get("recipe", "custom") if isinstance(values, dict) else "custom"
    whole = isinstance(values, dict) and set(Config.model_fields) <= set(values)
    return DEFAULT_RECIPE if name == "custom" or (whole and name not in RECIPES) else str(name)


def settings_of(values: Mapping[str, object]) -> list[str]:
    """Values that were given, by key of the configuration -> settings as ``--set`` takes them."""
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def one_class_rename(name: str | None) -> str | None:
    """The value of ``data.rename`` that makes all classes one; None where no name was given.

    Raises:
        CommandError: for an empty name.
    """
    if name is None:
        return None
    if not name.strip():
        raise CommandError("--one-class: the name is empty; give one, as in: --one-class person", 2)
    return json.dumps({"*": name.strip()})  # YAML reads it, whatever the name holds


def size_settings(config: Config, min_size: int | None) -> list[str]:
    """Settings for another short side; the limit of the long side moves along, so that the ratio stays.

    Raises:
        ConfigError: where the recipe has a fixed size.
    """
    if min_size is None:
        return []
    spec = config.preprocess
    if spec.fixed_size is not None:
        raise ConfigError(
            f"--min-size {min_size}: recipe {config.recipe} stretches pictures to {spec.fixed_size}; "
            "use --set preprocess.fixed_size=[height,width]"
        )
    longest = round(min_size * spec.max_size / spec.min_size)
    return [f"preprocess.min_size={min_size}", f"preprocess.max_size={longest}"]


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one, else the processor.

    Raises:
        ValueError: for a device that is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); use auto, cpu, cuda or mps") from None
    return device
