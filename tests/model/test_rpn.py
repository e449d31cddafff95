"""Room 6: the layout of the RPN's outputs and how it starts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers

from frcnn.config import RpnConfig
from frcnn.model.rpn import RpnHead

MAPS = [(4, 6), (2, 3)]


def features(channels: int = 8, images: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(images, channels, *size, generator=generator) for size in MAPS]


@pytest.mark.parametrize(("objectness", "tail"), [("sigmoid", ()), ("softmax", (2,))])
def test_no_image_gives_no_row(objectness: str, tail: tuple[int, ...]) -> None:
    head = RpnHead(8, 3, RpnConfig.model_validate({"objectness": objectness}))
    for learns in (True, False):
        with torch.set_grad_enabled(learns), torch.autocast("cpu", torch.bfloat16, enabled=not learns):
            logits, deltas = head(features(images=0))
        assert logits.shape == (0, 90, *tail) and deltas.shape == (0, 90, 4)


@pytest.mark.parametrize("depth", [1, 2])
def test_equals_torchvision_with_its_weights(depth: int) -> None:
    theirs = RPNHead(8, 3, conv_depth=depth)
    ours = RpnHead(8, 3, RpnConfig(depth=depth))
    convs = [m for m in ours.conv if isinstance(m, nn.Conv2d)]
    for mine, other in zip(convs, theirs.conv, strict=True):
        mine.load_state_dict({k.removeprefix("0."): v for k, v in other.state_dict().items()})
    ours.objectness.load_state_dict(theirs.cls_logits.state_dict())
    ours.deltas.load_state_dict(theirs.bbox_pred.state_dict())
    logits, deltas = ours(features())
    expected_logits, expected_deltas = concat_box_prediction_layers(*theirs(features()))
    torch.testing.assert_close(logits, expected_logits.view(2, -1))
    torch.testing.assert_close(deltas, expected_deltas.view(2, -1, 4))


def spell_out(head: RpnHead) -> torch.Tensor:
    """Logits where every score channel gives its own number, on one map of one cell."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    channels = head.objectness.out_channels
    head.objectness.bias.data = torch.arange(channels, dtype=torch.float32)
    return head([torch.zeros(1, 8, 1, 1)])[0][0]


def test_the_two_channel_orders_of_softmax() -> None:
    pairs = spell_out(RpnHead(8, 3, RpnConfig(objectness="softmax")))
    assert pairs.tolist() == [[0, 1], [2, 3], [4, 5]]
    pairs = spell_out(RpnHead(8, 3, RpnConfig(objectness="softmax", channel_order="grouped")))
    assert pairs.tolist() == [[0, 3], [1, 4], [2, 5]], "all background, then all object"


def test_starts_from_small_weights_and_zero_biases() -> None:
    torch.manual_seed(0)
    head = RpnHead(64, 9, RpnConfig(hidden_channels=128, objectness="softmax"))
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 3 and convs[0].out_channels == 128
    for conv in convs:
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert conv.bias is not None and conv.bias.eq(0).all()


def test_there_is_a_relu_after_every_convolution() -> None:
    head = RpnHead(8, 3, RpnConfig(depth=2))
    assert [isinstance(m, nn.Conv2d) for m in head.conv] == [True, False] * 2
    assert [type(m) for m in head.conv[1::2]] == [nn.ReLU] * 2
    assert head.conv(features()[0]).min() >= 0


def test_outputs_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits, deltas = RpnHead(8, 3, RpnConfig())(features())
    assert logits.dtype == deltas.dtype == torch.float32
