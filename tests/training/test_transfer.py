from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_config

from frcnn.model.detector import FasterRCNN
from frcnn.predict import Detector
from frcnn.training.options import TrainOptions
from frcnn.training.plan import resolve_config
from frcnn.training.transfer import start_from
from frcnn.weights.checkpoint import CheckpointError


def saved(path: Path, classes: tuple[str, ...], **roi: object) -> tuple[Path, FasterRCNN]:
    config = tiny_config()
    config = config.model_copy(update={"roi": config.roi.model_copy(update=roi)})
    network = FasterRCNN(config, len(classes))
    Detector(network, config, classes).save(path)
    return path, network


def test_same_classes_load_everything(tmp_path: Path) -> None:
    path, old = saved(tmp_path / "a.safetensors", ("a", "b"))
    new = FasterRCNN(tiny_config(), 2)
    line = start_from(new, ("a", "b"), path)
    assert all(torch.equal(v, old.state_dict()[k]) for k, v in new.state_dict().items())
    count = len(new.state_dict())
    assert f"{count}/{count} tensors loaded" in line and "re-init" not in line


def test_other_classes_begin_anew_and_known_ones_keep_their_rows(tmp_path: Path) -> None:
    path, old = saved(tmp_path / "a.safetensors", ("a", "b", "c"))
    new = FasterRCNN(tiny_config(), 2)
    fresh = {k: v.clone() for k, v in new.state_dict().items()}
    line = start_from(new, ("x", "b"), path)
    count = len(fresh)
    assert "heads re-initialised for 2 classes (was 3); rows kept for b" in line
    assert f"{count - 12}/{count} tensors loaded" in line  # weights and biases of two layers in three heads
    mine, theirs = new.state_dict(), old.state_dict()
    logits, deltas = "box_head.classes.weight", "box_head.deltas.weight"
    assert torch.equal(mine[logits][1], theirs[logits][1]) and torch.equal(mine[logits][2], theirs[logits][3])
    assert torch.equal(mine[logits][0], fresh[logits][0])
    assert torch.equal(mine[deltas][4:8], theirs[deltas][4:8])
    assert torch.equal(mine[deltas][:4], fresh[deltas][:4])
    last = "later_heads.1.classes.weight"
    assert torch.equal(mine[last][1], theirs[last][1]) and torch.equal(mine[last][2], theirs[last][3])
    heads = ("box_head.", "later_heads.")
    others = [k for k in mine if not (k.startswith(heads) and k.split(".")[-2] in ("classes", "deltas"))]
    assert {"rpn_head.objectness.weight", "later_heads.1.trunk.fc6.weight"} < set(others)
    assert all(torch.equal(mine[k], theirs[k]) for k in others)


def test_same_names_in_another_order_follow_the_names(tmp_path: Path) -> None:
    path, old = saved(tmp_path / "a.safetensors", ("a", "b"))
    new = FasterRCNN(tiny_config(), 2)
    start_from(new, ("b", "a"), path)
    rows, theirs = new.state_dict()["box_head.classes.bias"], old.state_dict()["box_head.classes.bias"]
    assert torch.equal(rows, theirs[[1, 0, 2]])


def test_class_agnostic_boxes_are_kept(tmp_path: Path) -> None:
    path, old = saved(tmp_path / "a.safetensors", ("a", "b"), box_regression="agnostic")
    new = FasterRCNN(old.config, 5)
    start_from(new, ("v", "w", "x", "y", "z"), path)
    name = "box_head.deltas.weight"
    assert torch.equal(new.state_dict()[name], old.state_dict()[name])


def test_any_other_difference_is_an_error(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "a.safetensors", ("a", "b"), hidden=24)
    new = FasterRCNN(tiny_config(), 2)
    before = {k: v.clone() for k, v in new.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"box_head\.trunk\.fc6\.weight is \(24, \d+\), not \(32, \d+\)"
    ):
        start_from(new, ("a", "b"), path)
    assert all(torch.equal(v, before[k]) for k, v in new.state_dict().items())


@pytest.mark.parametrize(
    ("mine", "expected"),
    [
        ({"norm": "auto"}, ("frozen", 0.0, "theirs.pth")),
        ({"norm": "batch", "norm_eps": 1e-3}, ("batch", 1e-3, "theirs.pth")),
        ({"norm": "auto", "weights": "mine.pth"}, ("frozen", 0.0, "mine.pth")),
        ({"norm": "auto", "name": "resnet18"}, ("auto", None, "none")),
    ],
    ids=["open", "decided", "own weights", "another backbone"],
)
def test_what_is_left_open_about_the_norm_comes_with_the_weights(
    tmp_path: Path, mine: dict[str, object], expected: tuple[object, ...]
) -> None:
    config = tiny_config()
    norm = {"norm": "frozen", "norm_eps": 0.0}
    built = config.model_copy(update={"backbone": config.backbone.model_copy(update=norm)})
    network = FasterRCNN(built, 1)
    stored = built.model_copy(
        update={"backbone": built.backbone.model_copy(update={"weights": "theirs.pth"})}
    )
    Detector(network, stored, ("a",)).save(tmp_path / "a.safetensors")
    asked = config.model_copy(update={"backbone": config.backbone.model_copy(update=mine)})
    found = resolve_config(
        None, TrainOptions(config=asked, weights=tmp_path / "a.safetensors"), None
    ).backbone
    assert (found.norm, found.norm_eps, found.weights) == expected
