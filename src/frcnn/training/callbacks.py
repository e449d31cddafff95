"""What happens around the steps of a run: progress, metrics, checkpoints, early stop, interruption."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from frcnn.data.feed.loader import Batch
from frcnn.training.journal import Journal
from frcnn.training.keeper import Keeper
from frcnn.training.lines import epoch_line, metric_name, validation_row, weighted_mean
from frcnn.training.module import TrainingModule
from frcnn.training.samples import (
    TRAIN_PICTURES,
    VAL_PICTURES,
    save_training_batch,
    save_validation_batch,
)
from frcnn.training.skipped import MOST_SKIPPED, describe_skipped, gather_names
from frcnn.training.watch import TrainingStopped

ROWS_PER_EPOCH = 10
SHOWN_SCORE = 0.5
LINE_SECONDS = 30.0
"""Without a bar, a line this often."""


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """Ctrl-C or SIGTERM, raised between two steps."""


@dataclass
class Interrupt:
    """Set by a signal; read between steps."""

    asked: bool = False

    def check(self) -> None:
        """Leave the run when a signal came.

        Raises:
            Interrupted: so that the weights are saved as they are.
        """
        if self.asked:
            raise Interrupted

    @contextmanager
    def listen(self, say: Callable[[str], None]) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the run after the current step; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may have handlers
            return

        def handle(number: int, _: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            say(f"{signal.Signals(number).name}: ending after this step; once more ends at once")

        old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


class Recorder(pl.Callback):
    """Progress, metrics and checkpoints of a run; writes on the first rank only, decides on all alike."""

    def __init__(
        self,
        keeper: Keeper,
        journal: Journal,
        interrupt: Interrupt,
        deadline: float | None = None,
        patience: int = 0,
    ) -> None:
        """``deadline``: ``time.monotonic()`` at which training should give way to the last evaluation."""
        self._keeper, self._journal, self._interrupt = keeper, journal, interrupt
        self._deadline, self._patience = deadline, patience
        self._means: list[dict[str, float]] = []
        self._latest: float | None = None
        self._spoken = 0.0
        self._restore: Any = None
        self._drawn_train = self._drawn_val = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar and keep what the run starts from, so that even its first epoch can be resumed."""
        module = _ours(pl_module)
        self._journal.start_bar(module.task.schedule.steps, module.step)
        self._spoken = time.monotonic()
        self._restore = self._interrupt.listen(self._journal.say)
        self._restore.__enter__()  # after Lightning's own handlers, which would end the run within a step
        if trainer.is_global_zero and module.task.resumed is None:
            self._keeper.save_state(module, trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._end()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back; after an interruption keep the weights as they are."""
        self._end()
        # a loader process may die of the same signal and be reported first
        asked = self._interrupt.asked or isinstance(exception, Interrupted | KeyboardInterrupt)
        if asked and trainer.is_global_zero:
            module, folder = _ours(pl_module), self._keeper.folder
            self._keeper.save_last(module)
            self._journal.say(
                f"interrupted at step {module.step}: {folder.last} holds the weights as they are, "
                f"{folder.state} the last whole epoch ({module.epoch}); go on with --resume {folder.path}"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What compiling took in all."""
        compiled = _ours(pl_module).network.compiled
        if trainer.is_global_zero and compiled is not None:
            self._journal.note(compiled.summary())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the means anew."""
        self._means = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Progress; on an interval, losses and a row of the metrics."""
        module = _ours(pl_module)
        schedule, watch = module.task.schedule, module.watch
        if module.network.compiled is not None:
            module.network.compiled.stepped()
        if (batch_idx + 1) % watch.interval == 0:
            watch.look()
        every = max(schedule.batches // ROWS_PER_EPOCH, watch.interval)
        last = batch_idx + 1 == schedule.batches or module.step == schedule.steps
        if (batch_idx + 1) % every == 0 and not last:
            self._row(trainer, module)
        if trainer.is_global_zero and self._drawn_train < TRAIN_PICTURES and module.task.resumed is None:
            spec, classes = module.task.config.preprocess, self._keeper.classes
            self._drawn_train = save_training_batch(
                self._keeper.folder.samples, batch, classes, spec, self._drawn_train
            )
        if trainer.is_global_zero and module.network.compiled is not None:
            for line in module.network.compiled.news():
                self._journal.say(line)
        self._progress(module)
        if schedule.total and module.step >= schedule.total:
            trainer.should_stop = True  # the epoch ends here, and is validated and saved as usual
        looked = (batch_idx + 1) % watch.interval == 0 or last
        if self._deadline is not None and (trainer.world_size == 1 or looked):
            self._end_in_time(trainer, module)
        self._interrupt.check()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the first pictures of every validation."""
        self._drawn_val = 0

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first pictures; leave between two batches where asked."""
        found, folder = _ours(pl_module).found, self._keeper.folder.samples
        upright = _ours(pl_module).task.config.data.exif == "apply"
        if trainer.is_global_zero and self._drawn_val < VAL_PICTURES and found is not None:
            self._drawn_val = save_validation_batch(
                folder, batch, found, self._keeper.classes, SHOWN_SCORE, self._drawn_val, upright
            )
        self._interrupt.check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's row and line, checkpoints, and whether to go on."""
        module = _ours(pl_module)
        module.watch.look()
        self._take(module)
        losses = weighted_mean(self._means)
        module.epoch += 1
        validation = module.validation if module.task.val is not None else None
        row: dict[str, float | int | None] = self._base(module, losses)
        if validation is not None:
            row |= validation_row(validation)
        better = self._keeper.judge(module, validation)
        if trainer.is_global_zero:
            self._keeper.add_row(row)
            shown = None if validation is None else validation.shown
            self._journal.say(epoch_line(row, module.task.schedule.epochs, shown, better))
            self._keeper.save(module, trainer, better)
        self._judge_skipped(trainer, module)
        if self._patience and self._keeper.stale >= self._patience:
            if trainer.is_global_zero:
                name = "AP" if validation is None else metric_name(validation.shown[0])
                self._journal.note(f"stopped early: no better validation {name} for {self._patience} epochs")
            trainer.should_stop = True

    def _end_in_time(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        """Stop at the deadline; clocks differ, so the first rank that is late decides for all."""
        assert self._deadline is not None
        late = time.monotonic() > self._deadline
        if trainer.strategy.reduce_boolean_decision(late, all=False) and not trainer.should_stop:
            if trainer.is_global_zero:
                self._journal.note(
                    f"time budget reached at step {module.step} of {module.task.schedule.steps}: "
                    "evaluating now"
                )
            trainer.should_stop = True

    def _judge_skipped(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        """Name the pictures that the epoch and its validation could not read; too many end the run, on all
        ranks alike.
        """
        assert module.feed is not None
        world, val = trainer.world_size, module.task.val
        names = gather_names(module.skipped, world)
        said = [describe_skipped(names, module.feed.images * world, module.epoch)] if names else []
        if val is not None and module.unread:
            said.append(describe_skipped(module.unread, len(val), module.epoch, validation=True))
        if trainer.is_global_zero:
            for text, _ in said:
                self._journal.note(text)
        many = "; ".join(text for text, too_many in said if too_many)
        if many:
            raise TrainingStopped(
                f"{many}; more than {MOST_SKIPPED:.0%} are too many: replace these files "
                f"(frcnn check DATA --decode finds all), then use --resume {self._keeper.folder.path}"
            )

    def _end(self) -> None:
        self._journal.stop_bar()
        if self._restore is not None:
            self._restore.__exit__(None, None, None)
            self._restore = None

    def _take(self, module: TrainingModule) -> None:
        count = float(module.watch.sums[-1])
        if count:
            means = module.watch.take()
            self._means.append(means | {"count": count})
            self._latest = means["total"]

    def _row(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        self._take(module)
        if trainer.is_global_zero:
            self._keeper.add_row(self._base(module, self._means[-1], epoch=module.epoch + 1))

    def _base(
        self, module: TrainingModule, losses: Mapping[str, float], epoch: int | None = None
    ) -> dict[str, float | int | None]:
        feed = module.feed
        assert feed is not None
        return {
            "epoch": module.epoch if epoch is None else epoch,
            "step": module.step,
            "lr": module.task.schedule.lr * module.task.schedule.factor(max(module.step - 1, 0)),
            **{f"train_{name}": value for name, value in losses.items() if name != "count"},
            "images_per_second": feed.images_per_second * module.trainer.world_size,
            "data_share": feed.data_share,
        }

    def _progress(self, module: TrainingModule) -> None:
        schedule = module.task.schedule
        if module.watch.interval == 1 and self._latest is None:
            self._latest = module.watch.mean_total
        loss = "-" if self._latest is None else f"{self._latest:.3f}"
        found = module.validation
        metric = f"  {metric_name(found.shown[0])} {found.value:.3f}" if found else ""
        text = f"epoch {module.epoch + 1}/{schedule.epochs}  loss {loss}{metric}"
        self._journal.advance(module.step, text)
        now = time.monotonic()
        if not self._journal.has_bar and now - self._spoken > LINE_SECONDS:
            self._spoken = now
            self._journal.say(f"{text}  step {module.step}/{schedule.steps}")


def _ours(module: pl.LightningModule) -> TrainingModule:
    assert isinstance(module, TrainingModule)
    return module
