from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny_config

from frcnn.data.open import open_dataset
from frcnn.model.detector import FasterRCNN
from frcnn.precision import Precision
from frcnn.training.feed import make_loaders
from frcnn.training.forecast import (
    Forecast,
    duration,
    fit_budget,
    largest_picture,
    measure_run,
    parse_time,
)
from frcnn.training.optim import Schedule

SCHEDULE = Schedule(
    epochs=10, batches=100, accumulate=1, devices=1, batch=4, base_lr=0.02, warmup=0, kind="cosine"
)
FORECAST = Forecast(step=0.5, evaluation=10.0, memory=2**30, largest=(64, 96), device=torch.device("cpu"))


@pytest.mark.parametrize("text", ["", "soon", "30", "m", "-5m", "0s", "5 m", "1h30"])
def test_time_that_is_not_understood(text: str) -> None:
    with pytest.raises(ValueError, match="30m"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400), (" 2M ", 120)]
)
def test_time(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


def test_description() -> None:
    text = FORECAST.describe(SCHEDULE)
    assert "10 min 00 s for 10 epochs of 100 batches (0.50 s each" in text and "1.0 GiB" in text
    assert [duration(s) for s in (0.44, 12.4, 250, 7500)] == ["0.4 s", "12 s", "4 min 10 s", "2 h 05 min"]


def test_budget_chooses_epochs() -> None:
    fitted, line = fit_budget(SCHEDULE, FORECAST, 300, None)  # 270 usable, 60 an epoch
    assert fitted == replace(SCHEDULE, epochs=4) and "4 epochs fit" in line
    assert fit_budget(SCHEDULE, FORECAST, 300, 2)[0].epochs == 2
    assert fit_budget(SCHEDULE, FORECAST, 1e6, None)[0].epochs == 40
    assert FORECAST.seconds(fitted) <= 300


def test_budget_below_an_epoch_chooses_batches() -> None:
    fitted, line = fit_budget(SCHEDULE, FORECAST, 40, None)  # 36 usable, 10 for validation
    assert (fitted.epochs, fitted.batches) == (1, 52) and "52 of the 100 batches" in line
    with pytest.raises(ValueError, match="allow more time"):
        fit_budget(SCHEDULE, FORECAST, 11, None)


def test_largest_picture(voc: Path) -> None:
    config = tiny_config()
    assert largest_picture(open_dataset(voc), config) == (64, 96)
    wide = config.data.model_copy(update={"scale_jitter": (0.5, 2.0)})
    assert largest_picture(open_dataset(voc), config.model_copy(update={"data": wide})) == (128, 160)


def test_measuring_changes_nothing(voc: Path) -> None:
    config, data = tiny_config(), open_dataset(voc)
    network = FasterRCNN(config, 2)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    random = torch.random.get_rng_state()
    train, val = make_loaders(data.subset("train"), data.subset("val"), config)
    result = measure_run(network, train, val, data, config, Precision("fp32", ""))
    assert result.step > 0 and result.evaluation > 0 and result.memory > 2**20
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(p.grad is None for p in network.parameters())
