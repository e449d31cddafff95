"""Sizes, shapes and anchor coverage of a data set's objects, as values and as lines of text.

Letters: m objects.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from frcnn.config import AnchorConfig, Config
from frcnn.data.checks.boxes import clip_to_pictures, find_box_faults
from frcnn.data.sample import Bools, Dataset
from frcnn.model.anchors import Anchors
from frcnn.model.detector import build_network
from frcnn.survey.advice import SizeAdvice, advise_size
from frcnn.survey.coverage import Coverage, best_anchor_iou, coverage
from frcnn.survey.fit import fit_anchors, setting_words
from frcnn.survey.sizes import (
    ASPECT_EDGES,
    SIDE_EDGES,
    Histogram,
    heights_widths,
    histogram,
    resize_factors,
    seen_sizes,
)


@dataclass(frozen=True)
class Survey:
    """What the objects of a data set are like at training size.

    Attributes:
        objects: how many were looked at: all but ignored and unusable ones.
        classes: their names.
        sides: of the short side, pixels.
        aspects: of width / height.
        advice: at which size to train.
        anchors: of the configuration; None for a detector without anchors.
        covered: how well they cover the objects; None without anchors.
        fitted: anchors fitted to the objects; None where that was not asked for.
        covered_then: how well those cover the objects.
    """

    objects: int
    classes: tuple[str, ...]
    sides: Histogram
    aspects: Histogram
    advice: SizeAdvice
    anchors: AnchorConfig | None = None
    covered: Coverage | None = None
    fitted: AnchorConfig | None = None
    covered_then: Coverage | None = None

    @property
    def setting(self) -> str:
        """The words that set the fitted anchors, for a shell; "" where those of the recipe are as good."""
        if self.fitted is None or self.fitted == self.anchors:
            return ""
        return shlex.join(setting_words(self.fitted))

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "objects": self.objects,
            "short_side": self.sides.to_dict(),
            "aspect": self.aspects.to_dict(),
            "advice": asdict(self.advice),
            "anchors": _anchors_dict(self.anchors, self.covered),
            "fitted_anchors": _anchors_dict(self.fitted, self.covered_then),
            "setting": self.setting,
        }


def _anchors_dict(anchors: AnchorConfig | None, covered: Coverage | None) -> dict[str, Any] | None:
    if anchors is None or covered is None:
        return None
    return {"sizes": anchors.sizes, "ratios": anchors.ratios, "coverage": asdict(covered)}


def survey(dataset: Dataset, config: Config, fit: bool = False) -> Survey:
    """Look at all usable objects of a checked data set, before any policy changed it.

    Args:
        dataset: whose boxes are cut at the borders of their pictures here.
        config: size in training, network and anchors.
        fit: also fit anchors.

    A detector of points has no anchors, and without objects none can be fitted: both are left None.
    """
    objects, spec = dataset.objects, config.preprocess
    owner, faults = objects.owners(), find_box_faults(dataset, spec)
    chosen = ~faults.wrong & ~objects.ignore & (objects.labels >= 0)
    known: Bools = np.asarray(dataset.pictures.sizes.all(1))
    original = heights_widths(clip_to_pictures(dataset))
    inside: Bools = np.asarray((original > 0).all(1))  # not so where the annotated size is wrong
    chosen &= known[owner] & inside
    original = original[chosen]
    sizes = original * resize_factors(dataset.pictures.sizes, spec)[owner[chosen]]
    labels, classes = objects.labels[chosen].astype(np.int64), dataset.classes
    short, count = sizes.min(1, initial=np.inf), len(classes)
    sides = seen_sizes(dataset.pictures.sizes, spec).min(1)[owner[chosen]].astype(np.float32)
    found = Survey(
        len(sizes),
        classes,
        histogram(short, labels, count, SIDE_EDGES),
        histogram((sizes[:, 1] / sizes[:, 0]).astype(np.float32), labels, count, ASPECT_EDGES),
        advise_size(short, original.min(1, initial=np.inf), sides, spec),
    )
    if config.detector == "fcos":
        return found
    strides = anchor_strides(config)

    def cover(anchors: AnchorConfig) -> Coverage:
        return coverage(best_anchor_iou(sizes, anchors, strides), sizes, labels, classes)

    fitted = fit_anchors(sizes, config.anchors, strides) if fit and len(sizes) else None
    return Survey(
        found.objects,
        classes,
        found.sides,
        found.aspects,
        found.advice,
        config.anchors,
        cover(config.anchors),
        fitted,
        cover(fitted) if fitted else None,
    )


def anchor_strides(config: Config) -> list[int]:
    """Pixels a cell of every level with anchors; the network is built without memory for it."""
    with torch.device("meta"):
        network = build_network(config, 1)
    assert isinstance(network.anchors, Anchors)
    return network.anchors.strides
