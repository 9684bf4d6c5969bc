"""What a person sees of training: the progress line, metrics.csv and TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from mt.files import write_atomically
from mt.lines import duration
from mt.training.module import StepSums, TrainingModule, ends_update

_log = logging.getLogger("mt")

COLUMNS = (
    "step",
    "epoch",
    "seconds",
    "loss",
    "learning_rate",
    "gradient_norm",
    "source_tokens_per_second",
    "target_tokens_per_second",
    "skipped_updates",
)
"""Columns of metrics.csv that training rows fill; those of validations follow, by task."""


class Metrics:
    """Appends rows to metrics.csv and TensorBoard; only the first process writes.

    Args:
        path: The file.
        columns: Names of what validations measure.
        tensorboard: The logger.
        writes: Whether this is the first process.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        tensorboard: TensorBoardLogger | None,
        writes: bool,
    ):
        self.path, self.columns = path, (*COLUMNS, *columns)
        self.tensorboard, self.writes = tensorboard, writes

    def start(self, step: int) -> None:
        """Begin the file, keeping what an interrupted run wrote up to the step it resumes from."""
        if not self.writes:
            return
        kept: list[dict[str, str]] = []
        if step > 0 and self.path.exists():
            with open(self.path, newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        text = io.StringIO()
        # A row of an older version may have columns that are no more.
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(self.path, text.getvalue())

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Append a row."""
        if not self.writes:
            return
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(
                {"step": step, **{name: f"{value:.6g}" for name, value in row.items()}}
            )
        if self.tensorboard is not None:
            self.tensorboard.log_metrics(dict(row), step)


class Progress(L.Callback):
    """Keeps the clock, the throughput and the line that tells them.

    On a terminal the line is redrawn; elsewhere a line is written every half minute.
    """

    def __init__(self, metrics: Metrics, updates_per_epoch: int, log_every: int):
        self.metrics = metrics
        self.updates_per_epoch, self.log_every = updates_per_epoch, log_every
        self.best = ""
        """The best score so far, as it is told."""
        self._terminal = sys.stderr.isatty()
        self._clock = self._shown = time.monotonic()
        self._interval = self._new_interval()

    @staticmethod
    def _new_interval() -> dict[str, Any]:
        return {"start": time.monotonic(), "loss": 0.0, "plain": 0.0, "inputs": 0, "outputs": 0}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.metrics.start(trainer.global_step)
        self._clock = time.monotonic()
        self._interval = self._new_interval()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count a batch; log where an interval ends; stop where the budget does."""
        assert isinstance(pl_module, TrainingModule)
        sums: StepSums = outputs["sums"]
        interval = self._interval
        interval["loss"] = interval["loss"] + sums.loss
        interval["plain"] = interval["plain"] + sums.plain
        interval["inputs"] += sums.inputs
        interval["outputs"] += sums.outputs
        if not ends_update(trainer, batch_idx):
            return
        self.tick(trainer, pl_module)
        if pl_module.progress >= 1:
            trainer.should_stop = True
        if trainer.global_step % self.log_every == 0 or trainer.should_stop:
            self._log(trainer, pl_module)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Tell how to go on after Ctrl-C or a signal to end."""
        if isinstance(exception, (KeyboardInterrupt, SystemExit)) and trainer.is_global_zero:
            self.say("interrupted; --resume goes on from the last checkpoint, if there is one")

    def tick(self, trainer: L.Trainer, module: TrainingModule) -> None:
        """Add the time since the last call to the run's seconds, alike on all devices."""
        now = time.monotonic()
        module.seconds += now - self._clock
        self._clock = now
        if module.budget.seconds and trainer.world_size > 1:
            module.seconds = trainer.strategy.broadcast(module.seconds)

    def pause(self, seconds: float) -> None:
        """Leave a validation out of the throughput."""
        self._interval["start"] += seconds

    def _log(self, trainer: L.Trainer, module: TrainingModule) -> None:
        interval, self._interval = self._interval, self._new_interval()
        if interval["outputs"] == 0:
            return
        seconds = max(1e-9, self._interval["start"] - interval["start"])
        outputs = interval["outputs"]
        rates = [
            trainer.world_size * interval[side] / seconds for side in ("inputs", "outputs")
        ]  # the other devices' batches are alike
        loss, plain = float(interval["loss"]) / outputs, float(interval["plain"]) / outputs
        row = {
            "epoch": trainer.global_step / self.updates_per_epoch,
            "seconds": module.seconds,
            "loss": loss,
            "learning_rate": module.learning_rate,
            "gradient_norm": module.gradient_norm,
            "source_tokens_per_second": rates[0],
            "target_tokens_per_second": rates[1],
            "skipped_updates": module.skipped,
        }
        self.metrics.add(trainer.global_step, row)
        now = time.monotonic()
        if trainer.is_global_zero and (self._terminal or now - self._shown > 30):
            self._shown = now
            self._show(trainer, module, loss, module.tell(plain, *rates))

    def _show(self, trainer: L.Trainer, module: TrainingModule, loss: float, told: str) -> None:
        share = module.progress
        left = module.seconds * (1 - share) / share if share > 0 else 0.0
        total = f"/{module.budget.updates:,}" if module.budget.updates else ""
        best = f" · best {self.best}" if self.best else ""
        skipped = f" · {module.skipped} skipped" if module.skipped else ""
        line = (
            f"step {trainer.global_step:,}{total}"
            f" · epoch {trainer.global_step / self.updates_per_epoch:.1f}"
            f" · loss {loss:.3f} · {told}{best}{skipped} · {duration(left)} left"
        )
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        else:
            _log.info("%s", line)

    def say(self, message: str) -> None:
        """Print a line above the progress line."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
        _log.info("%s", message)
