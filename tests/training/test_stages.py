"""Stages apart: runs that keep a stage, take one from a file, learn from given proposals, count steps."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny import PICTURES, tiny_config, write_voc

from frcnn.cli import run as command
from frcnn.config import Config
from frcnn.data.open import open_dataset
from frcnn.data.proposals import attach, read, write
from frcnn.data.sample import DataError
from frcnn.evaluation.report import Report
from frcnn.evaluation.run import evaluate
from frcnn.model.losses import LossInputs, default_losses
from frcnn.model.parts import Parts
from frcnn.predict import Detector
from frcnn.settings import ConfigError, load_yaml
from frcnn.structures import Losses
from frcnn.training.options import TrainOptions
from frcnn.training.plan import resolve_config
from frcnn.training.run import Run, train
from frcnn.training.state import StateError, load_state
from frcnn.training.transfer import take_rpn
from frcnn.weights.checkpoint import CheckpointError


def run(data: Path | None, runs: Path, config: Config | None = None, **options: object) -> Run:
    options.setdefault("forecast", False)
    if "resume" not in options:
        options["config"] = config or tiny_config()
    return train(data, runs=runs, device="cpu", progress=False, **options)


def proposals_alone(**train: object) -> Config:
    return tiny_config(**train).model_copy(update={"detector": "rpn", "recipe": "tiny-rpn"})


def changed(config: Config, section: str, **values: object) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def weights(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(str(path))


def parts_moved(a: Path, b: Path) -> set[str]:
    """First parts of the names of the tensors that differ between two model files."""
    one, other = weights(a), weights(b)
    return {k.split(".")[0] for k in one.keys() & other.keys() if not torch.equal(one[k], other[k])}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stopped_at(call: int, config: Config) -> Parts:
    """The usual losses; at call number ``call`` (from 1) a signal asks the run to end."""
    calls = 0

    def loss(inputs: LossInputs) -> Losses:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGINT)
        return default_losses(inputs, config.rpn, config.roi)

    return Parts(loss=loss)


def made(path: Path, data: Path, boxes: Callable[[np.ndarray], np.ndarray] = lambda b: b) -> Path:
    """A proposals file of the objects of every picture, and of one background box each."""
    dataset = open_dataset(data)
    samples = [dataset[i] for i in range(len(dataset))]
    found = [np.concatenate([boxes(s.boxes), [[0, 0, 20, 20]]]).astype(np.float32) for s in samples]
    write(path, [s.path for s in samples], [(b, np.linspace(1, 0, len(b))) for b in found])
    return path


def known(report: Report) -> dict[str, float]:
    """Its metrics that have a value: there is no medium and no large object here."""
    return {k: v for k, v in report.metrics.items() if v is not None}


@pytest.fixture(scope="module")
def model(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model of two stages."""
    return run(voc, tmp_path_factory.mktemp("model"), tiny_config(epochs=1)).folder / "last.safetensors"


# Freezing


@pytest.mark.parametrize(
    ("freeze", "moved"),
    [
        (("rpn",), {"backbone", "fpn", "box_head", "later_heads"}),
        (("backbone", "rpn"), {"box_head", "later_heads"}),
    ],
)
def test_a_frozen_stage_is_that_of_the_weights_to_the_end(
    voc: Path, tmp_path: Path, model: Path, freeze: tuple[str, ...], moved: set[str]
) -> None:
    config = changed(tiny_config(epochs=1), "backbone", norm="batch")
    result = run(voc, tmp_path, config, weights=run(voc, tmp_path, config).folder / "last.safetensors",
                 freeze=freeze, name="next")  # fmt: skip
    start = tmp_path / "tiny" / "last.safetensors"
    for name in ("last.safetensors", "best.safetensors"):
        assert parts_moved(start, result.folder / name) == moved
    assert load_yaml(result.folder / "config.yaml").train.freeze == freeze
    assert f"stages frozen: {', '.join(freeze)};" in (result.folder / "notes.txt").read_text()
    row = rows(result.folder)[-1]
    for part in ("train", "val"):
        total = float(row[f"{part}_roi_class"]) + float(row[f"{part}_roi_box"])
        assert (
            float(row[f"{part}_total"]) == pytest.approx(total, rel=1e-4)
            and float(row[f"{part}_rpn_box"]) > 0
        )
    assert Detector.load(result.folder).predict if result.folder.is_file() else True
    detector = Detector.load(result.folder / "best.safetensors")
    assert len(detector.predict(voc / "JPEGImages" / "val000.jpg", score=0.0)) == 1


