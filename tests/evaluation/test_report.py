"""Reports and tables say what was measured and how."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from frcnn.evaluation.report import Counts, Report, measure

TRUTH: dict[str, Any] = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": [
        {"id": 0, "name": "cat"},
        {"id": 1, "name": "[red]dog[/red], wild"},
        {"id": 2, "name": "none"},
    ],
    "annotations": [
        {"image_id": 1, "category_id": 0, "bbox": [0, 0, 40, 40]},
        {"image_id": 1, "category_id": 0, "bbox": [60, 60, 40, 40]},
        {"image_id": 2, "category_id": 1, "bbox": [10, 10, 100, 100]},
        {"image_id": 2, "category_id": 1, "bbox": [200, 10, 100, 100], "ignore": 1},
    ],
}
FOUND: list[dict[str, Any]] = [
    {"image_id": 1, "category_id": 0, "bbox": [0, 0, 40, 40], "score": 0.9},
    {"image_id": 1, "category_id": 0, "bbox": [60, 60, 40, 40], "score": 0.7},
    {"image_id": 2, "category_id": 1, "bbox": [10, 10, 100, 100], "score": 0.8},
    {"image_id": 2, "category_id": 1, "bbox": [200, 10, 100, 100], "score": 0.85},
]


def test_nothing_measured_is_na_everywhere() -> None:
    report = measure({"images": [], "annotations": [], "categories": []}, [])
    assert set(report.metrics.values()) == {None} and report.rows == () and report.thresholds == ()
    assert "n/a" in report.format() and "-1" not in report.format()
    assert json.loads(report.to_json())["metrics"]["AP"] is None
    report = measure(TRUTH | {"annotations": []}, FOUND)
    assert report["AP"] is None and report.rows[0].precision_all == 0.0 and report.rows[0].recall_all is None


def test_one_more_low_false_positive_leaves_ap_and_the_table_shows_it() -> None:
    before = measure(TRUTH, FOUND)
    stray = {"image_id": 2, "category_id": 0, "bbox": [300, 300, 20, 20], "score": 0.1}
    after = measure(TRUTH, [*FOUND, stray])
    assert before["AP"] == after["AP"] == 1.0
    assert before.rows[0].precision_all == 1.0 and after.rows[0].precision_all == pytest.approx(2 / 3)
    assert "0.667" in after.format() and "0.667" not in before.format()
    assert after.rows[0].precision == 1.0  # at its best threshold the stray is gone
    assert 0.1 < after.rows[0].threshold < 0.7


def test_rows_thresholds_and_curves() -> None:
    report = measure(TRUTH, FOUND, counts=Counts(0, 3, 2))
    cat, dog, none = report.rows
    assert (cat.objects, cat.ignored, cat.detections, cat.f1) == (2, 0, 2, 1.0)
    assert (dog.objects, dog.ignored, dog.detections, dog.precision) == (1, 1, 1, 1.0)
    assert (none.objects, none.ap, none.f1) == (0, None, None)
    assert report.thresholds == pytest.approx(
        (0.35, 0.4, 0.375)
    )  # half the last score; the median for "none"
    assert report.curves[2] is None and report.curves[0] == (1.0,) * 101
    assert report.counts == Counts(4, 3, 2)
    assert any("max-dets (100) reached in 3 images" in note for note in report.notes)
    assert any("2 images" in note and "candidates" in note for note in report.notes)


def test_the_floor_leaves_low_scores_out() -> None:
    report = measure(TRUTH, FOUND, score_floor=0.75)
    assert report.counts.detections == 3 and report.rows[0].recall_all == 0.5
    assert measure(TRUTH, FOUND, max_dets=1).rows[0].recall_all == 0.5


def test_every_line_says_how_it_was_measured() -> None:
    text = measure(TRUTH, FOUND, score_floor=0.05, max_dets=50).format()
    lines = text.splitlines()[:12]
    assert [line.split()[0] for line in lines[:3]] == ["AP", "AP50", "AP75"]
    for line in lines:
        assert (
            "coco, IoU" in line and "max-dets" in line and "score >= 0.05, 2 images, 3 gt, 1 ignored" in line
        )
    assert "max-dets 1," in lines[6] and "max-dets 50" in lines[0] and "IoU 0.50," in lines[1]
    assert sum("coco, IoU" in line for line in text.splitlines()) == 13  # the table has its own


def test_text_has_color_codes_only_where_asked_for_and_names_as_they_are() -> None:
    report = measure(TRUTH, FOUND)
    assert "\x1b" not in report.format() and report.format().isascii()
    assert "\x1b" in report.format(color=True)
    assert "[red]dog[/red], wild" in report.format(width=200)


def test_json_and_csv_hold_the_same_numbers() -> None:
    report = measure(TRUTH, FOUND)
    data = json.loads(report.to_json())
    assert data == json.loads(json.dumps(report.to_dict()))
    assert data["classes"][0]["ap"] == 1.0 and data["settings"]["objects"] == 3 and data["curves"][2] is None
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [row["name"] for row in rows] == [c["name"] for c in TRUTH["categories"]]
    assert rows[0]["ap"] == "1.0" and rows[2]["ap"] == "n/a" and rows[0]["protocol"] == "coco"
    assert rows[0]["objects"] == "2" and rows[0]["objects_total"] == "3" and rows[0]["max_dets"] == "100"


def test_unknown_names_are_named() -> None:
    report = measure(TRUTH, FOUND)
    assert isinstance(report, Report)
    with pytest.raises(KeyError, match="AP51"):
        report["AP51"]
    with pytest.raises(ValueError, match="unknown protocol 'kitty'"):
        measure(TRUTH, FOUND, protocol="kitty")


def test_flat_boxes_are_told() -> None:
    flat = {"image_id": 1, "category_id": 0, "bbox": [5, 5, 0, 9], "ignore": 1}
    report = measure(TRUTH | {"annotations": [*TRUTH["annotations"], flat]}, FOUND)
    assert report["AP"] == 1.0 and any("1 boxes without area" in note for note in report.notes)
