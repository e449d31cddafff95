"""Matching and curves, against a slow reference and against COCO's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.evaluation import arrays
from frcnn.evaluation.arrays import Found, Objects, Problem, near_pairs
from frcnn.evaluation.coco import evaluate_problem
from frcnn.evaluation.curves import ClassCurve, best_f1, best_f1_thresholds, class_curves, match


def problem_of(seed: int, images: int = 4, classes: int = 2, objects: int = 20, found: int = 40) -> Problem:
    """Crowded pictures with some ignored objects and crowds; scores with ties."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.uniform(0, 60, (objects, 2)), rng.uniform(10, 40, (objects, 2))], 1)
    crowd = rng.random(objects) < 0.15
    truth = Objects(
        rng.integers(images, size=objects),
        rng.integers(classes, size=objects),
        boxes,
        boxes[:, 2] * boxes[:, 3],
        crowd,
        crowd | (rng.random(objects) < 0.2),
    )
    of = rng.integers(objects, size=found) if objects else np.zeros(found, np.int64)
    near = boxes[of] if objects else np.ones((found, 4))
    near = near + rng.normal(0, 4, (found, 4))
    near[:, 2:] = near[:, 2:].clip(1)
    image = truth.image[of] if objects else rng.integers(images, size=found)
    category = truth.category[of] if objects else rng.integers(classes, size=found)
    dets = Found(image, category, near, rng.integers(1, 20, found) / 20)
    names = tuple(f"class {k}" for k in range(classes))
    return Problem(tuple(range(images)), tuple(range(classes)), names, truth, dets)


def overlap(problem: Problem, d: int, g: int) -> float:
    ax, ay, aw, ah = problem.found.boxes[d]
    bx, by, bw, bh = problem.objects.boxes[g]
    w, h = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    both = max(w, 0) * max(h, 0)
    return both / (aw * ah if problem.objects.crowd[g] else aw * ah + bw * bh - both)


def slow_match(problem: Problem, iou: float) -> list[tuple[bool, bool]]:
    """(right, left out) of every detection, one after another."""
    o, f = problem.objects, problem.found
    out = [(False, False)] * len(f)
    taken: set[int] = set()
    for d in np.argsort(-f.scores, kind="stable"):
        same = [g for g in range(len(o)) if o.image[g] == f.image[d] and o.category[g] == f.category[d]]
        fits = [g for g in same if overlap(problem, d, g) >= iou]
        real = [g for g in fits if not o.ignore[g] and g not in taken]
        if real:
            taken.add(max(real, key=lambda g: (overlap(problem, d, g), g)))
            out[d] = (True, False)
        elif any(o.ignore[g] for g in fits):
            out[d] = (False, True)
    return out


@pytest.mark.parametrize(("objects", "found"), [(0, 0), (0, 7), (7, 0)])
def test_empty_sides(objects: int, found: int) -> None:
    problem = problem_of(0, objects=objects, found=found)
    matched = match(problem)
    assert matched.right.shape == (found,) and not matched.right.any() and not matched.left_out.any()
    assert best_f1_thresholds(problem) == (0.5, 0.5)
    assert all(best_f1(curve) is None for curve in class_curves(problem))


def test_no_classes() -> None:
    problem = problem_of(0, classes=1, objects=0, found=0)
    nothing = Problem((), (), (), problem.objects, problem.found)
    assert best_f1_thresholds(nothing) == () and len(match(nothing).right) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.75]))
def test_equals_the_slow_reference(seed: int, iou: float) -> None:
    problem = problem_of(seed)
    matched = match(problem, iou)
    got = list(zip(matched.right.tolist(), matched.left_out.tolist(), strict=True))
    assert got == slow_match(problem, iou)


