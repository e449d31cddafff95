"""Steps of both sides: the same network, the same pictures, every room with its clock."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from frcnn.bench.agreement import share_matched
from frcnn.bench.child import answer
from frcnn.bench.floor import convolution_flops
from frcnn.bench.memory import measure_in_child
from frcnn.bench.phases import PHASES, seconds_by_phase
from frcnn.bench.pictures import decode_seconds, load_photos
from frcnn.bench.steps import OurInference, OurTraining, Step, TheirTraining, make_steps
from frcnn.bench.syncs import count_syncs
from frcnn.bench.twins import ARCHITECTURE, make_twins
from frcnn.bench.workload import Compilation, Contender, Side, Workload
from frcnn.config import PreprocessConfig
from frcnn.data.scenes.generate import write_scenes
from frcnn.data.scenes.shapes import CLASSES
from frcnn.weights.checkpoint import CheckpointError

CPU = torch.device("cpu")
TRAIN = Workload("train", "lite0", 64, 96, 2, small=True)
INFER = Workload("infer", "r50", 64, 96, 1, small=True)
OURS, THEIRS = Contender("frcnn", "fp32"), Contender("torchvision", "fp32")


@pytest.fixture(scope="module")
def training() -> dict[str, Step]:
    return make_steps(TRAIN, [OURS, THEIRS])


# ---- pictures


def test_no_contender_no_step() -> None:
    assert make_steps(TRAIN, []) == {}


def test_generated_pictures_fill_the_size_and_show_something() -> None:
    photos, classes = load_photos(replace(TRAIN, batch=3))
    assert classes == CLASSES
    assert [photo.pixels.shape for photo in photos] == [(64, 96, 3)] * 3
    for photo in photos:
        assert len(photo.labels) == len(photo.boxes) > 0
        assert (photo.boxes[:, 2:] > photo.boxes[:, :2]).all()
        assert (photo.boxes[:, 2:] <= (96, 64)).all() and (photo.boxes >= 0).all()


def test_pictures_of_a_data_set_repeat_where_they_are_few(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", {"train": 2})
    photos, classes = load_photos(replace(TRAIN, data=str(folder), batch=5))
    assert len(photos) == 5
    assert set(classes) <= set(CLASSES)
    assert photos[0].pixels.dtype == np.uint8 and photos[0].pixels.shape[0] >= 240


def test_a_data_set_without_objects_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    text = (
        "<annotation><filename>a.jpg</filename><size><width>40</width><height>40</height></size></annotation>"
    )
    (tmp_path / "a.xml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="no picture has a box"):
        load_photos(replace(TRAIN, data=str(tmp_path)))


@pytest.mark.parametrize("side", ["frcnn", "torchvision"])
def test_a_hundred_times_the_pixels_take_longer_to_decode(side: Side) -> None:
    spec = PreprocessConfig(min_size=640, max_size=960)
    small, large = (load_photos(replace(TRAIN, height=h, width=w))[0] for h, w in ((64, 96), (640, 960)))
    assert decode_seconds(large, side, spec) > decode_seconds(small, side, spec) > 0


# ---- the same network


def test_twins_have_the_same_features_and_rpn_outputs() -> None:
    photos, classes = load_photos(TRAIN)
    ours, theirs = make_twins(TRAIN, photos, classes)
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine = ours.model.fpn(ours.model.backbone(pixels))
        other = list(theirs.backbone(pixels).values())
        logits, deltas = ours.model.rpn_head(mine)
        their_logits, their_deltas = theirs.rpn.head(other)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))
    flat = torch.cat([each.permute(0, 2, 3, 1).flatten(1) for each in their_logits], 1)
    torch.testing.assert_close(logits, flat, rtol=1e-3, atol=1e-4)
    assert deltas.numel() == sum(each.numel() for each in their_deltas)


def test_twins_train_the_same_weights(training: dict[str, Step]) -> None:
    mine, other = training[OURS.name], training[THEIRS.name]
    assert isinstance(mine, OurTraining) and isinstance(other, TheirTraining)
    counts = [sum(p.numel() for p in s.model.parameters() if p.requires_grad) for s in (mine, other)]
    # torchvision's background has box deltas (of no use); ours has none
    assert counts[1] - counts[0] == 4 * (1024 + 1)


def test_a_step_learns_from_the_pictures(training: dict[str, Step]) -> None:
    for step in training.values():
        assert isinstance(step, OurTraining | TheirTraining)
        before = [p.detach().clone() for p in step.model.parameters() if p.requires_grad]
        step()
        after = [p for p in step.model.parameters() if p.requires_grad]
        assert step.loss is not None and 1 < float(step.loss.detach()) < 20
        assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) > len(before) // 2


@pytest.mark.parametrize("mode", ["regional", "step"])
def test_a_compiled_contender_has_a_network_of_its_own(
    mode: Compilation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # the real one takes minutes
    compiled = Contender("frcnn", "fp32", compiled=mode)
    steps = make_steps(TRAIN, [OURS, compiled])
    plain, step = steps[OURS.name], steps[compiled.name]
    assert isinstance(plain, OurTraining) and isinstance(step, OurTraining)
    assert plain.model.compiled is None
    step()
    assert step.model.compiled is not None
    assert (step.model.compiled.mode, step.model.compiled.inside) == (mode, 1)
    assert step.loss is not None and 1 < float(step.loss.detach()) < 20


def test_a_gpus_training_is_that_of_r50() -> None:
    """At a size for a CPU; both sides start from the same weights and see the same pictures."""
    steps = make_steps(replace(TRAIN, network="r50", batch=1), [OURS, THEIRS])
    for step in steps.values():
        step()
        assert isinstance(step, OurTraining | TheirTraining)
        assert step.loss is not None and 1 < float(step.loss.detach()) < 20


# ---- where the time goes


@pytest.mark.parametrize("contender", [OURS, THEIRS])
def test_every_phase_of_training_is_seen(contender: Contender, training: dict[str, Step]) -> None:
    found = seconds_by_phase(training[contender.name], CPU, 1)
    expected = set(PHASES) - {"decode", "post-processing"}
    assert set(found) - {"post-processing"} == expected
    assert min(found[name] for name in ("backbone", "heads", "backward", "RoIAlign", "matching")) > 0


def test_a_cpu_has_no_host_syncs_to_count() -> None:
    assert count_syncs(lambda: None, CPU) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_host_syncs_are_counted() -> None:
    device = torch.device("cuda")
    values = torch.ones(3, device=device)
    assert count_syncs(lambda: values + 1, device) == 0
    assert count_syncs(lambda: (values.sum().item(), values.nonzero()), device) == 2


# ---- the floor


def test_every_convolution_of_a_step_is_counted_once_in_each_pass(training: dict[str, Step]) -> None:
    step = training[THEIRS.name]
    assert isinstance(step, TheirTraining)
    seen: list[int] = []

    def note(layer: nn.Conv2d, _: object, made: Tensor) -> None:
        seen.append(2 * made.numel() * layer.weight[0].numel())

    layers = [module for module in step.model.modules() if isinstance(module, nn.Conv2d)]
    assert any(layer.groups > 1 for layer in layers)
    hooks = [layer.register_forward_hook(note) for layer in layers]
    counted = convolution_flops(step)
    for hook in hooks:
        hook.remove()
    assert counted == 3 * sum(seen) - seen[0]  # pixels have no gradient


# ---- inference


def test_formats_of_a_detector_do_not_share_what_they_pack() -> None:
    low = Contender("frcnn", "bf16")
    steps = make_steps(INFER, [OURS, low])
    one, other = steps[OURS.name], steps[low.name]
    assert isinstance(one, OurInference) and isinstance(other, OurInference)
    assert one.detector.model is not other.detector.model
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.detector.model.parameters(), other.detector.model.parameters(), strict=True)
    )


@pytest.mark.slow
def test_both_sides_find_the_same_and_something() -> None:
    steps = make_steps(INFER, [OURS, THEIRS])
    share, total = share_matched(steps[OURS.name](), steps[THEIRS.name]())
    assert total > 20
    assert share > 0.98
    for contender in (OURS, THEIRS):
        found = seconds_by_phase(steps[contender.name], CPU, 1)
        assert set(found) >= {
            *("resize", "transfer", "backbone", "pyramid", "RPN", "proposals", "RoIAlign", "heads"),
            "post-processing",
        }


@pytest.mark.slow
def test_weights_of_a_user(tmp_path: Path) -> None:
    photos, classes = load_photos(INFER)
    _, theirs = make_twins(INFER, photos, classes)
    file = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), file)
    ours, again = make_twins(replace(INFER, weights=str(file)), photos, classes)
    assert len(ours.classes) == 90
    assert {m.eps for m in again.modules() if "FrozenBatchNorm" in type(m).__name__} == {0.0}
    torch.save({"a": torch.ones(1)}, file)
    with pytest.raises(CheckpointError, match=f"no weights of torchvision's {ARCHITECTURE}"):
        make_twins(replace(INFER, weights=str(file)), photos, classes)


@pytest.mark.slow
def test_a_child_measures_a_step_and_matching() -> None:
    order = {"workload": TRAIN.to_dict(), "contender": {"side": "frcnn", "format": "fp32"}}
    growth = answer(order)["bytes"]
    assert growth is None or growth > 1_000_000


@pytest.mark.slow
def test_matching_2000_objects_takes_less_than_512_mb() -> None:
    few, many = (measure_in_child({"matching": "frcnn", "objects": n})["bytes"] for n in (200, 2000))
    if many is not None:
        assert many < 512_000_000 and many < few + 50_000_000  # objects pass in small parts