def test_a_resumed_run_stays_frozen_and_equal(voc: Path, tmp_path: Path, model: Path) -> None:
    config = tiny_config(epochs=2)
    options: dict[str, object] = {"weights": model, "freeze": "rpn"}
    whole = run(voc, tmp_path, config, name="whole", **options)
    with pytest.raises(KeyboardInterrupt):  # 3 batches and 2 validation batches an epoch
        run(voc, tmp_path, config, name="cut", parts=stopped_at(7, config), **options)
    resumed = run(None, tmp_path, resume=tmp_path / "cut")
    a, b = (weights(f / "last.safetensors") for f in (whole.folder, resumed.folder))
    assert all(torch.equal(v, b[k]) for k, v in a.items())
    assert parts_moved(model, resumed.folder / "last.safetensors") == {
        "backbone", "fpn", "box_head", "later_heads",
    }  # fmt: skip


def test_what_a_run_held_fast_is_not_passed_on_with_its_weights(
    voc: Path, tmp_path: Path, model: Path
) -> None:
    held = run(
        voc, tmp_path, tiny_config(epochs=1, freeze=("backbone",), parameters="rpn_head"), weights=model
    )
    again = resolve_config(None, TrainOptions(weights=held.folder / "last.safetensors"), None)
    assert again.recipe == "tiny" and (again.train.freeze, again.train.parameters) == ((), "all")
    assert "train.parameters rpn_head: " in (held.folder / "notes.txt").read_text()


def test_random_weights_that_are_frozen_are_noted(voc: Path, tmp_path: Path) -> None:
    result = run(voc, tmp_path, tiny_config(epochs=1, freeze=("backbone",)), val="none")
    notes = (result.folder / "notes.txt").read_text()
    assert "frozen with random weights" in notes and "starts from random weights" not in notes


def test_random_weights_are_noted(voc: Path, tmp_path: Path, model: Path) -> None:
    new = run(voc, tmp_path, tiny_config(epochs=1), val="none")
    assert "the backbone starts from random weights" in (new.folder / "notes.txt").read_text()
    begun = run(voc, tmp_path, tiny_config(epochs=1), val="none", weights=model)
    assert "random weights" not in (begun.folder / "notes.txt").read_text()


# Weights of one stage


def test_the_rpn_of_another_model(voc: Path, tmp_path: Path, model: Path) -> None:
    result = run(voc, tmp_path, tiny_config(epochs=1, seed=5), rpn_weights=model, freeze="rpn", val="none")
    assert f"rpn: 6/6 tensors loaded from {model}" in (result.folder / "notes.txt").read_text()
    assert "rpn_head" not in parts_moved(model, result.folder / "last.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("fpn", {"channels": 8}), r"rpn_head\.conv\.0\.weight is \(16, 16, 3, 3\) in the file, "),
        (("anchors", {"ratios": (1.0, 2.0, 3.0)}), r"anchors\.ratios \(0\.5, 1\.0, 2\.0\) in the "),
        (("rpn", {"depth": 2}), r"rpn_head\.conv\.2\.weight is missing"),
        (("rpn", {"objectness": "softmax"}), r"rpn\.objectness sigmoid in the file, softmax here"),
    ],
)
def test_an_rpn_that_does_not_fit_changes_nothing(
    change: tuple[str, dict[str, Any]], message: str, model: Path
) -> None:
    config = changed(tiny_config(), change[0], **change[1])
    network = Detector.from_config(config, ("blue", "red")).model
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=rf"its RPN \(recipe 'tiny'\) does not fit .*{message}"
    ) as caught:
        take_rpn(network, model)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_model_without_rpn_has_none_to_give_or_take(tmp_path: Path, model: Path) -> None:
    config = tiny_config()
    ranges = ((0, 16), (16, 32), (32, 64), (64, 128), (128, None))
    config = changed(config, "fcos", size_ranges=ranges).model_copy(update={"detector": "fcos"})
    points = Detector.from_config(config, ("blue", "red"))
    points.save(tmp_path / "points.safetensors")
    with pytest.raises(CheckpointError, match="no region proposal network in recipe 'tiny'"):
        take_rpn(points.model, model)
    with pytest.raises(CheckpointError, match="no region proposal network in the file"):
        take_rpn(Detector.load(model).model, tmp_path / "points.safetensors")
    with pytest.raises(ValueError, match="no region proposal network: no proposals"):
        next(points.propose_each(np.zeros((64, 80, 3), np.uint8)))


