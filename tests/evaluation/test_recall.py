"""Average recall: by hand, and equal to pycocotools without classes."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frcnn.evaluation.recall import evaluate

Json = dict[str, Any]
NAMES = ("AR100", "AR300", "AR1000", "ARs", "ARm", "ARl", "R50@100", "R50@300", "R50@1000")


def truth_of(*boxes: list[float], flags: dict[int, Json] | None = None) -> Json:
    """One picture, objects of two classes in turn."""
    annotations = [
        {"image_id": 7, "category_id": i % 2, "bbox": box} | (flags or {}).get(i, {})
        for i, box in enumerate(boxes)
    ]
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    return {"images": [{"id": 7}], "categories": categories, "annotations": annotations}


def proposal(box: list[float], score: float = 0.5) -> Json:
    return {"image_id": 7, "bbox": box, "score": score}


A, B = [0.0, 0, 20, 20], [100.0, 100, 100, 100]


def test_nothing_at_all_is_not_measured() -> None:
    assert evaluate({"images": [], "annotations": [], "categories": []}, []).metrics == dict.fromkeys(NAMES)
    assert evaluate(truth_of(), [proposal(A)]).metrics == dict.fromkeys(NAMES)
    ignored = evaluate(truth_of(A, flags={0: {"ignore": 1}}), [proposal(A)])
    assert ignored.metrics == dict.fromkeys(NAMES) and ignored.objects == 0


def test_no_proposals_are_zero() -> None:
    metrics = evaluate(truth_of(A), []).metrics
    assert metrics["AR100"] == metrics["R50@1000"] == metrics["ARs"] == 0.0
    assert metrics["ARm"] is metrics["ARl"] is None


def test_classes_play_no_part() -> None:
    found = [proposal(A) | {"category_id": 55}, proposal(B)]
    assert set(evaluate(truth_of(A, B), found).metrics.values()) == {1.0, None}


@pytest.mark.parametrize(
    ("box", "ar", "r50"),
    [
        ([100, 100, 100, 100], 1.0, 1.0),
        ([100, 100, 100, 50], 0.1, 1.0),  # IoU 0.50 is reached at the first of ten thresholds
        ([100, 100, 100, 72], 0.5, 1.0),  # 0.50, 0.55, ..., 0.70
        ([100, 100, 100, 49], 0.0, 0.0),
    ],
)
def test_thresholds(box: list[float], ar: float, r50: float) -> None:
    metrics = evaluate(truth_of(B), [proposal(box)]).metrics
    assert metrics["AR100"] == metrics["ARl"] == pytest.approx(ar) and metrics["R50@100"] == r50


def test_limits_count_by_picture_and_score() -> None:
    strays = [proposal([300, 300, 10, 10], 0.9) for _ in range(100)]
    metrics = evaluate(truth_of(A, B), [proposal(A, 0.95), proposal(B, 0.1), *strays]).metrics
    assert (metrics["AR100"], metrics["AR300"], metrics["R50@100"], metrics["R50@300"]) == (0.5, 1.0, 0.5, 1)
    other = evaluate(truth_of(A, B), [proposal(A, 0.9), proposal(B, 0.8)], limits=(2, 1))
    assert other.limits == (1, 2) and other.metrics["AR1"] == 0.5 and other.metrics["AR2"] == 1.0
    assert other.metrics["ARs"] == other.metrics["ARl"] == 1.0  # at the largest limit


def test_sizes_by_area_and_where_they_begin() -> None:
    boxes = [[0.0, 0, 32, 31], [100.0, 0, 32, 32], [200.0, 0, 96, 95], [0.0, 200, 96, 96]]
    metrics = evaluate(truth_of(*boxes), [proposal(b) for b in boxes[1:]]).metrics
    assert (metrics["ARs"], metrics["ARm"], metrics["ARl"]) == (0.0, 1.0, 1.0)
    stated = evaluate(truth_of(boxes[3], flags={0: {"area": 500.0}}), []).metrics
    assert stated["ARs"] == 0.0 and stated["ARl"] is None


def test_every_object_takes_one_proposal_and_every_proposal_one_object() -> None:
    twin = [104.0, 100, 100, 100]
    assert evaluate(truth_of(B, twin), [proposal(B)]).metrics["R50@100"] == 0.5
    assert evaluate(truth_of(B, twin), [proposal(B), proposal(B)]).metrics["R50@100"] == 1.0
    assert evaluate(truth_of(B), [proposal(B), proposal(twin)]).metrics["AR100"] == 1.0


def test_ignored_objects_and_regions_are_neither_asked_for_nor_charged() -> None:
    truth = truth_of(A, B, B, flags={1: {"ignore": 1}, 2: {"iscrowd": 1, "ignore": 1}})
    assert evaluate(truth, [proposal(A, 0.1), proposal(B, 0.9)]).metrics["AR100"] == 1.0
    assert evaluate(truth, [proposal(B)]).metrics["AR100"] == 0.0


def random_set(seed: int) -> tuple[Json, list[Json]]:
    rng = np.random.default_rng(seed)
    truth: Json = {
        "images": [{"id": i} for i in range(3)],
        "categories": [{"id": k, "name": str(k)} for k in range(2)],
        "annotations": [],
    }
    found: list[Json] = []
    for n in range(rng.integers(1, 25)):
        image = int(rng.integers(3))
        box = np.r_[rng.uniform(0, 200, 2), np.exp(rng.uniform(2.5, 5.3, 2))]
        one = {"id": n + 1, "image_id": image, "category_id": int(rng.integers(2)), "bbox": box.tolist()}
        truth["annotations"].append(one | {"iscrowd": 0, "area": float(box[2] * box[3])})
        for _ in range(rng.integers(0, 8)):
            near = box * rng.normal(1, 0.1, 4)
            found.append({"image_id": image, "bbox": near.tolist(), "score": int(rng.integers(1, 12)) / 12})
    for _ in range(rng.integers(1, 60)):
        box = rng.uniform(1, 200, 4).tolist()
        found.append({"image_id": int(rng.integers(3)), "bbox": box, "score": float(rng.random())})
    return truth, found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_equals_pycocotools_without_classes(seed: int) -> None:
    truth, found = random_set(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        side = COCO()
        side.dataset = copy.deepcopy(truth)
        side.createIndex()
        run = COCOeval(side, side.loadRes([d | {"category_id": 0} for d in copy.deepcopy(found)]), "bbox")
        run.params.useCats, run.params.maxDets = 0, [2, 10, 30]
        run.evaluate()
        run.accumulate()
    recall = run.eval["recall"]  # (10, 1, areas, limits)
    before = copy.deepcopy((truth, found))
    got = evaluate(truth, found, limits=(2, 10, 30)).metrics
    assert (truth, found) == before
    want = [recall[:, 0, 0, i].mean() for i in range(3)] + [recall[:, 0, i, 2].mean() for i in (1, 2, 3)]
    want += [recall[0, 0, 0, i] for i in range(3)]
    assert [-1.0 if v is None else v for v in got.values()] == pytest.approx(want, abs=1e-9)
    assert all(v is None or 0 <= v <= 1 for v in got.values())
    own = [{"image_id": a["image_id"], "bbox": a["bbox"], "score": 0.5} for a in truth["annotations"]]
    assert set(evaluate(truth, own).metrics.values()) <= {1.0, None}


def test_wrong_arguments_are_named() -> None:
    for limits in ((), (0, 5)):
        with pytest.raises(ValueError, match="limits are"):
            evaluate(truth_of(A), [], limits)
    with pytest.raises(ValueError, match="image_id 99"):
        evaluate(truth_of(A), [proposal(A) | {"image_id": 99}])
