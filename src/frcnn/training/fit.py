"""The one place where Lightning's Trainer is made: quiet, without its own checkpoints and loggers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.multiprocessing import ProcessRaisedException

from frcnn.data.feed.loader import Loader
from frcnn.data.sample import DataError
from frcnn.model.detector import Network
from frcnn.training.callbacks import Interrupt, Interrupted, Recorder
from frcnn.training.journal import Journal
from frcnn.training.keeper import Keeper
from frcnn.training.module import Task, TrainingModule
from frcnn.training.watch import TrainingStopped

LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")


def fit(
    network: Network,
    task: Task,
    loaders: tuple[Loader, Loader | None],
    keeper: Keeper,
    journal: Journal,
    device: torch.device,
    deadline: float | None = None,
) -> TrainingModule:
    """Train until the schedule ends, patience or time runs out.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the averaged weights are in ``last.safetensors``.
        TrainingStopped: when the run cannot go on.
    """
    several = task.schedule.devices > 1
    module = TrainingModule(network, task, None if several else loaders)  # every rank makes its own
    interrupt = Interrupt()
    recorder = Recorder(keeper, journal, interrupt, deadline, task.config.train.patience)
    with _quiet():
        trainer = _trainer(module, device, recorder)
        try:
            trainer.fit(module)
        except (Interrupted, KeyboardInterrupt, SystemExit):
            raise KeyboardInterrupt from None
        except DataError as error:
            raise TrainingStopped(
                f"a picture could not be read while training: {error}; replace it "
                f"(frcnn check DATA --decode finds all), then use --resume {keeper.folder.path}"
            ) from error
        except torch.OutOfMemoryError as error:
            raise TrainingStopped(_out_of_memory(module)) from error
        except ProcessRaisedException as error:
            raise _from_rank(error) from None
        except torch._dynamo.exc.TorchDynamoException as error:  # of a gradient, which is compiled last
            if network.compiled is None:
                raise
            raise network.compiled.refusal(error) from error
        except RuntimeError as error:
            if interrupt.asked:  # a loader process died of the same signal
                raise KeyboardInterrupt from None
            if not str(error).startswith("DataLoader worker (pid"):  # else raised in one that is alive
                raise
            raise TrainingStopped(
                "a loader process ended unexpectedly, most often because the memory was full; use --set "
                f"data.workers=0, or fewer than there were, with --resume {keeper.folder.path}"
            ) from error
    return module


def _trainer(module: TrainingModule, device: torch.device, recorder: Recorder) -> pl.Trainer:
    task = module.task
    world = task.schedule.devices
    index = device.index or 0
    accelerator = {"cuda": "gpu"}.get(device.type, device.type)
    plugins: Any = None
    precision: Any = task.precision.lightning
    if task.precision.format == "fp16":
        scaler = torch.amp.GradScaler(device.type)
        if task.resumed is not None and task.resumed.scaler:
            scaler.load_state_dict(task.resumed.scaler)
        plugins, precision = [MixedPrecision("16-mixed", device.type, scaler)], None
    return pl.Trainer(
        accelerator=accelerator,
        devices=list(range(index, index + world)) if accelerator == "gpu" else world,
        strategy=_strategy(module) if world > 1 else "auto",
        precision=precision,
        plugins=plugins,
        min_epochs=0,  # a deadline may end the first epoch
        max_epochs=task.schedule.epochs - module.epoch,
        accumulate_grad_batches=task.schedule.accumulate,
        callbacks=[recorder],
        deterministic=task.config.train.deterministic or None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=task.folder.path,
    )


def _strategy(module: TrainingModule) -> str:
    """Levels that only a loss which is not trained looks at get no gradient: DDP must expect that."""
    network = module.network
    whole = network.trained_losses == network.losses.names() and network.config.detector != "rpn"
    return "ddp_spawn" if whole else "ddp_spawn_find_unused_parameters_true"


def _from_rank(error: ProcessRaisedException) -> BaseException:
    """What the process of one device raised, from the last line of its traceback."""
    last = str(error).strip().splitlines()[-1]
    if last.startswith(f"{Interrupted.__module__}.{Interrupted.__qualname__}"):
        return KeyboardInterrupt()
    return TrainingStopped(last.partition(": ")[2] or last)


def _out_of_memory(module: TrainingModule) -> str:
    batch = module.latest
    config = module.task.config
    what = ""
    if batch is not None:
        counts = batch.targets.real.sum(1).tolist()
        what = f" with a batch of {tuple(batch.images.pixels.shape)} and {counts} objects"
    half = max(config.train.batch // 2, 1)
    return (
        f"the GPU's memory is full at step {module.step + 1}{what}; use --batch {half} "
        f"--set train.accumulate={config.train.accumulate * 2}, or --set preprocess.min_size="
        f"{config.preprocess.min_size * 3 // 4}, or --set train.precision=bf16"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice and advertisements say nothing that a user of this library can act on."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\).*before.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
