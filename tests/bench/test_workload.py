"""Who takes part."""

import pytest
import torch

from frcnn.bench import workload as rooms
from frcnn.bench.workload import Contender, Workload, computing_in, contenders, without_bf16
from frcnn.precision import Precision

TRAIN = Workload("train", "lite0", 320, 426, 4)
INFER = Workload("infer", "r50", 800, 1066, 1)


@pytest.mark.parametrize(
    ("workload", "bf16", "compiled", "names"),
    [
        (INFER, False, False, ["frcnn fp32", "torchvision fp32", "torchvision fp32 channels-last"]),
        (
            INFER,
            True,
            False,
            [
                "frcnn fp32",
                "torchvision fp32",
                "torchvision fp32 channels-last",
                "frcnn bf16",
                "torchvision bf16",
                "torchvision bf16 channels-last",
            ],
        ),
        (
            INFER,
            False,
            True,
            [
                "frcnn fp32",
                "torchvision fp32",
                "torchvision fp32 channels-last",
                "frcnn fp32 compiled (regional)",
                "frcnn fp32 compiled (step)",
            ],
        ),
        (
            TRAIN,
            False,
            False,
            ["frcnn fp32", "torchvision fp32", "torchvision fp32 channels-last", "frcnn lite0-fpn fp32"],
        ),
        (
            Workload("infer", "r50", 64, 64, 1, device="cuda:0"),
            False,
            False,
            [
                *("frcnn fp32", "torchvision fp32", "torchvision fp32 channels-last"),
                *("frcnn tf32", "torchvision tf32", "torchvision tf32 channels-last"),
            ],
        ),
    ],
)
def test_contenders(workload: Workload, bf16: bool, compiled: bool, names: list[str]) -> None:
    assert [each.name for each in contenders(workload, bf16, compiled)] == names


def test_pixels_are_those_of_the_padded_batch() -> None:
    assert INFER.pixels == 800 * 1088
    assert TRAIN.pixels == 4 * 320 * 448


def test_both_sides_and_the_size_stand_in_the_title() -> None:
    assert TRAIN.title == "training step, EfficientNet-Lite0, FPN 256, 512 RoIs, 320x426, batch 4, cpu"
    assert INFER.title == "inference, r50-fpn, 800x1066, batch 1, cpu"


@pytest.mark.parametrize(("name", "said"), [("bf16", ""), ("fp32", "no rows in bf16 on cpu: too slow")])
def test_a_machine_without_bf16_is_a_sentence(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "choose_precision", lambda *_: Precision(name, "too slow"))  # type: ignore[arg-type]
    assert without_bf16(torch.device("cpu")) == said


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_format(name: rooms.Format, dtype: torch.dtype) -> None:
    x = torch.ones(2, 2)
    before = torch.backends.cudnn.allow_tf32
    with computing_in(name, torch.device("cpu")):
        assert (x @ x).dtype == dtype
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_contender_is_found_by_its_name() -> None:
    assert Contender("torchvision", "bf16", channels_last=True).name == "torchvision bf16 channels-last"
