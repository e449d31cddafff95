"""Reading, changing and writing the configuration: YAML, ``--set a.b.c=v``, errors that say what to change.

All errors of a configuration are reported at once, each naming its key and the nearest known one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from frcnn.config import VARIED, Config, Section


class ConfigError(ValueError):
    """A configuration that cannot be used; the message lists every error, one a line."""


RECIPE = "recipe"
"""Of ``data.augment``: no preset."""
MODEL_SECTIONS = ("preprocess", "backbone", "fpn", "anchors", "rpn", "proposals", "roi")


def known_keys(section: type[Section] = Config, prefix: str = "") -> list[str]:
    """All keys of the tree with their dotted path."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            keys += known_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _nearest(key: str) -> str:
    keys = known_keys()
    near = difflib.get_close_matches(key, keys, 1, 0.6)
    if not near:  # the section may be wrong and the last part right
        near = [k for k in keys if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:1]
    return f"; did you mean {near[0]!r}?" if near else f"; sections are {', '.join(Config.model_fields)}"


def _messages(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}{_nearest(key)}")
        else:
            reason = item["msg"].removeprefix("Value error, ")
            value = "" if isinstance(item["input"], (dict, BaseModel)) else f" (got {item['input']!r})"
            lines.append((f"{key}: " if key else "") + f"{reason[0].lower()}{reason[1:]}{value}")
    return lines


def from_dict(values: Mapping[str, Any], source: str = "configuration") -> Config:
    """A ``Config`` from nested plain values.

    Raises:
        ConfigError: with every error of the tree, one a line.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "\n  ".join(_messages(error))) from None


def with_settings(config: Config, settings: Iterable[str], source: str = "--set") -> Config:
    """Apply ``a.b.c=value`` settings; the value is read as YAML. A leading ``model.`` is accepted and means
    nothing. ``data.augment`` decides about all keys of variation that are not set beside it.

    Raises:
        ConfigError: naming every unknown key (and the nearest known one) and every value that does not fit.
    """
    tree = config.model_dump(mode="json")
    known = set(known_keys())
    errors: list[str] = []
    settings = list(settings)
    if any(_names_preset(setting) for setting in settings):
        tree["data"] = _without_variation(tree["data"])
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().removeprefix("model.")
        key = (
            "proposals.nms_iou" if key == "rpn.nms_iou" else key
        )  # the RPN's only NMS: both names are in use
        if not equals:
            errors.append(f"{setting!r} has no '='; write key=value")
        elif key not in known:
            errors.append(f"unknown key {key!r}{_nearest(key)}")
        else:
            *path, last = key.split(".")
            node = tree
            for part in path:
                node = node[part]
            try:
                node[last] = yaml.safe_load(text)
            except yaml.YAMLError:
                errors.append(f"{key}: {text!r} is not a value YAML can read")
    result: Config | None = None
    try:
        result = Config.model_validate(tree)
    except ValidationError as error:
        errors += _messages(error)
    if errors or result is None:
        raise ConfigError(f"{source}: " + "\n  ".join(errors))
    return result


def load_yaml(path: str | Path, base: Config | None = None) -> Config:
    """Read a configuration file; with ``base``, keys that the file does not name keep the base's values.

    Raises:
        ConfigError: when the file cannot be read or does not fit.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', 'syntax')})") from None
    if values is None:  # an empty file
        return base or Config()
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of sections is expected, not {type(values).__name__}")
    if base is None:
        return from_dict(values, str(path))
    tree, data = base.model_dump(mode="json"), values.get("data")
    if isinstance(data, dict) and data.get("augment", RECIPE) != RECIPE:
        tree["data"] = _without_variation(tree["data"])
    return from_dict(_merge(tree, values), str(path))


def _names_preset(setting: str) -> bool:
    key, _, text = setting.partition("=")
    return key.strip().removeprefix("model.") == "data.augment" and text.strip() != RECIPE


def _without_variation(data: dict[str, Any]) -> dict[str, Any]:
    """The section without what a preset decides about, which then fills it in."""
    return {key: value for key, value in data.items() if key not in VARIED}


def _merge(base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in values.items():
        nested = isinstance(value, Mapping) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if nested else value
    return out


def to_yaml(config: Config) -> str:
    """The whole tree as YAML, in the order of this file."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)
