"""On a GPU the host must never wait inside a step: neither in training nor in detection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from small import batch_of, build, small, targets_of

SIZE = (64, 96)


@contextmanager
def no_host_syncs() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", ["lite0-fpn", "r50-fpn", "r50-fpn-v2", "vgg16"])
def test_a_step_on_a_gpu_has_no_host_sync(name: str, autocast: bool) -> None:
    model = build(small(name)).cuda()
    batch = batch_of(model.config, [SIZE, (40, 70)]).to("cuda")
    targets = targets_of([[((4.0, 4, 50, 40), 0), ((40.0, 20, 90, 60), 2)], []]).to("cuda")

    def train() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            losses = model(batch, targets, model.draw_noise(batch, targets, 0)).losses
        losses.total.backward()

    def detect() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            model(batch)

    for step in (train, detect):
        step()  # anchors of this size are made, kernels compiled
        with no_host_syncs():
            step()
