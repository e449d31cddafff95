from __future__ import annotations

import pytest
import torch
from torch import nn

from frcnn.training.ema import Average


def test_average_without_decay_is_the_network() -> None:
    net = nn.Linear(2, 2)
    average = Average(net, 0.0)
    average.update(net)
    assert average.network is net and average.updates == 0


def test_average_follows_by_the_rule() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, affine=False))
    net[0].weight.data.fill_(0.0)
    average = Average(net, 0.5)
    expected = 0.0
    for t in range(1, 30):
        net[0].weight.data.fill_(float(t))
        decay = min(0.5, (1 + t) / (10 + t))
        assert decay < 0.5 or t >= 8
        expected = decay * expected + (1 - decay) * t
        average.update(net)
        assert average.current_decay() == pytest.approx(decay)
        assert average.network[0].weight.item() == pytest.approx(expected, rel=1e-5)


def test_buffers_are_copied_and_frozen_weights_stay() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[0].requires_grad_(False)
    average = Average(net, 0.9)
    start = average.network[0].weight.clone()
    net.train()(torch.rand(4, 2))
    average.update(net)
    assert torch.equal(average.network[1].running_mean, net[1].running_mean)
    assert average.network[1].num_batches_tracked == 1 and torch.equal(average.network[0].weight, start)
    assert not any(p.requires_grad for p in average.network.parameters())


def test_state_goes_around() -> None:
    net = nn.Linear(2, 2)
    average = Average(net, 0.9)
    average.update(net)
    other = Average(nn.Linear(2, 2), 0.9)
    other.load(average.state(), average.updates)
    assert torch.equal(other.network.weight, average.network.weight) and other.updates == 1
