"""COCO's numbers: equal to pycocotools, and right where both libraries leave it to the caller."""

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

from frcnn.evaluation.arrays import from_json
from frcnn.evaluation.coco import evaluate_json, evaluate_problem

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def random_set(seed: int, images: int = 6, classes: int = 3) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of several sizes, crowds, empty pictures; detections near them, strays, equal scores."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {
        "images": [{"id": int(i), "width": 500, "height": 500} for i in rng.permutation(images * 3)[:images]],
        "categories": [{"id": 5 * k + 1, "name": f"class {k}"} for k in range(classes)],
        "annotations": [],
    }
    found = []
    for image in truth["images"][1:]:
        for _ in range(rng.integers(0, 12)):
            category = truth["categories"][rng.integers(classes)]["id"]
            box = [*rng.uniform(0, 300, 2), *np.exp(rng.uniform(1.5, 5.3, 2))]
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [float(v) for v in box],
                    "area": float(box[2] * box[3] * rng.uniform(0.6, 1)),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
            for _ in range(rng.integers(0, 4)):
                near = np.array(box) + rng.normal(0, 0.08, 4) * np.array([box[2], box[3], box[2], box[3]])
                found.append((image["id"], category, near.clip(0.5), round(float(rng.random()), 1)))
        for _ in range(rng.integers(0, 5)):
            category = truth["categories"][rng.integers(classes)]["id"]
            found.append((image["id"], category, rng.uniform(1, 200, 4), round(float(rng.random()), 1)))
    order = rng.permutation(len(found))
    rows = [found[i] for i in order]
    return truth, [
        {"image_id": i, "category_id": c, "bbox": [float(v) for v in b], "score": s} for i, c, b, s in rows
    ]


def plain_pycocotools(truth: dict[str, Any], found: list[dict[str, Any]], max_dets: int = 100) -> list[float]:
    """The library as its own users call it."""
    with contextlib.redirect_stdout(io.StringIO()):
        side = COCO()
        side.dataset = copy.deepcopy(truth)
        side.createIndex()
        run = COCOeval(side, side.loadRes(copy.deepcopy(found)), "bbox")
        run.params.maxDets = [1, 10, max_dets]
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(v) for v in run.stats]


def truth_of(boxes: list[list[float]], **extra: Any) -> dict[str, Any]:
    """One picture, one class, these objects; annotation ids from 0, no area, no iscrowd."""
    return {
        "images": [{"id": 7, "width": 500, "height": 500}],
        "categories": [{"id": 0, "name": "cell"}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 0, "bbox": b, **extra} for i, b in enumerate(boxes)
        ],
    }


def hit(box: list[float], score: float = 0.9) -> dict[str, Any]:
    """A detection in that picture."""
    return {"image_id": 7, "category_id": 0, "bbox": box, "score": score}


def test_nothing_at_all_is_not_measured() -> None:
    empty = {"images": [], "annotations": [], "categories": []}
    assert evaluate_json(empty, []) == dict.fromkeys(NAMES)
    assert evaluate_json(truth_of([]), []) == dict.fromkeys(NAMES)
    assert evaluate_json(truth_of([]), [hit([0, 0, 10, 10])]) == dict.fromkeys(NAMES)


def test_no_detections_are_zero() -> None:
    metrics = evaluate_json(truth_of([[0, 0, 10, 10]]), [])
    assert metrics["AP"] == 0 and metrics["AR100"] == 0 and metrics["APs"] == 0
    assert metrics["APl"] is None  # no large object: nothing to measure


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), backend=st.sampled_from(["hotcoco", "pycocotools"]))
def test_equals_pycocotools(seed: int, backend: Any) -> None:
    truth, found = random_set(seed)
    if not found:
        return
    got = evaluate_json(truth, found, backend=backend)
    assert tuple(got) == NAMES
    want = plain_pycocotools(truth, found)
    assert [-1.0 if v is None else v for v in got.values()] == pytest.approx(want, abs=1e-6)


