"""One training step, as a Lightning module."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mt.errors import MTError
from mt.recipe import Optimization
from mt.training.datamodule import TrainingBatch
from mt.training.schedules import learning_rate


class DivergedError(MTError):
    """Training has come to nothing but NaN or infinite gradients."""


class Budget(NamedTuple):
    """How long a run may be; at least one of the two is set."""

    updates: int | None
    """Updates of the whole run."""
    seconds: float | None
    """Wall-clock seconds, over all resumptions."""


class StepSums(NamedTuple):
    """What a training step reports: sums over what this device predicts."""

    loss: Tensor
    """What is minimised; of tokens and classes, their label-smoothed cross-entropy in nats."""
    plain: Tensor
    """The same as it is told, such as the negative log-likelihood."""
    inputs: int
    """Tokens or time steps read, ends of sentences included."""
    outputs: int
    """Tokens, classes or values predicted."""


class TrainingModule(L.LightningModule, ABC):
    """A network with its loss and optimizer; each task says what its loss is.

    All randomness of a step is a function of (seed, step, device): a resumed run repeats the
    dropout of an uninterrupted one without any saved generator.
    """

    def __init__(self, model: nn.Module, training: Optimization, seed: int, budget: Budget):
        super().__init__()
        self.model = model
        self.training_options = training
        self.seed = seed
        self.budget = budget
        self.average: AveragedModel | None = None
        if training.ema > 0:
            self.average = AveragedModel(
                model, multi_avg_fn=_exponential_average(training.ema), use_buffers=False
            )
            self.average.requires_grad_(False)
        self.snapshots: dict[int, list[Tensor]] = {}
        """The weights at the last validations, by their updates."""
        self._mean: list[nn.Module] = []  # of these; in a list, where Lightning does not see it
        self.learning_rate = 0.0
        """Learning rate of the last update."""
        self.gradient_norm = 0.0
        """Norm of the last update's gradient, before clipping."""
        self.skipped, self.skipped_in_a_row = 0, 0
        """Updates that a NaN or infinite gradient has cost."""
        self.seconds = 0.0
        """Wall-clock seconds of training, over all resumptions."""
        self.plateau = 1.0
        """Product of the learning rate's reductions so far."""

    @property
    def best(self) -> nn.Module:
        """The weights to validate and keep: an average where there is one."""
        if self._mean:
            return self._mean[0]
        if self.average is None:
            return self.model
        return self.average.module

    def take_snapshot(self, step: int) -> None:
        """Average the weights with those at the validations before, where the recipe says so."""
        most = self.training_options.average_validations
        if most == 1:
            return
        self.snapshots[step] = [p.detach().clone() for p in self.model.parameters()]
        self.snapshots = dict(sorted(self.snapshots.items())[-most:])
        self._mean = self._mean or [copy.deepcopy(self.model)]
        with torch.no_grad():
            for mean, *values in zip(
                self._mean[0].parameters(), *self.snapshots.values(), strict=True
            ):
                mean.copy_(torch.stack(values).mean(dim=0))

    def transfer_batch_to_device(
        self, batch: TrainingBatch, device: torch.device, dataloader_idx: int
    ) -> TrainingBatch:
        """Move a batch, leaving its lengths on the CPU."""
        return TrainingBatch(batch.batch.to(device), batch.normalizer)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> dict[str, Any]:
        """Compute this device's share of an update's loss."""
        micro = batch_idx % self.trainer.accumulate_grad_batches
        words = self.seed, self.trainer.global_step, micro, self.global_rank
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
        sums = self.loss_sums(batch.batch)
        # Lightning divides by the accumulated batches and averages over devices; both are undone,
        # so that every token of the update weighs the same.
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return {"loss": sums.loss * (parts / batch.normalizer), "sums": _detach(sums)}

    @abstractmethod
    def loss_sums(self, batch: Any) -> StepSums:
        """Sum the loss over what a batch predicts."""

    def tell(self, plain: float, inputs: float, outputs: float) -> str:
        """Say how training goes in the progress line.

        Args:
            plain: Mean of `StepSums.plain`.
            inputs: Read in a second, on all devices.
            outputs: Predicted in a second.
        """
        return f"ppl {math.exp(min(plain, 20)):.1f} · {inputs:,.0f} + {outputs:,.0f} tokens/s"

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the recipe's optimizer."""
        options = self.training_options
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if options.optimizer == "sgd":
            return torch.optim.SGD(
                parameters,
                lr=options.learning_rate,
                momentum=options.momentum,
                weight_decay=options.weight_decay,
            )
        kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
        return kind(
            parameters,
            lr=options.learning_rate,
            betas=options.betas,
            eps=options.epsilon,
            weight_decay=options.weight_decay,
            fused=True,
        )

    @property
    def progress(self) -> float:
        """Share of the budget that is used, from 0 to 1: of updates or of time, the greater."""
        steps = self.trainer.global_step / self.budget.updates if self.budget.updates else 0.0
        seconds = self.seconds / self.budget.seconds if self.budget.seconds else 0.0
        return min(1.0, max(steps, seconds))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the weights at the schedule's learning rate, then their moving average."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        self.learning_rate = learning_rate(
            self.training_options, self.trainer.global_step, self.progress, self.plateau
        )
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate
        super().optimizer_step(*args, **kwargs)
        if self.average is not None and self.skipped_in_a_row == 0:
            self.average.update_parameters(self.model)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, and guard the weights against a gradient that is not finite.

        Raises:
            MTError: Too many updates in a row had to be skipped.
        """
        parameters = list(self.model.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self.gradient_norm = float(norm)
        if not np.isfinite(self.gradient_norm):
            self.skipped += 1
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row > self.training_options.max_skipped:
                raise DivergedError(
                    f"training diverged: {self.skipped_in_a_row} updates in a row had a NaN or "
                    "infinite gradient; lower training.learning_rate, lengthen "
                    "training.warmup_steps or set trainer.gradient_clip_val"
                )
            for parameter in parameters:  # the optimizer passes over what has no gradient
                parameter.grad = None
            return
        self.skipped_in_a_row = 0
        if gradient_clip_val and gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        elif gradient_clip_val:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know of."""
        checkpoint["mt"] = {
            "seconds": self.seconds,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "plateau": self.plateau,
            "snapshots": self.snapshots,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back, and begin Lightning's one long epoch anew at the same update.

        Where it stood in that epoch would end a run that had come to the end of a smaller budget,
        and would count batches from where another number of them made an update.
        """
        for name, value in checkpoint["mt"].items():
            setattr(self, name, value)
        updates = checkpoint.pop("loops")["fit_loop"][
            "epoch_loop.automatic_optimization.optim_progress"
        ]
        loop = self.trainer.fit_loop.epoch_loop
        loop.automatic_optimization.optim_progress.load_state_dict(updates)


class UpdateCallback(L.Callback, ABC):
    """Does something after each update, whatever the number of batches it took."""

    @abstractmethod
    def on_update_end(self, trainer: L.Trainer, module: TrainingModule) -> None:
        """Called when the weights have changed."""

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """See Lightning."""
        assert isinstance(pl_module, TrainingModule)
        if ends_update(trainer, batch_idx):
            self.on_update_end(trainer, pl_module)


def ends_update(trainer: L.Trainer, batch_idx: int) -> bool:
    """Tell whether a batch is the last of its update, after which the weights have changed."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def _detach(sums: StepSums) -> StepSums:
    return sums._replace(loss=sums.loss.detach())


def _exponential_average(decay: float) -> Any:
    """Make the update of an exponential moving average.

    The decay starts low and rises to its value, min(decay, (1 + n) / (10 + n)) at the n-th update,
    so that the first, untrained weights are soon forgotten.
    """

    @torch.no_grad()
    def update(averages: Any, currents: Any, count: Any) -> None:
        n = int(count)
        torch._foreach_lerp_(averages, currents, 1 - min(decay, (1 + n) / (10 + n)))

    return update
