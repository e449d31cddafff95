"""FCOS is trained, evaluated and used by the same commands as the other detectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import PICTURES, tiny_config, write_voc

from frcnn.cli import run
from frcnn.config import Config, FcosConfig, FpnConfig
from frcnn.data.open import open_dataset
from frcnn.model.detector import build_network
from frcnn.model.fcos import Fcos
from frcnn.model.points import Points, match_points
from frcnn.predict import Detector
from frcnn.settings import from_dict, to_yaml
from frcnn.structures import Targets
from frcnn.training.announce import anchor_lines, levels_with_points
from frcnn.training.plan import raise_limits
from frcnn.training.transfer import start_from
from frcnn.training.validation import validation_config

RANGES = ((0, 24), (24, 48), (48, None))


def fcos_config(**train: object) -> Config:
    """The smallest of backbones, strides 4, 8 and 16."""
    base = tiny_config(**train)
    return base.model_copy(
        update={
            "recipe": "tiny-fcos",
            "detector": "fcos",
            "backbone": base.backbone.model_copy(update={"name": "test_byobnet", "levels": (1, 2, 3)}),
            "fpn": FpnConfig(channels=16, extra_pool=False),
            "fcos": FcosConfig(size_ranges=RANGES, channels=16),
        }
    )


def test_the_commands_train_evaluate_and_predict(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fcos.yaml").write_text(to_yaml(fcos_config(epochs=2)))
    words = ["--config", str(tmp_path / "fcos.yaml"), "--out", str(tmp_path / "runs"), "--name", "one"]
    assert run(["train", str(voc), *words]) == 0
    folder = tmp_path / "runs/one"
    said = (folder / "log.txt").read_text()
    assert "points: of 5 boxes" in said and "anchor" not in said
    columns = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train_fcos_class", "train_fcos_box", "train_fcos_centerness"} <= set(columns)
    assert "train_rpn_box" not in columns
    assert "centerness" in (folder / "report.html").read_text()
    assert isinstance(Detector.load(folder / "best.safetensors").model, Fcos)
    model = str(folder / "best.safetensors")
    assert run(["eval", model, str(voc), "--split", "val"]) == 0
    assert "AP50" in capsys.readouterr().out
    picture = min((voc / "JPEGImages").glob("val*.jpg"))
    out = tmp_path / "found"
    assert run(["predict", model, str(picture), "--score", "0.01", "--out", str(out), "--tables"]) == 0
    (image,) = json.loads((out / "predictions.json").read_text())["images"]
    assert len(image["detections"]) > 0


def test_boxes_without_a_point_are_announced(tmp_path: Path) -> None:
    config = fcos_config()
    network = build_network(config, 1)
    small = write_voc(tmp_path / "small", {"train": [[("red", 9, 9, 10, 10)], [("red", 40, 30, 60, 44)]]})
    assert anchor_lines(open_dataset(small), network, config) == (
        "points: of 2 boxes 1 at stride 4, 0 at stride 8, 0 at stride 16; 1 have no point (50%); "
        "try a larger --set preprocess.min_size, or other --set fcos.size_ranges",
        True,
    )
    good = open_dataset(write_voc(tmp_path / "good", {"train": PICTURES}))
    line, warn = anchor_lines(good, network, config)
    assert line.startswith("points: of 5 boxes 5 at stride 4") and line.endswith("0 have no point (0%)")
    assert not warn
    nothing = anchor_lines(good.subset([3]), network, config)
    assert nothing == ("anchors: no object to compare them with", False)


@pytest.mark.parametrize("radius", [0.0, 1.0])
def test_levels_with_points_are_those_of_the_matcher(radius: float) -> None:
    config = FcosConfig(size_ranges=RANGES, centre_radius=radius)
    points = Points(config, (4, 8, 16))
    assert levels_with_points(np.zeros((0, 4), np.float32), points).shape == (0, 3)
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 60, (300, 2)), rng.uniform(0, 1, (300, 2)) ** 2 * 130
    boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
    found = levels_with_points(boxes, points, chunk=7)
    placed, levels = points(192, 192), points.level_sizes(192, 192)
    zeros = torch.zeros(300, 1)
    tensors = Targets(torch.from_numpy(boxes)[:, None], zeros.long(), zeros.bool())
    sizes = placed.new_full((300, 2), 192)
    labels = match_points(placed, sizes, tensors, config, points.strides, levels).labels
    expected = np.stack([part.eq(1).any(1).numpy() for part in labels.split(list(levels), 1)], 1)
    assert (found == expected).all() and 0 < (~expected.any(1)).sum() < 200 and expected.any(0).all()


def test_limits_are_raised_and_lowered_where_fcos_reads_them(voc: Path) -> None:
    config = fcos_config()
    config = config.model_copy(update={"fcos": config.fcos.model_copy(update={"max_dets": 1})})
    raised, notes = raise_limits(config, open_dataset(voc).subset("train"))
    assert raised.fcos.max_dets == 3 and raised.roi == config.roi and raised.proposals == config.proposals
    assert notes == ["max-dets raised from 1 to 3: a training picture holds 2 objects"]
    assert raise_limits(raised, open_dataset(voc).subset("train")) == (raised, [])
    limits = validation_config(config.model_copy(update={"eval": config.eval.model_copy(
        update={"max_dets": 50, "score_threshold": 0.2})})).fcos  # fmt: skip
    assert (limits.max_dets, limits.score_threshold) == (50, 0.2)


def test_known_classes_keep_their_rows(tmp_path: Path) -> None:
    config = fcos_config()
    first = Detector.from_config(config, ["red", "blue"])
    first.save(tmp_path / "first.safetensors")
    network = build_network(config, 3)
    text = start_from(network, ["green", "blue", "red"], tmp_path / "first.safetensors")
    assert "re-initialised for 3 classes (was 2); rows kept for blue, red" in text
    assert isinstance(network, Fcos) and isinstance(first.model, Fcos)
    old, new = first.model.head.classes.weight, network.head.classes.weight
    assert new[1].equal(old[1]) and new[2].equal(old[0]) and not new[0].equal(old[0])
    assert network.head.distances.weight.equal(first.model.head.distances.weight)


def test_the_configuration_survives_a_file() -> None:
    config = fcos_config()
    assert from_dict(config.model_dump(mode="json")) == config
