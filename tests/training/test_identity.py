"""What a step learns from is the same, whatever format the data are in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from one_set import CLASSES, FLAGGED, HOLDS, PLAIN, WRITERS, Thing

from frcnn.config import AnchorConfig, Config, DataConfig
from frcnn.data.check import load_checked
from frcnn.data.feed.loader import Batch, train_loader
from frcnn.data.split import TrainVal
from frcnn.model.anchors import Anchors
from frcnn.model.matching import match_anchors
from frcnn.model.preprocess import pad_batch, prepare
from frcnn.settings import with_settings
from frcnn.training.announce import class_table

SETTINGS = ["preprocess.min_size=64", "preprocess.max_size=256", "train.batch=2", "data.workers=0"]


def first_batch(root: Path, kind: str, things: dict[str, list[Thing]]) -> tuple[Batch, Config, list[str]]:
    """The first varied batch of a run, and the table of classes that the run prints."""
    root.mkdir()
    WRITERS[kind](root, things)
    rename = {"traffic_light": "traffic light"} if kind == "kitti" else {}
    config = with_settings(Config(data=DataConfig(rename=rename)), SETTINGS)
    data, _ = load_checked(root, TrainVal("train", "val"), config=config)
    train = data.subset("train")
    batch = next(iter(train_loader(train, config, prepare, pad_batch, seed=3)))
    return batch, config, class_table(train, None)


def same_flags(kind: str) -> dict[str, list[Thing]]:
    """The set with the one flag that training sees, where the format has it."""
    return FLAGGED if "difficult" in HOLDS[kind] else PLAIN


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "voc"])
def test_targets_and_labels_of_anchors_are_the_same(tmp_path: Path, kind: str) -> None:
    ours, config, _ = first_batch(tmp_path / "voc", "voc", same_flags(kind))
    other, *_ = first_batch(tmp_path / kind, kind, same_flags(kind))
    assert [Path(p).stem for p in other.paths] == [Path(p).stem for p in ours.paths]
    torch.testing.assert_close(other.images.sizes, ours.images.sizes)
    torch.testing.assert_close(other.targets.boxes, ours.targets.boxes, atol=0.01, rtol=0)
    assert torch.equal(other.targets.labels, ours.targets.labels)
    assert torch.equal(other.targets.ignore, ours.targets.ignore)
    height, width = ours.images.pixels.shape[-2:]
    anchors = Anchors(AnchorConfig(sizes=((16.0,), (32.0,)), ratios=(0.5, 1.0, 2.0)), (8, 16))(height, width)
    labels = [match_anchors(anchors, b.images.sizes, b.targets, config.rpn).labels for b in (ours, other)]
    assert torch.equal(*labels) and (labels[0] == 1).any()


@pytest.mark.parametrize("kind", WRITERS)
def test_the_table_before_the_first_step(tmp_path: Path, kind: str) -> None:
    lines = first_batch(tmp_path / kind, kind, PLAIN)[2]
    assert lines[0].split() == ["id", "name", "source-id", "images", "boxes"]
    rows = [line.rsplit(maxsplit=5) for line in lines[1:5]]
    numbers = {"coco": ["90", "7", "1", "13"], "yolo": ["3", "2", "1", "0"]}.get(kind, ["-"] * 4)
    counts = [("1", "1"), ("1", "1"), ("2", "2"), ("1", "1")]
    names = [" ".join(row[0].split()[1:]).removesuffix(" (traffic_light)") for row in rows]
    assert names == list(CLASSES)
    assert [tuple(row[1:4]) for row in rows] == [(n, *c) for n, c in zip(numbers, counts, strict=True)]
