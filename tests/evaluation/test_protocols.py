"""Every protocol makes a whole report, and each says how it counted."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from frcnn.config import Config
from frcnn.evaluation import kitti, voc
from frcnn.evaluation.protocols import (
    PROTOCOLS,
    check_protocol,
    choose_protocol,
    default_max_dets,
    recall_limits,
)
from frcnn.evaluation.report import Counts, measure
from frcnn.evaluation.run import default_limits

Json = dict[str, Any]
EMPTY: Json = {"images": [], "annotations": [], "categories": []}
NUMBERS = {
    "coco": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"},
    "voc07": {"mAP"},
    "voc12": {"mAP"},
    "kitti": {"AP_easy", "AP_moderate", "AP_hard"},
    "kitti11": {"AP_easy", "AP_moderate", "AP_hard"},
    "recall": {"AR100", "AR300", "AR1000", "ARs", "ARm", "ARl", "R50@100", "R50@300", "R50@1000"},
}
REGION = {"iscrowd": 1, "ignore": 1, "bbox": [300, 0, 100, 100], "image_id": 2}
TRUTH: Json = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": [{"id": 0, "name": "Car"}, {"id": 1, "name": "Pedestrian"}, {"id": 2, "name": "Tram"}],
    "annotations": [
        {"image_id": 1, "category_id": 0, "bbox": [0, 0, 60, 50]},
        {"image_id": 2, "category_id": 0, "bbox": [0, 0, 60, 30], "occluded": 1, "truncated": 0.2},
        {"image_id": 2, "category_id": 1, "bbox": [100, 0, 20, 50]},
        {"image_id": 2, "category_id": 1, "bbox": [200, 0, 20, 50], "ignore": 1},
        *(REGION | {"category_id": k} for k in range(3)),
    ],
}
OWN = [
    {k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9 - 0.1 * i}
    for i, a in enumerate(TRUTH["annotations"][:4])
]
STRAY = {"image_id": 1, "category_id": 0, "bbox": [400, 400, 50, 50], "score": 0.2}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_at_all_is_not_measured(protocol: str) -> None:
    for truth, found in ((EMPTY, []), (TRUTH | {"annotations": []}, OWN)):
        report = measure(truth, found, protocol=protocol)
        assert set(report.metrics) == NUMBERS[protocol] and set(report.metrics.values()) == {None}
        assert all(row.ap is None and row.ap50 is None for row in report.rows)
        text = report.format()
        assert "n/a" in text and "-1" not in text and "nan" not in text
        json.loads(report.to_json())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_truth_reaches_1_in_every_number(protocol: str) -> None:
    report = measure(TRUTH, OWN, protocol=protocol)
    assert {v for name, v in report.metrics.items() if name not in ("AR1", "AR10")} <= {1.0, None}
    inside = {"image_id": 2, "category_id": 0, "bbox": [310, 10, 50, 50], "score": 0.95}
    charged = measure(TRUTH, [*OWN, inside, inside], protocol=protocol)
    low = measure(TRUTH, [*OWN, STRAY], protocol=protocol)
    for name in report.metrics.keys() - {"AR1"}:  # which counts the best of a picture, in regions too
        assert charged[name] == report[name]  # in a region: neither rewarded nor charged
        assert low[name] == report[name]  # too low to cost anything


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_line_says_how_it_was_measured(protocol: str) -> None:
    iou = {"coco": "0.50:0.95", "recall": "0.50:0.95", "kitti": "> 0.70 for cars, > 0.50 else"}
    iou["kitti11"] = iou["kitti"]
    report = measure(TRUTH, OWN, score_floor=0.1, protocol=protocol)
    most = 1000 if protocol == "recall" else 100
    line = f"{protocol}, IoU {iou.get(protocol, '0.50')}, max-dets {most}, "
    line += "score >= 0.1, 2 images, 3 gt, 2 ignored"
    assert report.settings.line() == line  # the region counts once, whatever the number of classes
    lines = report.format().splitlines()
    assert line in lines
    for metric in lines[: len(report.metrics)]:
        assert f"{protocol}, IoU" in metric and metric.endswith("score >= 0.1, 2 images, 3 gt, 2 ignored")
    assert report.to_dict()["settings"]["protocol"] == report.protocol == protocol


def test_limits_and_thresholds_of_recalls_numbers() -> None:
    lines = {
        line.split()[0]: line for line in measure(TRUTH, OWN, protocol="recall").format().splitlines()[:9]
    }
    assert "IoU 0.50:0.95, max-dets 300," in lines["AR300"] and "IoU 0.50, max-dets 300," in lines["R50@300"]
    assert "small objects" in lines["ARs"] and "max-dets 1000," in lines["ARs"]
    assert set(measure(TRUTH, OWN, 200, protocol="recall").metrics) >= {"AR100", "AR200", "R50@200"}
    assert recall_limits(1000) == (100, 300, 1000) and recall_limits(100) == (100,)
    assert recall_limits(7) == (7,) and recall_limits(5000) == (100, 300, 1000, 5000)


def test_recall_is_of_one_class_whatever_the_labels() -> None:
    found = [d | {"category_id": 77} for d in OWN]
    report = measure(TRUTH, found, protocol="recall", counts=Counts(0, 2, 0))
    (row,) = report.rows
    assert (row.name, row.objects, row.ignored, row.ap, row.recall_all) == ("object", 3, 2, None, 1.0)
    assert row.extra == {} and len(report.curves) == 1
    assert not any("max-dets" in note for note in report.notes)  # reaching the limit is what is asked about


def test_the_table_has_the_columns_of_its_protocol() -> None:
    heads = {}
    for protocol in PROTOCOLS:
        text = measure(TRUTH, OWN, protocol=protocol).format()
        heads[protocol] = next(line for line in text.splitlines() if line.startswith(" class")).split()
        assert protocol == "recall" or "\n Pedestrian " in text  # in one line
    assert heads["coco"][3:6] == ["AP", "AP50", "P"]
    assert heads["voc07"][3:5] == heads["voc12"][3:5] == ["AP", "P"]
    assert heads["kitti"][3:7] == heads["kitti11"][3:7] == ["easy", "moderate", "hard", "P"]
    assert heads["recall"][3:5] == ["P", "R"]


def test_class_rows_hold_the_protocols_numbers() -> None:
    found = [OWN[0], STRAY | {"score": 0.95}, *OWN[2:]]
    for protocol in ("voc07", "voc12"):
        report = measure(TRUTH, found, protocol=protocol)
        want = voc.evaluate(TRUTH, found, protocol)  # type: ignore[arg-type]
        assert tuple(row.ap for row in report.rows) == want.ap and report["mAP"] == want.mean
        assert tuple(row.ap50 for row in report.rows) == want.ap
    for protocol, points in (("kitti", 40), ("kitti11", 11)):
        report = measure(TRUTH, found, protocol=protocol)
        result = kitti.evaluate(TRUTH, found, points)  # type: ignore[arg-type]
        for k, row in enumerate(report.rows):
            assert row.extra == {name: ap[k] for name, ap in result.ap.items()}
            assert row.ap == result.ap["moderate"][k] and row.ap50 is None
        assert report["AP_hard"] == result.mean["hard"]
        assert any("easy 2, moderate 3, hard 3" in note for note in report.notes)
        assert any("moderate objects of Car 2, Pedestrian 1:" in note for note in report.notes)
    assert voc.evaluate(TRUTH, found).ap != voc.evaluate(TRUTH, found, "voc12").ap


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_json_and_csv_hold_the_same_numbers(protocol: str) -> None:
    report = measure(TRUTH, OWN, protocol=protocol)
    data = json.loads(report.to_json())
    assert data["metrics"] == report.metrics and data["protocol"] == protocol
    for row, stored, line in zip(
        report.rows, data["classes"], csv.DictReader(io.StringIO(report.to_csv())), strict=True
    ):
        assert stored["extra"] == row.extra and line["name"] == row.name and line["protocol"] == protocol
        assert line["ap"] == ("n/a" if row.ap is None else str(row.ap))
        for name, value in row.extra.items():
            assert line[name] == ("n/a" if value is None else str(value))
        assert None not in line and "extra" not in line
    for curve, row in zip(report.curves, report.rows, strict=True):
        assert (curve is None) == (row.objects == 0) and (curve is None or len(curve) == 101)


def test_which_protocol_fits_which_model() -> None:
    assert choose_protocol("two_stage") == choose_protocol("fcos") == "coco"
    assert choose_protocol("rpn") == choose_protocol("rpn", "recall") == "recall"
    for name in PROTOCOLS:
        assert choose_protocol("two_stage", name) == choose_protocol("fcos", name) == name
        check_protocol(name)
        if name != "recall":
            with pytest.raises(ValueError, match=rf"proposals without classes.*protocol {name} .*recall"):
                choose_protocol("rpn", name)
    for detector in ("two_stage", "rpn"):
        with pytest.raises(ValueError, match=r"unknown protocol 'kitty'; choose one of coco, voc07"):
            choose_protocol(detector, "kitty")
    with pytest.raises(ValueError, match="max_dets is 0"):
        measure(TRUTH, OWN, 0, protocol="voc07")


def test_limits_that_nobody_named() -> None:
    config = Config()
    assert default_limits(config, "coco") == default_limits(config, "kitti") == (0.05, 100)
    assert default_limits(config, "recall") == (0.0, 1000) and default_max_dets("recall") == 1000
    roi = config.roi.model_copy(update={"max_dets": 250})
    fcos = config.fcos.model_copy(update={"max_dets": 170})
    many = config.model_copy(update={"roi": roi, "fcos": fcos})
    assert default_limits(many, "voc12") == (0.05, 250)
    assert default_limits(many.model_copy(update={"detector": "fcos"}), "voc12") == (0.05, 170)
