from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from frcnn.config import TrainConfig
from frcnn.training.optim import Schedule, make_optimizer, make_scheduler

BASE = Schedule(
    epochs=10, batches=25, accumulate=1, devices=1, batch=4, base_lr=0.02, warmup=100, kind="cosine"
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("batch", "accumulate", "devices", "images", "lr"),
    [(1, 1, 1, 1, 0.00125), (4, 1, 1, 4, 0.005), (4, 2, 2, 16, 0.02), (8, 4, 1, 32, 0.04)],
)
def test_lr_follows_the_pictures_of_a_step(
    batch: int, accumulate: int, devices: int, images: int, lr: float
) -> None:
    schedule = replace(BASE, batch=batch, accumulate=accumulate, devices=devices)
    assert schedule.images == images and schedule.lr == pytest.approx(lr)


def test_description_names_both_rates() -> None:
    assert BASE.describe() == "lr 0.02 @16 -> 0.005 @4, warm-up 25 steps, cosine over 250 steps"


def test_warmup_is_at_most_a_tenth_and_never_zero() -> None:
    assert BASE.warmup_steps == 25 and replace(BASE, warmup=7).warmup_steps == 7
    assert replace(BASE, epochs=1, batches=1).warmup_steps == 0
    factors = [BASE.factor(step) for step in range(250)]
    assert min(factors) > 0 and max(factors) == factors[25] == 1.0
    assert factors[:25] == sorted(factors[:25]) and factors[25:] == sorted(factors[25:], reverse=True)
    assert factors[-1] < 0.001


def test_other_kinds() -> None:
    step = replace(BASE, kind="step", warmup=0)
    assert [step.factor(i) for i in (0, 166, 167, 223, 249)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert replace(BASE, kind="constant", warmup=0).factor(249) == 1.0


def test_steps_with_accumulation() -> None:
    schedule = replace(BASE, accumulate=4)
    assert schedule.steps_per_epoch == 7 and schedule.steps == 70


def test_nothing_trainable_is_an_error() -> None:
    with pytest.raises(ValueError, match="freeze"):
        make_optimizer(Net().requires_grad_(False), TrainConfig(), 0.1)


def test_groups_hold_every_trainable_parameter_once() -> None:
    net = Net()
    net.backbone[0].bias.requires_grad_(False)
    optimizer = make_optimizer(net, TrainConfig(backbone_lr=0.1, weight_decay=0.01), 1.0)
    table = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(table) == sum(len(g["params"]) for g in optimizer.param_groups) == 5
    assert table[id(net.backbone[0].weight)] == (0.1, 0.01)
    assert table[id(net.backbone[1].weight)] == (0.1, 0.0)  # norm
    assert table[id(net.head.weight)] == (1.0, 0.01) and table[id(net.head.bias)] == (1.0, 0.0)
    plain = make_optimizer(Net(), TrainConfig(weight_decay=0.0), 1.0)
    assert len(plain.param_groups) == 1
    assert isinstance(make_optimizer(Net(), TrainConfig(optimizer="adamw"), 1.0), torch.optim.AdamW)


def test_scheduler_sets_every_group() -> None:
    optimizer = make_optimizer(Net(), TrainConfig(backbone_lr=0.1), BASE.lr)
    scheduler = make_scheduler(optimizer, BASE)
    seen = []
    for _ in range(3):
        seen.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert [row[0] for row in seen] == pytest.approx([0.1 * BASE.lr * BASE.factor(i) for i in range(3)])


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_fused_step_leaves_everything_alone_where_the_flag_is_set(kind: str) -> None:
    net = Net()
    optimizer = make_optimizer(net, TrainConfig(optimizer=kind), 0.1, fused=True)  # type: ignore[arg-type]
    flag = torch.zeros(())
    optimizer.found_inf, optimizer.grad_scale = flag, torch.ones(())  # type: ignore[attr-defined]

    def step(gradient: float) -> torch.Tensor:
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        return net.head.weight.detach().clone()

    start = net.head.weight.detach().clone()
    moved = step(1.0)
    assert not torch.equal(moved, start)
    flag.fill_(1.0)
    assert torch.equal(step(float("nan")), moved)
    flag.zero_()
    assert step(1.0).isfinite().all() and not torch.equal(net.head.weight, moved)
