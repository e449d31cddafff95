"""Start from a trained detector, also of other classes: only what depends on the classes is begun anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from frcnn.config import Config
from frcnn.model.detector import Network
from frcnn.model.fcos import Fcos
from frcnn.model.heads import BoxHead
from frcnn.weights.checkpoint import CheckpointError, load_checkpoint
from frcnn.weights.imagenet import adapted_stem

SHOWN = 5
RPN = "rpn_head."
RPN_MEANING = (
    "anchors.sizes", "anchors.ratios", "rpn.first_level", "rpn.objectness", "rpn.channel_order",
    "rpn.delta_weights",
)  # fmt: skip
"""What decides which box the outputs of an RPN stand for."""


def start_from(network: Network, classes: Sequence[str], path: str | Path) -> str:
    """Load the weights of a model file into ``network``.

    Layers that have rows for classes may differ in the number of classes: classes of the same name keep their
    rows (and so does the background), the others stay as they were initialised. Nothing else may differ.

    Args:
        network: built for ``classes``.
        classes: names, in the order of the labels.
        path: a model file of this library.

    Returns:
        One line about what was loaded.

    Raises:
        CheckpointError: when the file cannot be read or other tensors differ, with the list of them.
    """
    stored = load_checkpoint(path)
    wanted, state = network.state_dict(), dict(stored.state)
    state |= adapted_stem(network.backbone, state)
    same = tuple(classes) == stored.classes
    rows: dict[str, Tensor] = {} if same else _class_rows(network, wanted, state, stored.classes, classes)
    problems = [f"{k} is missing" for k in wanted if k not in state]
    problems += [f"{k} is not known" for k in state if k not in wanted]
    problems += [
        f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in state and k not in rows and state[k].shape != v.shape
    ]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"{path}: does not fit recipe {network.config.recipe!r} (it was made with "
            f"{stored.config.recipe!r}): {'; '.join(problems[:SHOWN])}{more}; leave out --recipe and what "
            "else changes the network, or begin with its backbone alone (--backbone-weights)"
        )
    network.load_state_dict(state | rows)
    whole = len(wanted) - len(rows)
    if not rows:
        return f"weights: {whole}/{len(wanted)} tensors loaded from {path}"
    kept = [name for name in classes if name in stored.classes]
    names = f"; rows kept for {', '.join(kept)}" if kept else ""
    return (
        f"weights: heads re-initialised for {len(classes)} classes (was {len(stored.classes)}){names}; "
        f"{whole}/{len(wanted)} tensors loaded from {path}"
    )


def take_rpn(network: Network, path: str | Path) -> str:
    """Load the region proposal network of a model file into ``network``; all of its tensors, or none.

    Returns:
        One line about what was loaded.

    Raises:
        CheckpointError: when there is no such network on one of the two sides, or the two do not fit: other
            tensors, or other anchors or coding, with which the same tensors would mean something else.
    """
    stored = load_checkpoint(path)
    mine, theirs = network.config, stored.config
    wanted = {k: v for k, v in network.state_dict().items() if k.startswith(RPN)}
    state = {k: v for k, v in stored.state.items() if k.startswith(RPN)}
    problems = [f"no region proposal network in {name}" for name, part in
                ((f"recipe {mine.recipe!r}", wanted), ("the file", state)) if not part]  # fmt: skip
    if not problems:
        problems = [
            f"{key} {_value(theirs, key)} in the file, {_value(mine, key)} here"
            for key in RPN_MEANING
            if _value(theirs, key) != _value(mine, key)
        ]
        problems += [f"{k} is missing" for k in wanted if k not in state]
        problems += [f"{k} is not known" for k in state if k not in wanted]
        problems += [
            f"{k} is {tuple(state[k].shape)} in the file, {tuple(v.shape)} here"
            for k, v in wanted.items()
            if k in state and state[k].shape != v.shape
        ]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"{path}: its RPN (recipe {theirs.recipe!r}) does not fit recipe {mine.recipe!r}: "
            f"{'; '.join(problems[:SHOWN])}{more}; use a recipe with the same pyramid and anchors, or leave "
            "out --rpn-weights"
        )
    network.load_state_dict(state, strict=False)
    return f"rpn: {len(state)}/{len(wanted)} tensors loaded from {path}"


def _value(config: Config, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _class_rows(
    network: Network,
    wanted: dict[str, Tensor],
    state: dict[str, Tensor],
    old: Sequence[str],
    new: Sequence[str],
) -> dict[str, Tensor]:
    """The class-dependent tensors of the head: fresh ones with the rows of known classes filled in."""
    pairs = [(old.index(name), i) for i, name in enumerate(new) if name in old]
    rows: dict[str, Tensor] = {}
    for name, width in _rows_per_class(network).items():
        fresh, source = wanted[name].clone(), state.get(name)
        extra = len(fresh) - width * len(new)  # the background's, at the end
        if source is None or source.shape != (width * len(old) + extra, *fresh.shape[1:]):
            continue  # not from the same kind of head: reported as a difference
        for a, b in pairs:
            fresh[b * width : (b + 1) * width] = source[a * width : (a + 1) * width]
        fresh[width * len(new) :] = source[width * len(old) :]
        rows[name] = fresh
    return rows


def _rows_per_class(network: Network) -> dict[str, int]:
    """The head's tensors that grow with the number of classes, and by how many rows for each."""
    if isinstance(network, Fcos):
        return {f"head.classes.{name}": 1 for name in ("weight", "bias")}
    if not network.heads:
        return {}
    make, width, classes = network.parts.box_head, network.fpn.channels, network.num_classes + 1
    with torch.device("meta"):  # shapes only
        other = make(width, classes) if make else BoxHead(width, classes, network.config.roi)
    grown = {name: len(value) if value.dim() else 0 for name, value in other.state_dict().items()}
    prefixes = ["box_head", *(f"later_heads.{i}" for i in range(len(network.heads) - 1))]
    return {
        f"{prefix}.{name}": grown[name] - len(value)
        for prefix, head in zip(prefixes, network.heads, strict=True)
        for name, value in head.state_dict().items()
        if value.dim() and name in grown and grown[name] != len(value)
    }
