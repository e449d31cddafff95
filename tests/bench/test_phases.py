"""Clocks around the rooms: every part of a step has its phase."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import frcnn.model.network as our_rooms
from frcnn.bench.phases import OTHER, Clock, Room, rooms, seconds_by_phase, watched
from frcnn.bench.pictures import load_photos
from frcnn.bench.steps import OurInference, OurTraining
from frcnn.bench.twins import lite0_config
from frcnn.bench.workload import Contender, Workload
from frcnn.data.scenes.shapes import CLASSES
from frcnn.predict import Detector
from frcnn.structures import ImageBatch

CPU = torch.device("cpu")
SMALL = Workload("train", "lite0", 64, 96, 2, small=True)
OURS = Contender("frcnn", "fp32")


class Witness(Clock):
    """Notes which rooms were entered, and whose time that is."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.entered: dict[str, str] = {}

    def around(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.entered[function.__name__] = phase
            return function(*args, **kwargs)

        return noted


@pytest.fixture(scope="module")
def cascade() -> Detector:
    """Two stages, and every part that sampling can have."""
    config = lite0_config(SMALL)
    roi = {"cascade": (0.6,), "sampling": "per_batch", "gt_proposals": "jittered"}
    changed = {
        "roi": config.roi.model_copy(update=roi),
        "rpn": config.rpn.model_copy(update={"sampling": "per_batch"}),
    }
    return Detector.from_config(config.model_copy(update=changed), CLASSES)


def test_nothing_watched_is_everything_else() -> None:
    clock = Clock(CPU)
    with watched([], clock):
        clock.start()
        clock.charge()
    assert list(clock.seconds) == [OTHER]


def test_the_inner_room_gets_the_time_and_all_is_put_back() -> None:
    module = nn.ReLU()
    clock = Clock(CPU)
    with watched([Room(module, "forward", "heads"), Room(our_rooms, "normalise", "resize")], clock):
        before = our_rooms.normalise
        assert "forward" in vars(module)
        clock.start()
        module(torch.ones(1))
        clock.charge()
    assert set(clock.seconds) == {"heads", OTHER}
    assert "forward" not in vars(module)
    assert our_rooms.normalise is not before


def test_a_class_is_a_place_too_and_inherits_again_afterwards() -> None:
    batch = ImageBatch(*(torch.ones(1, 2) for _ in range(4)))
    clock = Clock(CPU)
    with watched([Room(ImageBatch, "to", "transfer")], clock):
        clock.start()
        moved = batch.to(CPU)
        clock.charge()
    assert isinstance(moved, ImageBatch) and torch.equal(moved.sizes, batch.sizes)
    assert set(clock.seconds) == {"transfer", OTHER}
    assert "to" not in vars(ImageBatch)


def test_parts_of_a_cascade_and_of_its_sampling_are_not_everything_else(cascade: Detector) -> None:
    photos, _ = load_photos(SMALL)
    step, witness = OurTraining(cascade, OURS, photos), Witness()
    with watched(rooms(step), witness):
        step()
    matching = ("sample_batch", "jittered", "next_samples", "with_objects", "draw_noise")
    assert {name: witness.entered.get(name) for name in matching} == dict.fromkeys(matching, "matching")
    assert witness.entered["move_boxes"] == "proposals"


def test_the_way_to_the_device_is_a_phase_of_inference(cascade: Detector) -> None:
    photos, _ = load_photos(SMALL)
    step, witness = OurInference(cascade, OURS, photos), Witness()
    with watched(rooms(step), witness):
        step()
    expected = {"to": "transfer", "resize_image": "resize", "pad_batch": "resize", "move_boxes": "proposals"}
    assert {name: witness.entered.get(name) for name in expected} == expected
    assert {"resize", "transfer", "backbone", "heads"} <= set(seconds_by_phase(step, CPU, 1))
