"""From options to everything a run needs, before anything is written: errors here have cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from frcnn.config import Config, TrainConfig
from frcnn.data.sample import Dataset
from frcnn.model.detector import Network, build_network
from frcnn.predict import Detector
from frcnn.recipes import recipe as named_recipe
from frcnn.settings import from_dict, with_settings
from frcnn.training.division import held_out_share
from frcnn.training.options import TrainOptions
from frcnn.training.pictures import TrainData
from frcnn.training.stages import check_proposals, stages_to_freeze
from frcnn.training.state import StateError, TrainState, differences, seed_everything
from frcnn.training.transfer import start_from, take_rpn
from frcnn.weights.checkpoint import is_model_file, load_checkpoint
from frcnn.weights.imagenet import load_pretrained

DEFAULT_RECIPE = "lite0-fpn"
FREE_KEYS = ("data.workers", "eval.batch", "train.save_every")
"""Keys that may differ in a resumed run, because they change nothing but speed and files."""


def resolve_config(recipe: str | None, options: TrainOptions, state: TrainState | None) -> Config:
    """The configuration that a user asks for; for a resumed run, on top of what it was begun with.

    Raises:
        ConfigError: for an unknown recipe, key or value.
        ValueError: for options that do not go together.
    """
    _check_options(options, state)
    if options.config is not None and recipe is not None:
        raise ValueError(
            f"recipe {recipe!r} and a configuration were both given; leave one of the two out "
            "(a configuration may name its recipe)"
        )
    if options.config is not None:
        config = options.config
    elif state is not None and recipe is None:
        config = from_dict(state.config, "the resumed run")
    elif options.weights is not None and recipe is None:
        config = load_checkpoint(options.weights).config
        free = TrainConfig()  # what that run held fast is no part of the detector
        held = {"freeze": free.freeze, "parameters": free.parameters}
        config = config.model_copy(update={"train": config.train.model_copy(update=held)})
    else:
        config = named_recipe(recipe or DEFAULT_RECIPE)
    changes: dict[str, Any] = {
        "train.epochs": options.epochs,
        "train.steps": 0 if options.epochs is not None else options.steps,
        "train.save_every": options.save_every,
        "train.freeze": stages_to_freeze(config, options),
        "train.batch": options.batch,
        "train.seed": options.seed,
        "train.compile": _compile_mode(options.compile),
        "data.bad_boxes": options.bad_boxes,
        "data.val": held_out_share(options.val),
        "backbone.weights": None if options.backbone_weights is None else str(options.backbone_weights),
    }
    if options.weights is not None and state is None:
        config = _with_norm_of(config, options.weights)
    elif options.backbone_weights is not None and is_model_file(options.backbone_weights):
        config = _with_norm_of(config, options.backbone_weights)
    tree = config.model_dump(mode="json")
    for key, value in changes.items():
        if value is not None:
            section, name = key.split(".")
            tree[section][name] = value
    config = with_settings(from_dict(tree, "options"), options.settings)
    begun_with = config.backbone.weights
    if options.backbone_weights is not None and begun_with != str(options.backbone_weights):
        raise ValueError(
            f"backbone weights {options.backbone_weights} and the setting backbone.weights={begun_with} "
            "differ; leave one of the two out"
        )
    if options.proposals is not None:
        check_proposals(config)
    return config


def _check_options(options: TrainOptions, state: TrainState | None) -> None:
    if options.epochs is not None and options.steps is not None:
        raise ValueError(
            f"epochs {options.epochs} and steps {options.steps} both say how long to train; "
            "leave one of the two out"
        )
    if options.time is not None and options.steps is not None:
        raise ValueError(
            f"time {options.time} and steps {options.steps} both say how long to train; "
            "leave one of the two out"
        )
    if state is None:
        return
    if options.splits is not None:
        raise ValueError(f"a resumed run keeps its pictures; leave out --splits {options.splits}")
    given = {"--weights": options.weights, "--backbone-weights": options.backbone_weights}
    for flag, file in {**given, "--rpn-weights": options.rpn_weights}.items():
        if file is not None:
            raise ValueError(f"a resumed run keeps its weights; leave out {flag} {file}")


def _with_norm_of(config: Config, weights: str | Path) -> Config:
    """What a configuration leaves open about the backbone's norm is as in the model whose weights are taken.

    Without this a recipe that says nothing of pretrained weights would train its batch norm and freeze
    nothing, which does not fit the frozen one of published weights.
    """
    mine, theirs = config.backbone, load_checkpoint(weights).config.backbone
    if mine.name != theirs.name:
        return config  # what does not fit is said where the tensors are loaded
    norm = {"norm": theirs.resolved_norm} if mine.norm == "auto" else {}
    eps = {"norm_eps": theirs.norm_eps} if mine.norm_eps is None else {}
    source = {"weights": theirs.weights} if mine.weights == "none" else {}
    return config.model_copy(update={"backbone": mine.model_copy(update={**norm, **eps, **source})})


def check_resumed(state: TrainState, config: Config, data: TrainData) -> None:
    """Make sure that a resumed run is the same run.

    Raises:
        StateError: listing every key that differs, or naming other data, or when the run is finished.
    """
    wanted = config.model_dump(mode="json")
    total = config.train.steps
    if total and state.step >= total:
        trained = f"{state.step} of {total} steps are trained"
        if state.step > total:
            trained = f"{state.step} steps are trained, and {total} are asked for"
        raise StateError(
            f"the run is finished: {trained}; go on with more --steps, or "
            "begin a new run from its weights with --weights RUN/last.safetensors"
        )
    free = (*FREE_KEYS, "train.steps") if total else FREE_KEYS  # a run may go on to a later step
    lines = [
        line
        for line in differences(state.config, wanted)
        if not line.startswith(tuple(f"{k}:" for k in free))
    ]
    if lines:
        raise StateError(
            "a resumed run keeps its configuration; these keys differ (resumed run -> asked for):\n  "
            + "\n  ".join(lines)
            + "\nleave them out, or begin a new run from its weights with --weights RUN/last.safetensors"
        )
    if list(data.train.classes) != state.classes or data.digest != state.digest:
        raise StateError(
            f"{data.train.root}: pictures, boxes or classes are not those the run was begun with; "
            "begin a new run from its weights with --weights RUN/last.safetensors"
        )
    if not total and state.epoch >= state.schedule["epochs"]:
        raise StateError(
            f"the run is finished: {state.epoch} of {state.schedule['epochs']} epochs are trained; "
            "begin a new run from its weights with --weights RUN/last.safetensors"
        )


def raise_limits(config: Config, train: Dataset) -> tuple[Config, list[str]]:
    """Room for 1.5 times the objects of the fullest training picture; a limit never becomes lower.

    Returns:
        The configuration, and a note where it changed.
    """
    most = int(np.diff(train.objects.offsets).max())
    need = int(np.ceil(1.5 * most))
    if need <= config.max_dets:
        return config, []
    note = f"max-dets raised from {config.max_dets} to {need}: a training picture holds {most} objects"
    raised = config.with_limits(need)
    if config.detector == "fcos":  # has no proposals
        return raised, [note]
    limit = max(config.proposals.post_nms_test, 2 * need)
    proposals = config.proposals.model_copy(update={"post_nms_test": limit})
    return raised.model_copy(update={"proposals": proposals}), [f"{note} (proposals of a picture: {limit})"]


def starting_network(
    config: Config, classes: tuple[str, ...], options: TrainOptions
) -> tuple[Network, list[str]]:
    """The network with the weights it starts from, and notes about them.

    Raises:
        ValueError: when the configuration or a weights file does not fit.
    """
    if options.weights is None:
        detector = Detector.from_config(config, classes, config.train.seed, options.parts)
        network, notes = detector.model, list(detector.notes)
    else:
        with torch.random.fork_rng(devices=[]):
            seed_everything("weights", config.train.seed)
            network = build_network(config, len(classes), options.parts)
        notes = [start_from(network, classes, options.weights)]
        if options.backbone_weights is not None:
            notes.append(str(load_pretrained(network)))
    if options.rpn_weights is not None:
        notes.append(take_rpn(network, options.rpn_weights))
    return network, notes


def choose_device(name: str, devices: int) -> torch.device:
    """The device of the run.

    Raises:
        ValueError: for a device that is not there.
    """
    if devices < 1:
        raise ValueError(f"devices must be at least 1, got {devices}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is not known; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) + devices > count:
            raise ValueError(f"device {name!r} x {devices}: this machine has {count} GPUs that torch can use")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not available here; use --device cpu")
    elif device.type not in ("cpu", "mps"):
        raise ValueError(f"device {name!r} cannot train; use auto, cpu, cuda or mps")
    return device


def _compile_mode(asked: str | bool | None) -> str | None:
    if isinstance(asked, bool):
        return "regional" if asked else "none"
    return asked
