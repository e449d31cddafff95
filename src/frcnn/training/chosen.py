"""Which tensors a run trains: the stages that ``train.freeze`` leaves, and of them ``train.parameters``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from torch import nn

from frcnn.model.detector import Network

ALL, LAST = "all", "last:"
SHOWN = 3


def choose_parameters(network: Network, wanted: str) -> list[str]:
    """Freeze every tensor that ``train.parameters`` does not name, and the batch norms left without one.

    Args:
        network: its frozen stages stay frozen whatever is wanted.
        wanted: ``all``, ``last:8`` for the last eight tensors in the order of ``named_parameters``, or a
            regular expression that is looked for in their names.

    Returns:
        A line about what is trained; none where everything is.

    Raises:
        ValueError: for a bad pattern, one that no name fits, and where nothing is left to train.
    """
    names = [name for name, _ in network.named_parameters()]
    chosen = names if wanted == ALL else _chosen(names, wanted)
    kept = set(chosen)
    for name, parameter in network.named_parameters():
        if name not in kept:
            parameter.requires_grad_(False)
    if wanted != ALL:
        for module in network.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(p.requires_grad for p in own):
                network.hold(module)
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    if not trained or not network.trained_losses:
        raise ValueError(
            f"nothing is left to train: {', '.join(network.frozen) or 'no stage'} frozen (train.freeze), "
            f"train.parameters {wanted!r}; freeze less"
        )
    if wanted == ALL:
        return []
    shown = ", ".join(trained[:SHOWN] + (["..."] if len(trained) > SHOWN else []))
    return [f"train.parameters {wanted}: {len(trained)} of {len(names)} tensors are trained ({shown})"]


def _chosen(names: Sequence[str], wanted: str) -> Sequence[str]:
    if re.fullmatch(rf"{LAST}\d+", wanted):
        count = int(wanted.removeprefix(LAST))
        if not 0 < count <= len(names):
            raise ValueError(f"train.parameters {wanted!r}: the network has {len(names)} tensors")
        return names[-count:]
    try:
        pattern = re.compile(wanted)
    except re.error as error:
        raise ValueError(
            f"train.parameters {wanted!r} is no regular expression ({error}); write for example all, last:8 "
            f"or {names[-1]!r}"
        ) from None
    found = [name for name in names if pattern.search(name)]
    if not found:
        near = difflib.get_close_matches(wanted, names, SHOWN, 0.0)
        raise ValueError(f"train.parameters {wanted!r} fits no tensor; the nearest are {', '.join(near)}")
    return found
