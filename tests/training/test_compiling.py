"""``train.compile``: the sizes a run compiles for, and a compiled run from beginning to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CLASSES, PICTURES, tiny_config, write_voc

import frcnn
from frcnn.config import Config
from frcnn.model import compiler
from frcnn.model.buckets import fitting, padded_sizes
from frcnn.model.compiled import Compiled
from frcnn.model.compiler import CompileError
from frcnn.model.detector import FasterRCNN, Parts
from frcnn.structures import Matches, RpnOutput, Targets, Trace
from frcnn.training.compiling import compile_training
from frcnn.training.feed import make_loaders
from frcnn.training.options import TrainOptions
from frcnn.training.plan import resolve_config
from frcnn.weights.checkpoint import load_checkpoint


def compiled_config(mode: str = "regional", **train: object) -> Config:
    config = tiny_config(compile=mode, **train)
    backbone = config.backbone.model_copy(update={"name": "test_byobnet"})
    roi = config.roi.model_copy(update={"dropout": 0.0})  # a compiled one draws other numbers
    return config.model_copy(update={"backbone": backbone, "roi": roi})


@pytest.mark.parametrize("jitter", [(1.0, 1.0), (0.5, 1.5)])
def test_sizes_hold_every_batch_of_the_run(voc: Path, jitter: tuple[float, float]) -> None:
    config = compiled_config(epochs=3)
    data = config.data.model_copy(update={"scale_jitter": jitter})
    config = config.model_copy(update={"data": data})
    train, _ = make_loaders(frcnn.open_dataset(voc, "train"), None, config)
    network = FasterRCNN(config, len(CLASSES))
    compile_training(network, config, train)
    compiled = network.compiled
    assert compiled is not None and compiled.training and compiled.images == 2
    assert compiled.sizes == ([(64, 96)] if jitter[0] == 1 else compiled.sizes) and len(compiled.sizes) <= 6
    for epoch in range(3):
        train.set_epoch(epoch)
        seen = [tuple(batch.images.pixels.shape[-2:]) for batch in train]
        planned = [size for part in train.plan(epoch) for size in padded_sizes([part], config.preprocess)]
        assert seen == planned
        assert all(fitting(size, compiled.sizes) for size in seen)


@pytest.mark.parametrize(
    ("asked", "found"), [(None, "none"), (False, "none"), (True, "regional"), ("step", "step")]
)
def test_option_and_key_are_the_same(asked: Any, found: str) -> None:
    assert resolve_config(None, TrainOptions(compile=asked), None).train.compile == found
    assert (
        resolve_config(None, TrainOptions(settings=(f"train.compile={found}",)), None).train.compile == found
    )


def test_without_a_compiler_nothing_is_written(
    voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nset CXX")

    monkeypatch.setattr(compiler.torch, "compile", broken)
    with pytest.raises(CompileError, match=r"\(InvalidCxxCompiler: No .* found\); .*leave out --compile$"):
        frcnn.train(voc, config=tiny_config(), compile=True, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_whole_step_with_replaced_parts_is_refused(voc: Path, tmp_path: Path) -> None:
    def match(rpn: RpnOutput, sizes: torch.Tensor, targets: Targets) -> Matches:
        raise AssertionError("nothing is trained")

    with pytest.raises(ValueError, match="part matcher is replaced"):
        frcnn.train(voc, config=tiny_config(), compile="step", parts=Parts(matcher=match), runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_gradient_that_cannot_be_compiled_is_one_sentence(
    voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As compilers do that make the gradients' kernels when they are first needed."""

    def refuse(_: torch.Tensor) -> None:
        raise torch._dynamo.exc.InternalTorchDynamoError("no kernel for it\nlong story")

    trace = Compiled.trace

    def refusing(self: Compiled, *given: Any) -> Trace:
        found = trace(self, *given)
        if found.losses is not None:
            for name in ("rpn_objectness", "roi_class"):
                getattr(found.losses, name).register_hook(refuse)
        return found

    monkeypatch.setattr("frcnn.model.compiled.torch.compile", lambda function, **_: function)
    monkeypatch.setattr("frcnn.training.run.check_compile", lambda *_: None)
    monkeypatch.setattr(Compiled, "trace", refusing)
    expected = r"compiled for 2 x 64x96 \(no kernel for it\); leave out --compile$"
    with pytest.raises(CompileError, match=expected):
        frcnn.train(voc, config=tiny_config(), compile=True, runs=tmp_path, forecast=False, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "ema"), [("regional", 0.9), ("step", 0.0)])
def test_a_compiled_run_trains_like_another_and_can_be_resumed(tmp_path: Path, mode: str, ema: float) -> None:
    voc = write_voc(tmp_path / "voc", {"train": PICTURES, "val": PICTURES[1:4]})  # 5 pictures: one batch of 1
    runs = tmp_path / "runs"
    config = compiled_config(mode, ema=ema)
    run = frcnn.train(voc, config=config, runs=runs, name=mode, forecast=False, progress=False)
    log = (run.folder / "log.txt").read_text()
    assert f"compiled 2 x 64x96{' with 8 objects' if mode == 'step' else ''}, first step after " in log
    assert "not compiled: 1 x 64x96" in log
    assert "(1 shape); 2 of 6 batches ran as without --compile" in (run.folder / "notes.txt").read_text()

    plain = compiled_config("none", ema=ema)
    other = frcnn.train(voc, config=plain, runs=runs, name="plain", forecast=False, progress=False)
    mine, theirs = (load_checkpoint(r.folder / "last.safetensors").state for r in (run, other))
    assert mine.keys() == FasterRCNN(plain, len(CLASSES)).state_dict().keys()
    apart = sum(float((mine[name] - theirs[name]).norm()) for name in mine)
    assert apart < 1e-3 * sum(float(value.norm()) for value in theirs.values())

    long = compiled_config(mode, ema=ema, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        _interrupted(voc, long, runs)
    again = frcnn.train(None, resume=runs / "cut", progress=False)
    assert "compiled 2 x 64x96" in (again.folder / "log.txt").read_text().split("resumed")[-1]


def _interrupted(voc: Path, config: Config, runs: Path) -> None:
    """A run whose validation after the first epoch is interrupted."""
    from frcnn.training.module import TrainingModule

    original = TrainingModule.on_train_epoch_start

    def stop(self: TrainingModule) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        original(self)

    TrainingModule.on_train_epoch_start = stop  # type: ignore[method-assign]
    try:
        frcnn.train(voc, config=config, runs=runs, name="cut", forecast=False, progress=False)
    finally:
        TrainingModule.on_train_epoch_start = original  # type: ignore[method-assign]
