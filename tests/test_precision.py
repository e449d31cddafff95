from __future__ import annotations

import pytest
import torch

from frcnn import precision
from frcnn.precision import bf16_gain, choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("asked", "name"), [("fp32", "32-true"), ("bf16", "bf16-mixed")])
def test_what_was_asked_for_is_used(asked: str, name: str) -> None:
    chosen = choose_precision(asked, CPU)  # type: ignore[arg-type]
    assert chosen.format == asked and chosen.lightning == name and "as asked" in chosen.describe()


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="fp16 needs a GPU; on a CPU use"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(("gain", "chosen"), [(0.4, "fp32"), (1.1, "fp32"), (1.9, "bf16")])
def test_auto_follows_the_measurement(monkeypatch: pytest.MonkeyPatch, gain: float, chosen: str) -> None:
    monkeypatch.setattr(precision, "_measured_gain", lambda: gain)
    result = choose_precision("auto", CPU)
    assert result.format == chosen and f"{gain:.1f}x" in result.describe()


def test_measurement_leaves_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    assert 0.01 < bf16_gain(0.02) < 100
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("asked", "dtype"), [("fp32", None), ("bf16", torch.bfloat16)])
def test_autocast_is_on_only_where_the_format_needs_it(asked: str, dtype: torch.dtype | None) -> None:
    chosen = choose_precision(asked, CPU)  # type: ignore[arg-type]
    with chosen.autocast("cpu"):
        assert torch.is_autocast_enabled("cpu") == (dtype is not None)
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (dtype or torch.float32) and chosen.dtype == dtype
