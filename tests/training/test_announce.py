from __future__ import annotations

from pathlib import Path

import pytest
from tiny import PICTURES, tiny_config, write_voc

from frcnn.config import DataConfig
from frcnn.conversion.run import convert
from frcnn.data.findings import CheckReport, Finding
from frcnn.data.open import open_dataset
from frcnn.model.detector import FasterRCNN, build_network
from frcnn.model.network import Stage
from frcnn.recipes import recipe
from frcnn.training.announce import (
    anchor_lines,
    check_notes,
    class_table,
    decoding_line,
    model_lines,
    model_notes,
)


def test_class_table_counts_background(voc: Path) -> None:
    data = open_dataset(voc)
    lines = class_table(data.subset("train"), None)
    assert lines[0].split() == ["id", "name", "source-id", "images", "boxes"]
    assert lines[1].split()[:5] == ["0", "blue", "-", "3", "3"] and "few boxes" in lines[1]
    assert lines[3] == "train images 5: 4 with boxes, 1 background (kept)"


def test_class_table_names_what_was_renamed(voc: Path) -> None:
    data = open_dataset(voc, config=DataConfig(rename={"*": "thing"}))
    lines = class_table(data, None)
    assert lines[1].startswith("   0  thing (blue, red)  ") and len(lines) == 3


def test_class_table_says_the_numbers_of_the_files(voc: Path, tmp_path: Path) -> None:
    convert(voc, tmp_path / "yolo", "yolo")
    numbered = open_dataset(tmp_path / "yolo", config=DataConfig(classes=("red", "blue"))).subset("train")
    lines = class_table(numbered, None)
    assert [line.split()[:3] for line in lines[1:3]] == [["0", "red", "1"], ["1", "blue", "0"]]


def test_flags_are_said_with_their_number() -> None:
    assert check_notes(CheckReport("", ())) == []
    region = Finding("D20", "note", "is flagged", "a.txt", 3, "ignore regions", kind="DontCare boxes")
    idle = Finding("D20", "note", "data.crowd=object has no effect: no crowd boxes")
    empty = Finding("D11", "note", "has no annotation", "b.png", 0, "kept as background")
    assert check_notes(CheckReport("", (empty, region, region, idle))) == [
        "D20 data.crowd=object has no effect: no crowd boxes",
        "D20 2 DontCare boxes: ignore regions",
        "D11 background picture (1): kept as background",
    ]


def test_whether_pictures_were_decoded_is_said(voc: Path) -> None:
    data = open_dataset(voc)
    assert decoding_line(CheckReport("", (), {}, True), data.subset([])) == (
        "all 0 pictures were decoded before the first step"
    )
    line = decoding_line(CheckReport("", (), {"images": 9}), data)
    assert line.startswith(
        "the 9 pictures (0 million pixels) were not decoded before the first step: damaged "
    )
    assert "frcnn check DATA --decode" in line


def test_small_objects_are_warned_about(tmp_path: Path) -> None:
    config = tiny_config()
    network = FasterRCNN(config, 1)
    small = write_voc(tmp_path / "small", {"train": [[("red", 10, 10, 13, 13)], [("red", 40, 30, 43, 33)]]})
    line, warn = anchor_lines(open_dataset(small), network, config)
    assert warn and "100% of 2 boxes < 0.5 (mostly < 3 px); try --set preprocess.min_size=" in line
    good = write_voc(tmp_path / "good", {"train": PICTURES})
    line, warn = anchor_lines(open_dataset(good), network, config)
    assert not warn and "0% of 5 boxes" in line
    empty = open_dataset(good).subset([3])
    assert anchor_lines(empty, network, config) == ("anchors: no object to compare them with", False)


def test_anchors_of_which_none_is_inside_are_said(voc: Path) -> None:
    config = tiny_config()
    rpn = config.rpn.model_copy(update={"inside_only": True})
    config = config.model_copy(update={"rpn": rpn})
    network, data = FasterRCNN(config, 2), open_dataset(voc).subset("train")
    assert "no anchor" not in anchor_lines(data, network, config)[0]
    large = config.anchors.model_copy(update={"sizes": ((200, 240),) * 4, "ratios": (0.5, 1.0, 2.0)})
    config = config.model_copy(update={"anchors": large})
    line, warn = anchor_lines(data, FasterRCNN(config, 2), config)
    assert warn and line.startswith("no anchor lies inside any picture") and "the smallest has 200 px" in line


def test_what_is_frozen_is_said() -> None:
    config = tiny_config()
    network = FasterRCNN(config, 2)
    assert "frozen 0.0 M;" in model_lines(network, config)[0]
    network.backbone.requires_grad_(False)
    assert "(backbone.net" in model_lines(network, config)[0]


@pytest.mark.parametrize(
    ("backbone", "freeze", "said"),
    [
        ({"norm": "frozen"}, (), "batch norm, frozen"),
        ({"norm": "batch"}, (), "batch norm, trained"),
        ({"norm": "batch"}, ("backbone",), "batch norm, frozen"),
        ({"norm": "group"}, (), "group norm"),
    ],
)
def test_the_norm_that_is_there_is_said(
    backbone: dict[str, object], freeze: tuple[Stage, ...], said: str
) -> None:
    config = tiny_config()
    config = config.model_copy(update={"backbone": config.backbone.model_copy(update=backbone)})
    network = build_network(config, 2)
    network.freeze(freeze)
    assert model_lines(network, config)[0].endswith(f"backbone norm: {said}")


def test_a_backbone_without_norm_has_none() -> None:
    config = recipe("rpn-vgg16")
    assert model_lines(build_network(config, 1), config)[0].endswith("backbone norm: none")


def test_trained_batch_norm_with_few_pictures_is_noted() -> None:
    config = tiny_config(batch=2)
    assert model_notes(FasterRCNN(config, 2), config) == []
    config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"norm": "batch"})})
    assert "--batch 4" in model_notes(FasterRCNN(config, 2), config)[0]
