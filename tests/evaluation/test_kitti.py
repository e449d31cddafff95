"""KITTI's rules: cases worked out by hand, and a slow reference that follows the devkit's loops."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.evaluation.kitti import (
    DIFFICULTIES,
    Points,
    class_iou,
    evaluate,
    recall_steps,
    thresholds,
)

Json = dict[str, Any]
NAMES = ("Car", "Van", "Pedestrian", "Person_sitting", "cyclist", "Truck")
CAR, VAN, PEDESTRIAN, SITTING, CYCLIST, TRUCK = range(6)
LEVELS = ("easy", "moderate", "hard")
A, B, FAR = [0.0, 0, 100, 50], [300.0, 100, 100, 50], [600.0, 200, 100, 50]


def truth_of(*objects: tuple[int, list[float]] | tuple[int, list[float], Json], images: int = 1) -> Json:
    """Objects (class, box, further keys) in picture 0."""
    annotations = [
        {"image_id": 0, "category_id": o[0], "bbox": o[1]} | (o[2] if len(o) > 2 else {})  # type: ignore[misc]
        for o in objects
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(NAMES)]
    pictures = [{"id": i} for i in range(images)]
    return {"images": pictures, "categories": categories, "annotations": annotations}


def hit(category: int, box: list[float], score: float = 0.5, image: int = 0) -> Json:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def ap(
    truth: Json, found: list[Json], category: int = CAR, points: Points = 40
) -> tuple[float | None, float | None, float | None]:
    """Easy, moderate, hard."""
    result = evaluate(truth, found, points)
    easy, moderate, hard = (result.ap[level][category] for level in LEVELS)
    return easy, moderate, hard


def test_nothing_at_all_is_not_measured() -> None:
    nothing = evaluate({"images": [], "annotations": [], "categories": []}, [])
    assert nothing.mean == dict.fromkeys(LEVELS) and nothing.ap == dict.fromkeys(LEVELS, ())
    assert evaluate(truth_of(), []).mean == dict.fromkeys(LEVELS)
    assert ap(truth_of(), [hit(CAR, A)]) == (None, None, None)
    assert ap(truth_of((CAR, A)), []) == (0.0, 0.0, 0.0)
    assert thresholds([], 5) == [] and recall_steps(np.zeros(0), [], 5).tolist() == [0.0] * 41


@pytest.mark.parametrize("points", [40, 11])
def test_the_truth_reaches_1_also_with_one_object(points: Points) -> None:
    assert ap(truth_of((CAR, A)), [hit(CAR, A)], CAR, points) == (1.0, 1.0, 1.0)
    for images in (1, 7, 40, 41, 42, 60, 333):
        truth = truth_of(images=images)
        truth["annotations"] = [{"image_id": i, "category_id": CAR, "bbox": A} for i in range(images)]
        found = [hit(CAR, A, (i + 1) / 400, i) for i in range(images)]
        assert ap(truth, found, CAR, points) == (1.0, 1.0, 1.0)
        assert ap(truth, [d | {"score": 0.5} for d in found], CAR, points) == (1.0, 1.0, 1.0)


def eighty() -> Json:
    """A car in each of 80 pictures."""
    truth = truth_of(images=80)
    return truth | {"annotations": [{"image_id": i, "category_id": CAR, "bbox": A} for i in range(80)]}


def test_half_of_eighty_objects() -> None:
    """Thresholds at the recalls 1/80, 2/80, 4/80, ..., 40/80: the steps 0 to 20 of 40."""
    found = [hit(CAR, A, 1 - i / 100, i) for i in range(40)]
    assert ap(eighty(), found)[0] == pytest.approx(20 / 40)
    assert ap(eighty(), found, CAR, 11)[0] == pytest.approx(6 / 11)  # 0.0, 0.1, ..., 0.5
    chosen = thresholds([d["score"] for d in found], 80)
    assert chosen == [0, *range(1, 40, 2)] and len(chosen) == 21


def test_half_of_two_objects() -> None:
    truth = truth_of((CAR, A), (CAR, B))
    assert ap(truth, [hit(CAR, A)]) == (0.5, 0.5, 0.5)
    assert ap(truth, [hit(CAR, A)], CAR, 11)[0] == pytest.approx(6 / 11)


def test_false_positives_count_where_they_score_enough() -> None:
    perfect = [hit(CAR, A, 0.5, i) for i in range(80)]
    low = [hit(CAR, FAR, 0.4, i) for i in range(80)]
    high = [hit(CAR, FAR, 0.9, i) for i in range(40)]
    assert ap(eighty(), perfect + low)[0] == 1.0
    assert ap(eighty(), perfect + high)[0] == pytest.approx(80 / 120)
    twice = [hit(CAR, [0, 1, 100, 50], 0.6, i) for i in range(80)]
    assert ap(eighty(), perfect + twice)[0] == 1.0  # at its threshold, 0.6, the second one is not seen
    assert ap(eighty(), perfect + [d | {"score": 0.5} for d in twice])[0] == pytest.approx(0.5)


def test_precision_falls_with_recall() -> None:
    """A wrong one, then a right one, then 79 right ones: precision rises from 1/2 to 80/81 and is evened."""
    found = [hit(CAR, A, 0.8 - i / 1000, i) for i in range(80)] + [hit(CAR, FAR, 0.9)]
    assert ap(eighty(), found)[0] == pytest.approx(80 / 81)


def test_cars_need_more_overlap_than_the_others_and_more_than_the_limit() -> None:
    assert [class_iou(name) for name in ("car", "CAR", "Van", "Pedestrian", "Cyclist")] == [
        0.7, 0.7, 0.5, 0.5, 0.5,
    ]  # fmt: skip
    truth = truth_of((CAR, A), (CYCLIST, A), (TRUCK, A))
    for height, car, other in ((36, 1.0, 1.0), (35, 0.0, 1.0), (26, 0.0, 1.0), (25, 0.0, 0.0)):
        box = [0.0, 0, 100, height]
        found = [hit(k, box) for k in (CAR, CYCLIST, TRUCK)]
        assert [ap(truth, found, k)[2] for k in (CAR, CYCLIST, TRUCK)] == [car, other, other]


@pytest.mark.parametrize(
    ("height", "extra", "asked"),
    [
        (40, {}, (True, True, True)),
        (39.9, {}, (False, True, True)),
        (25, {}, (False, True, True)),
        (24.9, {}, (False, False, False)),
        (50, {"occluded": 1}, (False, True, True)),
        (50, {"occluded": 2}, (False, False, True)),
        (50, {"occluded": 3}, (False, False, False)),
        (50, {"truncated": 0.15}, (True, True, True)),
        (50, {"truncated": float(np.float32(0.15))}, (True, True, True)),  # a little more than 0.15
        (float(np.float32(128.01) - np.float32(103.01)), {}, (False, True, True)),  # a little less than 25
        (50, {"truncated": 0.16}, (False, True, True)),
        (50, {"truncated": 0.31}, (False, False, True)),
        (50, {"truncated": 0.51}, (False, False, False)),
        (50, {"ignore": 1}, (False, False, False)),
    ],
)
def test_difficulties(height: float, extra: Json, asked: tuple[bool, ...]) -> None:
    box = [300.0, 100, 100, height]
    truth = truth_of((CAR, A), (CAR, box, extra))
    result = evaluate(truth, [])
    assert [result.objects[level][CAR] for level in LEVELS] == [1 + one for one in asked]
    # found or not, what is outside the difficulty changes nothing
    assert ap(truth, [hit(CAR, A)]) == tuple(0.5 if one else 1.0 for one in asked)
    assert ap(truth, [hit(CAR, A), hit(CAR, box, 0.9)]) == (1.0, 1.0, 1.0)
    if not any(asked):
        assert ap(truth_of((CAR, box, extra)), [hit(CAR, box)]) == (None, None, None)


def test_detections_below_the_least_height_are_ignored() -> None:
    truth = truth_of((CAR, A))
    assert ap(truth, [hit(CAR, A), hit(CAR, [600, 200, 100, 24.0], 0.9)]) == (1.0, 1.0, 1.0)
    assert ap(truth, [hit(CAR, A), hit(CAR, [600, 200, 100, 39.0], 0.9)]) == (1.0, 0.5, 0.5)
    assert ap(truth, [hit(CAR, A), hit(CAR, [600, 200, 100, 40.0], 0.9)]) == (0.5, 0.5, 0.5)
    low = [300.0, 100, 100, 40]  # found by a box that is too low: not right, nor wrong
    assert ap(truth_of((CAR, low)), [hit(CAR, [300, 100, 100, 39.0])]) == (0.0, 1.0, 1.0)


def test_neighbours_are_neither_right_nor_wrong() -> None:
    truth = truth_of((CAR, A), (VAN, B), (PEDESTRIAN, A), (SITTING, B))
    for category in (CAR, PEDESTRIAN):
        found = [hit(category, A), hit(category, B, 0.9)]
        assert ap(truth, found, category) == (1.0, 1.0, 1.0)
        assert ap(truth, [*found, hit(category, B, 0.9)], category)[0] == 0.5  # one for each neighbour
        assert ap(truth, [hit(category, B)], category)[0] == 0.0
    for category, other in ((VAN, A), (SITTING, A), (CYCLIST, B)):  # only these two have neighbours
        whole = truth_of((category, B), (CAR, A), (PEDESTRIAN, A))
        assert (
            ap(whole, [hit(category, B), hit(category, other if category != CYCLIST else A, 0.9)], category)[
                0
            ]
            == 0.5
        )
    renamed = copy.deepcopy(truth)
    for category in renamed["categories"]:
        category["name"] = category["name"].upper()
    assert ap(renamed, [hit(CAR, A), hit(CAR, B, 0.9)]) == (1.0, 1.0, 1.0)


def test_dontcare_takes_any_number_that_lie_in_it_by_more_than_the_class_asks() -> None:
    region = {"iscrowd": 1, "ignore": 1}
    area = [300.0, 100, 200, 200]
    truth = truth_of((CAR, A), (PEDESTRIAN, A), *((k, area, region) for k in range(6)))
    boxes = {1.0: [320.0, 120, 100, 50], 0.75: [275.0, 120, 100, 50], 0.65: [265.0, 120, 100, 50]}
    for category, free in ((CAR, (1.0, 0.75)), (PEDESTRIAN, (1.0, 0.75, 0.65))):
        for share, box in boxes.items():
            found = [hit(category, A), *[hit(category, box, 0.9)] * 3]
            want = 1.0 if share in free else 0.25
            assert ap(truth, found, category) == (want, want, want)
    half = [250.0, 120, 100, 50]  # exactly 0.5 is not enough
    assert ap(truth, [hit(PEDESTRIAN, A), hit(PEDESTRIAN, half, 0.9)], PEDESTRIAN)[0] == 0.5
    one_class = truth_of((CAR, A), (PEDESTRIAN, A), (CAR, area, region))
    assert ap(one_class, [hit(PEDESTRIAN, A), hit(PEDESTRIAN, boxes[1.0], 0.9)], PEDESTRIAN)[0] == 0.5


def test_means_are_over_the_classes_with_objects() -> None:
    truth = truth_of((CAR, A), (PEDESTRIAN, [0.0, 0, 20, 30]))
    result = evaluate(truth, [hit(CAR, A)])
    assert result.mean == {"easy": 1.0, "moderate": 0.5, "hard": 0.5}
    assert result.ap["easy"] == (1.0, None, None, None, None, None) and result.names == NAMES


def random_set(seed: int, objects: int) -> tuple[Json, list[Json]]:
    """Objects near the limits of every difficulty, DontCare areas, detections near them."""
    rng = np.random.default_rng(seed)
    truth = truth_of(images=5)
    found: list[Json] = []
    for _ in range(objects):
        image, category = int(rng.integers(5)), int(rng.choice([CAR, CAR, CAR, VAN, PEDESTRIAN]))
        box = np.r_[rng.uniform(0, 400, 2), rng.uniform(20, 80), rng.uniform(22, 60)]
        one: Json = {"image_id": image, "category_id": category, "bbox": box.tolist()}
        one |= {"occluded": int(rng.choice([0, 0, 0, 1, 2, 3])), "ignore": int(rng.random() < 0.05)}
        truth["annotations"].append(one | {"truncated": float(rng.choice([0, 0, 0, 0.2, 0.4, 0.6]))})
        if rng.random() < 0.1:
            area = [box[0] + 5, box[1] + 5, 90.0, 60.0]
            for k in range(6):
                flags = {"iscrowd": 1, "ignore": 1}
                truth["annotations"].append({"image_id": image, "category_id": k, "bbox": area} | flags)
        for _ in range(rng.integers(0, 4)):
            near = box * rng.normal(1, 0.04, 4)
            kind = category if rng.random() < 0.8 else CAR
            found.append(hit(kind, near.tolist(), float(rng.integers(1, 200)) / 200, image))
    return truth, [found[i] for i in rng.permutation(len(found))]


def share_of(a: list[float], b: list[float], own: bool = False) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = w * h if w > 0 and h > 0 else 0.0
    return both / (a[2] * a[3] if own else a[2] * a[3] + b[2] * b[3] - both)


def slow(truth: Json, found: list[Json], category: int, level: int) -> tuple[list[float], int]:
    """The devkit's 41 values of one class for sets with more than 40 objects, dense and loop by loop."""
    limit, need = DIFFICULTIES[level], 0.7 if category == CAR else 0.5
    beside = {CAR: VAN, PEDESTRIAN: SITTING}.get(category)

    def state(a: Json) -> int:
        """0 asked for, 1 ignored, -1 plays no part."""
        if a.get("iscrowd") or a["category_id"] not in (category, beside):
            return -1
        hard = a["occluded"] > limit.occluded or a["truncated"] > limit.truncated
        hard = hard or a["bbox"][3] < limit.height or a["ignore"]
        return 1 if hard or a["category_id"] == beside else 0

    images = []
    for i in range(5):
        objects = [a for a in truth["annotations"] if a["image_id"] == i]
        areas = [a["bbox"] for a in objects if a.get("iscrowd") and a["category_id"] == category]
        dets = [d for d in found if d["image_id"] == i and d["category_id"] == category]
        images.append(([(a["bbox"], state(a)) for a in objects if state(a) >= 0], areas, dets))
    total = sum(s == 0 for objects, _, _ in images for _, s in objects)

    def low(d: Json) -> bool:
        return d["bbox"][3] < limit.height

    scores = []
    for objects, _, dets in images:
        used: set[int] = set()
        for box, what in objects:
            fits = [j for j, d in enumerate(dets) if j not in used and share_of(d["bbox"], box) > need]
            if fits:
                j = max(fits, key=lambda j: dets[j]["score"])
                used.add(j)
                if what == 0 and not low(dets[j]):
                    scores.append(dets[j]["score"])
    scores.sort(reverse=True)
    values, recall = [], 0.0
    for i, score in enumerate(scores):
        left, right = (i + 1) / total, (i + 2) / total
        if i < len(scores) - 1 and right - recall < recall - left:
            continue
        recall += 1 / 40
        tp = fp = 0
        for objects, areas, dets in images:
            used = set()
            for box, what in objects:
                fits = [
                    (not low(d), share_of(d["bbox"], box) if not low(d) else 0.0, -j)
                    for j, d in enumerate(dets)
                    if j not in used and d["score"] >= score and share_of(d["bbox"], box) > need
                ]
                if fits:
                    used.add(-max(fits)[2])
                    tp += what == 0 and max(fits)[0]
            for j, d in enumerate(dets):
                free = j not in used and d["score"] >= score and not low(d)
                fp += free and not any(share_of(d["bbox"], area, own=True) > need for area in areas)
        values.append(tp / (tp + fp) if tp + fp else 0.0)
    values = [max(values[i:]) for i in range(len(values))][:41]
    return values + [0.0] * (41 - len(values)), total


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_equals_the_slow_reference(seed: int) -> None:
    truth, found = random_set(seed, 220)
    before = copy.deepcopy((truth, found))
    r40, r11 = evaluate(truth, found), evaluate(truth, found, 11)
    assert (truth, found) == before
    compared = 0
    for level, name in enumerate(LEVELS):
        for category in (CAR, PEDESTRIAN):
            values, total = slow(truth, found, category, level)
            assert r40.objects[name][category] == total
            if total > 40:
                compared += 1
                assert r40.ap[name][category] == pytest.approx(np.mean(values[1:]), abs=1e-9)
                assert r11.ap[name][category] == pytest.approx(np.mean(values[::4]), abs=1e-9)
    assert compared


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([40, 11]), st.integers(0, 60))
def test_ap_lies_between_0_and_1_and_the_truth_reaches_1(seed: int, points: Points, objects: int) -> None:
    truth, found = random_set(seed, objects)
    for level in LEVELS:
        assert all(v is None or 0 <= v <= 1 for v in evaluate(truth, found, points).ap[level])
    spread = copy.deepcopy(truth)  # apart from each other, so that none can take another's detection
    for i, one in enumerate(spread["annotations"]):
        one["bbox"][0] = 100.0 * i
    own = [hit(a["category_id"], a["bbox"], 0.5, a["image_id"]) for a in spread["annotations"]]
    best = evaluate(spread, own, points)
    assert all(value in (1.0, None) for values in best.ap.values() for value in values)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="points is 12"):
        evaluate(truth_of(), [], 12)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="category_id 99"):
        evaluate(truth_of(), [hit(99, A)])
