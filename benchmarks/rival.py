"""torchvision's own Faster R-CNN with the backbone, weights, pictures and size of the default recipe.

Usage: ``python benchmarks/rival.py train DATA --out FILE`` and ``python benchmarks/rival.py eval FILE DATA``.

The detector, its losses and its post-processing are torchvision's, at torchvision's settings except for the
picture size, the anchors (16 to 256 pixels, for pictures of 320) and the normalisation of the backbone. From
frcnn come only the ImageNet weights, the reading of annotations, which pictures make a batch, and the
evaluation, so that both sides learn from the same objects and are measured alike.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
from PIL import Image
from rival_options import DIVERGED, add_training
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.transforms.functional import pil_to_tensor

import frcnn
from frcnn.config import BackboneConfig, Config, DataConfig, RoiConfig
from frcnn.data.check import load_checked
from frcnn.data.feed.batching import Draw, EvalBatches, TrainBatches
from frcnn.data.sample import Dataset
from frcnn.evaluation.report import Counts, Report, measure
from frcnn.evaluation.run import ground_truth
from frcnn.training.ema import Average

BACKBONE, LEVELS = "tf_efficientnet_lite0", (1, 2, 3, 4)
FLOOR, MOST = 0.05, 100
"""Least score and most detections of a picture: torchvision's defaults, and those of ``frcnn eval``."""
Example = tuple[Tensor, dict[str, Tensor], int]


class Pyramid(nn.Module):
    """timm's backbone with frozen batch norm and torchvision's pyramid; maps by level name."""

    def __init__(self, norm: Literal["eval", "frozen"]) -> None:
        """``norm``: batch norm in evaluation mode, or timm's ``FrozenBatchNorm``; the same numbers."""
        super().__init__()
        start = Config(
            backbone=BackboneConfig(name=BACKBONE, levels=LEVELS, weights="package"), roi=RoiConfig(hidden=8)
        )
        state = frcnn.Detector.from_config(start, ["any"]).model.backbone.net.state_dict()
        body = timm.create_model(BACKBONE, pretrained=False, features_only=True, out_indices=LEVELS)
        missing, unexpected = body.load_state_dict(state, strict=False)
        assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
        self.norms = [m for m in body.modules() if isinstance(m, nn.BatchNorm2d)]
        for parameter in (p for m in self.norms for p in m.parameters()):
            parameter.requires_grad_(False)
        self.body = freeze_batch_norm_2d(body) if norm == "frozen" else body
        info: Any = body.feature_info
        self.out_channels = 256
        self.fpn = FeaturePyramidNetwork(info.channels(), self.out_channels, LastLevelMaxPool())
        self.channels_last = False

    def train(self, mode: bool = True) -> Pyramid:
        """As usual, but the batch norm keeps its statistics."""
        super().train(mode)
        for norm in self.norms:
            norm.train(False)
        return self

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        """Pixels (N, 3, H, W) -> maps "0" to "3" and "pool"."""
        if self.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        maps = self.body(pixels)
        return self.fpn(OrderedDict((str(i), level) for i, level in enumerate(maps)))


def build(
    classes: int,
    sizes: Sequence[int] = (320,),
    max_size: int = 640,
    channels_last: bool = False,
    norm: Literal["eval", "frozen"] = "eval",
) -> FasterRCNN:
    """The detector for this many classes, its backbone with ImageNet weights.

    Args:
        classes: without the background.
        sizes: short sides; in training one is drawn for every picture, otherwise the last counts.
        max_size: limit of the long side.
        channels_last: memory format of weights and maps.
        norm: see ``Pyramid``.
    """
    ratios = ((0.5, 1.0, 2.0),) * 5
    backbone = Pyramid(norm)
    model = FasterRCNN(
        backbone,
        num_classes=classes + 1,
        min_size=tuple(sizes),
        max_size=max_size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        rpn_anchor_generator=AnchorGenerator(((16,), (32,), (64,), (128,), (256,)), ratios),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2),
        box_batch_size_per_image=512,
        box_score_thresh=FLOOR,
        box_detections_per_img=MOST,
    )
    if channels_last:
        backbone.channels_last = True
        model = model.to(memory_format=torch.channels_last)
    return model


class Examples(TorchDataset[Example]):
    """A picture in 0..1, decoded by Pillow, half of them mirrored in training, and torchvision's targets."""

    def __init__(self, dataset: Dataset, seed: int | None) -> None:
        """``seed`` None: nothing is mirrored."""
        self._dataset, self._seed = dataset, seed

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, draw: Draw) -> Example:  # type: ignore[override]
        sample = self._dataset[draw.index]
        with Image.open(sample.path) as image:
            pixels = pil_to_tensor(image.convert("RGB")).float() / 255  # (3, h, w)
        keep = ~sample.ignore
        boxes, labels = torch.from_numpy(sample.boxes[keep]), torch.from_numpy(sample.labels[keep]) + 1
        if self._seed is not None and np.random.default_rng((self._seed, *draw[:2])).random() < 0.5:
            pixels, width = pixels.flip(-1), pixels.shape[-1]
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        return pixels, {"boxes": boxes, "labels": labels}, sample.image_id


