"""The network as Lightning trains it: one step, one validation pass, the optimizer, the averaged weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from frcnn.config import Config
from frcnn.data.feed.loader import Batch, Loader
from frcnn.data.sample import Dataset
from frcnn.evaluation.run import readable
from frcnn.model.detector import Network
from frcnn.precision import Precision
from frcnn.structures import Detections, LossRecord, Output
from frcnn.training.compiling import compile_training
from frcnn.training.ema import Average
from frcnn.training.feed import Feed, make_loaders
from frcnn.training.folder import RunFolder
from frcnn.training.optim import Schedule, make_optimizer, make_scheduler
from frcnn.training.skipped import gather_names
from frcnn.training.state import TrainState, mix_seed, seed_everything
from frcnn.training.validation import Collector, Validation, gather_rows, judge, validation_config
from frcnn.training.watch import LossWatch, Seen


@dataclass(frozen=True)
class Task:
    """What a run trains and how; decided before its first step.

    Attributes:
        config: the configuration.
        schedule: length and learning rate.
        precision: number format.
        folder: where the run writes.
        train: training pictures.
        val: validation pictures, or None.
        resumed: the state to go on from, or None.
    """

    config: Config
    schedule: Schedule
    precision: Precision
    folder: RunFolder
    train: Dataset
    val: Dataset | None
    resumed: TrainState | None = None


class TrainingModule(pl.LightningModule):
    """Trains ``network`` and keeps the average of its weights.

    Epochs, batches and steps are counted here over the whole run, because to Lightning a resumed run is new.

    Attributes:
        network: under training.
        average: evaluated and saved.
        epoch: finished epochs.
        batches: trained batches on this device.
        step: optimizer steps.
        validation: the latest validation, or None.
        latest: the batch of the latest step, for messages.
        found: detections in the latest validation batch.
        skipped: files of the current epoch that this rank could not read; a set in order.
        unread: files that the latest validation could not read, of all ranks.
        feed: training batches of this rank, from the start of the training on.
    """

    def __init__(
        self, network: Network, task: Task, loaders: tuple[Loader, Loader | None] | None = None
    ) -> None:
        """``loaders`` None: each rank makes its own."""
        super().__init__()
        self.network, self.task = network, task
        self.average = Average(network, task.config.train.ema)
        self.average.network.config = validation_config(task.config)  # differs for detection only
        self.epoch = self.batches = self.step = 0
        self.validation: Validation | None = None
        self.latest: Batch | None = None
        self.found: Detections | None = None
        self.skipped: dict[str, None] = {}
        self.unread: list[str] = []
        self.feed: Feed | None = None
        self._loaders = loaders
        self.fused = False
        self._watch: LossWatch | None = None
        self._collector = Collector(network.losses.names())
        state = task.resumed
        if state is not None:
            network.load_state_dict(state.network)
            self.average.load(state.average, state.updates)
            self.epoch, self.batches, self.step = state.epoch, state.batches, state.step

    @property
    def watch(self) -> LossWatch:
        """The sums of the losses."""
        assert self._watch is not None, "training has not started"
        return self._watch

    def train_dataloader(self) -> Feed:
        """The training batches of this rank."""
        self.feed = Feed(self._pair()[0], self.epoch, self.task.schedule.batches)
        return self.feed

    def val_dataloader(self) -> Loader | list[Any]:
        """The validation batches of this rank; nothing without validation."""
        return self._pair()[1] or []

    def _pair(self) -> tuple[Loader, Loader | None]:
        if self._loaders is None:
            task, trainer = self.task, self.trainer
            self._loaders = make_loaders(
                task.train, task.val, task.config, trainer.global_rank, trainer.world_size
            )
        return self._loaders

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule, as the resumed state left them."""
        task, config = self.task, self.task.config.train
        self.fused = self.device.type == "cuda" and task.precision.format != "fp16"
        optimizer = make_optimizer(self.network, config, task.schedule.lr, fused=self.fused)
        scheduler = make_scheduler(optimizer, task.schedule)
        if task.resumed is not None:
            optimizer.load_state_dict(task.resumed.optimizer)
            scheduler.load_state_dict(task.resumed.scheduler)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Bring along what Lightning does not move."""
        self.network.train()
        self.average.network.to(self.device)
        if self.average.network is not self.network:
            self.average.network.eval()
        names, trained = self.network.losses.names(), self.network.trained_losses
        self._watch = LossWatch(self.device, self._report_bad_step, names, trained)
        if self.task.config.train.compile != "none":  # here: a copy in another process is not compiled
            compile_training(self.network, self.task.config, self._pair()[0])
        if self.fused:  # the kernel itself leaves the weights alone where the flag is set
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.found_inf = self._watch.bad  # type: ignore[union-attr]
            optimizer.grad_scale = torch.ones((), device=self.device)  # type: ignore[union-attr]

    def on_train_epoch_start(self) -> None:
        """Every epoch starts its random generators anew, so that a resumed one needs no state of theirs."""
        seed_everything("epoch", self.task.config.train.seed, self.epoch, self.global_rank)
        self.skipped = {}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch beside the running step."""
        return batch.to(device, non_blocking=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # type: ignore[override]
        """The total loss of a batch."""
        self.latest = batch
        self.skipped |= dict.fromkeys(batch.skipped)
        seed = mix_seed("step", self.task.config.train.seed, self.batches, self.global_rank)
        images, targets = batch.images, batch.targets
        if self.network.compiled is not None:
            images, targets = self.network.compiled.fit(images, targets)
        noise = self.network.draw_noise(images, targets, seed)
        output = self.network(images, targets, noise)
        losses = output.losses
        assert isinstance(losses, LossRecord)
        self.watch.losses(losses, Seen(self.step + 1, self.epoch + 1, self.lr, batch), output.counts)
        self.batches += 1
        return self.network.total(losses)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Limit the norm of the gradient, without a copy to the host."""
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.watch.gradient(norm, scaled=self.task.precision.format == "fp16")
        limit = self.task.config.train.clip
        if limit:
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), limit, norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the average follow."""
        super().optimizer_step(*args, **kwargs)
        self.average.update(self.network)
        self.step += 1

    @property
    def lr(self) -> float:
        """Learning rate of the coming step (of the first group)."""
        return self.task.schedule.lr * self.task.schedule.factor(self.step)

    def on_validation_epoch_start(self) -> None:
        """Start from nothing."""
        self._collector = Collector(self.network.losses.names())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Losses and detections of the averaged weights; the noise is the same in every validation."""
        output = self.validate_batch(batch, batch_idx)
        self.found = output.detections
        self._collector.add(batch, output)

    def validate_batch(self, batch: Batch, batch_idx: int) -> Output:
        """What the averaged network says of a batch with its objects known."""
        network = self.average.network
        seed = mix_seed("validation", self.task.config.train.seed, batch_idx, self.global_rank)
        noise = network.draw_noise(batch.images, batch.targets, seed)
        return network(batch.images, batch.targets, noise, detect=True)

    def on_validation_epoch_end(self) -> None:
        """Judge the detections of all ranks; every rank gets the same numbers and stops or goes on alike."""
        assert self.task.val is not None
        rows, sums = self._collector.tensors(self.device)
        if self.trainer.world_size > 1:
            rows = gather_rows(rows)
            torch.distributed.all_reduce(sums)
        self.unread = gather_names(self._collector.unread, self.trainer.world_size)
        val = readable(self.task.val, set(self.unread))
        names, trained = self.network.losses.names(), self.network.trained_losses
        self.validation = judge(rows, sums, val, self.task.config, names, trained)

    def _report_bad_step(self, content: dict[str, Any]) -> None:
        if self.global_rank == 0:
            self.task.folder.write_json("nan_step.json", content)