def test_backbone_and_pyramid_of_another_model(voc: Path, tmp_path: Path) -> None:
    """What the file's backbone has for a norm is built, also where the recipe leaves it open."""
    first = changed(proposals_alone(epochs=1), "backbone", norm="batch")
    start = run(voc, tmp_path, first, val="none").folder / "last.safetensors"
    config = changed(tiny_config(epochs=1), "backbone", norm="auto")
    result = run(voc, tmp_path, config, backbone_weights=start, freeze="backbone", val="none")
    moved = parts_moved(start, result.folder / "last.safetensors")
    assert moved == {"rpn_head"}
    notes = (result.folder / "notes.txt").read_text()
    assert f"tensors from {start}" in notes and "backbone and pyramid: " in notes
    assert load_yaml(result.folder / "config.yaml").backbone.norm == "batch"
    with pytest.raises(CheckpointError, match=r"its backbone and pyramid \(recipe 'tiny-rpn'\) do not fit"):
        run(voc, tmp_path, changed(config, "fpn", channels=8), backbone_weights=start)


# Given proposals


def test_given_proposals_take_the_place_of_the_rpn(voc: Path, tmp_path: Path, model: Path) -> None:
    """The objects themselves as proposals: the second stage is right where it looks, and finds more."""
    file = made(tmp_path / "p.safetensors", voc)
    result = run(voc, tmp_path, tiny_config(epochs=1), proposals=file, weights=model)
    assert "rpn_head" not in parts_moved(model, result.folder / "last.safetensors")
    notes = (result.folder / "notes.txt").read_text()
    assert f"proposals: 16 boxes of 8 pictures from {file}; the RPN is not trained" in notes
    assert "stages frozen: rpn;" in notes and load_yaml(result.folder / "config.yaml").train.freeze == (
        "rpn",
    )
    detector, data = Detector.load(result.folder / "best.safetensors"), open_dataset(voc).subset("val")
    report = evaluate(detector, attach(data, read(file)))
    assert known(report) == pytest.approx(result.metrics)  # validation looked there, too
    assert known(report) != pytest.approx(known(evaluate(detector, data)))


def test_a_resumed_run_keeps_its_proposals(voc: Path, tmp_path: Path) -> None:
    config, file = tiny_config(epochs=2), made(tmp_path / "p.safetensors", voc)
    whole = run(voc, tmp_path, config, name="whole", proposals=file)
    with pytest.raises(KeyboardInterrupt):
        run(voc, tmp_path, config, name="cut", parts=stopped_at(7, config), proposals=file)
    made(tmp_path / "other.safetensors", voc, lambda boxes: boxes + 1)
    with pytest.raises(StateError, match="not the proposals that the run was begun with"):
        run(voc, tmp_path, resume=tmp_path / "cut", proposals=tmp_path / "other.safetensors")
    moved = file.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(DataError, match=r"p\.safetensors: no such proposals file"):
        run(voc, tmp_path, resume=tmp_path / "cut")
    resumed = run(voc, tmp_path, resume=tmp_path / "cut", proposals=moved)
    a, b = (weights(f / "last.safetensors") for f in (whole.folder, resumed.folder))
    assert all(torch.equal(v, b[k]) for k, v in a.items())


def test_a_run_without_proposals_cannot_go_on_with_some(voc: Path, tmp_path: Path) -> None:
    config, file = tiny_config(epochs=2), made(tmp_path / "p.safetensors", voc)
    with pytest.raises(KeyboardInterrupt):
        run(voc, tmp_path, config, name="cut", parts=stopped_at(7, config))
    with pytest.raises(StateError, match=r"train\.freeze: \[\] -> \['rpn'\]"):
        run(voc, tmp_path, resume=tmp_path / "cut", proposals=file)


