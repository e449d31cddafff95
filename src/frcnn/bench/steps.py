"""One training step or inference of each side, from decoded pictures to the end; cut where the time is
attributed.

The parts of a step are methods, so that ``phases`` can put a clock around each without changing it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from frcnn.bench.pictures import Photo, load_photos
from frcnn.bench.twins import channels_last, make_twins
from frcnn.bench.workload import Contender, Workload, computing_in
from frcnn.inputs import collate_targets
from frcnn.model.compiled import compile_detector
from frcnn.model.preprocess import pad_batch, resize_image, target_size
from frcnn.precision import Requested
from frcnn.predict import Detector
from frcnn.results import Result
from frcnn.structures import ImageBatch, Targets
from frcnn.training.ema import Average
from frcnn.training.optim import make_optimizer

LEARNING_RATE = 1e-5
"""Small: hundreds of steps on one batch leave the network about where it was."""
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4


class Step(Protocol):
    """What takes a turn."""

    def __call__(self) -> Any:
        """Do it once."""


class OurTraining:
    """A training step of ours.

    Attributes:
        model: the network.
        loss: of the latest step.
    """

    def __init__(self, detector: Detector, contender: Contender, photos: Sequence[Photo]) -> None:
        self.model, self._spec = detector.model, detector.config.preprocess
        self._contender, self._photos, self._device = contender, photos, detector.device
        self._objects = [{"boxes": photo.boxes, "labels": photo.labels} for photo in photos]
        config = detector.config.train
        fused = self._device.type == "cuda"
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = make_optimizer(self.model, config, LEARNING_RATE, fused=fused)
        self._average, self._clip = Average(self.model, config.ema), config.clip
        self._seed = 0
        self.loss: Tensor | None = None

    def __call__(self) -> None:
        """Resize, move, forward, backward, update."""
        batch, targets = self.transfer(*self.load())
        self.loss = self.forward(batch, targets)
        self.backward(self.loss)
        self.update()

    def load(self) -> tuple[ImageBatch, Targets]:
        """The batch on the host."""
        batch = our_batch(self._photos, self._spec)
        return batch, collate_targets(self._objects, batch)

    def transfer(self, batch: ImageBatch, targets: Targets) -> tuple[ImageBatch, Targets]:
        """To the device."""
        if self._device.type == "cuda":
            batch, targets = batch.pin_memory(), targets.pin_memory()
        return batch.to(self._device, non_blocking=True), targets.to(self._device, non_blocking=True)

    def forward(self, batch: ImageBatch, targets: Targets) -> Tensor:
        """The total loss."""
        self._seed += 1
        if self.model.compiled is not None:
            batch, targets = self.model.compiled.fit(batch, targets)
        with computing_in(self._contender.format, self._device):
            noise = self.model.draw_noise(batch, targets, self._seed)
            losses = self.model(batch, targets, noise).losses
        assert losses is not None
        return losses.total

    def backward(self, loss: Tensor) -> None:
        """The gradients."""
        self._optimizer.zero_grad(set_to_none=True)
        with computing_in_backward(self._contender, self._device):
            loss.backward()

    def update(self) -> None:
        """Clip where the recipe does, step, and let the average follow where there is one."""
        if self._clip:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimizer.step()
        self._average.update(self.model)


class TheirTraining:
    """The same of torchvision's."""

    def __init__(self, model: Any, contender: Contender, photos: Sequence[Photo]) -> None:
        self.model, self._contender, self._photos = model, contender, photos
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._device = parameters[0].device
        self._objects = [
            {"boxes": torch.from_numpy(p.boxes), "labels": torch.from_numpy(p.labels) + 1} for p in photos
        ]
        self._optimizer = torch.optim.SGD(
            parameters, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.loss: Tensor | None = None

    def __call__(self) -> None:
        """Move, forward with its own resizing, backward, update."""
        pictures, objects = self.transfer()
        self.loss = self.forward(pictures, objects)
        self.backward(self.loss)
        self.update()

    def transfer(self) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Pictures as bytes to the device, floats there."""
        objects = [{k: to_device(v, self._device) for k, v in each.items()} for each in self._objects]
        return their_pictures(self._photos, self._device), objects

    def forward(self, pictures: list[Tensor], objects: list[dict[str, Tensor]]) -> Tensor:
        """The total loss."""
        self.model.train()
        with computing_in(self._contender.format, self._device):
            losses: Mapping[str, Tensor] = self.model(pictures, objects)
        return torch.stack(list(losses.values())).sum()

    def backward(self, loss: Tensor) -> None:
        """The gradients."""
        self._optimizer.zero_grad(set_to_none=True)
        with computing_in_backward(self._contender, self._device):
            loss.backward()

    def update(self) -> None:
        """Step."""
        self._optimizer.step()


class OurInference:
    """An inference of ours: what a user of ``Detector.predict`` waits for.

    Attributes:
        detector: with its network.
    """

    def __init__(self, detector: Detector, contender: Contender, photos: Sequence[Photo]) -> None:
        self.detector, self._contender = detector, contender
        self._arrays = [photo.pixels for photo in photos]

    def __call__(self) -> list[Result]:
        """Arrays to results on the host."""
        name = self._contender.format
        with computing_in("tf32" if name == "tf32" else "fp32", self.detector.device):  # predict casts itself
            precision: Requested = "bf16" if name == "bf16" else "fp32"
            return self.detector.predict(self._arrays, batch=len(self._arrays), precision=precision)


class TheirInference:
    """The same of torchvision's."""

    def __init__(self, model: Any, contender: Contender, photos: Sequence[Photo]) -> None:
        self.model, self._contender, self._photos = model, contender, photos
        self._device = next(model.parameters()).device

    def __call__(self) -> list[dict[str, Tensor]]:
        """Pictures to results on the host."""
        pictures = self.transfer()
        self.model.eval()
        with torch.inference_mode(), computing_in(self._contender.format, self._device):
            found: list[dict[str, Tensor]] = self.model(pictures)
        return [{name: value.cpu() for name, value in each.items()} for each in found]

    def transfer(self) -> list[Tensor]:
        """Pictures as bytes to the device, floats there."""
        return their_pictures(self._photos, self._device)


def computing_in_backward(contender: Contender, device: torch.device) -> Any:
    """As the forward pass, without autocast: the gradients' formats follow from it."""
    return computing_in("tf32" if contender.format == "tf32" else "fp32", device)


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """A copy on the device that the host need not wait for."""
    return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)


