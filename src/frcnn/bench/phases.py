"""Where the time of a step goes: clocks put around the rooms of both sides, outside the timed rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from types import ModuleType
from typing import Any

import torch
from torchvision.models.detection import roi_heads as their_heads

import frcnn.model.detector as second_stage
import frcnn.model.fcos as one_stage
import frcnn.model.network as network
import frcnn.model.proposer as first_stage
import frcnn.predict as our_predict
from frcnn.bench.steps import OurInference, OurTraining, Step, TheirInference, TheirTraining
from frcnn.bench.turns import wait
from frcnn.structures import ImageBatch

PHASES = (
    "decode",
    "resize",
    "transfer",
    "backbone",
    "pyramid",
    "RPN",
    "proposals",
    "matching",
    "RoIAlign",
    "heads",
    "losses",
    "backward",
    "optimiser",
    "post-processing",
    "other",
)
"""``decode`` happens before the step and is not part of its time; ``resize`` holds padding and normalising,
``matching`` sampling and targets too, ``proposals`` what a cascade makes of boxes between its stages.
"""
OTHER = PHASES[-1]
_OUR_FUNCTIONS: tuple[tuple[ModuleType, str, str], ...] = (
    (network, "normalise", "resize"),
    (first_stage, "select_proposals", "proposals"),
    (first_stage, "match_anchors", "matching"),
    (first_stage, "sample", "matching"),
    (first_stage, "sample_batch", "matching"),
    (first_stage, "rpn_targets", "matching"),
    (first_stage, "rpn_losses", "losses"),
    (second_stage, "match_rois", "matching"),
    (second_stage, "roi_samples", "matching"),
    (second_stage, "with_objects", "matching"),
    (second_stage, "jittered", "matching"),
    (second_stage, "next_samples", "matching"),
    (second_stage, "move_boxes", "proposals"),
    (second_stage, "pool_rois", "RoIAlign"),
    (second_stage, "default_losses", "losses"),
    (second_stage, "roi_counts", "losses"),
    (second_stage, "postprocess", "post-processing"),
    (one_stage, "match_points", "matching"),
    (one_stage, "fcos_losses", "losses"),
    (one_stage, "find_objects", "post-processing"),
)


@dataclass(frozen=True)
class Room:
    """A function that is found as ``owner.attribute``, and the phase its time belongs to; the owner is a
    module, an object, or a class, whose objects then all have it.
    """

    owner: Any
    attribute: str
    phase: str


@dataclass
class Clock:
    """Time by phase; of nested rooms the inner one gets it.

    Attributes:
        device: waited for at every change.
        seconds: by phase.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    _stack: list[str] = field(default_factory=lambda: [OTHER])
    _since: float = 0.0

    def start(self) -> None:
        """From here on the time counts."""
        self.seconds.clear()
        wait(self.device)
        self._since = time.perf_counter()

    def charge(self) -> None:
        """Give the time since the last change to the current phase."""
        wait(self.device)
        now = time.perf_counter()
        phase = self._stack[-1]
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now

    def around(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        """The function, timed."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.charge()
            self._stack.append(phase)
            try:
                return function(*args, **kwargs)
            finally:
                self.charge()
                self._stack.pop()

        return timed


def seconds_by_phase(step: Step, device: torch.device, rounds: int = 3) -> dict[str, float]:
    """Median seconds of each phase of a step; their sum is up to a sixth more than it takes unwatched."""
    clock = Clock(device)
    seen: list[dict[str, float]] = []
    with watched(rooms(step), clock):
        for _ in range(rounds):
            clock.start()
            step()
            clock.charge()
            seen.append(dict(clock.seconds))
    names = [name for name in PHASES if any(name in each for each in seen)]
    return {name: statistics.median(each.get(name, 0.0) for each in seen) for name in names}


@contextmanager
def watched(places: Sequence[Room], clock: Clock) -> Iterator[None]:
    """Every room with a clock around it; afterwards all is as it was."""
    before = []
    try:
        for place in places:
            own = vars(place.owner).get(place.attribute)  # None: the class's
            before.append((place, own))
            timed = clock.around(getattr(place.owner, place.attribute), place.phase)
            _setter(place.owner).__setattr__(place.owner, place.attribute, timed)
        yield
    finally:
        for place, own in reversed(before):
            if own is None:
                _setter(place.owner).__delattr__(place.owner, place.attribute)
            else:
                _setter(place.owner).__setattr__(place.owner, place.attribute, own)


def _setter(owner: object) -> Any:
    """Whose way of setting attributes does nothing else; that of objects does not take classes."""
    return type if isinstance(owner, type) else object


def rooms(step: Step) -> list[Room]:
    """The rooms of a step of either side."""
    if isinstance(step, OurTraining):
        return [
            Room(step, "load", "resize"),
            Room(step, "transfer", "transfer"),
            Room(step, "backward", "backward"),
            Room(step, "update", "optimiser"),
            *_our_rooms(step.model),
        ]
    if isinstance(step, OurInference):
        loading = [Room(our_predict, name, "resize") for name in ("resize_image", "pad_batch")]
        return [*loading, Room(ImageBatch, "to", "transfer"), *_our_rooms(step.detector.model)]
    assert isinstance(step, TheirTraining | TheirInference)
    places = [Room(step, "transfer", "transfer"), *_their_rooms(step.model)]
    if isinstance(step, TheirTraining):
        places += [Room(step, "backward", "backward"), Room(step, "update", "optimiser")]
    return places


def _our_rooms(model: network.Network) -> list[Room]:
    places = [Room(*function) for function in _OUR_FUNCTIONS]
    modules = [(model.backbone, "backbone"), (model.fpn, "pyramid")]
    modules += [(module, "RPN") for module in model.stage_modules().get("rpn", ())]
    heads = (model.head,) if isinstance(model, one_stage.Fcos) else model.heads
    modules += [(head, "heads") for head in heads]
    places.append(Room(model, "draw_noise", "matching"))  # what sampling draws by
    return [*places, *(Room(module, "forward", phase) for module, phase in modules)]


def _their_rooms(model: Any) -> list[Room]:
    rpn, heads, transform = model.rpn, model.roi_heads, model.transform
    losses: ModuleType = their_heads
    return [
        Room(transform, "forward", "resize"),
        Room(model.backbone.body, "forward", "backbone"),
        Room(model.backbone.fpn, "forward", "pyramid"),
        Room(rpn.head, "forward", "RPN"),
        Room(rpn.anchor_generator, "forward", "proposals"),
        Room(rpn, "filter_proposals", "proposals"),
        Room(rpn.box_coder, "decode", "proposals"),
        Room(rpn, "assign_targets_to_anchors", "matching"),
        Room(rpn.box_coder, "encode", "matching"),
        Room(rpn, "compute_loss", "losses"),
        Room(heads, "select_training_samples", "matching"),
        Room(heads.box_roi_pool, "forward", "RoIAlign"),
        Room(heads.box_head, "forward", "heads"),
        Room(heads.box_predictor, "forward", "heads"),
        Room(losses, "fastrcnn_loss", "losses"),
        Room(heads, "postprocess_detections", "post-processing"),
        Room(transform, "postprocess", "post-processing"),
    ]
