"""Pictures with one channel, and with five, are trained on, evaluated and predicted by the same commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import PICTURES, tiny_config

from frcnn.cli import run
from frcnn.config import Config
from frcnn.model.detector import build_network
from frcnn.predict import Detector
from frcnn.settings import to_yaml, with_settings
from frcnn.training.transfer import start_from


def channel_config(channels: int, *settings: str) -> Config:
    small = ["backbone.name=test_byobnet", "backbone.levels=[1,2,3]", "anchors.sizes=[[12],[32]]"]
    base = with_settings(
        tiny_config(epochs=1), [*small, "fpn.extra_pool=false", "data.augment=strong", "data.val=0.4"]
    )
    return with_settings(base, [f"preprocess.channels={channels}", *settings])


def write_arrays(root: Path, channels: int) -> Path:
    """A CSV data set of arrays; a class shows in one channel of its own."""
    rng, rows = np.random.default_rng(0), ["path,x1,y1,x2,y2,class"]
    root.mkdir()
    for i, objects in enumerate(PICTURES * 2):
        pixels = rng.integers(90, 130, (64, 80, channels), dtype=np.uint8)
        for label, x1, y1, x2, y2 in objects:
            pixels[y1:y2, x1:x2, 0 if label == "red" else channels - 1] = 250
            rows.append(f"{i:03}.npy,{x1},{y1},{x2},{y2},{label}")
        np.save(root / f"{i:03}.npy", pixels)
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("channels", [1, 5])
def test_the_commands(tmp_path: Path, channels: int, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_arrays(tmp_path / "data", channels)
    (tmp_path / "c.yaml").write_text(to_yaml(channel_config(channels)))
    words = ["--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "runs"), "--name", "one"]
    assert run(["train", str(data), *words]) == 0
    said = (tmp_path / "runs/one/log.txt").read_text()
    assert f"preprocess.channels {channels}: in the backbone's first convolution the weights of red" in said
    assert said.count("saturation and hue are not varied") == 1
    assert ("gray" if channels == 1 else "5 channels") + ", mean 0.5 (each)" in said
    detector = Detector.load(tmp_path / "runs/one/best.safetensors")
    assert detector.config.preprocess.channels == channels
    result = detector.predict(data / "000.npy")[0]
    assert result.size == (64, 80) and result.plot().mode == "RGB"
    again = detector.predict(np.load(data / "000.npy"))[0]
    assert np.array_equal(again.boxes, result.boxes) and again.plot().size == (80, 64)
    capsys.readouterr()
    assert run(["eval", str(tmp_path / "runs/one"), str(data)]) == 0
    assert "AP50" in capsys.readouterr().out
    assert run(["predict", str(tmp_path / "runs/one"), str(data), "--out", str(tmp_path / "found")]) == 0
    assert (
        run(["show", str(data), "--out", str(tmp_path / "s.png"), "--set", f"preprocess.channels={channels}"])
        == 0
    )
    assert (
        run(["check", str(data), "--decode", "--no-cache", "--set", f"preprocess.channels={channels}"]) == 0
    )
    if channels == 5:
        picture = Image.new("RGB", (80, 64))
        with pytest.raises(ValueError, match=r"holds 3 channels \(RGB\), and preprocess.channels is 5"):
            detector.predict(picture)


def test_weights_of_rgb_start_other_channels(tmp_path: Path) -> None:
    classes = ("blue", "red")
    rgb = Detector.from_config(channel_config(3), classes)
    rgb.save(tmp_path / "rgb.safetensors")
    network = build_network(channel_config(5), 2)
    assert "tensors loaded" in start_from(network, classes, tmp_path / "rgb.safetensors")
    name = f"net.{network.backbone.stem}.weight"
    mine, theirs = network.backbone.get_parameter(name), rgb.model.backbone.get_parameter(name)
    torch.testing.assert_close(mine[:, 4], theirs[:, 1] * 3 / 5)
