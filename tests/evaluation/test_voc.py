"""VOC's rules: cases worked out by hand, a slow reference that follows the devkit's loop, and properties."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.formats.vocxml import from_one_based
from frcnn.evaluation.arrays import Found, Objects, from_json, pair_overlaps
from frcnn.evaluation.voc import VocProtocol, evaluate, judge

Json = dict[str, Any]
BOTH: tuple[VocProtocol, ...] = ("voc07", "voc12")


def truth_of(*boxes: list[float], flags: dict[int, Json] | None = None, classes: int = 1) -> Json:
    """One picture; boxes of class 0, those of ``flags`` with further keys."""
    annotations = [
        {"image_id": 7, "category_id": 0, "bbox": box} | (flags or {}).get(i, {})
        for i, box in enumerate(boxes)
    ]
    categories = [{"id": k, "name": f"class {k}"} for k in range(classes)]
    return {"images": [{"id": 7}], "categories": categories, "annotations": annotations}


def hit(box: list[float], score: float) -> Json:
    return {"image_id": 7, "category_id": 0, "bbox": box, "score": score}


A, B, FAR = [0.0, 0, 40, 40], [100.0, 100, 40, 40], [300.0, 300, 40, 40]


def both(truth: Json, found: list[Json], iou: float = 0.5) -> tuple[float | None, float | None]:
    return evaluate(truth, found, "voc07", iou).ap[0], evaluate(truth, found, "voc12", iou).ap[0]


@pytest.mark.parametrize("protocol", BOTH)
def test_nothing_at_all_is_not_measured(protocol: VocProtocol) -> None:
    nothing = evaluate({"images": [], "annotations": [], "categories": []}, [], protocol)
    assert nothing.mean is None and nothing.ap == ()
    assert evaluate(truth_of(), [], protocol).ap == (None,)
    assert evaluate(truth_of(), [hit(A, 0.9)], protocol).mean is None
    assert evaluate(truth_of(A), [], protocol).ap == (0.0,)


@pytest.mark.parametrize(
    ("truth", "found", "eleven", "area"),
    [
        # right, wrong, right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
        (truth_of(A, B), [hit(A, 0.9), hit(FAR, 0.8), hit(B, 0.7)], (6 + 5 * 2 / 3) / 11, 0.5 + 0.5 * 2 / 3),
        # wrong, right: precision 0, 1/2 at recall 0, 1: eleven points hide nothing of it
        (truth_of(A), [hit(FAR, 0.9), hit(A, 0.8)], 0.5, 0.5),
        # one of two: recall 0.5 reaches the points 0.0 to 0.5
        (truth_of(A, B), [hit(A, 0.9)], 6 / 11, 0.5),
        # a second detection of the same object is wrong
        (truth_of(A, B), [hit(A, 0.9), hit(A, 0.8), hit(B, 0.7)], (6 + 5 * 2 / 3) / 11, 0.5 + 0.5 * 2 / 3),
        # a false positive below all the others takes nothing
        (truth_of(A), [hit(A, 0.9), hit(FAR, 0.1)], 1.0, 1.0),
        # an overlap of exactly 0.5 finds the object
        (truth_of(A), [hit([0, 0, 40, 20], 0.9)], 1.0, 1.0),
        (truth_of(A), [hit([0, 0, 40, 19.9], 0.9)], 0.0, 0.0),
    ],
)
def test_cases_worked_out_by_hand(truth: Json, found: list[Json], eleven: float, area: float) -> None:
    assert both(truth, found) == (pytest.approx(eleven), pytest.approx(area))


@pytest.mark.parametrize("found", range(11))
def test_recall_reaches_its_point_whatever_the_rounding(found: int) -> None:
    """3 of 10 objects are the recall 0.3, although 0.1 + 0.1 + 0.1 is more than 3 / 10 in a computer."""
    boxes = [[50.0 * i, 0, 40, 40] for i in range(10)]
    eleven, area = both(truth_of(*boxes), [hit(box, 0.5) for box in boxes[:found]])
    assert eleven == pytest.approx((found + 1) / 11 if found else 0.0) and area == pytest.approx(found / 10)


@pytest.mark.parametrize("protocol", BOTH)
def test_a_difficult_object_is_neither_asked_for_nor_charged(protocol: VocProtocol) -> None:
    truth = truth_of(A, B, flags={1: {"ignore": 1}})

    def ap(*found: Json) -> float | None:
        return evaluate(truth, list(found), protocol).ap[0]

    assert ap(hit(A, 0.5)) == 1.0  # not asked for
    assert ap(hit(B, 0.9), hit(A, 0.5)) == 1.0  # not charged
    assert ap(hit(B, 0.9), hit([102, 100, 40, 40], 0.8), hit(A, 0.5)) == 1.0  # nor a second one
    assert ap(hit(B, 0.9)) == 0.0  # nor rewarded
    assert ap(hit([130, 130, 40, 40], 0.9), hit(A, 0.5)) == 0.5  # too far off: wrong
    assert evaluate(truth_of(B, flags={0: {"ignore": 1}}), [hit(B, 0.9)], protocol).mean is None


@pytest.mark.parametrize("protocol", BOTH)
def test_only_the_object_overlapped_most_counts(protocol: VocProtocol) -> None:
    near = [0.0, 10, 40, 40]  # overlaps A by 0.6
    closest_to_difficult = evaluate(
        truth_of(A, near, flags={1: {"ignore": 1}}), [hit([0, 9, 40, 40], 0.9)], protocol
    )
    assert closest_to_difficult.ap == (0.0,)  # dropped, though it overlaps A by more than a half, too
    taken = evaluate(truth_of(A, near), [hit(A, 0.9), hit([0, 1, 40, 40], 0.8)], protocol)
    assert taken.ap[0] == pytest.approx(6 / 11 if protocol == "voc07" else 0.5)  # a second one of A
    first_of_equals = evaluate(truth_of(A, A, flags={1: {"ignore": 1}}), [hit(A, 0.9)], protocol)
    assert first_of_equals.ap == (1.0,)


@pytest.mark.parametrize("protocol", BOTH)
def test_a_region_takes_any_number_that_lie_in_it_by_more_than_half(protocol: VocProtocol) -> None:
    region = [100.0, 100, 100, 100]
    truth = truth_of(A, region, flags={1: {"iscrowd": 1, "ignore": 1}})
    inside = [hit([110, 110 + 5 * i, 20, 20], 0.9 - 0.01 * i) for i in range(5)]
    assert evaluate(truth, [*inside, hit(A, 0.5)], protocol).ap == (1.0,)
    half = hit([90, 120, 20, 20], 0.9)  # exactly half of it is inside
    assert evaluate(truth, [half, hit(A, 0.5)], protocol).ap == (0.5,)
    truth["annotations"].append({"image_id": 7, "category_id": 0, "bbox": [110, 110, 20, 20]})
    found = [hit([110, 110, 20, 20], 0.9), hit([110, 111, 20, 20], 0.8), hit(A, 0.5)]
    assert evaluate(truth, found, protocol).ap == (1.0,)  # found inside the region, and found twice


def test_what_became_of_every_detection() -> None:
    truth = truth_of(A, B, flags={1: {"ignore": 1}})
    problem = from_json(truth, [hit(B, 0.9), hit(A, 0.8), hit(A, 0.7), hit(FAR, 0.6)])
    right, dropped = judge(problem, np.arange(4), 0.5)
    assert right.tolist() == [False, True, False, False] and dropped.tolist() == [True, False, False, False]


def test_equal_scores_count_in_the_order_given() -> None:
    right, wrong = hit(A, 0.5), hit(FAR, 0.5)
    assert both(truth_of(A), [right, wrong]) == (1.0, 1.0)
    assert both(truth_of(A), [wrong, right]) == (0.5, 0.5)


def test_a_class_without_objects_is_left_out_of_the_mean() -> None:
    truth = truth_of(A, B, classes=3)
    truth["annotations"][1]["category_id"] = 2
    result = evaluate(truth, [hit(A, 0.9), hit(FAR, 0.8) | {"category_id": 1}])
    assert result.ap == (1.0, None, 0.0) and result.mean == 0.5
    assert result.names == ("class 0", "class 1", "class 2")


def test_half_open_boxes_have_the_devkits_overlaps() -> None:
    """Numbers as VOC files hold them, some with decimals: ours after reading, the devkit's with + 1."""
    rng = np.random.default_rng(0)
    low = rng.integers(4, 160, (400, 2)) / 4
    voc = np.concatenate([low, low + rng.integers(4, 120, (400, 2)) / 4], 1)  # (400, 4), both ends in
    voc[:100] = voc[:100].round() + np.array([0, 0, 1, 1])
    ours = from_one_based(voc).astype(np.float64)
    sides = np.concatenate([ours[:, :2], ours[:, 2:] - ours[:, :2]], 1)
    n = len(voc) // 2
    zeros, no = np.zeros(n, np.int64), np.zeros(n, bool)
    truth = Objects(zeros, zeros, sides[:n], np.ones(n), no, no)
    got = pair_overlaps(truth, Found(zeros, zeros, sides[n:], np.ones(n)), np.arange(n), np.arange(n))
    for (x1, y1, x2, y2), (u1, v1, u2, v2), value in zip(voc[:n], voc[n:], got, strict=True):
        w, h = min(x2, u2) - max(x1, u1) + 1, min(y2, v2) - max(y1, v1) + 1
        both = w * h if w > 0 and h > 0 else 0
        union = (x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1) - both
        assert value == pytest.approx(both / union)
    assert (got > 0).any()


