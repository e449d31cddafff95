"""How long a run will take and how much memory it needs, from a few real steps before the first epoch.

The steps are made on a copy of the network, and every epoch starts its random generators anew, so a run is
the same with a forecast and without.
"""

from __future__ import annotations

import copy
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from frcnn.config import Config
from frcnn.data.feed.loader import Batch, Loader
from frcnn.data.feed.transforms import largest_scale
from frcnn.data.sample import Dataset
from frcnn.model.detector import Network
from frcnn.model.preprocess import target_size
from frcnn.precision import Precision
from frcnn.structures import ImageBatch, Targets
from frcnn.training.optim import Schedule, make_optimizer

STEPS = 4
MARGIN = 0.9
"""Share of a time budget that is planned for."""
LONGEST = 4
"""A time budget without a number of epochs fills at most this many times the configured ones."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Forecast:
    """What a few steps showed.

    Attributes:
        step: seconds of a training batch, the waiting for data included.
        evaluation: seconds of one validation; 0 without.
        memory: bytes at the largest padded batch: of the GPU, or of this process.
        largest: (height, width) of the largest padded picture.
        device: where it was measured.
    """

    step: float
    evaluation: float
    memory: int
    largest: tuple[int, int]
    device: torch.device

    def seconds(self, schedule: Schedule) -> float:
        """Of the whole run."""
        return schedule.run_batches * self.step + schedule.epochs * self.evaluation

    def describe(self, schedule: Schedule) -> str:
        """One line for the log."""
        where = "of the GPU" if self.device.type == "cuda" else "of this process"
        steps = f"{schedule.total} steps in " if schedule.total else ""
        return (
            f"forecast: {duration(self.seconds(schedule))} for {steps}{schedule.epochs} epochs of "
            f"{schedule.batches} batches ({self.step:.2f} s each, validation {duration(self.evaluation)}), "
            f"up to {self.memory / 2**30:.1f} GiB {where} at {self.largest[0]}x{self.largest[1]}"
        )


def measure_run(
    network: Network,
    train: Loader,
    val: Loader | None,
    dataset: Dataset,
    config: Config,
    precision: Precision,
) -> Forecast:
    """Time a few real batches, after one of the largest size for the memory.

    Args:
        network: on the device of the run; it is not changed.
        train: training batches.
        val: validation batches, or None.
        dataset: the training pictures.
        config: of the run.
        precision: as the run will compute.
    """
    device = next(network.parameters()).device
    trial = copy.deepcopy(network).train()
    optimizer = make_optimizer(trial, config.train, 1e-6)

    def step(batch: Batch, evaluating: bool = False) -> None:
        batch = batch.to(device)
        noise = trial.draw_noise(batch.images, batch.targets, 0)
        with precision.autocast(device.type):
            output = trial(batch.images, batch.targets, noise, detect=evaluating)
        if not evaluating:
            assert output.losses is not None
            trial.total(output.losses).backward()
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with _own_random(device):
        batches = _timed(train, step)
        first = next(batches)[0]
        largest = largest_picture(dataset, config)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        step(_grown(first, largest))
        times = [seconds for _, seconds in (next(batches, (first, 0.0)) for _ in range(STEPS)) if seconds]
        evaluation = _evaluation(val, trial, step) if val is not None else 0.0
    once = statistics.median(times) if times else _once(lambda: step(first))
    return Forecast(once, evaluation, _memory(device), largest, device)


def largest_picture(dataset: Dataset, config: Config) -> tuple[int, int]:
    """(height, width) of the picture with the most pixels after resizing at the largest scale, padded."""
    scale, multiple = largest_scale(config), config.preprocess.pad_multiple
    sizes = {(int(h), int(w)) for h, w in dataset.pictures.sizes if h and w}
    targets = [target_size(h, w, config.preprocess, scale) for h, w in sizes] or [(multiple, multiple)]
    height, width = max(targets, key=lambda size: size[0] * size[1])
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def fit_budget(
    schedule: Schedule, forecast: Forecast, seconds: float, epochs: int | None
) -> tuple[Schedule, str]:
    """Make the schedule fit into the seconds that are left.

    Args:
        schedule: as configured.
        forecast: of the same run.
        seconds: left for training and its validations.
        epochs: at most these, where the user named a number.

    Returns:
        The schedule, and a line that says what was chosen.

    Raises:
        ValueError: when not even one step and one validation fit.
    """
    usable = seconds * MARGIN
    epoch = schedule.batches * forecast.step + forecast.evaluation
    most = epochs or schedule.epochs * LONGEST
    fitting = min(int(usable // epoch), most)
    if fitting >= 1:
        why = "as asked" if fitting == epochs else f"{duration(epoch)} each"
        return replace(schedule, epochs=fitting, total=0), f"time: {fitting} epochs fit ({why})"
    batches = int((usable - forecast.evaluation) // forecast.step)
    if batches < 1:
        need = (forecast.step + forecast.evaluation) / MARGIN
        raise ValueError(
            f"the time budget leaves {duration(seconds)} after preparation, one step and one validation need "
            f"{duration(need)}; allow more time, or use fewer validation pictures"
        )
    part = f"{batches} of the {schedule.batches} batches of one epoch fit"
    schedule = replace(schedule, epochs=1, batches=batches, total=0)
    return schedule, f"time: {part}; more time would use all pictures"


def parse_time(text: str) -> float:
    """Seconds of ``90s``, ``30m``, ``1.5h`` or ``1h30m``.

    Raises:
        ValueError: for anything else.
    """
    cleaned = text.strip().lower()
    if not re.fullmatch(r"(\d+(\.\d+)?[hms])+", cleaned):
        raise ValueError(f"time {text!r} is not understood; write for example 90s, 30m, 1.5h or 1h30m")
    total = sum(float(n) * _UNITS[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)([hms])", cleaned))
    if total <= 0:
        raise ValueError(f"time {text!r} leaves nothing to train in; write for example 30m")
    return total


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``4 min 10 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _timed(loader: Loader, step: Callable[[Batch], None]) -> Iterator[tuple[Batch, float]]:
    """Batches and the seconds that getting and training each took; the first one is not trained."""
    loader.set_epoch(0)
    batches = iter(loader)
    yield next(batches), 0.0
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        step(batch)
        yield batch, time.perf_counter() - start


def _evaluation(val: Loader, trial: Network, step: Callable[[Batch, bool], None]) -> float:
    trial.eval()
    with torch.inference_mode():
        batch = next(iter(val))
        step(batch, True)  # the first call of a shape builds kernels
        return _once(lambda: step(batch, True)) * len(val)


def _once(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _grown(batch: Batch, size: tuple[int, int]) -> Batch:
    """A batch of the given padded size with one object a picture, in the dtype of ``batch``."""
    n, (height, width) = len(batch), size
    pixels = batch.images.pixels.new_zeros(n, batch.images.pixels.shape[1], height, width)
    sizes = torch.tensor([[height, width]] * n, dtype=torch.float32)
    images = ImageBatch(
        pixels.contiguous(memory_format=torch.channels_last), sizes, torch.ones_like(sizes), sizes
    )
    boxes = torch.zeros(n, 8, 4)
    boxes[:, 0] = torch.tensor([width / 4, height / 4, width / 2, height / 2])
    labels = torch.full((n, 8), -1)
    labels[:, 0] = 0
    targets = Targets(boxes, labels, torch.zeros(n, 8, dtype=torch.bool))
    return replace(batch, images=images, targets=targets)


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _own_random(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
