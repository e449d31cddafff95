"""On a GPU the host must never wait inside a step: neither in training nor in detection.

The same steps run on torch's ``meta`` device, too (``waiting.py``), so that most of it is tested without one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from small import batch_of, change, small, targets_of
from torch import Tensor
from waiting import META, HostSyncError, watching_gpu, watching_meta

from frcnn.config import Config
from frcnn.data.feed.loader import Batch
from frcnn.model.detector import Network, build_network
from frcnn.precision import Format, Precision
from frcnn.recipes import RECIPES
from frcnn.structures import ImageBatch
from frcnn.training import callbacks
from frcnn.training import fit as fitting
from frcnn.training import module as modules
from frcnn.training.ema import Average
from frcnn.training.folder import RunFolder
from frcnn.training.journal import Journal
from frcnn.training.module import Task, TrainingModule
from frcnn.training.optim import Schedule
from frcnn.training.watch import INTERVAL, LossWatch

WARM, STEPS = 1, 2
"""In the first step anchors are made and kernels compiled; all after it are watched."""
GENERATOR = torch.Generator


class Enough(Exception):  # noqa: N818 (it is no error)
    """All steps were made."""


class Batches:
    """One batch again and again, as a loader; watched from its moving to the device on."""

    def __init__(self, batch: Batch, watch: Callable[[], AbstractContextManager[Any]]) -> None:
        self._batch, self._watch = batch, watch
        self.watching = ExitStack()
        self.seen: Any = None

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        pass

    def __len__(self) -> int:
        return 5 * INTERVAL

    def __iter__(self) -> Iterator[Batch]:
        for step in range(STEPS):
            if step == WARM:
                self.seen = self.watching.enter_context(self._watch())
            yield self._batch
        self.watching.close()
        raise Enough


def config_of(name: str) -> Config:
    return change(small(name), preprocess={"fixed_size": None})


def network_of(config: Config) -> Network:
    return build_network(config, 1 if config.detector == "rpn" else 3)


def pictures(config: Config) -> ImageBatch:
    return batch_of(config, [(64, 96), (40, 70)])


def train(
    name: str, device: torch.device, number: Format, folder: Path, watch: Callable[[], Any]
) -> tuple[Config, Any]:
    """Steps of a run as ``frcnn train`` makes them; the configuration, and what ``watch`` gave."""
    config = config_of(name)
    label = 0 if config.detector == "rpn" else 2
    targets = targets_of([[((4.0, 4, 50, 40), 0), ((40.0, 20, 90, 60), label)], []])
    batch = Batch(pictures(config), targets, (0, 1), ("a.jpg", "b.jpg"))
    loader = Batches(batch.pin_memory() if device.type == "cuda" else batch, watch)
    schedule = Schedule(1, len(loader), 1, 1, 2, config.train.lr, 0, "constant")
    data, loaders = cast(Any, None), cast(Any, (loader, None))  # no data set: the loader has its batch
    task = Task(config, schedule, Precision(number, "as asked"), RunFolder(folder), data, None)
    journal = Journal(progress=False, silent=True)
    with loader.watching, pytest.raises(Enough):
        fitting.fit(network_of(config), task, loaders, Mock(), journal, device)
    return config, loader.seen


@pytest.fixture(autouse=True)
def _no_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "TRAIN_PICTURES", 0)  # of the first steps only, and they do wait


class NoNumbers(SingleDeviceStrategy):
    """Says that there are batches, and at the end leaves everything where it is: none of it can be copied."""

    def reduce(self, tensor: Any, *_: Any, **__: Any) -> Tensor:
        return torch.ones(())

    def teardown(self) -> None:
        pass


class Nowhere(CPUAccelerator):
    """Takes any device."""

    def setup_device(self, device: torch.device) -> None:
        pass


class MetaTrainer(pl.Trainer):
    """The trainer as it is asked for, on the device without numbers."""

    def __init__(self, **words: Any) -> None:
        place = {"accelerator": Nowhere(), "devices": 1, "strategy": NoNumbers(META)}
        super().__init__(**{**words, **place}, limit_val_batches=0)


class OnGpu(TrainingModule):
    """Decides as on a GPU, whatever its device is called."""

    @property
    def fused(self) -> bool:
        return True

    @fused.setter
    def fused(self, value: bool) -> None:
        pass


class AnyGenerator:
    """There is none for that device, and nothing to draw; torch's own for the others."""

    def __new__(cls, device: torch.device | str = "cpu") -> Any:
        return super().__new__(cls) if torch.device(device) == META else GENERATOR(device)

    def manual_seed(self, seed: int) -> None:
        return None


def _gpu_watch(*arguments: Any) -> LossWatch:
    watch = LossWatch(*arguments)
    watch.interval = INTERVAL
    watch._rows = watch._rows.new_zeros(INTERVAL, watch._rows.shape[1])
    return watch


