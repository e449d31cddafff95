"""Memory over many padded sizes: kernels, anchors and buffers of old sizes must not pile up."""

from __future__ import annotations

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
