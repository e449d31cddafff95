"""Compiling changes no number, and nothing is compiled more than once for a shape.

The quick tests make the graphs and run them by plain PyTorch (``aot_eager``); the slow ones compile.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from small import batch_of, build, change, small, targets_of
from torch import Tensor, nn
from torch._dynamo.utils import counters

from frcnn.model.buckets import MOST_SIZES
from frcnn.model.compiled import Compiled, Mode, check_compile, compile_detector
from frcnn.model.compiler import CompileError, check_compiler
from frcnn.model.detector import FasterRCNN, detect
from frcnn.model.parts import Parts
from frcnn.model.postprocess import Limits
from frcnn.structures import Detections, ImageBatch, Losses, Noise, Targets

SIZE = (64, 96)
PLAIN = "aot_eager"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def tiny(norm: str = "frozen", cascade: tuple[float, ...] = ()) -> FasterRCNN:
    """The default recipe with the smallest of backbones, which compiles in little time."""
    config = change(small("lite0-fpn"), backbone={"name": "test_byobnet", "norm": norm})
    return build(change(config, fpn={"channels": 16}, roi={"cascade": cascade}))


def targets(n: int, count: int = 2) -> Targets:
    objects = [((4.0 + i % 7, 4, 50, 40 + i % 5), i % 3) for i in range(count)]
    return targets_of([objects] * n)


def learn(
    model: FasterRCNN, batch: ImageBatch, objects: Targets, noise: Noise | None = None
) -> tuple[Losses, list[Tensor | None]]:
    model.zero_grad()
    losses = model(batch, objects, noise or model.draw_noise(batch, objects, 0)).losses
    losses.total.backward()
    return losses.detach(), [p.grad for p in model.parameters()]


def find(model: FasterRCNN, batch: ImageBatch, limits: Limits | None = None) -> Detections:
    with torch.inference_mode():
        return detect(model, batch, limits)


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def assert_equal_detections(found: Detections, expected: Detections, pixels: float, scores: float) -> None:
    assert expected.valid.any()
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=pixels)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=scores)
    assert torch.equal(found.labels, expected.labels) and torch.equal(found.valid, expected.valid)


@pytest.mark.parametrize(
    ("mode", "cascade", "count"),
    [("regional", (), 2), ("regional", (0.6,), 2), ("step", (0.6,), 1)],  # heads share a graph
)
def test_the_graphs_find_and_learn_the_same(mode: Mode, cascade: tuple[float, ...], count: int) -> None:
    model = tiny(cascade=cascade)
    batch = batch_of(model.config, [SIZE, (60, 90)])
    expected = find(model, batch)
    compiled = compile_detector(model, mode, backend=PLAIN)
    assert_equal_detections(find(model, batch), expected, 1e-3, 1e-5)
    assert compiled.inside == 1 and len(compiled.seconds) == 1
    assert graphs() == count

    model.compiled = None
    losses, gradients = learn(model, batch, targets(2))
    compiled = compile_detector(model, mode, training=True, backend=PLAIN)
    again, same = learn(model, batch, targets(2))
    assert compiled.inside == 1
    torch.testing.assert_close(again.as_dict(), losses.as_dict())
    for mine, theirs in zip(same, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_the_time_of_a_first_step_holds_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that is moved by hand: 3 s in the backward pass."""
    now = [100.0]
    monkeypatch.setattr("frcnn.model.compiled.time.perf_counter", lambda: now[0])
    model = tiny()
    compiled = compile_detector(model, training=True, backend=PLAIN)
    batch = batch_of(model.config, [SIZE])
    for _ in range(2):
        learn(model, batch, targets(1))
        assert compiled.news() == []
        now[0] += 3.0
        compiled.stepped()
        assert list(compiled.seconds.values()) == [3.0]
        if now[0] == 103.0:
            assert compiled.news() == ["compiled 1 x 64x96, first step after 3 s (regional)"]
    assert compiled.summary() == "compiled in 3 s (1 shape)" and compiled.news() == []


@pytest.mark.parametrize("mode", ["regional", "step"])
def test_limits_of_a_caller_hold(mode: Mode) -> None:
    model = tiny()
    batch = batch_of(model.config, [SIZE])
    wanted = [
        Limits(score=0.2, max_dets=3),
        Limits(floors=torch.tensor([0.1, 0.9, 0.2]), max_dets=4),
        Limits(candidates=5),
    ]
    expected = [find(model, batch, limits) for limits in wanted]
    compile_detector(model, mode, backend=PLAIN)
    for limits, result in zip(wanted, expected, strict=True):
        assert_equal_detections(find(model, batch, limits), result, 1e-3, 1e-5)