def test_proposals_of_a_model_are_those_it_looks_at(voc: Path, model: Path) -> None:
    detector = Detector.load(model)
    pictures = sorted((voc / "JPEGImages").glob("*.jpg"))
    found = list(detector.propose_each(pictures, batch=1))
    for picture, (boxes, scores) in zip(pictures, found, strict=True):
        trace = detector.trace(picture)
        assert trace.proposals is not None
        valid = trace.proposals.valid[0]
        ratio = (trace.batch.original_sizes / trace.batch.sizes)[0].flip(0).repeat(2)
        assert np.allclose(boxes, trace.proposals.boxes[0][valid] * ratio, atol=1e-3)
        assert np.allclose(scores, trace.proposals.scores[0][valid])
        assert 0 < len(boxes) <= detector.config.proposals.post_nms_test


def test_the_command_line_writes_proposals_and_nothing_else(
    voc: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.safetensors"
    call = ["predict", str(model), str(voc / "JPEGImages"), "--proposals-out", str(out), "--device", "cpu"]
    assert command([*call, "--score", "0", "--json", "--no-tables"]) == 2
    assert "and nothing else; leave out --score, --json, --no-tables" in capsys.readouterr().err
    assert not out.exists()
    assert command([*call[:-3], str(tmp_path), *call[-2:]]) == 2
    assert f"--proposals-out {tmp_path}: is a folder; give the name" in capsys.readouterr().err
    assert command(call) == 0
    assert "proposals of 8 pictures written to" in capsys.readouterr().out
    file, detector = read(out), Detector.load(model)
    pictures = [Path(p) for p in file.paths]
    assert sorted(pictures) == sorted((voc / "JPEGImages").glob("*.jpg"))
    boxes, scores = next(detector.propose_each(pictures[0]))
    assert np.allclose(file.of(0)[0], boxes, atol=1e-3) and np.allclose(file.of(0)[1], scores, atol=1e-5)


# Proposals alone


def test_proposals_alone_are_judged_by_recall(voc: Path, tmp_path: Path) -> None:
    result = run(voc, tmp_path, proposals_alone(epochs=2))
    assert result.detector.classes == ("object",)
    last = rows(result.folder)[-1]
    assert {"AR100", "AR300", "AR1000", "val_rpn_box", "train_rpn_objectness"} <= set(last)
    assert not {"AP", "train_roi_box", "train_fg"} & set(last)
    best = max(
        (float(r["AR100"]), -float(r["val_total"]), int(r["epoch"]))
        for r in rows(result.folder)
        if r["AR100"]
    )
    state = load_state(result.folder)
    assert state.best_ap == pytest.approx(best[0], rel=1e-5) and state.best_epoch == best[2]
    log = (result.folder / "log.txt").read_text()
    assert "  AR@100 0." in log and "AP" not in log.split("run folder")[1]
    report = evaluate(result.detector, open_dataset(voc), "val")
    assert report.protocol == "recall" and known(report) == pytest.approx(result.metrics)
    page = (result.folder / "report.html").read_text()
    assert "Validation recall" in page and "best validation AR@100" in page


# Length


def test_a_run_ends_at_exactly_so_many_steps(voc: Path, tmp_path: Path) -> None:
    result = run(voc, tmp_path, tiny_config(epochs=99), steps=4)  # 3 batches an epoch
    state = load_state(result.folder)
    assert (state.step, state.batches, state.epoch) == (4, 4, 2)
    written = rows(result.folder)
    assert [int(r["step"]) for r in written if r["AP"]] == [3, 4]
    assert len({r["step"] for r in written}) == len(written)
    log = (result.folder / "log.txt").read_text()
    assert "cosine over 4 steps" in log and "epoch 2/2" in log
    assert float(written[-1]["lr"]) < float(written[0]["lr"])
    assert load_yaml(result.folder / "config.yaml").train.steps == 4


@pytest.mark.parametrize(("steps", "batches"), [(1, 2), (2, 3), (3, 5), (4, 6)])
def test_steps_of_several_batches(voc: Path, tmp_path: Path, steps: int, batches: int) -> None:
    result = run(voc, tmp_path, tiny_config(accumulate=2), steps=steps, val="none")
    state = load_state(result.folder)
    assert (state.step, state.batches) == (steps, batches)


def test_steps_resume_from_the_last_whole_epoch(voc: Path, tmp_path: Path) -> None:
    config = tiny_config()
    whole = run(voc, tmp_path, config, name="whole", steps=5)
    with pytest.raises(KeyboardInterrupt):
        run(voc, tmp_path, config, name="cut", parts=stopped_at(7, config), steps=5)
    assert load_state(tmp_path / "cut").step == 3
    resumed = run(voc, tmp_path, resume=tmp_path / "cut")
    a, b = (weights(f / "last.safetensors") for f in (whole.folder, resumed.folder))
    assert all(torch.equal(v, b[k]) for k, v in a.items())
    with pytest.raises(StateError, match="finished: 5 of 5 steps are trained; go on with more --steps"):
        run(voc, tmp_path, resume=tmp_path / "cut")


def test_a_run_goes_on_to_a_later_step(voc: Path, tmp_path: Path) -> None:
    """From start_step to end_step: at a constant rate whole epochs cut in two are as if they were one run."""
    config = tiny_config(schedule="constant", warmup=0)
    whole = run(voc, tmp_path, config, name="whole", steps=7)
    first = run(voc, tmp_path, config, name="parts", steps=3)
    then = run(voc, tmp_path, resume=first.folder, steps=7)
    assert then.folder == first.folder and load_state(then.folder).step == 7
    a, b = (weights(f / "last.safetensors") for f in (whole.folder, then.folder))
    assert all(torch.equal(v, b[k]) for k, v in a.items())
    assert load_yaml(then.folder / "config.yaml").train.steps == 7
    assert [r["step"] for r in rows(whole.folder)] == [r["step"] for r in rows(then.folder)]
    with pytest.raises(StateError, match="finished: 7 steps are trained, and 6 are asked for; go on with"):
        run(voc, tmp_path, resume=then.folder, steps=6)


def test_a_run_that_went_on_without_validation_ends_with_its_last_weights(voc: Path, tmp_path: Path) -> None:
    first = run(voc, tmp_path, tiny_config(), val="none", steps=2)
    begun = weights(first.folder / "best.safetensors")
    then = run(voc, tmp_path, resume=first.folder, steps=5)
    best, last = weights(then.folder / "best.safetensors"), weights(then.folder / "last.safetensors")
    assert all(torch.equal(v, last[k]) for k, v in best.items())
    assert any(not torch.equal(v, begun[k]) for k, v in best.items())


@pytest.mark.parametrize("option", ["weights", "backbone_weights", "rpn_weights"])
def test_a_resumed_run_takes_no_other_weights(option: str, voc: Path, tmp_path: Path, model: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(voc, tmp_path, tiny_config(), name="cut", parts=stopped_at(7, tiny_config()))
    flag = "--" + option.replace("_", "-")
    with pytest.raises(ValueError, match=f"a resumed run keeps its weights; leave out {flag} "):
        run(voc, tmp_path, resume=tmp_path / "cut", **{option: model})


def test_an_rpn_on_random_features_and_idle_settings_are_noted(
    voc: Path, tmp_path: Path, model: Path
) -> None:
    settings = ("train.parameters=last:2", "roi.gt_jitter=0.1")
    result = run(voc, tmp_path, tiny_config(epochs=1), rpn_weights=model, settings=settings, val="none")
    notes = (result.folder / "notes.txt").read_text()
    assert "looks at a backbone with random weights, which it does not know" in notes
    assert "only train.parameters=last:2 is trained, on random weights" in notes
    assert "roi.gt_jitter has no effect: roi.gt_proposals is exact" in notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 3, "steps": 5}, "epochs 3 and steps 5 both say how long to train; leave one"),
        ({"time": "5m", "steps": 5}, "time 5m and steps 5 both say how long"),
        (
            {"backbone_weights": "a.pth", "settings": "backbone.weights=none"},
            r"a\.pth and the setting backbone\.weights=none differ; leave one",
        ),
        ({"freeze": "bakbone"}, r"freeze: 'bakbone' is no stage; did you mean 'backbone'\? stages are back"),
        ({"freeze": ("backbone", "rpn", "roi")}, "nothing is left to train"),
        ({"settings": "train.parameters=nothing_like_it"}, "fits no tensor"),
        ({"proposals": "nowhere.safetensors"}, "no such proposals file"),
        ({"rpn_weights": "nowhere.safetensors"}, "no such model file"),
    ],
)  # fmt: skip
def test_bad_options_cost_nothing(
    voc: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        run(voc, tmp_path / "runs", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "runs").exists()


def test_proposals_that_cannot_be_used_cost_nothing(voc: Path, tmp_path: Path) -> None:
    file, runs = made(tmp_path / "p.safetensors", voc), tmp_path / "runs"
    with pytest.raises(ValueError, match=r"recipe 'tiny-rpn' \(detector rpn\) has none"):
        run(voc, runs, proposals_alone(), proposals=file)
    with pytest.raises(ValueError, match=r"use --set train\.compile=regional"):
        run(voc, runs, tiny_config(compile="step"), proposals=file)
    other = write_voc(tmp_path / "other", {"train": PICTURES, "odd": PICTURES})
    with pytest.raises(
        DataError, match=r"5 pictures of the data set have no proposals in it \(JPEGImages/odd000"
    ):
        run(other, runs, proposals=file, train="odd", val="none")
    with pytest.raises(StateError, match="no run to resume"):
        run(voc, runs, resume=tmp_path, rpn_weights=file)
    assert not runs.exists()


def test_a_file_that_is_no_state_is_named(tmp_path: Path, model: Path) -> None:
    for content in (b"", b"no state", model.read_bytes()):
        (tmp_path / "other.ckpt").write_bytes(content)
        with pytest.raises(StateError, match="cannot be read as the state of a run; give the folder"):
            load_state(tmp_path / "other.ckpt")


def test_a_resumed_run_takes_no_rpn(voc: Path, tmp_path: Path, model: Path) -> None:
    with pytest.raises(ValueError, match="a resumed run keeps its weights; leave out --rpn-weights"):
        run(voc, tmp_path, resume=model.parent, rpn_weights=model)


def test_settings_name_steps_too(voc: Path) -> None:
    by_steps = changed(tiny_config(), "train", steps=40)
    assert resolve_config(None, TrainOptions(config=by_steps), None).train.steps == 40
    assert resolve_config(None, TrainOptions(config=by_steps, epochs=2), None).train.steps == 0
    with pytest.raises(ConfigError, match=r"train\.steps"):
        resolve_config(None, TrainOptions(config=by_steps, settings=("train.steps=-1",)), None)


# Files


def test_every_so_many_epochs_a_model_file_is_kept(voc: Path, tmp_path: Path) -> None:
    result = run(voc, tmp_path, tiny_config(epochs=4), save_every=2)
    names = sorted(p.name for p in result.folder.glob("epoch-*"))
    assert names == ["epoch-0002.safetensors", "epoch-0004.safetensors"]
    kept, last = (weights(result.folder / name) for name in ("epoch-0004.safetensors", "last.safetensors"))
    assert all(torch.equal(v, kept[k]) for k, v in last.items())
    assert parts_moved(result.folder / names[0], result.folder / names[1])
    first = Detector.load(result.folder / names[0])
    stored = next(float(r["AP"]) for r in rows(result.folder) if r["AP"] and r["epoch"] == "2")
    assert first.metrics["AP"] == pytest.approx(stored, rel=1e-5, abs=1e-9)
    assert not list(run(voc, tmp_path, tiny_config(epochs=1), val="none").folder.glob("epoch-*"))


def test_adam_trains(voc: Path, tmp_path: Path, model: Path) -> None:
    config = tiny_config(epochs=1, optimizer="adam", lr=1e-3, parameters="last:4")
    result = run(voc, tmp_path, config, weights=model, val="none")
    assert parts_moved(model, result.folder / "last.safetensors") == {"later_heads"}
    states = load_state(result.folder).optimizer["state"]
    assert len(states) == 4 and all({"exp_avg", "exp_avg_sq"} <= set(s) for s in states.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "freeze"), [("two_stage", ("rpn",)), ("two_stage", ("roi",)), ("rpn", ())]
)
def test_two_ranks_train_a_part(tmp_path: Path, detector: str, freeze: tuple[str, ...]) -> None:
    """Whatever of the network then gets no gradient, the ranks do not wait for it."""
    data = write_voc(tmp_path / "voc", {"train": PICTURES, "val": PICTURES[1:4]})
    config = tiny_config(epochs=2, batch=1, freeze=freeze).model_copy(update={"detector": detector})
    state = load_state(run(data, tmp_path, config, devices=2).folder)
    assert state.step == 6 and all(v.isfinite().all() for v in state.network.values())
