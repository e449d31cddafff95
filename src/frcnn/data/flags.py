"""One rule for the boxes that a format flags: VOC ``difficult``, COCO ``iscrowd``, KITTI ``DontCare``.

A data set has one flag; a policy of the configuration says what becomes of its boxes, and a note how many
there were.
"""

from __future__ import annotations

from typing import Literal

from frcnn.config import Config, DataConfig, IgnorePolicy
from frcnn.data.findings import Finding
from frcnn.data.sample import DataError, Dataset

Flag = Literal["difficult", "crowd", "dontcare"]
BOXES: dict[Flag, str] = {
    "difficult": "difficult boxes",
    "crowd": "crowd boxes",
    "dontcare": "DontCare boxes",
}
"""What flagged boxes are called."""
ACTIONS: dict[IgnorePolicy, str] = {
    "ignore": "ignore regions, neither object nor background",
    "object": "ordinary objects",
    "background": "left out, their pixels count as background",
}


def policy(config: DataConfig, flag: Flag) -> IgnorePolicy:
    """What the configuration wants with the boxes of a flag."""
    return {"difficult": config.difficult, "crowd": config.crowd, "dontcare": config.dontcare}[flag]


def flag_finding(config: DataConfig, flag: Flag, name: str, path: str, line: int) -> Finding:
    """The note about one flagged box of class ``name``."""
    value = policy(config, flag)
    action = f"{ACTIONS[value]} (data.{flag}={value})"
    return Finding("D20", "note", f'"{name}" is flagged', path, line, action, kind=BOXES[flag])


def without_effect(config: DataConfig, flag: Flag, flagged: int) -> list[Finding]:
    """Notes about policies that a user has set for boxes that this data set does not have.

    Args:
        config: the policies.
        flag: of the data set's format.
        flagged: number of its flagged boxes.
    """
    chosen = {other: policy(config, other) for other in BOXES if other != flag or not flagged}
    return [
        Finding("D20", "note", f"data.{other}={value} has no effect: this data set has no {BOXES[other]}")
        for other, value in chosen.items()
        if value != "ignore"
    ]


def refuse_object(config: DataConfig, flag: Flag, root: str) -> None:
    """For a data set with regions that have no class.

    Raises:
        DataError: when they are to be ordinary objects.
    """
    if policy(config, flag) == "object":
        raise DataError(
            f"data.{flag}=object: the {BOXES[flag]} of {root} have no class, so they cannot be objects; "
            f"use data.{flag}=ignore or data.{flag}=background"
        )


def unused_rules(dataset: Dataset, config: Config) -> list[Finding]:
    """A note where a configuration has rules for boxes to ignore, other than the usual ones, and there are
    no such boxes.
    """
    usual = Config()
    rules = [
        f"{name}.{key}={getattr(section, key)}"
        for name, section, plain in (("rpn", config.rpn, usual.rpn), ("roi", config.roi, usual.roi))
        for key in ("ignore_rule", "ignore_wins")
        if getattr(section, key) != getattr(plain, key)
    ]
    if not rules or dataset.objects.ignore.any():
        return []
    message = f"recipe {config.recipe} has {', '.join(rules)}: this data set has no boxes to ignore"
    return [Finding("D20", "note", message, action="no effect: trained as without these rules")]
