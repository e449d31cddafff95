"""Published weights by name: ``torchvision:fasterrcnn_resnet50_fpn_v2`` is fetched, checked, converted once.

The network is used only when a user gives such a name and no copy of the file is in the cache or in
torch.hub's folder. URL, class names and the first digits of the SHA-256 are torchvision's own; no table of
them is kept here. The file is read with ``weights_only=True`` and stored as one of our model files.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision

import frcnn
from frcnn.files import cache_folder
from frcnn.model.detector import build_network
from frcnn.weights.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    read_weights,
    restore,
    save_checkpoint,
)
from frcnn.weights.download import download
from frcnn.weights.torchvision import ARCHITECTURES, import_state, published_config

PREFIX = "torchvision:"
HOLE = "N/A"
"""How torchvision names the ids that COCO does not use."""


@dataclass(frozen=True)
class Published:
    """Weights that torchvision publishes.

    Attributes:
        arch: torchvision's name of the detector.
        url: of the file.
        digest: the first digits of its SHA-256, from the file's name.
        size: "160 MiB", or "size not known".
        classes: names; a label is an index into them.
    """

    arch: str
    url: str
    digest: str
    size: str
    classes: tuple[str, ...]

    @property
    def file(self) -> str:
        """The file's name, the same on every mirror."""
        return self.url.rpartition("/")[2]

    @property
    def source(self) -> str:
        """Where it is fetched from: ``FRCNN_MIRROR`` names another folder of the same files."""
        mirror = os.environ.get("FRCNN_MIRROR")
        return f"{mirror.rstrip('/')}/{self.file}" if mirror else self.url


def published(name: str) -> Published:
    """What a name such as ``torchvision:fasterrcnn_resnet50_fpn_v2`` stands for.

    The detector may also be given by our recipe's name, or as torchvision's weights enum writes it:
    ``torchvision:FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1``.

    Raises:
        CheckpointError: for another name, with the nearest one.
    """
    known: dict[str, tuple[str, torchvision.models.WeightsEnum]] = {}
    for arch, recipe in ARCHITECTURES.items():
        enum = torchvision.models.get_model_weights(arch)
        known |= {arch: (arch, enum["DEFAULT"]), recipe: (arch, enum["DEFAULT"])}
        known |= {f"{enum.__name__}.{member.name}": (arch, member) for member in enum}
    short = name.removeprefix(PREFIX)
    if short not in known:
        near = difflib.get_close_matches(short, known, 1, 0.4)
        hint = f"did you mean {PREFIX}{near[0]}? " if near else ""
        names = ", ".join(PREFIX + arch for arch in ARCHITECTURES)
        raise CheckpointError(f"unknown published weights {name!r}; {hint}known are {names}")
    arch, weights = known[short]
    digits = re.search(r"-([0-9a-f]{8,})\.\w+$", weights.url)
    if digits is None:
        raise CheckpointError(f"{weights.url}: torchvision's file name holds no SHA-256 to check it with")
    megabytes = weights.meta.get("_file_size")
    size = "size not known" if megabytes is None else f"{megabytes:.0f} MiB"
    return Published(arch, weights.url, digits[1], size, class_names(weights.meta["categories"]))


def class_names(categories: Sequence[str]) -> tuple[str, ...]:
    """The categories without the background; the ids that COCO does not use get names of their own.

    They keep their rows, because the softmax runs over all of them.
    """
    return tuple(
        f"{HOLE} {number}" if name == HOLE else name for number, name in enumerate(categories) if number
    )


def in_cache(wanted: Published) -> bool:
    """Whether a copy is there, so that the network is not needed."""
    return any(path.is_file() for path in (_converted(wanted), *_places(wanted)))


def fetch(name: str) -> tuple[Path, Checkpoint]:
    """Our model file of published weights, and what it holds; made where the cache has none.

    What is done is said on stderr: the URL, the size and the SHA-256, before and after.

    Raises:
        CheckpointError: for an unknown name, and when the file cannot be had or is not the published one.
    """
    wanted = published(name)
    folder, converted = cache_folder(), _converted(wanted)
    stored = _stored(converted, wanted)
    if stored is None:
        original = _original(wanted, folder)
        _say(f"{original}: SHA-256 {_checked(original, wanted)}, begins as published")
        stored = _convert(original, wanted)
        try:
            save_checkpoint(converted, stored)
        except OSError as error:
            raise CheckpointError(
                f"{folder}: cannot be written ({error.strerror or error}); "
                "set FRCNN_CACHE to a folder that can"
            ) from None
        _say(f"converted to {converted}: recipe {stored.config.recipe}, {len(stored.classes)} classes")
    return converted, stored


def _stored(path: Path, wanted: Published) -> Checkpoint | None:
    """The converted file, where it is whole and this version of the library would write the same."""
    try:
        stored = load_checkpoint(path)
    except ValueError:  # none, damaged, or of a version with another configuration: made anew
        return None
    same = stored.config == published_config(wanted.arch) and stored.classes == wanted.classes
    return stored if same and stored.version == frcnn.__version__ else None


def _original(wanted: Published, folder: Path) -> Path:
    """The file as torchvision publishes it: from the cache, from torch.hub's folder, or fetched."""
    for path in _places(wanted):
        if path.is_file():
            return path
    _say(f"fetching {wanted.source} ({wanted.size}, SHA-256 {wanted.digest}...) into {folder}")
    download(wanted.source, folder / wanted.file, wanted.digest)
    return folder / wanted.file


def _converted(wanted: Published) -> Path:
    return cache_folder() / f"{Path(wanted.file).stem}.safetensors"


def _places(wanted: Published) -> tuple[Path, Path]:
    return cache_folder() / wanted.file, Path(torch.hub.get_dir()) / "checkpoints" / wanted.file


def _checked(path: Path, wanted: Published) -> str:
    """The file's SHA-256.

    Raises:
        CheckpointError: when it is not the published one.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None
    if not digest.startswith(wanted.digest):
        raise CheckpointError(
            f"{path}: its SHA-256 {digest} does not begin with {wanted.digest}, so it is not the published "
            "file; delete it and run the command again"
        )
    return digest


def _convert(original: Path, wanted: Published) -> Checkpoint:
    config = published_config(wanted.arch)
    with torch.random.fork_rng(devices=[]):
        model = build_network(config, len(wanted.classes))
    restore(model, import_state(read_weights(original), config), str(original))
    return Checkpoint(model.state_dict(), config, wanted.classes)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
