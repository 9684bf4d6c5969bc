"""Training itself, whatever the task: Lightning's loop with our clock, validation, checkpoints."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from mt.recipe import Recipe
from mt.training.checkpoints import Checkpoints, newest_whole_checkpoint
from mt.training.datamodule import DataModule, TrainingData
from mt.training.folder import RunFolder
from mt.training.module import Budget, TrainingModule
from mt.training.progress import Metrics, Progress
from mt.training.trainer import budget, validation_interval, without_advice
from mt.training.validation import Measure, Measured, Validation

_log = logging.getLogger("mt")
_Recipe = TypeVar("_Recipe", bound=Recipe, covariant=True)


class Run(NamedTuple, Generic[_Recipe]):
    """A run that was asked for and found possible so far."""

    trainer: L.Trainer
    recipe: _Recipe
    folder: RunFolder
    resume: bool
    """Go on from the newest whole checkpoint, if there is one."""
    overwrite: bool
    """Replace a run in the folder."""
    observe: Callable[[int, Measured], bool] | None = None
    """Told of each validation that has a score, with its update; training ends where it says so.
    Such a run is a trial: it ends with its training, and no test text is looked at."""


def leads() -> bool:
    """Tell whether this is the first of the training processes, whoever launches them."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name, "0")) == 0 for name in ranks)


def fit(
    run: Run[Recipe],
    data: TrainingData,
    make_module: Callable[[Budget], TrainingModule],
    measure: Measure,
    columns: Sequence[str],
    keep: Callable[[Any], None],
) -> float:
    """Train.

    Args:
        run: The run, its folder prepared.
        data: What to train on.
        make_module: Wraps the network.
        measure: Measures it on the validation set.
        columns: What that adds to metrics.csv.
        keep: Called with the best network so far, on the first process.

    Returns:
        The seconds that it took, over all resumptions.
    """
    trainer, recipe = run.trainer, run.recipe
    parts = trainer.world_size * trainer.accumulate_grad_batches
    per_epoch = data.updates(data.tokens * parts)
    limits = budget(recipe, per_epoch)
    module = make_module(limits)
    assert isinstance(trainer.logger, TensorBoardLogger)
    path = run.folder.path / "metrics.csv"
    metrics = Metrics(path, columns, trainer.logger, trainer.is_global_zero)
    progress = Progress(metrics, per_epoch, recipe.trainer.get("log_every_n_steps", 50))
    checkpoints = Checkpoints(run.folder.checkpoints, recipe.training.checkpoint_minutes)
    every = validation_interval(recipe, per_epoch)
    validation = Validation(
        measure, every, recipe.training, keep, metrics, progress, checkpoints, run.observe
    )
    # The clock runs first, and what is saved last holds what the others have done. They need the
    # trainer's number of devices, so they come after it, in a list that its class does not declare.
    callbacks: list[L.Callback] = vars(trainer)["callbacks"]
    callbacks += [progress, validation, checkpoints]
    checkpoint = newest_whole_checkpoint(run.folder.checkpoints) if run.resume else None
    if run.resume:
        _log.info("resuming   %s", checkpoint or "no checkpoint: from the first update on")
    try:
        with without_advice():
            trainer.fit(
                module,
                datamodule=DataModule(data, recipe.seed, limits.updates or 1 << 60),
                ckpt_path=None if checkpoint is None else str(checkpoint),
                weights_only=True,
            )
    except SystemExit as error:
        if error.code == 1:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
        raise
    trainer.strategy.barrier()
    return module.seconds


def parameters(model: nn.Module) -> int:
    """Count the weights of a network, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def facts(
    described: dict[str, Any], origin: Sequence[str], examples: tuple[str, int], model: nn.Module
) -> list[tuple[str, str]]:
    """Say in words what a model was made from.

    Args:
        described: Its environment.
        origin: A line for each source of its data.
        examples: What it was trained on, such as `Training pairs`, and how many.
        model: The network.
    """
    hardware = described["hardware"]
    threads = f"{hardware['threads']} thread{'s' * (hardware['threads'] > 1)}"
    machine = ", ".join(hardware["gpus"]) or f"{hardware['cpu']}, {threads}"
    return [
        ("Data", "; ".join(origin)),
        (examples[0], f"{examples[1]:,}"),
        ("Parameters", f"{parameters(model):,}"),
        ("Hardware", machine),
        ("Seed", str(described["seed"])),
        ("Version", f"mt {described['mt']}, commit {described['commit'] or 'unknown'}"),
    ]
