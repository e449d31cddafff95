"""Pictures that cannot be read: found before the first step, or left out of a run by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from multiprocessing import get_start_method
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import PICTURES, tiny_config, write_voc

from frcnn.config import Config
from frcnn.data.feed.examples import Examples
from frcnn.data.open import open_dataset
from frcnn.data.sample import DataError
from frcnn.evaluation.run import evaluate
from frcnn.settings import with_settings
from frcnn.training.run import Run, train
from frcnn.training.state import load_state
from frcnn.training.watch import TrainingStopped


def config(*settings: str) -> Config:
    return with_settings(tiny_config(epochs=1), settings)


SKIP = "data.on_bad_image=skip"


def run(data: Path, runs: Path, settings: Config, **options: object) -> Run:
    return train(
        data, runs=runs, name="r", config=settings, device="cpu", progress=False, forecast=False, **options
    )


def damaged(root: Path, *names: str) -> Path:
    """A data set in which only decoding finds that these pictures are damaged."""
    write_voc(root, {"train": PICTURES, "val": PICTURES[1:4]})
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8))
    for name in names:
        path = root / "JPEGImages" / f"{name}.jpg"
        noise.save(path, format="TIFF", compression="tiff_lzw")
        content = bytearray(path.read_bytes())
        content[400:3000] = b"\xff" * 2600
        path.write_bytes(content)
    return root


def lose(*_: object) -> None:
    os._exit(1)


def fail(*_: object) -> None:
    raise RuntimeError("a fault of ours")


@pytest.mark.skipif(get_start_method() != "fork", reason="the patch reaches forked processes only")
@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (lose, TrainingStopped, "a loader process ended unexpectedly, .*data.workers=0"),
        (fail, RuntimeError, "Caught RuntimeError in DataLoader worker process 0.*a fault of ours"),
    ],
)
def test_a_lost_loader_process_is_told_from_a_fault_in_it(
    fault: Callable[..., None],
    kind: type[Exception],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = write_voc(tmp_path / "voc", {"train": PICTURES, "val": PICTURES[1:4]})
    monkeypatch.setattr(Examples, "__getitem__", fault)
    with pytest.raises(kind, match=f"(?s){said}") as found:
        run(data, tmp_path / "runs", config("data.workers=1"), val="none")
    assert type(found.value) is kind


def test_few_pictures_are_decoded_before_the_first_step(tmp_path: Path) -> None:
    data = damaged(tmp_path / "voc", "train001", "val000")
    with pytest.raises(DataError, match=r"(?s)2 errors.*D13.*train001\.jpg.*val000\.jpg"):
        run(data, tmp_path / "runs", config())
    assert not (tmp_path / "runs").exists(), "nothing was trained or written"
    result = run(data, tmp_path / "runs", config(SKIP))
    log = (result.folder / "log.txt").read_text()
    assert "all 8 pictures were decoded before the first step" in log
    assert "D13 warn: picture cannot be read (2)" in log and "val000.jpg" in log
    assert result.report is not None and result.report.settings.images == 2


def test_a_damaged_validation_picture_is_left_out_by_name(tmp_path: Path) -> None:
    data = damaged(tmp_path / "voc", "val000")
    result = run(data, tmp_path / "runs", config(SKIP), decode=False)
    notes = (result.folder / "notes.txt").read_text()
    assert "the 8 pictures (0 million pixels) were not decoded before the first step: damaged ones" in notes
    assert "epoch 1: 1 of 3 validation pictures could not be read and were left out: " in notes
    assert "val000.jpg" in notes
    report = result.report
    assert report is not None and report.settings.images == 2
    others = open_dataset(data).subset("val").subset([1, 2])
    assert report.metrics == pytest.approx(evaluate(result.detector, others).metrics)
    model = result.folder / "best.safetensors"
    again = evaluate(model, data, "val")
    assert again.metrics == report.metrics and again.settings == report.settings
    assert again.notes[-1].startswith("1 pictures could not be read and were left out: ")
    assert not (result.folder / "samples" / "val-00.jpg").exists()
    assert len(list((result.folder / "samples").glob("val-*.jpg"))) == 2


def test_tiles_of_a_damaged_picture_are_left_out_together(tmp_path: Path) -> None:
    data = damaged(tmp_path / "voc", "val001")
    result = run(data, tmp_path / "runs", config(SKIP, "preprocess.tile=48"), decode=False)
    assert result.report is not None and result.report.settings.images == 2
    assert "1 of 3 validation pictures" in (result.folder / "notes.txt").read_text()


def test_many_damaged_validation_pictures_stop_the_run(tmp_path: Path) -> None:
    data = damaged(tmp_path / "voc", "val000", "val001")
    with pytest.raises(TrainingStopped, match=r"epoch 1: 2 of 3 validation pictures .*check DATA --decode"):
        run(data, tmp_path / "runs", config(SKIP), decode=False)
    assert load_state(tmp_path / "runs" / "r").epoch == 1  # the epoch is saved first


def test_where_damage_is_an_error_the_message_says_how_to_go_on(tmp_path: Path) -> None:
    data = damaged(tmp_path / "voc", "val002")
    with pytest.raises(TrainingStopped, match=r"val002\.jpg.*replace it .*--resume .*r$"):
        run(data, tmp_path / "runs", config(), decode=False)


@pytest.mark.slow
def test_all_devices_leave_out_the_same_pictures(tmp_path: Path) -> None:
    data = damaged(tmp_path / "voc", "val001")
    result = run(data, tmp_path / "runs", config(SKIP, "train.batch=1"), decode=False, devices=2)
    stored = json.loads((result.folder / "evaluation.json").read_text())
    assert stored["settings"]["images"] == 2
    assert stored["metrics"] == evaluate(result.folder / "best.safetensors", data, "val").metrics
    assert (result.folder / "notes.txt").read_text().count("1 of 3 validation pictures") == 1
