"""The command lines that reproduce published rows, on tiny sets of the same layout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from frcnn.data.open import open_dataset
from frcnn.data.scenes.generate import write_scenes

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
FEW = ["--steps", "2", "--device", "cpu", "--set", "roi.hidden=32", "--set", "roi.batch_size=16"]
FEW += ["--set", "proposals.pre_nms_train=100", "--set", "proposals.post_nms_train=50"]
FEW += ["--set", "proposals.pre_nms_test=100", "--set", "proposals.post_nms_test=20"]


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FRCNN": str(Path(sys.executable).with_name("frcnn")), "DEVICES": "1"}
    command = ["sh", str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize(("script", "missing"), [("voc07.sh", "VOC2007"), ("coco1x.sh", "annotations")])
def test_nothing_given_is_one_sentence(script: str, missing: str) -> None:
    finished = run(script)
    assert finished.returncode and missing in finished.stderr and len(finished.stderr.splitlines()) == 1


def save(module: torch.nn.Module, path: Path) -> Path:
    torch.save(module.state_dict(), path)
    return path


def coco_of(devkit: Path, root: Path) -> Path:
    """The pictures of a VOC set as COCO lays them out, with ids as sparse as its own."""
    data = open_dataset(devkit)
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        part = data.subset(split)
        (root / f"{split}2017").mkdir()
        content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": 7 * k + 1, "name": n} for k, n in enumerate(data.classes)]
        for i, sample in enumerate(part):
            name, (height, width) = sample.path.name, sample.size
            shutil.copy(sample.path, root / f"{split}2017" / name)
            picture = {"id": 1000 + i, "file_name": name, "height": height, "width": width}
            content["images"].append(picture)
            for (x1, y1, x2, y2), label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True):
                box = [x1, y1, x2 - x1, y2 - y1]
                row = {"id": len(content["annotations"]) + 1, "image_id": 1000 + i, "bbox": box}
                row |= {"category_id": 7 * label + 1, "area": box[2] * box[3], "iscrowd": 0}
                content["annotations"].append(row)
        text = json.dumps(content)
        (root / "annotations" / f"instances_{split}2017.json").write_text(text, encoding="utf-8")
    return root


@pytest.mark.slow
def test_voc07(tmp_path: Path) -> None:
    write_scenes(tmp_path / "VOCdevkit" / "VOC2007", {"trainval": 4, "test": 2})
    published = torch.nn.ModuleDict(
        {"features": torchvision.models.vgg16().features}
    )  # its names, 59 of 528 MB
    weights = save(published, tmp_path / "vgg16.pth")
    small = ["--set", "preprocess.min_size=96", "--set", "preprocess.max_size=160"]
    done = run("voc07.sh", tmp_path / "VOCdevkit", weights, tmp_path / "runs", *FEW, *small)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs" / "voc07" / "test" / "evaluation.json").read_text())
    assert report["protocol"] == "voc07" and report["settings"]["images"] == 2


@pytest.mark.slow
def test_coco1x(tmp_path: Path) -> None:
    coco = coco_of(write_scenes(tmp_path / "scenes", {"train": 4, "val": 2}), tmp_path / "coco")
    network = torchvision.models.resnet50()
    weights = save(network, tmp_path / "resnet50.pth")
    small = [
        "--set",
        "preprocess.min_size=96",
        "--set",
        "preprocess.max_size=160",
        "--set",
        "train.accumulate=1",
    ]
    done = run("coco1x.sh", coco, weights, tmp_path / "runs", *FEW, *small)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs" / "coco1x" / "val" / "evaluation.json").read_text())
    assert report["protocol"] == "coco" and report["settings"]["images"] == 2
