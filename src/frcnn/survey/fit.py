"""Anchors fitted to the objects of a data set. Nothing is random: the same data give the same anchors.

Letters: m objects, S sizes of all levels, R ratios.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frcnn.config import AnchorConfig
from frcnn.data.sample import Floats
from frcnn.survey.coverage import LOW_IOU, best_anchor_iou

SAMPLE = 5000
"""As many objects are looked at while fitting, evenly by their area."""
LOW_COST = 10.0
"""What an object below an IoU of 0.5 costs, in mean IoU: none is given up for a better fit of the others."""
TOLERANCE = 0.001
"""More objects below 0.5 than before, as a share of all, that rounding and the sample may bring."""
FEW_OBJECTS = 100
"""Anchors fitted to fewer may not suit new pictures."""
FACTORS = (1.4, 1.2, 1.1, 1.05, 1.025)
"""Steps by which a size or ratio is moved, from coarse to fine."""
ROUNDS = 20

Logs = NDArray[np.float64]


def fit_anchors(sizes: Floats, anchors: AnchorConfig, strides: Sequence[int]) -> AnchorConfig:
    """Sizes and ratios that cover objects of (height, width) (m, 2) better; as many of each as before.

    Two beginnings are tried: the anchors as they are, and the centres of a k-means of the logarithms of sizes
    and of ratios. From each, one size or ratio after the other is moved as long as ``quality`` rises. What
    comes out is rounded; where it is not better than the anchors as they are, these are returned.

    Raises:
        ValueError: without an object.
    """
    if not len(sizes):
        raise ValueError("anchors cannot be fitted: there is no usable object; correct the errors first")
    order = np.argsort(sizes.prod(1), kind="stable")
    part = sizes[order[np.linspace(0, len(order) - 1, min(len(order), SAMPLE)).round().astype(int)]]
    count = sum(map(len, anchors.sizes))
    flat = np.sort(np.log(np.concatenate([np.asarray(level, np.float64) for level in anchors.sizes])))
    begin = [
        (flat, np.log(np.asarray(anchors.ratios, np.float64))),
        (
            k_means(np.log(part.prod(1)) / 2, count),
            k_means(np.log(part[:, 0] / part[:, 1]), len(anchors.ratios)),
        ),
    ]
    found = [_rounded(*_climb(part, *start, anchors, strides), anchors) for start in begin]
    best = [best_anchor_iou(sizes, choice, strides) for choice in (anchors, *found)]
    most = float((best[0] < LOW_IOU).mean()) + TOLERANCE
    rated = [quality(b) if (b < LOW_IOU).mean() <= most else -np.inf for b in best]
    return (anchors, *found)[int(np.argmax(rated))]


def quality(best: Floats) -> float:
    """What fitting makes large: the mean best IoU (m,) less ten times the share of objects below 0.5."""
    return float(best.mean() - LOW_COST * (best < LOW_IOU).mean())


def k_means(values: NDArray[np.floating], count: int) -> Logs:
    """(count,) centres of values (m,), rising; they begin at evenly spaced quantiles."""
    values = np.sort(np.asarray(values, np.float64))
    centres = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(100):
        cuts = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        parts = np.split(values, cuts)
        moved = np.asarray([p.mean() if len(p) else c for p, c in zip(parts, centres, strict=True)])
        if np.allclose(moved, centres, rtol=0, atol=1e-6):
            break
        centres = moved
    return centres


def _climb(
    part: Floats, sizes: Logs, ratios: Logs, anchors: AnchorConfig, strides: Sequence[int]
) -> tuple[Logs, Logs]:
    """Move one logarithm after the other while the quality rises."""
    values, split = np.concatenate([sizes, ratios]), len(sizes)

    def rate(tried: Logs) -> float:
        return quality(best_anchor_iou(part, _config(tried[:split], tried[split:], anchors), strides))

    best = rate(values)
    for factor in FACTORS:
        for _ in range(ROUNDS):
            before = best
            for i in range(len(values)):
                for step in (np.log(factor), -np.log(factor)):
                    tried = values.copy()
                    tried[i] += step
                    rated = rate(tried)
                    if rated > best + 1e-6:
                        values, best = tried, rated
            if best <= before:
                break
    return values[:split], values[split:]


def _config(sizes: Logs, ratios: Logs, anchors: AnchorConfig) -> AnchorConfig:
    """The anchors with other sizes, the smaller ones on the finer levels, and other ratios."""
    levels = np.exp(np.sort(sizes)).reshape(len(anchors.sizes), -1)
    return anchors.model_copy(
        update={
            "sizes": tuple(tuple(level) for level in levels.tolist()),
            "ratios": tuple(np.exp(np.sort(ratios)).tolist()),
        }
    )


def _rounded(sizes: Logs, ratios: Logs, anchors: AnchorConfig) -> AnchorConfig:
    """Whole pixels from 8 on, else tenths; ratios with two digits."""
    fine = _config(sizes, ratios, anchors)
    return anchors.model_copy(
        update={
            "sizes": tuple(
                tuple(float(max(round(s), 1)) if s >= 8 else max(round(s, 1), 0.1) for s in level)
                for level in fine.sizes
            ),
            "ratios": tuple(max(round(r, 2), 0.01) for r in fine.ratios),
        }
    )


def setting_words(anchors: AnchorConfig) -> list[str]:
    """The words for the command line that set these anchors."""
    levels = ",".join(f"[{','.join(f'{size:g}' for size in level)}]" for level in anchors.sizes)
    ratios = ",".join(f"{ratio:g}" for ratio in anchors.ratios)
    return ["--set", f"anchors.sizes=[{levels}]", "--set", f"anchors.ratios=[{ratios}]"]
