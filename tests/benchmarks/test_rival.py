"""torchvision's side: the same backbone, objects and evaluation as ours; one real step."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pennfudan
import pytest
import rival
import torch
from devkits import ten
from rival_options import training_options, training_words
from torch import Tensor, nn

from frcnn.config import BackboneConfig
from frcnn.data.feed.batching import Draw
from frcnn.model.backbones import Backbone


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("people")
    pennfudan.prepare(ten(folder / "source"), folder / "voc")
    return str(folder / "voc")


def options(data: str, out: Path, words: str = "") -> argparse.Namespace:
    """Of a training on the tiny pictures."""
    chosen = training_options(f"--min-size 64 --max-size 128 {words}".split())
    return argparse.Namespace(data=data, out=str(out), train="train", **vars(chosen))


def test_default_settings_are_named_shortly() -> None:
    assert training_words(training_options([])) == "--lr 0.005 --epochs 6 --precision fp32 --seed 0".split()


def test_settings_and_back() -> None:
    words = (
        "--lr 0.02 --epochs 8 --precision bf16 --channels-last --ema 0.99 --min-size 288 320 --seed 3".split()
    )
    parsed = training_options(words)
    assert training_words(parsed) == words and training_options(training_words(parsed)) == parsed


def test_rate_of_no_steps_and_of_many() -> None:
    assert rival.factor(0, 0, 100) == 1.0
    rates = [rival.factor(step, 1000, 100) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 101) and rates[100] == 1.0 and 0 < rates[-1] < 1e-4
    assert rates[:101] == sorted(rates[:101]) and rates[100:] == sorted(rates[100:], reverse=True)
    assert rival.factor(1, 20, 100) == pytest.approx(2 / 3)  # the warm-up is at most a tenth


@pytest.mark.parametrize("norm", ["eval", "frozen"])
def test_backbone_is_ours(norm: str) -> None:
    theirs = rival.Pyramid(norm).train()  # type: ignore[arg-type]
    start = BackboneConfig(weights="package")
    ours = Backbone(start)
    found = ours.net.load_state_dict(theirs.body.state_dict(), strict=False)
    assert not found.missing_keys  # ImageNet weights are in both then; random ones would not be fixed
    assert 0.5 < float(theirs.body.state_dict()["bn1.running_var"].mean()) != 1.0
    pixels = torch.rand(1, 3, 64, 96) - 0.5
    with torch.no_grad():
        pairs = zip(theirs.body(pixels), ours(pixels), strict=True)
        assert all(torch.allclose(a, b, atol=1e-3) for a, b in pairs)
    assert [m.shape[1:] for m in theirs(pixels).values()] == [
        (256, 64 // s, 96 // s) for s in (4, 8, 16, 32)
    ] + [(256, 1, 2)]
    learnt = {name for name, p in theirs.named_parameters() if p.requires_grad}
    assert learnt and not any("bn" in name for name in learnt)


def test_examples_are_mirrored_by_half(data: str) -> None:
    dataset = rival.read(data, "trainval")
    index = next(i for i, sample in enumerate(dataset) if len(sample.boxes) == 2)
    plain, wanted, image_id = rival.Examples(dataset, None)[Draw(index, 0, 1.0)]
    assert wanted["boxes"].tolist() == [[10, 5, 40, 45], [45, 9, 70, 50]]
    assert wanted["labels"].tolist() == [1, 1] and image_id == dataset[index].image_id
    assert plain.shape == (3, 60, 80) and plain.max() == pytest.approx(200 / 255)
    varied = [rival.Examples(dataset, 0)[Draw(index, epoch, 1.0)] for epoch in range(20)]
    mirrored = [target["boxes"] for pixels, target, _ in varied if not torch.equal(pixels, plain)]
    assert 3 < len(mirrored) < 17
    assert all(boxes.tolist() == [[40, 5, 70, 45], [10, 9, 35, 50]] for boxes in mirrored)


@pytest.mark.parametrize(
    "words", [pytest.param("", marks=pytest.mark.slow), "--precision bf16 --channels-last --ema 0.9"]
)
def test_one_step_and_its_evaluation(data: str, tmp_path: Path, words: str) -> None:
    weights = tmp_path / "model.safetensors"
    done = rival.train(options(data, weights, f"--epochs 1 --max-steps 1 {words}"))
    assert done["steps"] == 1 and done["pictures"] == 4 and math.isfinite(done["loss"])
    report = rival.evaluate(str(weights), data, "val")
    assert report.classes == ("person",) and report.settings.images == 2
    assert (report.settings.score_floor, report.settings.max_dets) == (0.05, 100)


class Knowing(nn.Module):
    """Answers with the objects, read off the light pixels' bounds, under torchvision's label."""

    def load_state_dict(self, *_: Any, **__: Any) -> None:
        """There is nothing to load."""

    def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        """One answer a picture."""
        return [self._answer(picture) for picture in pictures]

    def _answer(self, picture: Tensor) -> dict[str, Tensor]:
        objects = [[10.0, 5, 40, 45], [45, 9, 70, 50]]
        seen = [box for box in objects if picture[0, int(box[1]), int(box[0])] > 0.5]
        count = len(seen)
        return {
            "boxes": torch.tensor(seen),
            "labels": torch.ones(count).long(),
            "scores": torch.full((count,), 0.9),
        }


def test_exact_boxes_reach_everything(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "model.safetensors"
    meta = '{"classes": ["person"], "sizes": [64], "max_size": 128}'
    rival.save_file({"x": torch.zeros(1)}, weights, {"rival": meta})
    monkeypatch.setattr(rival, "build", lambda *_: Knowing())
    report = rival.evaluate(str(weights), data, "test")
    assert report["AP"] == 1.0 and report.settings.images == 3


def test_loss_that_is_not_finite(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = iter([1.0, math.nan])

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer, precision: str) -> float:
        optimizer.step()
        return next(losses)

    monkeypatch.setattr(rival, "_step", step)
    out = tmp_path / "model.safetensors"
    assert rival.main(["train", data, "--out", str(out), "--train", "train"]) == rival.DIVERGED
    assert "the loss of step 2 is nan; lower --lr" in capsys.readouterr().err and not out.exists()
