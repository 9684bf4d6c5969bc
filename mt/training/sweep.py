"""Options of a recipe chosen by trying them: what `mt sweep` does, with Optuna."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import yaml

from mt.errors import MTError, require
from mt.evaluation.sweep_report import Trial, write_sweep_report
from mt.files import check_folder, write_atomically
from mt.lines import duration
from mt.options import SweepOptions, SweepSpec, parse_train
from mt.recipe import Recipe
from mt.training.folder import recipe_yaml
from mt.training.module import DivergedError
from mt.training.train import train
from mt.training.validation import Measured

if TYPE_CHECKING:
    import optuna

_log = logging.getLogger("mt")


def sweep(options: SweepOptions) -> None:
    """Try values, and write what was found to the output folder.

    - `sweep.db`: Optuna's database, from which a sweep that was interrupted goes on;
    - `trials.csv`, `report.md`, `report.html`: every trial, and pictures of the search;
    - `best.yaml`: the recipe with the best values;
    - `trial-N/`: the run of each trial, without its checkpoints.

    Raises:
        MTError: A mistake in a file or an option, or Optuna is missing.
    """
    require("mt sweep", "sweep", "optuna")
    import optuna

    spec, output = options.spec, options.output
    space = {name: _distribution(name, values, spec) for name, values in spec.space.items()}
    for first in _corners(space):  # a mistake is told before anything is trained
        _recipe(options, first, *_fold(spec, 1))
    check_folder(output, "--output")
    output.mkdir(parents=True, exist_ok=True)
    _check_same(options)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _open_study(spec, output)
    total = spec.trials
    if spec.method == "grid":
        names, choices = list(space), [one.choices for one in space.values()]
        for values in product(*choices):
            study.enqueue_trial(dict(zip(names, values, strict=True)), skip_if_exists=True)
        total = math.prod(map(len, choices))
    began, before = time.monotonic(), len(_settled(study))
    while True:
        _write(study, options)
        if (done := len(_settled(study))) >= total:
            break
        if done > before:
            left = (time.monotonic() - began) / (done - before) * (total - done)
            _log.info("sweep      %d of %d trials · %s left", done, total, duration(left))
        _try(study.ask(space), options, study)
    if not (output / "best.yaml").exists():
        reason = _settled(study)[-1].user_attrs["told"]
        raise MTError(f"{output}: every trial has failed ({reason})")
    _log.info("report     %s", output / "report.html")
    _log.info("best       %s", output / "best.yaml")


def _settled(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """List the trials that need no second try: all but those that were interrupted."""
    from optuna.trial import TrialState

    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state == TrialState.FAIL and "told" in trial.user_attrs)
    ]


def _distribution(name: str, values: Any, spec: SweepSpec) -> Any:
    """Read what SPACE.yaml says of an option."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    place = f"space: {name}"
    if isinstance(values, list) and values:
        # Optuna keeps words and numbers; what is more is kept as its JSON.
        plain = [v if isinstance(v, (bool, int, float, str)) else json.dumps(v) for v in values]
        return CategoricalDistribution(plain)
    if not isinstance(values, dict) or not {"low", "high"} <= values.keys():
        raise MTError(f"{place}: {values!r} is neither a list of values nor {{low: …, high: …}}")
    unknown = values.keys() - {"low", "high", "step", "log"}
    low, high, step = values["low"], values["high"], values.get("step")
    numbers = [low, high, *([] if step is None else [step])]
    if unknown or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers):
        raise MTError(f"{place}: {values!r} must hold numbers called low, high and step, and log")
    if low > high:
        raise MTError(f"{place}: low {low} is above high {high}")
    if spec.method == "grid":
        if step is None or step <= 0:
            raise MTError(f"{place}: a grid needs a list of values, or a range with a step above 0")
        count = int((high - low) / step + 1e-9) + 1
        return CategoricalDistribution([round(low + n * step, 12) for n in range(count)])
    kind: Any = IntDistribution if all(isinstance(n, int) for n in numbers) else FloatDistribution
    more: dict[str, Any] = {} if step is None else {"step": step}
    try:
        return kind(low, high, log=bool(values.get("log", False)), **more)
    except ValueError as error:
        raise MTError(f"{place}: {' '.join(str(error).split())}") from error