@pytest.mark.parametrize("mode", ["regional", "step"])
def test_random_shapes_compile_no_more_than_their_buckets(mode: Mode) -> None:
    model = tiny()
    generator = torch.Generator().manual_seed(0)
    sizes = [(64, 96), (96, 96)]
    compiled = compile_detector(model, mode, training=True, images=2, sizes=sizes, backend=PLAIN)
    for _ in range(12):
        h, w = (int(v) for v in torch.randint(20, 97, (2,), generator=generator))
        batch = batch_of(model.config, [(h, w), (20, 20)])
        count = int(torch.randint(0, 30, (1,), generator=generator))
        learn(model, *compiled.fit(batch, targets(2, count)))
    assert compiled.inside == 12 and compiled.outside == 0
    assert len(compiled.seconds) == {"regional": 2, "step": 4}[mode]  # objects: 8 and 32
    assert graphs() == {"regional": 3, "step": 4}[mode]  # the box head sees as many RoIs in either size
    torch._dynamo.config.error_on_recompile = True
    try:
        learn(model, *compiled.fit(batch_of(model.config, [(50, 33), (20, 20)]), targets(2)))
    finally:
        torch._dynamo.config.error_on_recompile = False


def test_other_shapes_run_as_without_and_that_is_said_once() -> None:
    model = tiny()
    compiled = compile_detector(model, backend=PLAIN)
    assert compiled.summary() == "compiled in 0 s (0 shapes)"
    for i in range(MOST_SIZES + 3):
        batch = batch_of(model.config, [(32 * (i + 1), 32)])
        expected = model.trace(batch).detections
        assert expected is not None
        with torch.no_grad():
            torch.testing.assert_close(detect(model, batch).boxes, expected.boxes, rtol=0, atol=1e-3)
    detect(model, batch_of(model.config, [(32, 32)] * 2))  # another number of pictures
    assert len(compiled.seconds) == compiled.inside == MOST_SIZES and compiled.outside == 4
    news = compiled.news()
    assert [line.partition(" ")[0] for line in news] == ["compiled"] * MOST_SIZES + ["not"]
    assert news[-1].startswith("not compiled: 1 x 224x32; compiled are batches of 1 in the sizes 32x32, ")
    assert compiled.news() == []
    assert compiled.summary().endswith(f"({MOST_SIZES} shapes); 4 of 10 batches ran as without --compile")


def test_the_expected_sizes_are_compiled_where_none_were_named() -> None:
    model = tiny()
    compiled = compile_detector(model, backend=PLAIN)
    compiled.expect({}, 2)
    assert (compiled.sizes, compiled.images) == ([], 2)
    compiled.expect({(64, 96): 1}, 4)  # the first word holds
    assert (compiled.sizes, compiled.images) == ([], 2)
    named = compile_detector(model, sizes=[(32, 32)], backend=PLAIN)
    named.expect({(64, 96): 1}, 4)
    assert named.sizes == [(32, 32)]
    free = compile_detector(model, backend=PLAIN)
    free.expect({(64, 96): 1, (32, 32): 5}, 4)
    assert (free.sizes, free.images) == ([(32, 32), (64, 96)], 4)


def test_more_sizes_than_can_be_compiled_are_refused() -> None:
    with pytest.raises(ValueError, match="7 padded sizes to compile for; give at most 6"):
        compile_detector(tiny(), sizes=[(32 * i, 32) for i in range(1, 8)], backend=PLAIN)


def test_detection_is_not_compiled_for_training_and_the_other_way_round() -> None:
    model = tiny()
    batch, objects = batch_of(model.config, [SIZE]), targets(1)
    compiled = compile_detector(model, training=True, backend=PLAIN)
    find(model, batch)
    with torch.inference_mode():  # validation: losses and detections
        model(batch, objects, model.draw_noise(batch, objects, 0), detect=True)
    assert (compiled.inside, compiled.outside, graphs()) == (0, 0, 0)
    compiled = compile_detector(model, backend=PLAIN)
    learn(model, batch, objects)
    assert compiled.fit(batch, objects) == (batch, objects)
    assert (compiled.inside, compiled.outside, graphs()) == (0, 0, 0)


def test_names_of_weights_stay_and_a_copy_is_not_compiled() -> None:
    model = tiny()
    names = list(model.state_dict())
    compile_detector(model, backend=PLAIN)
    find(model, batch_of(model.config, [SIZE]))
    assert list(model.state_dict()) == names
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.compiled is None and list(other.state_dict()) == names
    assert isinstance(model.compiled, Compiled)


def test_changed_weights_are_seen() -> None:
    model = tiny()
    batch = batch_of(model.config, [SIZE])
    compile_detector(model, backend=PLAIN)
    before = find(model, batch)
    model.load_state_dict({k: v * 1.5 for k, v in model.state_dict().items()})
    after, count = find(model, batch), graphs()
    expected = model.trace(batch).detections
    assert expected is not None and not torch.equal(after.scores, before.scores)
    assert_equal_detections(after, expected.detach(), 1e-2, 1e-4)
    assert graphs() == count == 2


class Head(nn.Module):
    """Looks at its input from the host, as a compiled part could not."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classes, self.deltas = nn.Linear(channels, classes + 1), nn.Linear(channels, 4)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        mean = pooled.mean((2, 3)) * float(pooled.sum() < float("inf"))
        return self.classes(mean), self.deltas(mean)[:, None]


class Rpn(nn.Module):
    """The same for the first stage."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(channels, anchors * 5, 1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        flat = [self.out(f * float(f.sum() < float("inf"))).permute(0, 2, 3, 1).flatten(1) for f in features]
        values = torch.cat(flat, 1).unflatten(1, (-1, 5))
        return values[..., 0], values[..., 1:]


