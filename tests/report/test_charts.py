from __future__ import annotations

import re

import pytest

from frcnn.report.charts import MANY, Series, line_chart, precision_recall, running_mean, tick_text, ticks


def test_nothing_to_draw() -> None:
    assert line_chart([], "step") == "" and line_chart([Series("a", [], 1)], "step") == ""
    assert "line" not in precision_recall([0.0] * 101)
    assert running_mean([], 3) == []


@pytest.mark.parametrize(
    "points", [[(1.0, 0.0)], [(1.0, 5.0)], [(1.0, -2.0), (2.0, -1.0)], [(0.0, 1e-9), (1.0, 1e9)]]
)
def test_every_point_lies_inside(points: list[tuple[float, float]]) -> None:
    svg = line_chart([Series("a", points, 1, marks=True)], "step")
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', svg)]
    assert len(places) == len(points) and all(0 <= x <= 560 and 0 <= y <= 260 for x, y in places)
    assert "nan" not in svg and "inf" not in svg


def test_higher_values_are_higher_and_names_are_escaped() -> None:
    svg = line_chart([Series("<a>", [(1, 0.2), (2, 0.8)], 1, marks=True)], "<x>", y_range=(0, 1))
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert heights[0] > heights[1] and "<a>" not in svg and "<x>" not in svg and "&lt;a&gt;" in svg


def test_many_points_are_smoothed_unless_told_not_to() -> None:
    points = [(float(i), float(i % 2)) for i in range(MANY + 1)]
    assert "faint" in line_chart([Series("a", points, 1)], "step")
    assert "faint" not in line_chart([Series("a", points, 1, smooth=False)], "step")
    assert "faint" not in line_chart([Series("a", points[:-1], 1)], "step")
    assert [y for _, y in running_mean(points[:4], 2)] == [0.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1.0][:1]),
        (3, 11, [2, 4, 6, 8, 10, 12]),
        (0, 0.0007, [0, 0.0002, 0.0004, 0.0006, 0.0008]),
    ],
)
def test_ticks_are_round(low: float, high: float, want: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(want)


def test_tick_texts_are_short() -> None:
    assert [tick_text(v) for v in (0, 0.25, 1e-5, 12_000, 1.0)] == ["0", "0.25", "1e-05", "12k", "1"]


def test_a_perfect_curve_fills_the_square() -> None:
    svg = precision_recall([1.0] * 101)
    assert 'd="M6.0 6.0L' in svg and "154.0 6.0V154H6Z" in svg
