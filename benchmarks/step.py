"""Time a training step and an inference of our detectors and of torchvision's, in turn, on this machine.

Usage: ``python benchmarks/step.py [--rounds 5] [--batch 2] [--device cpu]``. The same pictures and objects
go into each, all weights are random and trainable, batch norm is frozen. In every round each detector gets
one turn, so that a busy machine slows all alike. Printed are medians, the spread, and the ratio to
torchvision's Faster R-CNN with ResNet-50 and pyramid. Random weights find next to nothing, so
post-processing has little to do in either. ``lite0-fpn`` is another network at a smaller picture size: its
row says what the default recipe costs, not how fast our code is.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor

import frcnn
from frcnn.inputs import collate_targets
from frcnn.model.preprocess import pad_batch, resize_image, target_size
from frcnn.structures import ImageBatch

HEIGHT, WIDTH, OBJECTS, CLASSES = 480, 640, 12, 20
Step = Callable[[], object]
Objects = list[dict[str, Tensor]]


def make_pictures(batch: int) -> tuple[Tensor, Objects]:
    """(N, 3, h, w) uint8 pictures, and objects with labels 0..K-1."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (batch, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
    targets = []
    for _ in range(batch):
        corner = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([WIDTH - 130.0, HEIGHT - 130.0])
        size = 20 + 100 * torch.rand(OBJECTS, 2, generator=generator)
        labels = torch.randint(0, CLASSES, (OBJECTS,), generator=generator)
        targets.append({"boxes": torch.cat([corner, corner + size], 1), "labels": labels})
    return pictures, targets


def our_steps(recipe: str, pictures: Tensor, targets: Objects, device: str) -> tuple[Step, Step]:
    """(training step, inference), resizing included as in torchvision's detectors."""
    detector = frcnn.Detector.from_recipe(recipe, [f"class {k}" for k in range(CLASSES)]).to(device)
    model, spec = detector.model, detector.config.preprocess
    arrays = [picture.permute(1, 2, 0).numpy() for picture in pictures]
    size = target_size(HEIGHT, WIDTH, spec)

    def load() -> ImageBatch:
        pixels = [resize_image(array, spec, size) for array in arrays]
        return pad_batch(pixels, [(HEIGHT, WIDTH)] * len(arrays), spec).to(device)

    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def train() -> None:
        batch = load()
        objects = collate_targets(targets, batch)
        losses = model(batch, objects, model.draw_noise(batch, objects, 0)).losses
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()

    def infer() -> None:
        with torch.inference_mode():
            model(load())

    return train, infer


def torchvision_steps(pictures: Tensor, targets: Objects, device: str) -> tuple[Step, Step]:
    """The same with torchvision's detector, built as its pretrained one is: with frozen batch norm."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    model = FasterRCNN(backbone, num_classes=CLASSES + 1).to(device)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    wanted = [{"boxes": t["boxes"].to(device), "labels": (t["labels"] + 1).to(device)} for t in targets]

    def load() -> list[Tensor]:
        return [picture.to(device).float() / 255 for picture in pictures]

    def train() -> None:
        model.train()
        losses = model(load(), [dict(t) for t in wanted])
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        optimizer.step()

    def infer() -> None:
        model.eval()
        with torch.inference_mode():
            model(load())

    return train, infer


def seconds(step: Step, device: str) -> float:
    """Of one call, the GPU's work included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    pictures, targets = make_pictures(options.batch)
    rows = {"torchvision r50-fpn": torchvision_steps(pictures, targets, options.device)}
    for recipe in ("r50-fpn", "lite0-fpn"):
        rows[f"frcnn {recipe}"] = our_steps(recipe, pictures, targets, options.device)
    times: dict[tuple[str, int], list[float]] = {(name, kind): [] for name in rows for kind in (0, 1)}
    for turn in range(options.rounds + 1):
        for name, steps in rows.items():
            for kind, step in enumerate(steps):
                spent = seconds(step, options.device)
                if turn:  # the first round warms up
                    times[name, kind].append(spent)
    print(
        f"{options.batch} pictures of {HEIGHT}x{WIDTH}, {OBJECTS} objects each, {options.device}, fp32, "
        f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, frcnn {frcnn.__version__}, {options.rounds} rounds"
    )
    for kind, label in enumerate(("training step", "inference")):
        base = statistics.median(times["torchvision r50-fpn", kind])
        for name in rows:
            spent = times[name, kind]
            median = statistics.median(spent)
            print(
                f"{label:<14} {name:<20} {median:7.3f} s  ({min(spent):.3f} to {max(spent):.3f})  "
                f"{base / median:5.2f}x torchvision"
            )


if __name__ == "__main__":
    main()
