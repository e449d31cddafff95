"""The four steps of alternating training, run as a user runs the script."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny import PICTURES, write_voc

from frcnn.evaluation.run import evaluate
from frcnn.predict import Detector

SCRIPT = Path(__file__).parents[2] / "examples" / "four_step.py"


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(SCRIPT))["main"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(str(folder / "last.safetensors"))


def part(tensors: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    counters = "num_batches_tracked"  # of no meaning once the statistics are held fast
    return {k: v for k, v in tensors.items() if k.split(".")[0] in names and not k.endswith(counters)}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


SMALL = [
    "data.workers=0",
    "preprocess.min_size=64",
    "preprocess.max_size=96",
    "fpn.channels=16",
    "anchors.sizes=[[8,12],[16,24],[32,40],[48,64]]",
    "rpn.batch_size=32",
    "proposals.pre_nms_train=40",
    "proposals.post_nms_train=40",
    "proposals.post_nms_test=20",
    "roi.hidden=32",
    "roi.batch_size=16",
    "roi.cascade=[]",
    "train.precision=fp32",
    "train.batch=2",
    "train.lr=0.02",
    "train.ema=0",
]
OPTIONS = [
    *("--recipe", "lite0-fpn", "--epochs", "1", "--device", "cpu"),
    *(word for s in SMALL for word in ("--set", s)),
]


def test_no_data_is_one_sentence(
    tmp_path: Path, main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "none"), "--out", str(tmp_path / "runs"), *OPTIONS])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("four_step: ") and "none" in last


def test_two_networks_end_as_one(
    tmp_path: Path, main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_voc(tmp_path / "voc", {"train": PICTURES, "val": PICTURES[1:4]})
    out = tmp_path / "runs"
    main([str(data), "--out", str(out), *OPTIONS])
    first, second, third, fourth = (weights(out / f"step{i}") for i in (1, 2, 3, 4))
    body, rpn = ("backbone", "fpn"), ("rpn_head",)
    assert not same(part(first, *body), part(second, *body)), "two networks that share nothing"
    assert same(part(second, *body), part(third, *body)), "the RPN begins anew on the second stage's features"
    assert not same(part(second, *rpn), part(third, *rpn))
    assert same(part(fourth, *body), part(second, *body)) and same(part(fourth, *rpn), part(third, *rpn))
    heads = {k.split(".")[0] for k in fourth} - {*body, *rpn}
    assert heads and not same(part(second, *heads), part(fourth, *heads)), "the second stage went on"

    detector = Detector.load(out / "step4" / "last.safetensors")
    assert detector.classes == ("blue", "red") and detector.config.detector == "two_stage"
    assert (
        evaluate(detector, data, "val").metrics["AP"] is not None
    )  # by itself, without proposals from a file

    printed = capsys.readouterr().out
    assert printed.count("frcnn train") == 4 and printed.count("--proposals-out") == 2
    assert "--freeze backbone" in printed and "--set detector=rpn" in printed
    main([str(data), "--out", str(out), *OPTIONS])
    again = capsys.readouterr().out
    assert again.count("not trained again") == 4 and again.count("not made again") == 2
    (out / "step4" / "report.html").unlink()
    with pytest.raises(SystemExit):
        main([str(data), "--out", str(out), *OPTIONS])
    assert "step4 was not finished" in capsys.readouterr().err