def _corners(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give, for each option, its extreme values alone."""
    for name, one in space.items():
        for value in one.choices if hasattr(one, "choices") else (one.low, one.high):
            yield {name: value}


def _recipe(options: SweepOptions, values: Mapping[str, Any], *more: str) -> Recipe:
    """Read the recipe with the values of a trial."""
    words = [f"--{name}={_yaml(value)}" for name, value in values.items()]
    return parse_train([str(options.recipe), *options.overrides, *words, *more]).recipe


def _fold(spec: SweepSpec, fold: int) -> list[str]:
    """Say which part of the training text is held out."""
    return [f"--corpus.folds={spec.folds}", f"--corpus.fold={fold}"] if spec.folds else []


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _check_same(options: SweepOptions) -> None:
    """Refuse to go on with another sweep than the one in the folder."""
    file = options.output / "space.yaml"
    spec = {name: value for name, value in vars(options.spec).items() if name != "trials"}
    text = yaml.safe_dump({"recipe": recipe_yaml(_recipe(options, {})), **spec}, sort_keys=False)
    if file.exists() and file.read_text() != text:
        raise MTError(
            f"{options.output}: holds a sweep of another recipe or space; take the change back, or "
            "choose another --output"
        )
    write_atomically(file, text)


def _open_study(spec: SweepSpec, output: Path) -> optuna.Study:
    import optuna
    from optuna.trial import TrialState

    storage = f"sqlite:///{(output / 'sweep.db').absolute()}"
    try:
        study = optuna.create_study(
            storage=storage, study_name="sweep", direction="maximize", load_if_exists=True
        )
    except Exception as error:  # the database's errors have no other class in common
        raise MTError(
            f"{output / 'sweep.db'}: damaged ({type(error).__name__}); remove it, or "
            "choose another --output"
        ) from error
    # A sampler that is made anew must not draw again what it drew before.
    seed = spec.seed + len(study.trials)
    if spec.method == "random":
        study.sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        study.sampler = optuna.samplers.TPESampler(seed=seed)
    pruners = optuna.pruners
    study.pruner = pruners.MedianPruner(n_startup_trials=4) if spec.prune else pruners.NopPruner()
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):  # interrupted
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
        folder = output / f"trial-{trial.number:03}"
        for run in (folder, *folder.glob("fold-*")):
            _tidy(run)
    return study


class _Watch:
    """Follows the validations of one training, and ends it where it is not worth going on.

    Args:
        trial: Told of each score; None where nothing may end the training.
    """

    def __init__(self, trial: optuna.Trial | None):
        self.trial = trial
        self.best, self.told = -float("inf"), ""
        self.pruned = False

    def __call__(self, step: int, measured: Measured) -> bool:
        assert measured.score is not None
        if measured.score > self.best:
            self.best, self.told = measured.score, measured.score_told
        if self.trial is not None:
            self.trial.report(measured.score, step)
            self.pruned |= self.trial.should_prune()
        return self.pruned


def _try(trial: optuna.Trial, options: SweepOptions, study: optuna.Study) -> None:
    """Train with the values of a trial, and tell the study how good they are."""
    from optuna.trial import TrialState

    folds, folder = options.spec.folds, options.output / f"trial-{trial.number:03}"
    values = ", ".join(f"{name} {value}" for name, value in trial.params.items())
    _log.info("trial      %d: %s", trial.number, values)
    found: list[_Watch] = []
    try:
        for fold in range(1, max(1, folds) + 1):
            try:
                recipe = _recipe(options, trial.params, *_fold(options.spec, fold))
            except MTError as error:  # values that are good alone may clash
                raise _RefusedError(str(error)) from error
            # The first part alone is compared, with the first parts of other trials.
            watch = _Watch(trial if fold == 1 else None)
            run = folder / f"fold-{fold}" if folds else folder
            train(recipe, run, overwrite=True, observe=watch)
            _tidy(run)
            found.append(watch)
            if watch.pruned:
                break
    except (MTError, _RefusedError) as error:
        # What is wrong with the first one may be wrong with all: the text, or the folder.
        first = not any(one.state == TrialState.COMPLETE for one in study.trials)
        if first and not isinstance(error, (DivergedError, _RefusedError)):
            raise
        trial.set_user_attr("told", str(error))
        study.tell(trial, state=TrialState.FAIL)
        _log.info("failed     %s", error)
        return
    trial.set_user_attr("told", " · ".join(watch.told for watch in found))
    if found[-1].pruned:
        _log.info("pruned     %s", found[-1].told)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, mean(watch.best for watch in found))


def _tidy(run: Path) -> None:
    """Remove what only an unfinished run needs; what is not there, or stays, does no harm."""
    for part in ("checkpoints", "teachers"):
        shutil.rmtree(run / part, ignore_errors=True)


class _RefusedError(Exception):
    """Values that no recipe can have together."""


def _write(study: optuna.Study, options: SweepOptions) -> None:
    """Write what has been found so far."""
    trials = [
        Trial(
            trial.number,
            trial.state.name.lower(),
            trial.value,
            trial.user_attrs.get("told", "interrupted" if trial.state.name == "FAIL" else ""),
            trial.duration.total_seconds() if trial.duration else 0.0,
            trial.params,
        )
        for trial in study.trials
        if trial.state.is_finished()
    ]
    if not any(trial.state == "complete" for trial in trials):
        return  # there is no best one yet
    best = recipe_yaml(_recipe(options, study.best_params))
    write_atomically(options.output / "best.yaml", best)
    write_sweep_report(options.output, options.output.name, trials, best)