@pytest.mark.parametrize(
    "parts", [Parts(box_head=Head), Parts(rpn_head=Rpn), Parts(rpn_head=Rpn, box_head=Head)]
)
def test_replaced_parts_are_left_as_they_are(parts: Parts) -> None:
    model = FasterRCNN(tiny().config, 3, parts).eval()
    batch = batch_of(model.config, [SIZE])
    expected = find(model, batch, Limits(score=0.01))
    compiled = compile_detector(model, backend=PLAIN)
    assert_equal_detections(find(model, batch, Limits(score=0.01)), expected, 1e-3, 1e-5)
    assert compiled.inside == 1 and graphs() == 2 - (parts.box_head is not None)
    for function in (compile_detector, check_compile):
        with pytest.raises(ValueError, match=r"part \w+ is replaced .*'regional'"):
            function(model, "step")


def test_a_graph_that_cannot_be_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    monkeypatch.setattr(model.backbone, "forward", lambda pixels: [pixels * float(pixels.sum())] * 4)
    compile_detector(model, backend=PLAIN)
    with pytest.raises(
        CompileError, match=r"cannot be compiled for 1 x 64x96 \(.*leave out --compile$"
    ) as error:
        find(model, batch_of(model.config, [SIZE]))
    assert "\n" not in str(error.value)


def test_without_a_compiler_there_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "from frcnn.model.compiler import CompileError, check_compiler\n"
        "try:\n    check_compiler('cpu')\nexcept CompileError as error:\n    print('said:', error)"
    )
    environment = {**os.environ, "CXX": str(tmp_path / "none"), "PATH": "", "CUDA_VISIBLE_DEVICES": ""}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("said: torch.compile does not work on cpu here (")
    assert "it needs a C++ compiler" in done.stdout and done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_compiler_of_this_machine_works() -> None:
    check_compiler("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lite0-fpn", "r50-fpn"])
@pytest.mark.parametrize("mode", ["regional", "step"])
def test_compiled_detections_equal_the_others(name: str, mode: Mode) -> None:
    model = build(small(name, backbone={"weights": "none", "norm": "frozen"}))
    batch = batch_of(model.config, [SIZE, (60, 90)])
    expected = find(model, batch)
    compiled = compile_detector(model, mode)
    assert_equal_detections(find(model, batch), expected, 0.02, 1e-4)
    assert compiled.inside == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "norm"), [("regional", "frozen"), ("step", "frozen"), ("regional", "batch")]
)
@pytest.mark.parametrize("low", [False, True])
def test_compiled_steps_learn_the_same(mode: Mode, norm: str, low: bool) -> None:
    model = tiny(norm=norm).train()
    batch, objects = batch_of(model.config, [SIZE] * 2), targets(2)
    other = copy.deepcopy(model)
    compiled = compile_detector(model, mode, training=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        losses, gradients = learn(other, batch, objects)
        again, same = learn(model, batch, objects)
    assert compiled.inside == 1
    tolerance = 0.05 if low else 1e-4
    torch.testing.assert_close(again.as_dict(), losses.as_dict(), rtol=tolerance, atol=tolerance)
    mine, theirs = (torch.cat([g.flatten() for g in part if g is not None]) for part in (same, gradients))
    assert float((mine - theirs).norm() / theirs.norm()) < (0.2 if low else 1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["regional", "step"])
def test_on_a_gpu_it_finds_the_same(mode: Mode) -> None:
    """``regional`` by CUDA graphs, which the calls after the first replay."""
    model = tiny().cuda()
    batches = [batch_of(model.config, [SIZE], seed).to("cuda") for seed in range(4)]
    expected = [find(model, batch) for batch in batches]
    compile_detector(model, mode, graphs=mode == "regional")
    for batch, result in zip(batches, expected, strict=True):
        assert_equal_detections(find(model, batch), result, 0.02, 1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["regional", "step"])
def test_on_a_gpu_it_learns_the_same_and_waits_nowhere(mode: Mode) -> None:
    model = tiny().cuda()
    batches = [batch_of(model.config, [SIZE, (60, 90)], seed).to("cuda") for seed in range(4)]
    objects = targets(2).to("cuda")
    expected = [learn(model, batch, objects) for batch in batches]
    compile_detector(model, mode, training=True)
    for i, (batch, (losses, gradients)) in enumerate(zip(batches, expected, strict=True)):
        noise = model.draw_noise(batch, objects, 0)
        torch.cuda.set_sync_debug_mode("error" if i > 1 else "default")  # the first two compile and record
        try:
            again, same = learn(model, batch, objects, noise)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(again.as_dict(), losses.as_dict(), rtol=1e-3, atol=1e-4)
        for mine, theirs in zip(same, gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-4)
