"""Times in turn."""

from collections.abc import Callable

import pytest
import torch

from frcnn.bench import turns
from frcnn.bench.turns import Times, quartiles, take_turns, warm_up

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("values", "expected"),
    [((3.0,), (3.0, 3.0)), ((1.0, 2.0), (1.25, 1.75)), ((5.0, 1.0, 3.0, 2.0, 4.0), (2.0, 4.0))],
)
def test_quartiles(values: tuple[float, ...], expected: tuple[float, float]) -> None:
    assert quartiles(values) == pytest.approx(expected)
    assert Times(values, 9.0).quartiles == pytest.approx(expected)


def recording(order: list[str], name: str) -> Callable[[], object]:
    return lambda: order.append(name)


def test_nobody_takes_no_turn() -> None:
    assert take_turns({}, CPU, 3, 0.0) == {}


def test_turns_alternate_after_the_warm_up() -> None:
    order: list[str] = []
    found = take_turns({name: recording(order, name) for name in "ab"}, CPU, 4, 60.0)
    assert order[-16:] == ["a", "a", "b", "b"] * 4  # the second call of each is timed
    assert order[:-16] == sorted(order[:-16])  # a alone, then b alone
    assert [len(times.rounds) for times in found.values()] == [4, 4]


@pytest.mark.parametrize(
    ("rounds", "seconds", "taken"),
    [
        (None, -1.0, turns.LEAST_ROUNDS),
        (None, 60.0, turns.MOST_ROUNDS),
        (1, -1.0, 1),
        (2, -1.0, 2),
        (50, -1.0, 50),
    ],
)
def test_rounds_end_with_the_time_unless_their_number_is_given(
    rounds: int | None, seconds: float, taken: int
) -> None:
    found = take_turns({"a": lambda: None}, CPU, rounds, seconds)
    assert len(found["a"].rounds) == taken


def test_a_long_call_warms_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(turns, "LONG_CALL", -1.0)
    assert warm_up(recording(order, "a"), CPU) >= 0
    assert order == ["a"]
