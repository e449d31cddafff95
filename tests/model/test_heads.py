"""Room 11: shapes, layout and start of the second stage's heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead

from frcnn.config import RoiConfig
from frcnn.model.heads import BoxHead, ConvFc, TwoFc
from frcnn.weights.imagenet import channels_last_columns

CONFIGS = [
    RoiConfig(head="two_fc", hidden=16),
    RoiConfig(head="vgg", hidden=16, dropout=0.5),
    RoiConfig(head="conv_fc", convs=2, hidden=16),
    RoiConfig(head="two_fc", hidden=16, box_regression="agnostic"),
    RoiConfig(head="two_fc", hidden=16, output_size=5),
]


def pooled(count: int, size: int = 7) -> torch.Tensor:
    values = torch.randn(count, 6, size, size, generator=torch.Generator().manual_seed(0))
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_shapes(config: RoiConfig, count: int) -> None:
    head = BoxHead(6, 3, config).eval()
    logits, deltas = head(pooled(count, config.output_size))
    assert logits.shape == (count, 4)
    assert deltas.shape == (count, 1 if config.box_regression == "agnostic" else 3, 4)
    assert logits.dtype == deltas.dtype == torch.float32


def test_two_fc_reads_channels_last() -> None:
    theirs, ours = TwoMLPHead(6 * 49, 16), TwoFc(6 * 49, 16, 0.0)
    ours.load_state_dict(theirs.state_dict() | {"fc6.weight": channels_last_columns(theirs.fc6.weight, 6)})
    torch.testing.assert_close(ours(pooled(5)), theirs(pooled(5)))


def test_conv_fc_equals_torchvisions_v2_head() -> None:
    theirs, ours = FastRCNNConvFCHead((6, 7, 7), [256, 256], [16], nn.BatchNorm2d), ConvFc(6, 7, 2, 16)
    values = list(theirs.state_dict().values())
    names = list(ours.state_dict())
    state = dict(zip(names, values, strict=True))
    state["fc.weight"] = channels_last_columns(state["fc.weight"], 256)
    ours.load_state_dict(state)
    torch.testing.assert_close(ours.eval()(pooled(3)), theirs.eval()(pooled(3)))


def test_there_is_a_relu_between_fc6_and_fc7() -> None:
    trunk = TwoFc(6 * 49, 16, 0.0)
    flat = pooled(2).permute(0, 2, 3, 1).flatten(1)
    expected = F.relu(trunk.fc7(F.relu(trunk.fc6(flat))))
    torch.testing.assert_close(trunk(pooled(2)), expected)


@pytest.mark.parametrize(("kind", "std"), [("two_fc", 0.001), ("vgg", 0.01)])
def test_starts_as_the_papers_say(kind: str, std: float) -> None:
    torch.manual_seed(0)
    head = BoxHead(6, 20, RoiConfig.model_validate({"head": kind, "hidden": 256}))
    assert head.classes.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert head.deltas.weight.std().item() == pytest.approx(std, rel=0.05)
    assert head.classes.bias.eq(0).all() and head.deltas.bias.eq(0).all()


def test_deltas_belong_to_their_class() -> None:
    head = BoxHead(6, 3, CONFIGS[0]).eval()
    nn.init.zeros_(head.deltas.weight)
    head.deltas.bias.data = torch.arange(12.0)
    assert head(pooled(1))[1].tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]]


def test_outputs_are_float32_under_autocast() -> None:
    head = BoxHead(6, 3, CONFIGS[0])
    with torch.autocast("cpu", torch.bfloat16):
        logits, deltas = head(pooled(2))
    assert logits.dtype == deltas.dtype == torch.float32
