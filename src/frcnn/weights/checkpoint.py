"""Model files: safetensors with JSON metadata. Nothing is ever unpickled.

A file holds the weights and, in its header, everything needed to use them: configuration, class names, score
thresholds, metrics, library version. Foreign ``.pt`` and ``.pth`` files are read with ``weights_only=True``.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import frcnn
from frcnn.config import Config
from frcnn.settings import from_dict

FORMAT = 1


class CheckpointError(ValueError):
    """A model file that cannot be used."""


@dataclass(frozen=True)
class Checkpoint:
    """What a model file holds.

    Attributes:
        state: the network's tensors by name.
        config: the configuration it was made with.
        classes: class names; a detection's label is an index into them.
        thresholds: score threshold of each class for prediction, or None.
        metrics: figures measured when it was saved.
        version: of the library that wrote it.
    """

    state: Mapping[str, Tensor]
    config: Config
    classes: tuple[str, ...]
    thresholds: tuple[float, ...] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    version: str = frcnn.__version__


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a model file; an interrupted write leaves the old file as it was."""
    meta = {
        "format": FORMAT,
        "version": checkpoint.version,
        "config": checkpoint.config.model_dump(mode="json"),
        "classes": list(checkpoint.classes),
        "thresholds": list(checkpoint.thresholds) if checkpoint.thresholds is not None else None,
        "metrics": dict(checkpoint.metrics),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.state.items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    os.close(handle)
    try:
        safetensors.torch.save_file(tensors, name, metadata={"frcnn": json.dumps(meta)})
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def is_model_file(path: str | Path) -> bool:
    """Whether a file was written by ``save_checkpoint``; False for one that is missing or of another kind."""
    if Path(path).suffix != ".safetensors" or not Path(path).is_file():
        return False
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return "frcnn" in (file.metadata() or {})
    except safetensors.SafetensorError:
        return False


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a model file of this library, or fetch published weights by name.

    Args:
        path: the file, or a name such as ``torchvision:fasterrcnn_resnet50_fpn_v2`` (see ``fetch.py``).

    Raises:
        CheckpointError: when the file is missing, is not safetensors, or was not written by frcnn; when named
            weights cannot be had.
    """
    if str(path).startswith("torchvision:"):
        from frcnn.weights.fetch import fetch  # it is built on this module

        return fetch(str(path))[1]
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such model file; training writes best.safetensors into its run folder"
        )
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get("frcnn")
            state = {key: file.get_tensor(key) for key in file.keys()}
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); frcnn never loads pickled models, "
            "import foreign weights with Detector.from_torchvision"
        ) from None
    if header is None:
        raise CheckpointError(
            f"{path}: safetensors without frcnn's metadata, not written by this library; a classifier's "
            "weights start a backbone with --backbone-weights"
        )
    meta = _metadata(path, header)
    thresholds = meta.get("thresholds")
    return Checkpoint(
        state=state,
        config=from_dict(meta["config"], str(path)),
        classes=tuple(meta["classes"]),
        thresholds=tuple(thresholds) if thresholds is not None else None,
        metrics=meta.get("metrics", {}),
        version=str(meta.get("version", "?")),
    )


def _metadata(path: Path, header: str) -> dict[str, Any]:
    damaged = f"{path}: its metadata is damaged; take another copy of the file"
    try:
        meta = json.loads(header)
    except ValueError:
        raise CheckpointError(damaged) from None
    if not isinstance(meta, dict) or not isinstance(meta.get("format"), int):
        raise CheckpointError(damaged)
    if meta["format"] > FORMAT:
        raise CheckpointError(
            f"{path}: written by frcnn {meta.get('version')}, newer than {frcnn.__version__}; update"
        )
    if not isinstance(meta.get("config"), dict) or not isinstance(meta.get("classes"), list):
        raise CheckpointError(damaged)
    return meta


def restore(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load all tensors or none.

    Raises:
        CheckpointError: listing what is missing, left over or of another shape.
    """
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in wanted and not k.endswith("num_batches_tracked")]
    wrong = [f"{k} {tuple(v.shape)} for {tuple(wanted[k].shape)}" for k, v in state.items()
             if k in wanted and v.shape != wanted[k].shape]  # fmt: skip
    if missing or extra or wrong:
        parts = [("missing", missing), ("not known", extra), ("of another shape", wrong)]
        text = "; ".join(f"{len(v)} {name} ({', '.join(v[:3])})" for name, v in parts if v)
        raise CheckpointError(f"{source}: tensors do not fit the model: {text}")
    model.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a foreign ``.safetensors``, ``.pt`` or ``.pth`` file, never executing anything in
    it.

    A nested ``state_dict`` or ``model`` entry is looked into.

    Raises:
        CheckpointError: when the file is missing, broken, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file; check the path")
    values: Any
    try:
        if path.suffix == ".safetensors":
            values = safetensors.torch.load_file(str(path))
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: holds pickled objects, which could run code when loaded; "
            "save its state_dict() and use that"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None
    except Exception:  # bytes that are no weights make the readers fail in any way
        raise CheckpointError(
            f"{path}: cannot be read as weights; it is incomplete, damaged or another kind of file"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(values, dict) and isinstance(values.get(key), dict):
            values = values[key]
    named = isinstance(values, dict) and all(isinstance(k, str) for k in values)
    if not named or not all(isinstance(v, Tensor) for v in values.values()):
        raise CheckpointError(f"{path}: a mapping of names to tensors is expected; save a state_dict()")
    return {k.removeprefix("module."): v for k, v in values.items()}
