from __future__ import annotations

from typing import Any

import pytest
import torch

from frcnn.data.feed.loader import Batch
from frcnn.structures import ImageBatch, Losses, Targets
from frcnn.training.watch import INTERVAL, LossWatch, Seen, TrainingStopped

CPU = torch.device("cpu")
NAMES = Losses.names()


def batch(name: str) -> Batch:
    sizes = torch.tensor([[32.0, 32.0]])
    images = ImageBatch(torch.zeros(1, 3, 32, 32), sizes, torch.tensor([[2.0, 2.0]]), sizes / 2)
    boxes = torch.tensor([[[2.0, 4.0, 8.0, 10.0], [0, 0, 0, 0]]])
    targets = Targets(boxes, torch.tensor([[1, -1]]), torch.zeros(1, 2, dtype=torch.bool))
    return Batch(images, targets, (7,), (name,))


def losses(value: float) -> Losses:
    one = torch.tensor(1.0)
    return Losses(one, one, one, torch.tensor(value))


def seen(step: int) -> Seen:
    return Seen(step, 1, 0.01, batch(f"{step}.jpg"))


def gpu_watch(reports: list[dict[str, Any]]) -> LossWatch:
    """The watch of a GPU, its tensors on the CPU."""
    watch = LossWatch(CPU, reports.append, NAMES)
    watch.interval = INTERVAL
    watch._rows = torch.zeros(INTERVAL, 5)
    return watch


def test_nothing_seen_has_no_losses() -> None:
    watch = LossWatch(CPU, lambda _: None, NAMES)
    watch.look()
    assert watch.take()["total"] == 0


def test_means_over_the_batches_since_the_last_call() -> None:
    watch = LossWatch(CPU, lambda _: None, NAMES)
    for value in (2.0, 4.0):
        watch.losses(losses(value), seen(1))
        watch.gradient(torch.tensor(1.0))
    assert watch.take() == {"rpn_objectness": 1, "rpn_box": 1, "roi_class": 1, "roi_box": 3, "total": 6}
    assert watch.take()["total"] == 0


def test_cpu_stops_before_the_step() -> None:
    reports: list[dict[str, Any]] = []
    watch = LossWatch(CPU, reports.append, NAMES)
    watch.losses(losses(1.0), seen(1))
    with pytest.raises(TrainingStopped, match=r"step 2 .*roi_box inf.*2\.jpg"):
        watch.losses(losses(float("inf")), seen(2))
    assert reports[0]["pictures"] == [{"path": "2.jpg", "id": 7, "boxes": [[1, 2, 4, 5]], "labels": [1]}]


def test_cpu_stops_at_the_gradient() -> None:
    watch = LossWatch(CPU, lambda _: None, NAMES)
    watch.losses(losses(1.0), seen(1))
    with pytest.raises(TrainingStopped, match="gradient norm inf"):
        watch.gradient(torch.tensor(float("inf")))


def test_scaled_gradients_may_overflow() -> None:
    watch = LossWatch(CPU, lambda _: None, NAMES)
    watch.losses(losses(1.0), seen(1))
    watch.gradient(torch.tensor(float("inf")), scaled=True)
    watch.look()


def test_scaled_gradients_that_overflowed_are_not_blamed() -> None:
    """An fp16 scaler's first steps overflow; the step whose loss is not finite comes later."""
    reports: list[dict[str, Any]] = []
    watch = gpu_watch(reports)
    for step in range(1, 6):
        watch.losses(losses(float("nan") if step == 4 else 1.0), seen(step))
        watch.gradient(torch.tensor(float("inf") if step == 1 else 2.0), scaled=True)
    with pytest.raises(TrainingStopped, match=r"step 4 .*4\.jpg"):
        watch.look()
    assert reports[0]["step"] == 4


def test_gpu_reports_the_first_bad_step_later() -> None:
    reports: list[dict[str, Any]] = []
    watch = gpu_watch(reports)
    for step in range(1, 8):
        watch.losses(losses(float("nan") if step >= 4 else 1.0), seen(step))
        watch.gradient(torch.tensor(2.0))
        assert bool(watch.bad) == (step >= 4)
    assert not reports
    with pytest.raises(TrainingStopped, match=r"step 4 .*4\.jpg"):
        watch.look()
    assert reports[0]["step"] == 4 and reports[0]["gradient_norm"] == 2.0


def test_no_pixels_are_kept() -> None:
    watch = gpu_watch([])
    watch.losses(losses(1.0), seen(1))
    kept = watch._seen[0].batch
    assert kept.images.pixels.numel() == 0 and kept.paths == ("1.jpg",)


def test_gpu_looks_at_the_latest_when_its_rows_are_full() -> None:
    watch = gpu_watch([])
    for step in range(1, INTERVAL + 1):
        watch.losses(losses(1.0), seen(step))
        watch.gradient(torch.tensor(float("nan") if step == 3 else 2.0))
    with pytest.raises(TrainingStopped, match=r"step 3 .*gradient norm nan"):
        watch.losses(losses(1.0), seen(INTERVAL + 1))