def random_set(seed: int, regions: bool = False) -> tuple[Json, list[Json]]:
    """Crowded pictures, difficult objects, detections near and far, equal scores."""
    rng = np.random.default_rng(seed)
    truth: Json = {
        "images": [{"id": i} for i in (4, 2, 9)],
        "categories": [{"id": k, "name": str(k)} for k in range(3)],
        "annotations": [],
    }
    found: list[Json] = []
    for _ in range(rng.integers(0, 30)):
        place = {"image_id": int(rng.choice([4, 2, 9])), "category_id": int(rng.integers(2))}
        box = np.r_[rng.uniform(0, 50, 2), rng.uniform(10, 40, 2)]
        flags = {"ignore": int(rng.random() < 0.3), "iscrowd": int(regions and rng.random() < 0.2)}
        truth["annotations"].append(place | {"bbox": box.tolist()} | flags)
        for _ in range(rng.integers(0, 4)):
            near = box + rng.normal(0, 3, 4)
            near[2:] = near[2:].clip(1)
            found.append(place | {"bbox": near.tolist(), "score": int(rng.integers(1, 15)) / 15})
    for _ in range(rng.integers(0, 8)):
        place = {"image_id": int(rng.choice([4, 2, 9])), "category_id": int(rng.integers(3))}
        found.append(place | {"bbox": rng.uniform(1, 60, 4).tolist(), "score": float(rng.random())})
    return truth, [found[i] for i in rng.permutation(len(found))]


