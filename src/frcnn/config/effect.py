"""Which keys mean nothing beside others: a user who sets one is told."""

from __future__ import annotations

from collections.abc import Iterable

from frcnn.config import Config


def without_effect(config: Config, settings: Iterable[str]) -> list[str]:
    """A sentence for every setting ``a.b=v`` whose key nothing reads in this configuration."""
    idle = _idle(config)
    said = []
    shared = () if config.detector == "fcos" else SHARED
    for setting in settings:
        key = setting.partition("=")[0].strip()
        for start, reason in idle.items():
            if key == start or (start.endswith(".") and key.startswith(start) and key not in shared):
                said.append(f"{key} has no effect: {reason}")
                break
    return said


SHARED = {"roi.max_dets", "roi.score_threshold"}
"""Limits of detection, which proposals alone have too."""


def _idle(config: Config) -> dict[str, str]:
    """Key, or start of keys -> why nothing reads it."""
    rpn, roi = config.rpn, config.roi
    idle: dict[str, str] = {}
    if config.detector == "fcos":
        reason = "detector fcos has points, and neither anchors nor a second stage"
        return dict.fromkeys(("anchors.", "rpn.", "proposals.", "roi."), reason)
    idle["fcos."] = f"the detector is {config.detector}"
    if rpn.objectness == "sigmoid":
        idle["rpn.channel_order"] = "rpn.objectness sigmoid has one channel an anchor"
    for name, section in (("rpn", rpn), ("roi", roi)):
        if section.box_loss != "smooth_l1":
            idle[f"{name}.beta"] = f"{name}.box_loss is {section.box_loss}"
        if section.box_loss in ("giou", "ciou"):
            reason = f"{name}.box_loss {section.box_loss} looks at boxes, not at single deltas"
            idle |= dict.fromkeys((f"{name}.inside_weights", f"{name}.outside_weights"), reason)
    if config.detector == "rpn":
        return {**idle, "roi.": "the detector is rpn, which has no second stage"}
    if roi.box_regression == "none":
        for name in ("beta", "box_normaliser", "delta_weights"):
            idle[f"roi.{name}"] = "roi.box_regression is none"
    if roi.pool == "roialign":
        idle["roi.pool_edges"] = "roi.pool is roialign"
    else:
        idle |= dict.fromkeys(("roi.sampling_ratio", "roi.aligned"), "roi.pool is roipool")
    if roi.gt_proposals != "jittered":
        idle["roi.gt_jitter"] = f"roi.gt_proposals is {roi.gt_proposals}"
    return idle