@dataclass
class Seen:
    """What a run shows of itself: its module, and the flags that told the fused optimizer to skip a step."""

    modules: list[TrainingModule] = field(default_factory=list)
    flags: list[Tensor | None] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What asks for the word ``cuda`` is answered as if the device had that name."""
    found = Seen()

    def make(*arguments: Any) -> TrainingModule:
        found.modules.append(OnGpu(*arguments))
        return found.modules[-1]

    def step(*_: Any, found_inf: Tensor | None = None, **__: Any) -> None:  # has no meaning without numbers
        found.flags.append(found_inf)

    monkeypatch.setattr(torch, "_fused_sgd_", step)
    monkeypatch.setattr(fitting, "TrainingModule", make)
    monkeypatch.setattr(pl, "Trainer", MetaTrainer)
    monkeypatch.setattr(modules, "LossWatch", _gpu_watch)
    monkeypatch.setattr(torch, "Generator", AnyGenerator)
    for kind in ("fused", "foreach"):
        name = f"_get_{kind}_kernels_supported_devices"
        for place in ("torch.optim.optimizer", "torch.utils._foreach_utils"):
            monkeypatch.setattr(sys.modules[place], name, lambda: [META.type])
    return found


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_training_step_waits_nowhere(name: str, tmp_path: Path, seen: Seen) -> None:
    (config, kernels), (module,) = train(name, META, "fp32", tmp_path, watching_meta), seen.modules
    assert module.step == STEPS and len(seen.flags) >= STEPS, "the fused optimizer ran"
    assert all(flag is module.watch.bad for flag in seen.flags), "and knows which step to skip"
    assert bool(kernels.calls["_foreach_lerp_"]) == bool(config.train.ema)
    assert bool(kernels.calls["_foreach_mul_"]) == bool(config.train.clip)


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (TrainingModule, "transfer_batch_to_device"),
        (LossWatch, "losses"),
        (LossWatch, "gradient"),
        (torch.optim.SGD, "step"),
        (Average, "update"),
        (callbacks.Recorder, "on_train_batch_end"),
    ],
)
def test_every_part_of_a_step_is_watched(
    owner: Any, method: str, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(owner, method)

    def waits(*arguments: Any, **words: Any) -> Any:
        torch.ones(2).to(META)
        return whole(*arguments, **words)

    monkeypatch.setattr(owner, method, waits)
    with pytest.raises(HostSyncError):
        train("fcos-regnetx400mf", META, "fp32", tmp_path, watching_meta)
    assert seen.modules[0].batches >= WARM, "not before the watched steps"


@pytest.mark.parametrize("name", list(RECIPES))
def test_detection_waits_nowhere(name: str) -> None:
    config = config_of(name)
    network, batch = network_of(config).eval().to(META), pictures(config).to(META)
    with torch.inference_mode():
        network(batch)
        with watching_meta() as kernels:
            found = network(batch).detections
    assert found is not None and found.boxes.device == META and kernels.calls


WAITING: dict[str, Callable[[Tensor], object]] = {
    "number": lambda x: float(x.sum()),
    "decision": lambda x: bool((x > 0).any()),
    "numbers": lambda x: x.tolist(),
    "equality": lambda x: torch.equal(x, x + 1),
    "places": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "mask to write": lambda x: x.index_put_((x > 0,), x[:1]),
    "selection": lambda x: x.masked_select(x > 0),
    "distinct": lambda x: x.unique(),
    "repetition": lambda x: x.repeat_interleave(x.long()),
    "list as index": lambda x: x[[1, 0]],
    "list as one of two": lambda x: x[:, None].__setitem__(([1, 0], 0), 2.0),
    "index of the host": lambda x: x[torch.tensor([1])],
    "new tensor": lambda x: torch.tensor([1.0], device=x.device),
    "new tensor like": lambda x: x.new_tensor([1.0]),
    "there": lambda x: torch.ones(2).to(x.device),
    "there in place": lambda x: x.copy_(torch.ones(2)),
    "back": lambda x: x.cpu(),
}


@pytest.mark.parametrize("call", list(WAITING.values()), ids=list(WAITING))
def test_who_waits_is_found(call: Callable[[Tensor], object]) -> None:
    with pytest.raises(HostSyncError), watching_meta():
        call(torch.zeros(2, device=META))


def test_who_does_not_wait_may_go_on() -> None:
    x, host = torch.zeros(2, device=META), torch.ones(2)
    with watching_meta() as kernels:
        x[:1] = 3
        x.masked_fill_(x > 0, 1.0).copy_(host, non_blocking=True)
        rows = x[x.long()] + host.to(META, non_blocking=True) * torch.full((2,), 0.5, device=META)
        assert rows.shape == (2,) and float(host.sum()) == 2, "the host's own numbers"
        assert host[host > 0].tolist() == torch.tensor([1.0, 1.0]).tolist()
    assert kernels.calls["masked_fill_"] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("number", ["fp32", "bf16"])
@pytest.mark.parametrize("name", list(RECIPES))
def test_a_training_step_on_a_gpu_waits_nowhere(name: str, number: Format, tmp_path: Path) -> None:
    train(name, torch.device("cuda", 0), number, tmp_path, watching_gpu)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", list(RECIPES))
def test_detection_on_a_gpu_waits_nowhere(name: str, autocast: bool) -> None:
    config = config_of(name)
    network, batch = network_of(config).eval().cuda(), pictures(config).to("cuda")
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        network(batch)  # anchors of this size are made, kernels compiled
        with watching_gpu():
            network(batch)
