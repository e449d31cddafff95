"""Memory: old padded sizes must not pile up, and a training step takes no more than torchvision's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import random
import torch
from frcnn.predict import Detector
from frcnn.structures import ImageBatch

torch.set_num_threads(1)
model = Detector.from_recipe("lite0-fpn", ["a"]).model
sizes = random.Random(0)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

for turn in range(500):
    h, w = (32 * sizes.randint(2, 12) for _ in range(2))
    true = torch.tensor([[float(h), float(w)]])
    with torch.inference_mode():
        model(ImageBatch(torch.zeros(1, 3, h, w, dtype=torch.uint8), true, torch.ones(1, 2), true))
    if turn in (150, 499):
        print(resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_500_shapes_do_not_fill_the_memory() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    early, late = (float(line) for line in done.stdout.split())
    assert late < 1.10 * early, f"{early:.0f} MiB after 150 shapes, {late:.0f} after 500"


STEP = """
import resource, sys
import torch
from torch.nn.functional import pad
from torchvision.models.detection import FasterRCNN as Theirs
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from frcnn.model.detector import FasterRCNN
from frcnn.recipes import recipe
from frcnn.structures import ImageBatch, Targets

n, h, w = 4, 320, 448
small, config = recipe("lite0-fpn"), recipe("r50-fpn")
backbone = small.backbone.model_copy(update={"weights": "none"})
config = config.model_copy(update={"backbone": backbone, "preprocess": small.preprocess})
model = FasterRCNN(config, 20).train()
boxes = torch.tensor([[10.0, 10, 100, 120], [50, 60, 200, 180], [100, 30, 260, 140]])
labels = torch.tensor([0, 1, 2])
pixels = torch.rand(n, 3, h, w)

def ours():
    size = torch.tensor([[float(h), float(w)]]).expand(n, 2)
    batch = ImageBatch(pixels.contiguous(memory_format=torch.channels_last), size, torch.ones(n, 2), size)
    objects = pad(boxes, (0, 0, 0, 5)).expand(n, 8, 4)
    ids = pad(labels, (0, 5), value=-1).expand(n, 8)
    targets = Targets(objects, ids, torch.zeros(n, 8, dtype=torch.bool))
    return model(batch, targets, model.draw_noise(batch, targets, 0)).losses.total

class Body(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.out_channels = model.backbone, 256
        self.fpn = FeaturePyramidNetwork(self.body.channels, 256, LastLevelMaxPool())
    def forward(self, x):
        return self.fpn({str(i): f for i, f in enumerate(self.body(x))})

anchors = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
rival = Theirs(Body(), 21, min_size=h, max_size=w, rpn_anchor_generator=anchors).train()

def theirs():
    return sum(rival(list(pixels), [{"boxes": boxes, "labels": labels + 1} for _ in range(n)]).values())

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
for _ in range(2):
    model.zero_grad()
    rival.zero_grad()
    {"ours": ours, "theirs": theirs}[sys.argv[1]]().backward()
print((peak() - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_a_training_step_takes_no_more_memory_than_torchvisions() -> None:
    """EfficientNet-Lite0, a pyramid of 256 channels, 4 pictures of 320 x 448, 512 RoIs of each."""

    def added(who: str) -> float:
        arguments = [sys.executable, "-W", "ignore", "-c", STEP, who]
        # freed blocks go back at once: what glibc keeps for later differs by 10 % from run to run
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
        return float(subprocess.run(arguments, capture_output=True, text=True, env=env, check=True).stdout)

    cells = sum((320 // s) * (448 // s) for s in (4, 8, 16, 32))
    table = 4 * cells * 256 * 4 / 2**20
    ours, theirs = added("ours"), added("theirs")
    assert ours < theirs + table, f"{ours:.0f} MiB, torchvision {theirs:.0f}, table {table:.0f}"