def our_batch(photos: Sequence[Photo], spec: Any) -> ImageBatch:
    """Decoded pictures as a batch on the host."""
    sizes = [(photo.pixels.shape[0], photo.pixels.shape[1]) for photo in photos]
    pixels = [
        resize_image(photo.pixels, spec, target_size(*size, spec))
        for photo, size in zip(photos, sizes, strict=True)
    ]
    return pad_batch(pixels, sizes, spec)


def their_pictures(photos: Sequence[Photo], device: torch.device) -> list[Tensor]:
    """What torchvision's detectors take: (3, h, w) floats in 0..1."""
    return [to_device(photo.chw, device).float() / 255 for photo in photos]


def make_steps(workload: Workload, wanted: Sequence[Contender]) -> dict[str, Step]:
    """A step for each contender, by its name; contenders of one network have the same weights.

    Raises:
        ValueError: for data or weights that cannot be used.
    """
    device = workload.torch_device
    photos, classes = load_photos(workload)
    need = {(c.side, c.channels_last) for c in wanted if not c.recipe}
    steps: dict[str, Step] = {}
    ours: Detector | None = None
    theirs: Any = None
    last: Any = None
    if need:
        ours, theirs = make_twins(workload, photos, classes)
        last = channels_last(theirs).to(device) if ("torchvision", True) in need else None
        ours = ours.to(device) if ("frcnn", False) in need else None
        theirs = theirs.to(device) if ("torchvision", False) in need else None
    train = workload.task == "train"
    make_ours: Callable[..., Step] = OurTraining if train else OurInference
    make_theirs: Callable[..., Step] = TheirTraining if train else TheirInference
    for contender in wanted:
        if contender.side == "torchvision":
            model = last if contender.channels_last else theirs
            steps[contender.name] = make_theirs(model, contender, photos)
            continue
        detector = Detector.from_recipe(contender.recipe, classes).to(device) if contender.recipe else ours
        assert detector is not None
        if contender.compiled or not train:
            # of its own, as a user's: weights packed for one format are kept between pictures
            detector = replace(detector, model=copy.deepcopy(detector.model))
        if contender.compiled:
            compile_detector(detector.model, contender.compiled, training=train, images=len(photos))
        if train:
            detector.model.train()
        steps[contender.name] = make_ours(detector, contender, photos)
    return steps
