"""Stages apart: which of them a run keeps, and proposals that come from a file."""

from __future__ import annotations

import difflib
from typing import get_args

from frcnn.config import Config
from frcnn.config.effect import without_effect
from frcnn.config.training import Stage
from frcnn.data.proposals import ProposalFile, check_second_stage, read
from frcnn.data.sample import Dataset
from frcnn.training.options import TrainOptions
from frcnn.training.state import StateError, TrainState

STAGES: tuple[str, ...] = get_args(Stage)


def stages_to_freeze(config: Config, options: TrainOptions) -> list[str] | None:
    """Stages that the options freeze; None leaves it to the configuration.

    Who learns from given proposals trains no region proposal network.

    Raises:
        ValueError: for an unknown stage.
    """
    unknown = [name for name in options.freeze or () if name not in STAGES]
    if unknown:
        near = difflib.get_close_matches(unknown[0], STAGES, 1)
        raise ValueError(
            f"freeze: {', '.join(map(repr, unknown))} is no stage; "
            + (f"did you mean {near[0]!r}? " if near else "")
            + f"stages are {', '.join(STAGES)}"
        )
    stages = list(config.train.freeze) if options.freeze is None else list(options.freeze)
    if options.proposals is not None:
        stages.append("rpn")
    changed = options.freeze is not None or options.proposals is not None
    return list(dict.fromkeys(stages)) if changed else None


def check_proposals(config: Config) -> None:
    """Make sure that a configuration can learn from given proposals.

    Raises:
        ValueError: naming what does not go together.
    """
    check_second_stage(config)
    if config.train.compile == "step":
        raise ValueError(
            "train.compile=step makes graphs of fixed shapes, and given proposals differ in number; "
            "use --set train.compile=regional"
        )


def proposals_of(options: TrainOptions, state: TrainState | None) -> ProposalFile | None:
    """The proposals file of the run; a resumed one finds that which it was begun with.

    Raises:
        DataError: when it cannot be read.
        StateError: when its content is another one.
    """
    known = None if state is None else state.source.get("proposals")
    path = options.proposals if options.proposals is not None else known and known["path"]
    if path is None:
        return None
    file = read(path)
    if known is not None and file.digest != known["digest"]:
        raise StateError(
            f"{path}: not the proposals that the run was begun with; give that file with --proposals, or "
            "begin a new run from its weights with --weights RUN/last.safetensors"
        )
    return file


def stage_notes(config: Config, train: Dataset, options: TrainOptions) -> list[str]:
    """What a reader must know about stages that are not trained, and settings that nothing reads."""
    notes = without_effect(config, options.settings)
    given = train.proposals
    if given is not None:
        notes.append(
            f"proposals: {len(given.file.scores):,} boxes of {len(given.file):,} pictures from "
            f"{given.file.path}; the RPN is not trained: its losses are shown and are no part of the total"
        )
    fresh = options.weights is None and config.backbone.weights == "none"
    if "backbone" in config.train.freeze and fresh:
        notes.append(
            "the backbone is frozen with random weights; give --weights or --backbone-weights, or freeze less"
        )
    if fresh and options.rpn_weights is not None:
        notes.append(
            f"the RPN of {options.rpn_weights} looks at a backbone with random weights, which it does not "
            "know; give --backbone-weights of the same file, too"
        )
    if fresh and config.train.parameters != "all":
        notes.append(
            f"only train.parameters={config.train.parameters} is trained, on random weights; "
            "give --weights or --backbone-weights"
        )
    if fresh and "backbone" not in config.train.freeze and config.train.parameters == "all":
        notes.append(
            "the backbone starts from random weights and needs long schedules; give --backbone-weights (a "
            "classifier's, of torchvision or timm) or --weights (a detector's) where there are some"
        )
    return notes