def test_the_random_sets_are_not_trivial() -> None:
    values = np.array([plain_pycocotools(*random_set(seed)) for seed in range(5)])
    assert (values > 0.05).mean() > 0.8 and (values < 0.95).mean() > 0.8


@pytest.mark.parametrize("max_dets", [1, 3, 10, 300])
def test_any_max_dets(max_dets: int) -> None:
    truth, found = random_set(3, images=2, classes=1)
    got, other = (evaluate_json(truth, found, max_dets, b) for b in ("hotcoco", "pycocotools"))  # type: ignore[arg-type]
    assert f"AR{max_dets}" in got and "AP" in got
    assert got == pytest.approx(other, abs=1e-6) and None not in (got["AP"], got["AR1"])
    if max_dets == 300:
        assert len(got) == 12 and got["AR300"] == pytest.approx(
            evaluate_json(truth, found)["AR100"], abs=1e-9
        )


def test_three_hundred_objects_are_all_found() -> None:
    boxes = [[float(12 * (i % 40)), float(12 * (i // 40)), 10.0, 10.0] for i in range(300)]
    found = [hit(b) for b in boxes]
    assert evaluate_json(truth_of(boxes), found, max_dets=300)["AR300"] == 1.0
    assert evaluate_json(truth_of(boxes), found)["AR100"] == pytest.approx(1 / 3)


def test_ground_truth_as_detections_is_perfect_with_annotation_ids_from_0() -> None:
    truth, _ = random_set(1)
    truth["annotations"] = [a | {"id": i, "iscrowd": 0} for i, a in enumerate(truth["annotations"])]
    found = [
        {k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.5} for a in truth["annotations"]
    ]
    for backend in ("hotcoco", "pycocotools"):
        assert evaluate_json(truth, found, backend=backend)["AP"] == 1.0  # type: ignore[arg-type]


def test_nothing_is_printed_and_nothing_is_changed(capfd: pytest.CaptureFixture[str]) -> None:
    truth, found = random_set(2)
    before = copy.deepcopy((truth, found))
    for backend in ("hotcoco", "pycocotools"):
        evaluate_json(truth, found, backend=backend)  # type: ignore[arg-type]
    assert (truth, found) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_ignored_objects_are_neither_asked_for_nor_charged(backend: Any) -> None:
    truth = truth_of([[0, 0, 40, 40], [100, 100, 40, 40]])
    first, second = hit([0, 0, 40, 40], 0.6), hit([100, 100, 40, 40], 0.9)
    assert evaluate_json(truth, [first], backend=backend)["AP"] == pytest.approx(51 / 101)
    truth["annotations"][1]["ignore"] = 1
    assert evaluate_json(truth, [first], backend=backend)["AP"] == 1.0  # not asked for
    assert evaluate_json(truth, [second, first], backend=backend)["AP"] == 1.0  # not charged
    again = [hit([102, 100, 40, 40], 0.8), hit([100, 103, 40, 40], 0.7)]
    assert evaluate_json(truth, [second, *again, first], backend=backend)["AP50"] == 1.0  # nor copies
    inside = hit([105, 105, 10, 10], 0.8)  # well inside, but not that object
    assert evaluate_json(truth, [inside, first], backend=backend)["AP"] == pytest.approx(0.5)
    truth["annotations"][1]["iscrowd"] = 1  # a region: what lies inside is not charged
    assert evaluate_json(truth, [inside, first], backend=backend)["AP"] == 1.0


def test_only_ignored_objects_is_not_measured() -> None:
    truth = truth_of([[0, 0, 40, 40]], ignore=1)
    assert evaluate_json(truth, [hit([0, 0, 40, 40])])["AP"] is None


class HonestEval(COCOeval):
    """pycocotools with ``ignore`` kept beside ``iscrowd``."""

    def _prepare(self) -> None:
        super()._prepare()
        for objects in self._gts.values():
            for one in objects:
                one["ignore"] = one["iscrowd"] or one["kept"]


def test_ignore_equals_pycocotools_with_the_flag_kept() -> None:
    """Where an ignored object has one detection at most: the corrected library charges for a second one."""
    for seed in range(6):
        truth, found = random_set(seed)
        rng = np.random.default_rng(seed)
        for one in truth["annotations"]:
            one["ignore"] = one["kept"] = int(rng.random() < 0.3)
        boxes = {tuple(a["bbox"]) for a in truth["annotations"]}
        found = [d for d in found if tuple(d["bbox"]) not in boxes]
        problem = from_json(truth, found)
        from frcnn.evaluation.arrays import pair_overlaps, same_place_pairs

        of, to = same_place_pairs(problem.objects, problem.found, 3)
        upon = (pair_overlaps(problem.objects, problem.found, of, to) > 0.45) & problem.objects.ignore[to]
        seen: set[int] = set()
        drop = {int(d) for d, g in zip(of[upon], to[upon], strict=True) if int(g) in seen or seen.add(int(g))}
        found = [d for i, d in enumerate(found) if i not in drop]
        with contextlib.redirect_stdout(io.StringIO()):
            side = COCO()
            side.dataset = copy.deepcopy(truth)
            side.createIndex()
            run = HonestEval(side, side.loadRes(copy.deepcopy(found)), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        got = [-1.0 if v is None else v for v in evaluate_json(truth, found).values()]
        assert got == pytest.approx(list(run.stats), abs=1e-6)


def test_one_more_low_false_positive_leaves_ap() -> None:
    truth = truth_of([[0, 0, 40, 40], [100, 100, 40, 40]])
    found = [hit([0, 0, 40, 40]), hit([100, 100, 40, 40], 0.8)]
    assert (
        evaluate_json(truth, [*found, hit([300, 300, 40, 40], 0.1)])["AP"]
        == evaluate_json(truth, found)["AP"]
        == 1.0
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 99}, "image_id 99"),
        ({"category_id": 12}, "category_id 12"),
        ({"bbox": [0, 0, float("nan"), 5]}, "bbox"),
        ({"bbox": [0, 0, -4, 5]}, "sides"),
        ({"bbox": [0, 0, 4]}, "four numbers"),
        ({"score": float("nan")}, "score"),
        ({"score": None}, "score"),
    ],
)
def test_bad_detections_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate_json(truth_of([[0, 0, 40, 40]]), [hit([0, 0, 9, 9]), hit([0, 0, 4, 4]) | change])


def test_bad_ground_truth_is_named() -> None:
    truth = truth_of([[0, 0, 40, 40]])
    with pytest.raises(ValueError, match="'images'"):
        evaluate_json({"annotations": []}, [])
    with pytest.raises(ValueError, match=r"more than once.*7"):
        evaluate_json(truth | {"images": truth["images"] * 2}, [])
    with pytest.raises(ValueError, match=r"annotations name images.*7"):
        evaluate_json(truth | {"images": [{"id": 1}]}, [])
    with pytest.raises(ValueError, match="max_dets is 0"):
        evaluate_json(truth, [], max_dets=0)
    with pytest.raises(ValueError, match="unknown backend"):
        evaluate_json(truth, [], backend="other")  # type: ignore[arg-type]


def test_numbers_of_every_class() -> None:
    truth, found = random_set(4, images=12)
    truth["categories"].append({"id": 90, "name": "absent"})
    result = evaluate_problem(from_json(truth, found))
    assert result.names == ("class 0", "class 1", "class 2", "absent")
    assert result.ap[3] is None and result.ap50[3] is None and np.isnan(result.curves[3]).all()
    measured = [v for v in result.ap if v is not None]
    assert np.mean(measured) == pytest.approx(result.metrics["AP"])
    assert [c.mean() for c in result.curves[:3]] == pytest.approx(list(result.ap50[:3]))
