"""Whole runs on a tiny data set: files, resume, interruption, early stop, non-finite losses, bad options."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from tiny import PICTURES, tiny_config, write_voc

from frcnn.config import Config
from frcnn.data.open import open_dataset
from frcnn.data.sample import DataError
from frcnn.evaluation.run import evaluate
from frcnn.model.losses import LossInputs, default_losses
from frcnn.model.parts import Parts
from frcnn.predict import Detector
from frcnn.settings import load_yaml
from frcnn.structures import Losses
from frcnn.training.callbacks import Interrupt, Recorder
from frcnn.training.forecast import MARGIN, Forecast
from frcnn.training.pictures import TrainData, choose_data
from frcnn.training.plan import raise_limits
from frcnn.training.run import Run, train
from frcnn.training.state import StateError, load_state
from frcnn.training.watch import TrainingStopped


def run(data: Path, runs: Path, config: Config | None = None, **options: object) -> Run:
    options.setdefault("forecast", False)
    if "resume" not in options:
        options["config"] = config or tiny_config()
    return train(data, runs=runs, device="cpu", progress=False, **options)


def losses_then(at: int, action: Callable[[Losses], Losses], config: Config) -> Parts:
    """The usual losses; at call number ``at`` (from 1) something else happens."""
    calls = 0

    def loss(inputs: LossInputs) -> Losses:
        nonlocal calls
        calls += 1
        result = default_losses(inputs, config.rpn, config.roi)
        return action(result) if calls == at else result

    return Parts(loss=loss)


def interrupting(number: int) -> Callable[[Losses], Losses]:
    def send(losses: Losses) -> Losses:
        os.kill(os.getpid(), number)
        return losses

    return send


def weights(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(str(path))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("images_per_second", "data_share")}
            for row in csv.DictReader(file)
        ]


def test_run_writes_its_folder(voc: Path, tmp_path: Path) -> None:
    result = run(voc, tmp_path, name="first", forecast=True)
    names = {p.name for p in result.folder.iterdir()}
    assert names == {
        "best.safetensors", "config.yaml", "evaluation.json", "last.ckpt", "last.safetensors", "log.txt",
        "metrics.csv", "notes.txt", "report.html", "run.json", "samples", "splits.json",
    }  # fmt: skip
    samples = {p.name for p in (result.folder / "samples").iterdir()}
    assert {"train-00.jpg", "train-07.jpg", "val-00.jpg", "val-02.jpg"} <= samples
    assert load_yaml(result.folder / "config.yaml") == tiny_config()
    with (result.folder / "metrics.csv").open() as file:
        losses = ("rpn_objectness", "rpn_box", "roi_class", "roi_box")
        assert file.readline().strip().split(",") == [
            "epoch", "step", "lr", "train_total", *(f"train_{name}" for name in losses),
            "train_tp", "train_tf", "train_fg", "train_bg", *(f"val_{name}" for name in losses),
            "val_total", "AP", "AP50", "images_per_second", "data_share",
        ]  # fmt: skip
    epochs = [r for r in rows(result.folder) if r["AP"]]
    assert [r["epoch"] for r in epochs] == ["1", "2"] and all(float(r["val_total"]) > 0 for r in epochs)
    log = (result.folder / "log.txt").read_text()
    for text in (
        "lr 0.02 @16 -> 0.0025 @2",
        "blue",
        "forecast:",
        "best anchor IoU",
        "1 background (kept)",
        "AP50",
        "  fg 0.",
        " bg 0.",
    ):
        assert text in log
    assert "trainable" in (result.folder / "notes.txt").read_text()
    assert result.report is not None and result.detector.thresholds == result.report.thresholds
    assert result.detector.classes == ("blue", "red")
    assert run(voc, tmp_path, name="first").folder.name == "first-2"


def test_stored_metrics_are_what_evaluation_finds(voc: Path, tmp_path: Path) -> None:
    result = run(voc, tmp_path, tiny_config(epochs=1))
    report = evaluate(Detector.load(result.folder / "best.safetensors"), open_dataset(voc), "val")
    stored = json.loads((result.folder / "evaluation.json").read_text())["metrics"]
    assert stored == pytest.approx(report.metrics) and stored["AP"] is not None


def test_forecast_leaves_no_trace(voc: Path, tmp_path: Path) -> None:
    config = tiny_config(epochs=1)
    with_it, without = run(voc, tmp_path, config, forecast=True), run(voc, tmp_path, config)
    assert equal(weights(with_it.folder / "last.safetensors"), weights(without.folder / "last.safetensors"))


@pytest.fixture(scope="module")
def whole(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(voc, tmp_path_factory.mktemp("whole"), tiny_config(epochs=4))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_resumed_run_equals_an_uninterrupted_one(voc: Path, tmp_path: Path, whole: Run, number: int) -> None:
    config = tiny_config(epochs=4)
    before = signal.getsignal(number)
    # 3 batches and 2 validation batches an epoch: call 12 is the second training batch of epoch 3
    parts = losses_then(12, interrupting(number), config)
    with pytest.raises(KeyboardInterrupt):
        run(voc, tmp_path, config, name="cut", parts=parts)
    assert signal.getsignal(number) == before
    cut = tmp_path / "cut"
    assert load_state(cut).epoch == 2 and load_state(cut).step == 6
    assert "interrupted at step 8" in (cut / "log.txt").read_text()
    assert rows(cut)[-1]["step"] == "8"  # beyond the state: dropped by the resumed run
    resumed = run(voc, tmp_path, resume=cut)
    assert resumed.folder == cut
    for name in ("last.safetensors", "best.safetensors"):
        assert equal(weights(cut / name), weights(whole.folder / name))
    assert rows(cut) == rows(whole.folder)
    a, b = load_state(cut), load_state(whole.folder)
    assert a.scheduler == b.scheduler and a.batches == b.batches == 12
    for key, value in a.optimizer["state"].items():
        assert torch.equal(value["momentum_buffer"], b.optimizer["state"][key]["momentum_buffer"])
    assert equal(a.network, b.network) and not equal(a.network, a.average)


def test_interrupted_first_epoch_can_be_resumed(voc: Path, tmp_path: Path) -> None:
    config = tiny_config(epochs=1)
    whole = run(voc, tmp_path, config, name="whole")
    with pytest.raises(KeyboardInterrupt):
        run(voc, tmp_path, config, name="cut", parts=losses_then(1, interrupting(signal.SIGINT), config))
    assert Detector.load(tmp_path / "cut" / "last.safetensors").classes == ("blue", "red")
    resumed = run(voc, tmp_path, resume=tmp_path / "cut")
    assert equal(weights(resumed.folder / "last.safetensors"), weights(whole.folder / "last.safetensors"))


def test_resume_refuses_what_differs(voc: Path, tmp_path: Path) -> None:
    config = tiny_config(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        run(voc, tmp_path, config, name="a", parts=losses_then(7, interrupting(signal.SIGINT), config))
    with pytest.raises(StateError, match=r"(?s)roi\.nms_iou: 0\.5 -> 0\.4\n.*train\.epochs: 2 -> 9"):
        run(voc, tmp_path, resume=tmp_path / "a", epochs=9, settings=("roi.nms_iou=0.4",))
    other = write_voc(tmp_path / "other", {"train": PICTURES[:3], "val": PICTURES[1:4]})
    with pytest.raises(DataError, match="not in"):
        run(other, tmp_path, resume=tmp_path / "a")
    moved = write_voc(tmp_path / "moved", {"train": [PICTURES[1], *PICTURES[1:]], "val": PICTURES[1:4]})
    with pytest.raises(StateError, match="not those the run was begun with"):
        run(moved, tmp_path, resume=tmp_path / "a")
    with pytest.raises(StateError, match="no run to resume"):
        run(voc, tmp_path, resume=tmp_path / "nothing")
    run(voc, tmp_path, resume=tmp_path / "a", settings=("data.workers=0",))
    with pytest.raises(StateError, match="the run is finished: 2 of 2"):
        run(voc, tmp_path, resume=tmp_path / "a")


def test_without_validation_the_last_weights_are_final(voc: Path, tmp_path: Path) -> None:
    result = run(voc, tmp_path, val="none")
    assert equal(weights(result.folder / "best.safetensors"), weights(result.folder / "last.safetensors"))
    assert result.report is None and result.metrics == {} and result.detector.thresholds is None
    assert not (result.folder / "evaluation.json").exists()
    assert "no validation" in (result.folder / "notes.txt").read_text()
    written = rows(result.folder)
    assert len(written) == 6 and not any("AP" in r or "val_total" in r for r in written)


def test_last_weights_are_the_average(voc: Path, tmp_path: Path) -> None:
    averaged = run(voc, tmp_path, tiny_config(ema=0.9), val="none")
    plain = run(voc, tmp_path, tiny_config(ema=0.0), val="none")
    a, b = load_state(averaged.folder), load_state(plain.folder)
    assert equal(a.network, b.network)  # the average only watches
    assert equal(weights(averaged.folder / "last.safetensors"), a.average) and not equal(a.average, a.network)
    assert equal(weights(plain.folder / "last.safetensors"), b.network)


def test_patience_stops_early(voc: Path, tmp_path: Path) -> None:
    result = run(voc, tmp_path, tiny_config(epochs=6, patience=1, lr=1e-6))
    assert int(rows(result.folder)[-1]["epoch"]) < 6
    assert "stopped early" in (result.folder / "notes.txt").read_text()


def test_non_finite_loss_stops_and_names_the_pictures(voc: Path, tmp_path: Path) -> None:
    config = tiny_config(epochs=4)
    parts = losses_then(7, lambda losses: replace(losses, roi_box=losses.roi_box * float("nan")), config)
    with pytest.raises(TrainingStopped, match=r"step 5 \(epoch 2\).*roi_box nan.*pictures: .*train00\d\.jpg"):
        run(voc, tmp_path, config, name="nan", parts=parts)
    content = json.loads((tmp_path / "nan" / "nan_step.json").read_text())
    assert content["step"] == 5 and content["losses"]["roi_box"] == "nan"
    assert len(content["pictures"]) in (1, 2) and content["pictures"][0]["path"].endswith(".jpg")
    state = load_state(tmp_path / "nan")
    assert state.epoch == 1 and all(v.isfinite().all() for v in state.network.values())


def test_non_finite_gradient_stops(voc: Path, tmp_path: Path) -> None:
    config = tiny_config(epochs=2)

    def endless(losses: Losses) -> Losses:  # sqrt has no slope at 0
        zero = losses.rpn_box * 0
        return replace(losses, rpn_box=zero.abs().sqrt())

    with pytest.raises(TrainingStopped, match="gradient norm nan"):
        run(voc, tmp_path, config, name="nan", parts=losses_then(2, endless, config))


def test_batches_of_only_background_train_finitely(tmp_path: Path) -> None:
    data = write_voc(tmp_path / "voc", {"train": [[], PICTURES[0], []]})
    result = run(data, tmp_path, tiny_config(epochs=2, batch=1), val="none")
    losses = rows(result.folder)
    assert all(0 < float(r["train_total"]) < 10 for r in losses)
    assert "0" in [r["train_rpn_box"] for r in losses]


def test_held_out_share_is_written_and_used_again(voc: Path, tmp_path: Path) -> None:
    data = write_voc(tmp_path / "voc", {"train": PICTURES * 2})
    config = tiny_config(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        parts = losses_then(9, interrupting(signal.SIGINT), config)
        run(data, tmp_path, config, name="a", parts=parts, val=0.3)
    splits = json.loads((tmp_path / "a" / "splits.json").read_text())["splits"]
    assert len(splits["val"]) >= 2 and len({*splits["train"], *splits["val"]}) == 10
    resumed = run(None, tmp_path, resume=tmp_path / "a")  # the data are remembered
    assert int(rows(resumed.folder)[-1]["epoch"]) == 2


def test_accumulation_steps_less_often(voc: Path, tmp_path: Path) -> None:
    result = run(voc, tmp_path, tiny_config(accumulate=2), val="none")
    state = load_state(result.folder)
    assert state.batches == 6 and state.step == 4 and state.scheduler["last_epoch"] == 4


def test_time_budget_limits_the_run(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frcnn.training.run.CLOSING_SECONDS", 0.0)
    batches, fitting = 3, 2.5
    step = 3600 * MARGIN / (batches * fitting)  # seconds, as if that had been measured
    measured = Forecast(step, 0.0, 0, (64, 96), torch.device("cpu"))
    monkeypatch.setattr("frcnn.training.run.forecast.measure_run", lambda *_: measured)
    result = run(voc, tmp_path, tiny_config(epochs=50), time="1h", val="none")
    assert "time: 2 epochs fit (" in (result.folder / "log.txt").read_text()
    assert int(rows(result.folder)[-1]["epoch"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "lite0-fpm"}, "did you mean 'lite0-fpn'"),
        ({"settings": ("train.lrr=1",)}, "did you mean 'train.lr'"),
        ({"train": "trian"}, 'did you mean "train"'),
        ({"val": "vall"}, 'did you mean "val"'),
        ({"time": "soon"}, "30m"),
        ({"device": "cuda:99"}, "GPUs that torch can use"),
        ({"device": "abc"}, "is not known"),
        ({"name": "a/b"}, "not the name of a folder"),
        ({"weights": "nowhere.safetensors"}, "no such model file"),
        ({"settings": ("train.precision=fp16",)}, "fp16 needs a GPU"),
    ],
)
def test_bad_options_cost_nothing(
    voc: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    values: dict[str, object] = {"device": "cpu", "progress": False, "forecast": False, **options}
    if "recipe" not in options and "weights" not in options:
        values["config"] = tiny_config()
    with pytest.raises(ValueError, match=message):
        train(voc, runs=tmp_path / "runs", **values)
    assert not (tmp_path / "runs").exists()


def test_unknown_option_is_named(voc: Path) -> None:
    with pytest.raises(TypeError, match="did you mean 'batch'"):
        train(voc, batc=3)


def test_missing_folder_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run(tmp_path / "nowhere", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_broken_picture_stops_the_run_by_name(tmp_path: Path) -> None:
    data = write_voc(tmp_path / "voc", {"train": PICTURES})
    whole = data / "JPEGImages" / "train001.jpg"
    whole.write_bytes(whole.read_bytes()[:700])
    with pytest.raises((TrainingStopped, DataError), match=r"train001\.jpg"):
        run(data, tmp_path / "runs", val="none")


def test_weights_of_other_classes_start_a_run(voc: Path, tmp_path: Path) -> None:
    first = run(voc, tmp_path, tiny_config(epochs=1), val="none")
    reds = [[o for o in picture if o[0] == "red"] for picture in PICTURES]
    data = write_voc(tmp_path / "reds", {"train": reds})
    model = first.folder / "best.safetensors"
    second = train(data, weights=model, epochs=1, val="none", runs=tmp_path, device="cpu", forecast=False)
    assert second.detector.config.preprocess.min_size == 64  # the configuration comes with the weights
    notes = (second.folder / "notes.txt").read_text()
    assert "heads re-initialised for 1 classes (was 2); rows kept for red" in notes


def cut_pictures(data: Path, numbers: tuple[int, ...]) -> None:
    """The header stays whole, so that only decoding finds it."""
    for number in numbers:
        path = data / "JPEGImages" / f"train{number:03}.jpg"
        path.write_bytes(path.read_bytes()[:700])


def skipping_config(**train: object) -> Config:
    config = tiny_config(**train)
    return config.model_copy(update={"data": config.data.model_copy(update={"on_bad_image": "skip"})})


def unread(data: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, *numbers: int) -> Run:
    """A run whose pictures break after the check."""
    from frcnn.training import run as module

    def then_cut(*arguments: Any) -> TrainData:
        chosen = choose_data(*arguments)
        cut_pictures(data, numbers)
        return chosen

    monkeypatch.setattr(module, "choose_data", then_cut)
    return run(data, runs, skipping_config(epochs=2), name="bad", val="none")


def test_a_skipped_picture_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_voc(tmp_path / "voc", {"train": PICTURES})
    result = unread(data, tmp_path, monkeypatch, 1)
    notes = (result.folder / "notes.txt").read_text()
    assert "epoch 1: 1 of 5 pictures could not be read" in notes and "train001.jpg" in notes
    assert "epoch 2: 1 of 5" in notes


def test_many_skipped_pictures_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_voc(tmp_path / "voc", {"train": PICTURES})
    with pytest.raises(TrainingStopped, match=r"epoch 1: 2 of .*train00\d\.jpg.*check DATA --decode"):
        unread(data, tmp_path, monkeypatch, 1, 2)
    assert load_state(tmp_path / "bad").epoch == 1  # the epoch is saved first


def test_limits_only_grow(voc: Path, tmp_path: Path) -> None:
    train_part = open_dataset(voc).subset("train")
    for given, wanted in ((1, 3), (3, 3), (100, 100)):
        config = tiny_config()
        config = config.model_copy(update={"roi": config.roi.model_copy(update={"max_dets": given})})
        raised, notes = raise_limits(config, train_part)
        assert raised.roi.max_dets == wanted and bool(notes) == (given < wanted)


def test_unknown_loss_is_a_dash(voc: Path, tmp_path: Path) -> None:
    said: list[str] = []
    journal = SimpleNamespace(advance=lambda _, text: said.append(text), has_bar=True)
    recorder = Recorder(cast(Any, None), cast(Any, journal), Interrupt())
    schedule = SimpleNamespace(epochs=2, steps=9)
    module = SimpleNamespace(
        task=SimpleNamespace(schedule=schedule), watch=SimpleNamespace(interval=20), validation=None,
        epoch=0, step=1,
    )  # fmt: skip
    recorder._progress(cast(Any, module))
    recorder._latest = 1.5
    recorder._progress(cast(Any, module))
    assert said == ["epoch 1/2  loss -", "epoch 1/2  loss 1.500"]


def test_one_late_device_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    journal = SimpleNamespace(note=notes.append)
    module = SimpleNamespace(step=3, task=SimpleNamespace(schedule=SimpleNamespace(steps=9)))
    for rank in (0, 1):
        asked: list[bool] = []

        def together(late: bool, all: bool, asked: list[bool] = asked) -> bool:
            asked.append(late)
            return True  # another device is late

        strategy = SimpleNamespace(reduce_boolean_decision=together)
        trainer = SimpleNamespace(strategy=strategy, should_stop=False, is_global_zero=rank == 0)
        recorder = Recorder(cast(Any, None), cast(Any, journal), Interrupt(), deadline=float("inf"))
        recorder._end_in_time(cast(Any, trainer), cast(Any, module))
        assert asked == [False] and trainer.should_stop
    assert notes == ["time budget reached at step 3 of 9: evaluating now"]


@pytest.mark.slow
def test_two_ranks_train_one_of_them_without_objects(tmp_path: Path) -> None:
    data = write_voc(tmp_path / "voc", {"train": [PICTURES[2], [], []], "val": PICTURES[1:4]})
    result = run(data, tmp_path, tiny_config(epochs=2, batch=1), devices=2)
    state = load_state(result.folder)
    assert state.step == state.batches == 4 and "AP50" in result.metrics
    assert all(v.isfinite().all() for v in state.network.values())
