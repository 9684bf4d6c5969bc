"""Lightning's Trainer, made from a recipe: its options checked, and how long a run may be."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger

from mt.errors import MTError
from mt.recipe import Recipe
from mt.training.module import Budget

_Recipe = TypeVar("_Recipe", bound=Recipe)


def budget(recipe: Recipe, updates_per_epoch: int) -> Budget:
    """Read how long a run may be from the trainer's options."""
    epochs, steps = (_limit(recipe, name) for name in ("max_epochs", "max_steps"))
    updates = [n for n in (epochs and epochs * updates_per_epoch, steps) if n]
    return Budget(min(updates) if updates else None, _seconds(recipe.trainer.get("max_time")))


def _limit(recipe: Recipe, name: str) -> int | None:
    limit: int | None = recipe.trainer.get(name)
    if limit in (None, -1):  # Lightning's ways to say: no limit
        return None
    if limit < 1:
        raise MTError(f"trainer.{name}: must be at least 1, or -1 for no limit, not {limit}")
    return limit


def _seconds(max_time: Any) -> float | None:
    """Read Lightning's `max_time`: `DD:HH:MM:SS` or a mapping of timedelta's arguments."""
    if max_time is None:
        return None
    try:
        if isinstance(max_time, str):
            days, hours, minutes, seconds = (int(part) for part in max_time.split(":"))
            max_time = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        length = max_time if isinstance(max_time, timedelta) else timedelta(**max_time)
    except (TypeError, ValueError) as error:
        raise MTError(
            f"trainer.max_time: {max_time!r} is no duration; write DD:HH:MM:SS, such as 00:01:30:00"
        ) from error
    if length <= timedelta(0):
        raise MTError(f"trainer.max_time: must be longer than {max_time!r}")
    return length.total_seconds()


def validation_interval(recipe: Recipe, updates_per_epoch: int) -> int:
    """Read Lightning's two options: updates (an integer) or epochs (a fraction) between checks."""
    interval = recipe.trainer.get("val_check_interval") or 1.0
    epochs = recipe.trainer.get("check_val_every_n_epoch") or 1
    if isinstance(interval, int):
        return interval
    return max(1, round(float(interval) * epochs * updates_per_epoch))


_OURS = (
    "max_epochs",
    "max_steps",
    "max_time",
    "val_check_interval",
    "check_val_every_n_epoch",
    "log_every_n_steps",
)
"""Trainer options that are carried out here, because Lightning sees a run as one long epoch."""
_PRECISIONS = ("32-true", "32", "64-true", "64", "bf16-mixed", "bf16")
"""With exact weights and losses; float16 would overflow without loss scaling."""


@contextmanager
def without_advice() -> Iterator[None]:
    """Silence Lightning's advice on loader processes, progress bars and GPUs that are not used."""
    with warnings.catch_warnings():
        # What it advises on is the recipe's to decide; its errors are exceptions and still come.
        warnings.filterwarnings("ignore", module="lightning")
        yield


def choose_precision(recipe: _Recipe) -> tuple[_Recipe, list[str]]:
    """Choose `trainer.precision` where the recipe leaves it to `auto`.

    bfloat16 products, of weights that stay float32, where the machine has instructions for them;
    elsewhere they would be slower than float32.

    Returns:
        The recipe, and a line about the choice and its reason.
    """
    name = "trainer.precision"
    if name not in recipe.auto:
        return recipe, []
    fast = _fast_bfloat16(recipe.trainer.get("accelerator", "auto"))
    value = "bf16-mixed" if fast else "32-true"
    recipe = replace(
        recipe,
        auto=[other for other in recipe.auto if other != name],
        trainer={**recipe.trainer, "precision": value},
    )
    return recipe, [f"{name} = {value} (bfloat16 is {'' if fast else 'not '}fast on this machine)"]


def nothing_left_to_choose(recipe: Recipe) -> None:
    """Refuse names in a recipe's `auto` that nothing has chosen.

    Raises:
        MTError: There is one.
    """
    for name in recipe.auto:
        raise MTError(f"auto: cannot choose `{name}`; it can choose trainer.precision")


def _fast_bfloat16(accelerator: Any) -> bool:
    if torch.cuda.is_available() and accelerator != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.backends.mps.is_available() and accelerator != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # in older versions
        return False
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def make_trainer(recipe: Recipe, folder: Path) -> L.Trainer:
    """Check the trainer's options and make it, without callbacks yet.

    Args:
        recipe: Its `trainer` section holds the options.
        folder: Where TensorBoard's logs go.

    Raises:
        MTError: An option is wrong, or the run would have no end.
    """
    given = recipe.trainer
    updates = [_limit(recipe, name) for name in ("max_epochs", "max_steps")]
    seconds = _seconds(given.get("max_time"))
    if not any([*updates, seconds]) and "trainer.max_epochs" not in recipe.auto:
        raise MTError(
            "the run has no end; set trainer.max_epochs, trainer.max_steps or trainer.max_time"
        )
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps"):
        if (value := given.get(name)) is not None and value < 1:
            raise MTError(f"trainer.{name}: must be at least 1, not {value}")
    if (given.get("gradient_clip_val") or 0) < 0:
        raise MTError("trainer.gradient_clip_val: must be above 0, or 0 for no clipping")
    interval = given.get("val_check_interval")
    if interval is not None and not (isinstance(interval, (int, float)) and interval > 0):
        raise MTError(
            f"trainer.val_check_interval: {interval!r} is neither a number of updates, such as "
            "500, nor a share of an epoch, such as 0.5"
        )
    precision = str(given.get("precision") or "32-true")
    if precision not in _PRECISIONS:
        raise MTError(
            f"trainer.precision: {precision} is not supported; use 32-true, bf16-mixed or 64-true"
        )
    options = {name: value for name, value in given.items() if name not in _OURS}
    try:
        with without_advice():
            return L.Trainer(
                **options,
                max_epochs=1,
                logger=TensorBoardLogger(folder, name="tensorboard", version=""),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                limit_val_batches=0,
                num_sanity_val_steps=0,
            )
    except (MisconfigurationException, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise MTError(f"trainer: {reason}; see `mt train --help`") from error