def test_pairs_of_many_detections_come_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(3)
    whole = near_pairs(problem.objects, problem.found, 2, 0.3)
    assert len(whole[0]) > 10 and whole[2].min() >= 0.3
    for block in (1, 7, 40):
        monkeypatch.setattr(arrays, "BLOCK", block)
        for got, want in zip(near_pairs(problem.objects, problem.found, 2, 0.3), whole, strict=True):
            assert got.tolist() == want.tolist()
    none = problem.found.take(slice(0, 0))
    assert [len(part) for part in near_pairs(problem.objects, none, 2, 0.3)] == [0, 0, 0]


def test_the_sets_hold_all_three_outcomes() -> None:
    outcomes = [o for seed in range(5) for o in slow_match(problem_of(seed), 0.5)]
    assert {(True, False), (False, False), (False, True)} == set(outcomes)


def test_curves_give_cocos_ap50() -> None:
    """Interpolated at 101 recalls they are the other library's numbers, which were made another way."""
    for seed in range(4):
        problem = problem_of(seed, objects=60, found=150)
        # distinct scores: COCO counts ties one by one, in the order of the pictures
        order = np.random.default_rng(seed).permutation(len(problem.found))
        f = problem.found
        problem = Problem(
            problem.image_ids,
            problem.category_ids,
            problem.names,
            problem.objects,
            Found(f.image, f.category, f.boxes, (order + 1) / 200),
        )
        result = evaluate_problem(problem)
        for k, curve in enumerate(class_curves(problem)):
            best = np.maximum.accumulate(curve.precision[::-1])[::-1]
            place = np.searchsorted(curve.recall, np.linspace(0, 1, 101))
            want = np.append(best, 0)[np.minimum(place, len(best))]
            assert want.mean() == pytest.approx(result.ap50[k], abs=1e-6)


def curve_of(scores: list[float], precision: list[float], recall: list[float]) -> ClassCurve:
    return ClassCurve(np.array(scores), np.array(precision), np.array(recall), 10, 20)


def test_the_best_f1_and_where_its_threshold_lies() -> None:
    curve = curve_of([0.9, 0.6, 0.4], [1.0, 1.0, 0.5], [0.2, 0.5, 0.5])
    best = best_f1(curve)
    assert best is not None and best.threshold == pytest.approx(0.5)  # between 0.6 and 0.4
    assert (best.precision, best.recall, best.f1) == (1.0, 0.5, pytest.approx(2 / 3))
    last = best_f1(curve_of([0.9, 0.6], [1.0, 1.0], [0.2, 0.5]), floor=0.05)
    assert last is not None and last.threshold == pytest.approx(0.325)  # between 0.6 and the floor
    assert best_f1(curve_of([0.9], [0.0], [0.0])) is None


def test_equal_scores_stand_or_fall_together() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 10, 10.0]])
    zeros = np.zeros(2, np.int64)
    none = np.zeros(2, bool)
    truth = Objects(zeros[:1], zeros[:1], boxes[:1], np.full(1, 100.0), none[:1], none[:1])
    problem = Problem((1,), (0,), ("a",), truth, Found(zeros, zeros, boxes, np.array([0.7, 0.7])))
    (curve,) = class_curves(problem)
    assert (
        curve.scores.tolist() == [0.7]
        and curve.precision.tolist() == [0.5]
        and curve.recall.tolist() == [1.0]
    )


def test_a_class_without_objects_takes_the_median_threshold() -> None:
    problem = problem_of(1, classes=2)
    wider = Problem(problem.image_ids, (0, 1, 2), ("a", "b", "c"), problem.objects, problem.found)
    first, second, third = best_f1_thresholds(wider)
    assert third == pytest.approx((first + second) / 2) and first != second


def test_only_the_best_detections_of_a_picture_and_class_count() -> None:
    problem = problem_of(2)
    limited = problem.limited(2)
    key = limited.found.image * 10 + limited.found.category
    assert np.unique(key, return_counts=True)[1].max() == 2 and len(limited.found) < len(problem.found)
    for k in np.unique(key):
        everything = problem.found.scores[problem.found.image * 10 + problem.found.category == k]
        assert sorted(limited.found.scores[key == k]) == sorted(everything)[-2:]
