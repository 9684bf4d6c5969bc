"""A whole run, whatever its task: from a recipe to a trained network and its report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mt.recipe import Recipe
from mt.training.classification import train_classifier
from mt.training.fit import Run, leads
from mt.training.folder import RunFolder
from mt.training.forecasting import train_forecaster
from mt.training.language_model import train_language_model
from mt.training.trainer import choose_precision, make_trainer
from mt.training.translation import train_translator
from mt.training.validation import Measured

_log = logging.getLogger("mt")

TASKS: dict[str, Callable[[Run[Any]], None]] = {
    "translation": train_translator,
    "language-model": train_language_model,
    "forecasting": train_forecaster,
    "classification": train_classifier,
}
"""What carries a recipe out, by its task."""


def train(
    recipe: Recipe,
    output: Path,
    resume: bool = False,
    overwrite: bool = False,
    observe: Callable[[int, Measured], bool] | None = None,
) -> None:
    """Carry a recipe out.

    Args:
        recipe: What to do.
        output: The run folder; see `RunFolder`.
        resume: Go on from the newest whole checkpoint in `output`, if there is one.
        overwrite: Replace a run in `output`.
        observe: Makes the run a trial; see `Run`.

    Raises:
        MTError: A mistake in the recipe, the text or the run folder.
    """
    folder = RunFolder(output)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    recipe, chosen = choose_precision(recipe)
    trainer = make_trainer(recipe, folder.path)  # a mistake is told before any text is fetched
    if leads():
        folder.check(resume, overwrite)
    else:
        _log.setLevel(logging.WARNING)  # one process tells
    for reason in chosen:
        _log.info("chosen     %s", reason)
    TASKS[recipe.task](Run(trainer, recipe, folder, resume, overwrite, observe))
