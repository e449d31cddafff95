"""Which rule an evaluation follows, and its numbers in the one form that reports are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frcnn.evaluation import kitti, recall, voc
from frcnn.evaluation.arrays import Problem
from frcnn.evaluation.coco import Backend, Metrics, evaluate_problem
from frcnn.evaluation.curves import ClassCurve, sample_curve

COCO, VOC07, VOC12, KITTI, KITTI11, RECALL = PROTOCOLS = (
    "coco", "voc07", "voc12", "kitti", "kitti11", "recall",
)  # fmt: skip
COCO_IOU, VOC_IOU = "0.50:0.95", "0.50"
COCO_MAX_DETS = 100


@dataclass(frozen=True)
class Numbers:
    """What a protocol says of a set of detections.

    Attributes:
        iou: its IoU thresholds, as text.
        metrics: its numbers by name.
        ap: (K,) AP of every class, None where there is none.
        ap50: (K,) AP at IoU 0.50.
        extra: (K,) further numbers of every class by name: KITTI's AP at each difficulty.
        curves: (K,) precision at IoU 0.50 for recall 0.00, 0.01, ..., 1.00, or None.
        notes: sentences that a reader must know.
    """

    iou: str
    metrics: Metrics
    ap: tuple[float | None, ...]
    ap50: tuple[float | None, ...]
    extra: tuple[Metrics, ...]
    curves: tuple[tuple[float, ...] | None, ...]
    notes: tuple[str, ...] = ()


def check_protocol(name: str) -> None:
    """Raises ``ValueError`` for an unknown protocol, naming those that there are."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")


def choose_protocol(detector: str, name: str | None = None) -> str:
    """The protocol for a ``Config.detector``; None: ``recall`` for proposals alone, else ``coco``.

    Raises:
        ValueError: for an unknown protocol, and for one that asks for classes where there are proposals only.
    """
    if name is None:
        return RECALL if detector == "rpn" else COCO
    check_protocol(name)
    if detector == "rpn" and name != RECALL:
        raise ValueError(
            f"the model finds proposals without classes (detector rpn) and protocol {name} measures every "
            f"class; use --protocol {RECALL}"
        )
    return name


def default_max_dets(protocol: str) -> int:
    """Detections of a picture that count where a caller names no number."""
    return max(recall.LIMITS) if protocol == RECALL else COCO_MAX_DETS


def recall_limits(max_dets: int) -> tuple[int, ...]:
    """The numbers of proposals that average recall is reported for: those below ``max_dets``, and that."""
    return (*(limit for limit in recall.LIMITS if limit < max_dets), max_dets)


def apply_protocol(
    protocol: str, problem: Problem, curves: Sequence[ClassCurve], max_dets: int, backend: Backend
) -> Numbers:
    """The numbers of one protocol.

    Args:
        protocol: one of ``PROTOCOLS``.
        problem: limited to the detections that count; of one class for ``recall``.
        curves: (K,) of the same problem at IoU 0.50.
        max_dets: that it was limited to.
        backend: of the COCO numbers.

    Raises:
        ValueError: for an unknown protocol.
    """
    check_protocol(protocol)
    if protocol == COCO:
        return _coco(problem, max_dets, backend)
    sampled = tuple(None if c is None else tuple(c.round(6).tolist()) for c in map(sample_curve, curves))
    none = (None,) * len(problem.names)
    if protocol in (VOC07, VOC12):
        found = voc.evaluate_problem(problem, "voc07" if protocol == VOC07 else "voc12")
        return Numbers(VOC_IOU, {"mAP": found.mean}, found.ap, found.ap, ({},) * len(found.ap), sampled)
    if protocol == RECALL:
        covered = recall.evaluate_problem(problem, recall_limits(max_dets)).metrics
        return Numbers(COCO_IOU, covered, none, none, ({},) * len(none), sampled)
    result = kitti.evaluate_problem(problem, 40 if protocol == KITTI else 11)
    metrics = {f"AP_{name}": value for name, value in result.mean.items()}
    extra = tuple({name: ap[k] for name, ap in result.ap.items()} for k in range(len(none)))
    return Numbers(
        _kitti_iou(problem.names), metrics, result.ap["moderate"], none, extra, sampled, _kitti_notes(result)
    )


def _coco(problem: Problem, max_dets: int, backend: Backend) -> Numbers:
    result = evaluate_problem(problem, max_dets, backend)
    curves = tuple(None if np.isnan(c).any() else tuple(c.round(6).tolist()) for c in result.curves)
    return Numbers(COCO_IOU, result.metrics, result.ap, result.ap50, ({},) * len(result.ap), curves)


def _kitti_iou(names: Sequence[str]) -> str:
    cars = any(kitti.class_iou(name) == kitti.CAR_IOU for name in names)
    return (
        f"> {kitti.CAR_IOU:.2f} for cars, > {kitti.OTHER_IOU:.2f} else"
        if cars
        else f"> {kitti.OTHER_IOU:.2f}"
    )


def _kitti_notes(result: kitti.KittiResult) -> tuple[str, ...]:
    asked = ", ".join(f"{name} {sum(counts):,}" for name, counts in result.objects.items())
    counts = zip(result.names, result.objects["moderate"], strict=True)
    few = ", ".join(f"{name} {count}" for name, count in counts if 0 < count <= kitti.STEPS)
    notes = [f"objects asked for by difficulty: {asked}"]
    if few:
        notes.append(
            f"at most {kitti.STEPS} moderate objects of {few}: the devkit would leave recalls without a "
            "threshold at 0; here each is read at the best threshold that reaches it"
        )
    return tuple(notes)
