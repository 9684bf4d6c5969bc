"""How good is it so far: selection of the best weights, early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import lightning as L
import torch.distributed
from torch.utils.tensorboard import SummaryWriter

from mt.lines import duration
from mt.recipe import Optimization
from mt.training.checkpoints import Checkpoints
from mt.training.module import TrainingModule, UpdateCallback
from mt.training.progress import Metrics, Progress

_Item = TypeVar("_Item")


def across_devices(items: Sequence[_Item], work: Callable[[list[_Item]], list[Any]]) -> list[Any]:
    """Share items out to all training processes, work on them, and gather the results in order.

    Every item is worked on exactly once, and every process gets all results.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return work(list(items))
    devices, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    gathered: list[list[Any]] = [[] for _ in range(devices)]
    torch.distributed.all_gather_object(gathered, work(list(items[rank::devices])))
    results: list[Any] = [None] * len(items)
    for device, part in enumerate(gathered):
        results[device::devices] = part
    return results


class Moment(NamedTuple):
    """When and where a validation takes place."""

    step: int
    """Updates so far."""
    last: bool
    """Whether training ends here."""
    device: torch.device
    board: SummaryWriter | None
    """TensorBoard, on the first process."""


class Measured(NamedTuple):
    """What a validation has found; alike on all processes."""

    row: Mapping[str, float]
    """Columns of metrics.csv."""
    told: str
    """The same for a person, in a few words."""
    score: float | None = None
    """What decides which weights are kept, the greater the better; None while it is too early."""
    score_told: str = ""
    """The score for a person, such as `BLEU 34.12`."""
    samples: str = ""
    """Some outputs, on lines of their own."""


Measure = Callable[[Any, Moment], Measured]
"""Measures a network on the validation set, each process its share of it."""


class Validation(UpdateCallback):
    """Validates every so many updates, on the weights that would be kept.

    Args:
        measure: What is measured.
        every: Updates between two validations.
        training: The recipe's options of selection and stopping.
        keep: Called with the best weights so far, on the first process.
        metrics: Where the figures go.
        progress: Told of the best score and of time to leave out.
        checkpoints: Asked for a checkpoint after each validation.
        observe: Told of each score and its update; training ends where it says so.
    """

    def __init__(
        self,
        measure: Measure,
        every: int,
        training: Optimization,
        keep: Callable[[Any], None],
        metrics: Metrics,
        progress: Progress,
        checkpoints: Checkpoints,
        observe: Callable[[int, Measured], bool] | None = None,
    ):
        self.measure, self.every, self.training, self.keep = measure, every, training, keep
        self.metrics, self.progress, self.checkpoints = metrics, progress, checkpoints
        self.observe = observe
        self.best, self.since_best = -math.inf, 0
        self.last_step = -1
        """Step of the last validation that had a score."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {
            "best": self.best,
            "told": self.progress.best,
            "since_best": self.since_best,
            "last_step": self.last_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best, self.progress.best = state_dict["best"], state_dict["told"]
        self.since_best, self.last_step = state_dict["since_best"], state_dict["last_step"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave a run as it is that is resumed after its end."""
        assert isinstance(pl_module, TrainingModule)
        trainer.should_stop = pl_module.progress >= 1 or self._stalled

    def on_update_end(self, trainer: L.Trainer, module: TrainingModule) -> None:
        """Validate where it is time."""
        if trainer.global_step % self.every == 0:
            self._validate(trainer, module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the end of the run."""
        if trainer.global_step != self.last_step:
            self._validate(trainer, pl_module)

    @property
    def _stalled(self) -> bool:
        return 0 < self.training.patience <= self.since_best

    def _validate(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        began = time.monotonic()
        step, board = trainer.global_step, None
        if self.metrics.tensorboard is not None and trainer.is_global_zero:
            board = self.metrics.tensorboard.experiment
        module.take_snapshot(step)
        last = trainer.should_stop or module.progress >= 1
        measured = self.measure(module.best, Moment(step, last, module.device, board))
        message = f"step {step:,} · {measured.told}"
        if measured.score is not None:
            self.last_step = step
            better = measured.score > self.best
            message += f" · {measured.score_told}{' (best)' if better else ''}"
            self._select(trainer, module, measured)
            if self.observe is not None and self.observe(step, measured):
                trainer.should_stop = True
            if board is not None and measured.samples:
                board.add_text("samples", f"```\n{measured.samples}\n```", step)
        module.model.train()
        self.progress.tick(trainer, module)
        trainer.should_stop = trainer.should_stop or module.progress >= 1
        epoch = step / self.progress.updates_per_epoch
        self.metrics.add(step, {"epoch": epoch, **measured.row, "seconds": module.seconds})
        elapsed = time.monotonic() - began
        self.progress.pause(elapsed)
        if trainer.is_global_zero:
            samples = f"\n{measured.samples}" if measured.samples else ""
            self.progress.say(f"{message} · took {duration(elapsed)}{samples}")
        self.checkpoints.due = True

    def _select(self, trainer: L.Trainer, module: TrainingModule, measured: Measured) -> None:
        assert measured.score is not None
        if measured.score > self.best:
            self.best, self.since_best = measured.score, 0
            self.progress.best = measured.score_told
            if trainer.is_global_zero:
                self.keep(module.best)
            return
        self.since_best += 1
        options = self.training
        if options.schedule == "plateau" and self.since_best % (options.plateau_patience + 1) == 0:
            module.plateau *= options.plateau_factor
        if self._stalled:
            self.progress.say(
                f"stopping: no better score in {self.since_best} validations (training.patience)"
            )
            trainer.should_stop = True