def read(data: str, split: str) -> Dataset:
    """The pictures of a split; boxes without area are left out, as ``--bad-boxes drop`` does."""
    return load_checked(data, split, config=Config(data=DataConfig(bad_boxes="drop")))[0]


def load(examples: Examples, batches: TrainBatches | EvalBatches) -> DataLoader[Example]:
    """Batches as lists, made by one worker process."""
    return DataLoader(
        examples,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=list,
        num_workers=1,
        persistent_workers=True,
    )


def factor(step: int, steps: int, warmup: int) -> float:
    """Share of the highest rate at step 0, 1, ...: rises over the warm-up, then falls as a cosine to 0."""
    rising = min(warmup, steps // 10)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


def train(options: argparse.Namespace) -> dict[str, Any]:
    """One whole schedule; writes the weights and returns what it did."""
    torch.manual_seed(options.seed)
    dataset = read(options.data, options.train)
    model = build(
        len(dataset.classes), options.min_size, options.max_size, options.channels_last, options.norm
    )
    average = Average(model, options.ema)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, options.lr, momentum=0.9, weight_decay=options.weight_decay)
    batches = TrainBatches(dataset.pictures.sizes, options.batch, seed=options.seed)
    loader = load(Examples(dataset, options.seed), batches)
    steps = options.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: factor(n, steps, options.warmup))
    began, done, pictures = time.perf_counter(), 0, 0
    model.train()
    for epoch, batch in _stream(loader, batches, options.epochs):
        loss = _step(model, batch, optimizer, options)
        schedule.step()
        average.update(model)
        done, pictures = done + 1, pictures + len(batch)
        if done % 20 == 0 or done == steps:
            spent = (time.perf_counter() - began) / pictures
            print(
                f"epoch {epoch + 1} step {done}/{steps} loss {loss:.4f} {spent:.3f} s a picture", flush=True
            )
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss of step {done} is {loss}; lower --lr")
        if done == options.max_steps:
            break
    loop = time.perf_counter() - began
    meta = {"classes": list(dataset.classes), "sizes": list(options.min_size), "max_size": options.max_size}
    state = {name: value.contiguous() for name, value in average.network.state_dict().items()}
    save_file(state, options.out, {"rival": json.dumps(meta)})
    return {"steps": done, "pictures": pictures, "loop_seconds": round(loop, 2), "loss": round(loss, 4)}


def _stream(
    loader: DataLoader[Example], batches: TrainBatches, epochs: int
) -> Iterator[tuple[int, list[Example]]]:
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for batch in loader:
            yield epoch, batch


def _step(
    model: FasterRCNN,
    batch: list[Example],
    optimizer: torch.optim.Optimizer,
    options: argparse.Namespace,
) -> float:
    with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
        losses: dict[str, Tensor] = model([pixels for pixels, _, _ in batch], [t for _, t, _ in batch])
        total = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    if options.clip:  # without it BCCD diverged within 31 steps at the rate 0.005
        nn.utils.clip_grad_norm_(model.parameters(), options.clip)
    optimizer.step()
    return float(total.detach())


def evaluate(weights: str, data: str, split: str) -> Report:
    """frcnn's report of a file that ``train`` wrote; detection in float32."""
    with safe_open(weights, "pt") as file:
        meta = json.loads(file.metadata()["rival"])
    model = build(len(meta["classes"]), meta["sizes"][-1:], meta["max_size"])
    model.load_state_dict(load_file(weights))
    dataset = read(data, split)
    truth = ground_truth(dataset, meta["classes"])
    found: list[dict[str, Any]] = []
    capped = 0
    model.eval()
    for batch in load(Examples(dataset, None), EvalBatches(dataset.pictures.sizes, 4)):
        with torch.inference_mode():
            outputs = model([pixels for pixels, _, _ in batch])
        for (_, _, image_id), output in zip(batch, outputs, strict=True):
            capped += len(output["scores"]) >= MOST
            found += _rows(image_id, output)
    return measure(truth, found, MOST, FLOOR, counts=Counts(len(found), capped))


def _rows(image_id: int, output: dict[str, Tensor]) -> list[dict[str, Any]]:
    """COCO results of one picture; torchvision's label 0 is the background."""
    rows = zip(output["boxes"].tolist(), output["scores"].tolist(), output["labels"].tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": k - 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), score, k in rows
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or evaluate; the last line of stdout is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train")
    training.add_argument("data")
    training.add_argument("--out", required=True)
    training.add_argument("--train", default="trainval", metavar="SPLIT")
    add_training(training)
    testing = verbs.add_parser("eval")
    testing.add_argument("weights")
    testing.add_argument("data")
    testing.add_argument("--split", default="test")
    options = parser.parse_args(arguments)
    if options.verb == "eval":
        print(json.dumps(evaluate(options.weights, options.data, options.split).to_dict()))
        return 0
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    try:
        print(json.dumps(train(options)))
    except FloatingPointError as error:
        print(error, file=sys.stderr)
        return DIVERGED
    return 0


if __name__ == "__main__":
    sys.exit(main())
