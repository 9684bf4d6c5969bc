"""The folder of a run: what lies there, what may be replaced, and what can be gone on with."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mt.errors import MTError
from mt.files import check_folder, write_atomically
from mt.recipe import Recipe, map_paths


class RunFolder(NamedTuple):
    """Where a run writes."""

    path: Path

    @property
    def bundle(self) -> Path:
        """The best weights so far, as a translator."""
        return self.path / "bundle"

    @property
    def checkpoints(self) -> Path:
        """States to resume from."""
        return self.path / "checkpoints"

    @property
    def teachers(self) -> Path:
        """The runs of the teachers, and what they have translated."""
        return self.path / "teachers"

    @property
    def scores(self) -> Path:
        """The scores; they are written last and mark a finished run."""
        return self.path / "scores.json"

    @property
    def recipe(self) -> Path:
        """The recipe, fully resolved."""
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """What the run runs on, and the hash of its text."""
        return self.path / "environment.json"

    def check(self, resume: bool, overwrite: bool) -> None:
        """Refuse to write over a run unless told to.

        Raises:
            MTError: A run is there, or the folder cannot be written.
        """
        if resume and overwrite:
            raise MTError("--resume and --overwrite exclude each other; give one of them")
        check_folder(self.path, "--output")
        if resume or overwrite:
            return
        if self.scores.exists():
            raise MTError(
                f"{self.path}: a finished run is there; --resume goes on with a larger budget, "
                "--overwrite starts again"
            )
        if self.checkpoints.exists() or self.bundle.exists():
            raise MTError(
                f"{self.path}: an unfinished run is there; --resume goes on, "
                "--overwrite starts again"
            )

    def prepare(
        self, recipe: Recipe, described: dict[str, Any], resume: bool, overwrite: bool
    ) -> None:
        """Make the folder and write what the run is.

        Args:
            recipe: Fully resolved.
            described: Its environment.
            resume: What is there must be the same run.
            overwrite: What is there goes.

        Raises:
            MTError: The run that is there is another one, or the folder cannot be written.
        """
        if overwrite:
            self.clear()
        if resume and self.recipe.exists():
            _check_same_run(self, recipe, described)
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MTError(f"{self.path}: cannot make the run folder ({error.strerror})") from error
        self.scores.unlink(missing_ok=True)  # until this run is finished, too
        write_atomically(self.environment, json.dumps(described, indent=2) + "\n")
        write_atomically(self.recipe, recipe_yaml(recipe))

    def clear(self) -> None:
        """Remove what a run has written, and nothing else."""
        for folder in (self.bundle, self.checkpoints, self.teachers, self.path / "tensorboard"):
            if folder.exists():
                shutil.rmtree(folder)
        for name in (
            "scores.json",
            "sentences.tsv",
            "report.html",
            "report.md",
            "metrics.csv",
            "recipe.yaml",
            "environment.json",
        ):
            (self.path / name).unlink(missing_ok=True)


def _check_same_run(run: RunFolder, recipe: Recipe, described: dict[str, Any]) -> None:
    """Refuse to resume where the weights or the data would not be the same."""
    try:
        before = _kept_on_resume(yaml.safe_load(run.recipe.read_text()))
        text = json.loads(run.environment.read_text())["corpus"]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise MTError(f"{run.path}: damaged; start again with --overwrite") from error
    for name, value in _kept_on_resume(yaml.safe_load(recipe_yaml(recipe))).items():
        if before.get(name) != value:
            raise MTError(
                f"{run.recipe}: `{name}` differs from the run that --resume would go on with; "
                "take the change back, or start again with --overwrite"
            )
    if text != described["corpus"]:
        raise MTError(
            f"{run.path}: the text is not that of the run that --resume would go on with; take "
            "the change back, or start again with --overwrite"
        )


def _kept_on_resume(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return, by dotted name, what decides the weights, the optimizer's state and the data."""
    sections = ("corpus", "series", "tokenizer", "model", "batches")
    kept = {
        f"{section}.{name}": value
        for section in sections
        for name, value in recipe.get(section, {}).items()
    }
    kept.pop("batches.workers", None)
    for name in (
        *("task", "seed", "init_from", "new_tokenizer", "tokenizer_from"),
        *("distillation", "back_translation"),
    ):
        if name in recipe:
            kept[name] = recipe[name]
    training = recipe["training"]
    return {
        **kept,
        "training.optimizer": training["optimizer"],
        "training.freeze": training["freeze"],
        "training.ema": training["ema"] > 0,  # its decay may change, but not that there is one
    }


def recipe_yaml(recipe: Recipe) -> str:
    """Write a recipe as YAML that `mt train` reads back."""
    plain = json.loads(json.dumps(asdict(recipe)))  # tuples become lists
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def published(recipe: Recipe) -> str:
    """Write a recipe for others to read: folders of this machine are none of their business."""
    return recipe_yaml(map_paths(recipe, lambda path: Path(path).name))
