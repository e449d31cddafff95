"""What a run keeps on disk: rows of metrics, model files, and the state that a resumed run goes on from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from frcnn.evaluation.report import Report
from frcnn.training.folder import Row, RunFolder
from frcnn.training.journal import Journal
from frcnn.training.state import TrainState, save_state
from frcnn.training.validation import Validation
from frcnn.weights.checkpoint import Checkpoint, save_checkpoint

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from frcnn.training.module import TrainingModule


class Keeper:
    """Knows the best validation so far and writes the files of a run.

    Attributes:
        best_ap: best validation AP (of proposals alone: AR@100), None before the first.
        best_epoch: its epoch, from 1; 0 before the first.
        best_loss: its validation loss, which decides between equal ones.
        best_report: what it said; None where that was before this session.
        stale: validations since then.
        thresholds: best-F1 score of each class in the last validation; None without one.
        metrics: of the last validation.
    """

    def __init__(
        self,
        folder: RunFolder,
        classes: tuple[str, ...],
        source: dict[str, Any],
        digest: str,
        journal: Journal,
    ) -> None:
        self.folder, self.classes, self.source, self.digest = folder, classes, source, digest
        self._journal = journal
        self.best_ap: float | None = None
        self.best_epoch = self.stale = 0
        self.best_loss: float | None = None
        self.best_report: Report | None = None
        self.thresholds: tuple[float, ...] | None = None
        self.metrics: dict[str, float] = {}
        self._rows: list[dict[str, Any]] = []

    def resume(self, state: TrainState) -> None:
        """Go on from a saved state; rows that were written after it are dropped."""
        self.best_ap, self.best_epoch, self.stale = state.best_ap, state.best_epoch, state.stale
        self.best_loss = state.best_loss
        self.thresholds = None if state.thresholds is None else tuple(state.thresholds)
        self.metrics = dict(state.metrics)
        self._rows = [dict(row) for row in self.folder.rows() if int(row["step"] or 0) <= state.step]

    def add_row(self, row: Row) -> None:
        """Add a row to ``metrics.csv``."""
        self._rows.append(dict(row))
        self.folder.write_rows(self._rows)

    def judge(self, module: TrainingModule, validation: Validation | None) -> bool:
        """Whether the validation that just ended is the best one so far."""
        if validation is None:
            return False
        self.thresholds = validation.report.thresholds
        self.metrics = {k: v for k, v in validation.report.metrics.items() if v is not None}
        ap, loss = validation.value, validation.losses["total"]
        higher = self.best_ap is None or ap > self.best_ap
        self.stale = 0 if higher else self.stale + 1
        better = higher or (ap == self.best_ap and self.best_loss is not None and loss < self.best_loss)
        if better:
            self.best_ap, self.best_loss, self.best_epoch = ap, loss, module.epoch
            self.best_report = validation.report
        return better

    def save(self, module: TrainingModule, trainer: pl.Trainer, better: bool) -> None:
        """Write the state, ``last.safetensors``, where better ``best.safetensors`` and its evaluation, and
        where ``train.save_every`` wants it the model file of this epoch.
        """
        checkpoint, every = self.checkpoint(module), module.task.config.train.save_every
        save_checkpoint(self.folder.last, checkpoint)
        if every and module.epoch % every == 0:
            save_checkpoint(self.folder.of_epoch(module.epoch), checkpoint)
        if better:
            save_checkpoint(self.folder.best, checkpoint)
            assert module.validation is not None
            self.folder.write_json("evaluation.json", module.validation.report.to_dict())
        self.save_state(module, trainer)

    def save_last(self, module: TrainingModule) -> None:
        """Write the averaged weights as they are now; figures of older weights are not stored with them."""
        checkpoint = self.checkpoint(module)
        save_checkpoint(
            self.folder.last, Checkpoint(checkpoint.state, checkpoint.config, self.classes, self.thresholds)
        )

    def checkpoint(self, module: TrainingModule) -> Checkpoint:
        """The averaged weights with everything that a model file holds."""
        state = module.average.state()
        return Checkpoint(state, module.task.config, self.classes, self.thresholds, self.metrics)

    def save_state(self, module: TrainingModule, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt``."""
        task = module.task
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        state = TrainState(
            config=task.config.model_dump(mode="json"),
            classes=list(self.classes),
            source=self.source,
            digest=self.digest,
            schedule=asdict(task.schedule),
            precision=task.precision.format,
            epoch=module.epoch,
            batches=module.batches,
            step=module.step,
            network=_host(module.network.state_dict()),
            average=_host(module.average.state()),
            updates=module.average.updates,
            optimizer=trainer.optimizers[0].state_dict(),
            scheduler=_scheduler_state(trainer),
            scaler=scaler.state_dict() if scaler is not None else {},
            best_ap=self.best_ap,
            best_loss=self.best_loss,
            best_epoch=self.best_epoch,
            stale=self.stale,
            thresholds=None if self.thresholds is None else list(self.thresholds),
            metrics=self.metrics,
            notes=self._journal.notes,
        )
        save_state(self.folder.state, state)


def _host(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=False) for name, value in state.items()}


def _scheduler_state(trainer: pl.Trainer) -> dict[str, Any]:
    state: dict[str, Any] = trainer.lr_scheduler_configs[0].scheduler.state_dict()
    assert not any(isinstance(value, torch.nn.Module) for value in state.values())
    return state