def slow(truth: Json, found: list[Json], category: int, protocol: str, iou: float) -> float | None:
    """One class, one detection after another."""
    objects = [a for a in truth["annotations"] if a["category_id"] == category]
    asked = sum(not a["ignore"] for a in objects)
    if not asked:
        return None
    done: set[int] = set()
    marks: list[bool] = []
    for d in sorted((d for d in found if d["category_id"] == category), key=lambda d: -d["score"]):
        best, at = -1.0, -1
        for i, a in enumerate(objects):
            if a["image_id"] != d["image_id"]:
                continue
            (ax, ay, aw, ah), (bx, by, bw, bh) = d["bbox"], a["bbox"]
            w, h = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
            share = w * h / (aw * ah + bw * bh - w * h) if w > 0 and h > 0 else 0.0
            if share > best:
                best, at = share, i
        if best >= iou and objects[at]["ignore"]:
            continue
        marks.append(best >= iou and at not in done)
        if marks[-1]:
            done.add(at)
    points = [(sum(marks[: n + 1]) / asked, sum(marks[: n + 1]) / (n + 1)) for n in range(len(marks))]
    if protocol == "voc07":
        return sum(max((p for r, p in points if r >= t / 10 - 1e-9), default=0) for t in range(11)) / 11
    total, last = 0.0, 0.0
    for n, (recall, _) in enumerate(points):
        total += (recall - last) * max(p for _, p in points[n:])
        last = recall
    return total


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(BOTH), st.sampled_from([0.3, 0.5, 0.75]))
def test_equals_the_slow_reference(seed: int, protocol: VocProtocol, iou: float) -> None:
    truth, found = random_set(seed)
    before = copy.deepcopy((truth, found))
    result = evaluate(truth, found, protocol, iou)
    assert (truth, found) == before
    want = [slow(truth, found, k, protocol, iou) for k in range(3)]
    assert list(result.ap) == [None if v is None else pytest.approx(v, abs=1e-12) for v in want]
    assert result.ap[2] is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(BOTH))
def test_ap_lies_between_0_and_1_and_the_truth_reaches_1(seed: int, protocol: VocProtocol) -> None:
    truth, found = random_set(seed, regions=True)
    assert all(v is None or 0 <= v <= 1 for v in evaluate(truth, found, protocol).ap)
    own = [{**a, "score": 0.5} for a in truth["annotations"]]
    best = evaluate(truth, own, protocol)
    assert set(best.ap) <= {1.0, None} and best.mean in (1.0, None)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="unknown protocol 'voc10'"):
        evaluate(truth_of(A), [], "voc10")  # type: ignore[arg-type]
    for iou in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"iou is {iou}"):
            evaluate(truth_of(A), [], iou=iou)
    with pytest.raises(ValueError, match="image_id 99"):
        evaluate(truth_of(A), [hit(A, 0.5) | {"image_id": 99}])
