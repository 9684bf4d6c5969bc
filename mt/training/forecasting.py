"""A forecaster's run: series, scaling, training, forecasts from many origins, report."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mt.batches import Ints, share
from mt.bundle.forecaster import ForecasterBundle, load_forecaster, save_forecaster
from mt.corpus.series import SplitSeries, load_series
from mt.errors import require
from mt.evaluation.forecast_report import ForecastReport, forecast_card, write_forecast_report
from mt.evaluation.forecasts import (
    RollingOrigin,
    exponential_smoothing,
    following,
    mase_scale,
    rolling_origins,
    score_forecasts,
    seasonal_naive,
)
from mt.forecaster import Forecast, Forecaster
from mt.lines import duration
from mt.nn.forecaster import LEAST_SCALE, ForecasterNetwork
from mt.recipe import ForecastEvaluation, ForecastingRecipe, SeriesBatching
from mt.series import Scaling, Values
from mt.training.datamodule import TrainingBatch, TrainingData
from mt.training.environment import environment
from mt.training.fit import Run, facts, fit, leads, parameters
from mt.training.folder import published
from mt.training.initial import freeze
from mt.training.module import Budget, StepSums, TrainingModule
from mt.training.trainer import nothing_left_to_choose
from mt.training.validation import Measured, Moment

_log = logging.getLogger("mt")


class SeriesBatch(NamedTuple):
    """Windows of a series, side by side."""

    values: Tensor
    """`(B, W + 1, C)`, scaled, NaN where one is missing: each step but the last predicts the
    next."""

    def to(self, device: torch.device) -> SeriesBatch:
        """Move the values."""
        return SeriesBatch(self.values.to(device, non_blocking=True))


class Windows(TrainingData):
    """Every window of a series once an epoch.

    Args:
        values: `(T, C)`, scaled, more steps than a window has.
        batching: Its `window` and its budget.
    """

    def __init__(self, values: Values, batching: SeriesBatching):
        super().__init__(batching.steps, batching.workers)
        self._window = batching.window
        self._values = values.astype(np.float32)
        known = ~np.isnan(values)
        self._known = np.concatenate(([0], known.sum(axis=1).cumsum()))
        starts = np.arange(len(values) - batching.window)
        # A window without a value to predict would be an update that changes nothing.
        self._starts = starts[self._targets(starts) > 0]

    def _targets(self, starts: Ints) -> Ints:
        """Count the values that windows predict."""
        counts: Ints = self._known[starts + self._window + 1] - self._known[starts + 1]
        return counts

    def plan(self, tokens: int, seed: int, epoch: int) -> list[Ints]:
        """Plan an epoch: the first steps of the windows of each update."""
        order = np.random.default_rng((seed, epoch)).permutation(self._starts)
        return np.split(order, range(self._rows(tokens), len(order), self._rows(tokens)))

    def _rows(self, tokens: int) -> int:
        return max(1, tokens // self._window)

    def updates(self, tokens: int) -> int:
        """Count the updates of an epoch."""
        return math.ceil(len(self._starts) / self._rows(tokens))

    def batch(self, update: Ints, parts: int, part: int, seed: tuple[int, ...]) -> TrainingBatch:
        """Lay out one part of an update."""
        rows = share(update, parts, part)
        chosen = rows if len(rows) else update[:1]
        values = torch.from_numpy(self._values[chosen[:, None] + np.arange(self._window + 1)])
        if len(rows) == 0:  # every device runs every batch; this one has no loss
            values = torch.full_like(values, math.nan)
        return TrainingBatch(SeriesBatch(values), int(self._targets(update).sum()))


class ForecasterModule(TrainingModule):
    """A forecaster with its loss, that of each next step: what was observed is what is read."""

    model: ForecasterNetwork

    def __init__(self, model: ForecasterNetwork, recipe: ForecastingRecipe, budget: Budget):
        super().__init__(model, recipe.training, recipe.seed, budget)

    def loss_sums(self, batch: SeriesBatch) -> StepSums:
        """Sum the loss over a batch's values."""
        values = batch.values.to(self.model.dtype)
        outputs, _ = self.model(values[:, :-1])
        loss = self.model.losses(outputs.to(values.dtype), values[:, 1:]).sum()
        known = int((~torch.isnan(values[:, 1:])).sum())
        return StepSums(loss, loss.detach(), values[:, 1:, 0].numel(), known)

    def tell(self, plain: float, inputs: float, outputs: float) -> str:
        """See `TrainingModule.tell`."""
        return f"{inputs:,.0f} time steps/s"


class ForecastMeasure:
    """Forecasts of the validation part; see `mt.training.validation.Measure`.

    All processes compute all of it, which takes less than to share it out would.

    Args:
        split: The series.
        bundle: All of a bundle but its weights.
        evaluation: Horizon and stride.
        period: Of MASE's scale.
    """

    def __init__(
        self,
        split: SplitSeries,
        bundle: ForecasterBundle,
        evaluation: ForecastEvaluation,
        period: int,
    ):
        self.bundle, self.horizon = bundle, evaluation.horizon
        self.values, self.first = split.series.values[: split.test], split.valid
        self.origins = rolling_origins(split.valid, split.test, self.horizon, evaluation.stride)
        self.actual = following(self.values, self.origins, self.horizon)
        self.scale = mase_scale(split.train, period)
        self.score(np.zeros_like(self.actual))  # a part without values is told at once

    def score(self, forecasts: Values) -> float:
        """Compute the mean of the columns' MASE."""
        scores = score_forecasts("", self.bundle.columns, forecasts, self.actual, self.scale)
        return float(np.mean([one.mase for one in scores]))

    def __call__(self, model: ForecasterNetwork, moment: Moment) -> Measured:
        """Measure a network."""
        model.eval()
        reader = Forecaster(self.bundle._replace(model=model), moment.device)
        mase = self.score(reader.forecast_from(self.values, self.origins, self.horizon))
        losses, known = _validation_losses(reader, self.values, self.first)
        loss = float(losses.sum()) / max(1, int(known.sum()))
        row = {"valid_loss": loss, "valid_mase": mase}
        return Measured(row, f"validation loss {loss:.4f}", -mase, f"MASE {mase:.4f}")


def _validation_losses(reader: Forecaster, values: Values, first: int) -> tuple[Tensor, Tensor]:
    """Losses `(V, C)` of the steps from `first` on, and which are known."""
    targets, outputs = reader.predict_next(values)
    targets, outputs = targets[first - 1 :], outputs[first - 1 :]
    return reader.model.losses(outputs, targets), ~torch.isnan(targets)


def spread(reader: Forecaster, values: Values, first: int) -> list[float]:
    """Compute by how much predicted scales are too small, from `first` on, by column.

    It is the factor of the greatest likelihood: with errors of the next step in predicted scales,
    the root of their mean square where they are Gaussian (Levi et al., arXiv:1905.11790), their
    mean size where they are Laplacian, which absolute errors stand for. Where no scale is
    predicted, it is the scale. Predicted ones are never made smaller: the weights were chosen on
    these steps, which makes errors there look small.
    """
    targets, outputs = reader.predict_next(values)
    location, scale = reader.model.predict(outputs)
    errors = ((targets - location) / scale)[first - 1 :].double()
    if reader.model.architecture.loss == "absolute":
        found = errors.abs().nanmean(dim=0)
    else:
        found = (errors**2).nanmean(dim=0).sqrt()
    least = 1.0 if reader.model.architecture.loss == "gaussian" else LEAST_SCALE
    return [max(least, float(value)) for value in found]


def train_forecaster(run: Run[ForecastingRecipe]) -> None:
    """Go from a series to an evaluated forecaster.

    Raises:
        MTError: A mistake in the recipe, the series or the run folder.
    """
    recipe, folder = run.recipe, run.folder
    nothing_left_to_choose(recipe)
    if recipe.evaluation.exponential_smoothing:
        off = ", or set it to false"
        require("evaluation.exponential_smoothing", "forecast", "statsmodels", otherwise=off)
    split = load_series(recipe)
    options, columns, values = recipe.series, split.series.columns, split.series.values
    _log.info("series     %s", split.origin)
    scaling = Scaling.fit(split.train, columns, options.transform, options.difference)
    scaled = scaling.apply(values, columns)  # tells of values in any part that it cannot take
    data = Windows(scaled[: split.valid], recipe.batches)
    described = environment(recipe.seed, split.digest)
    torch.manual_seed(recipe.seed)
    model = ForecasterNetwork(recipe.model, len(columns))
    freeze(model, recipe.training.freeze)
    unknown = [1.0] * len(columns)
    bundle = ForecasterBundle(model, columns, split.series.time, scaling, unknown)
    measure = ForecastMeasure(split, bundle, recipe.evaluation, options.period)
    if leads():  # now that nothing is wrong, a run that lies there may go
        folder.prepare(recipe, described, run.resume, run.overwrite)
    told = facts(described, [split.origin], ("Training steps", split.valid), model)
    _log.info("model      %s parameters", f"{parameters(model):,}")

    def keep(best: ForecasterNetwork) -> None:
        card = forecast_card(columns, told, None, published(recipe))
        device = run.trainer.strategy.root_device
        found = spread(Forecaster(bundle._replace(model=best), device), measure.values, split.valid)
        save_forecaster(bundle._replace(model=best, spread=found, card=card), folder.bundle)

    seconds = fit(
        run,
        data,
        lambda limits: ForecasterModule(model, recipe, limits),
        measure,
        ("valid_loss", "valid_mase"),
        keep,
    )
    told.append(("Training time", duration(seconds)))
    if leads() and run.observe is None:
        _evaluate(run, split, told)


def _evaluate(run: Run[ForecastingRecipe], split: SplitSeries, told: list[tuple[str, str]]) -> None:
    """Measure the best weights on the test part beside other methods, and write what they show."""
    bundle, recipe = load_forecaster(run.folder.bundle), run.recipe
    reader = Forecaster(bundle, run.trainer.strategy.root_device)
    options, values = recipe.evaluation, split.series.values
    origins = rolling_origins(split.test, len(values), options.horizon, options.stride)
    actual = following(values, origins, options.horizon)
    scale = mase_scale(split.train, recipe.series.period)
    point = reader.forecast_from(values, origins, options.horizon)
    ends = reader.intervals(
        values, origins, options.horizon, options.interval, options.samples, recipe.seed
    )
    methods = score_forecasts("network", bundle.columns, point, actual, scale, ends)
    for one in methods:
        _log.info("%-10s %s", one.column, one)
    others, notes = _other_methods(recipe, values, origins)
    for name, forecasts in others:
        methods += score_forecasts(name, bundle.columns, forecasts, actual, scale)
    found = RollingOrigin(
        options.horizon, len(origins), recipe.series.period, options.interval, methods, notes
    )
    recipe_yaml = published(recipe)
    card = forecast_card(bundle.columns, told, found, recipe_yaml)
    save_forecaster(bundle._replace(card=card), run.folder.bundle)
    shown = sorted({0, len(origins) // 2, len(origins) - 1})
    write_forecast_report(
        run.folder.path,
        ForecastReport(
            title=run.folder.path.name,
            columns=bundle.columns,
            found=found,
            values=values,
            cuts=(split.valid, split.test),
            examples=[(origins[n], Forecast(point[n], ends[0][n], ends[1][n])) for n in shown],
            facts=told,
            curves=run.folder.path / "metrics.csv",
            recipe_yaml=recipe_yaml,
        ),
    )
    _log.info("report     %s", run.folder.path / "report.html")
    _log.info("model      %s", run.folder.bundle)


def _other_methods(
    recipe: ForecastingRecipe, values: Values, origins: list[int]
) -> tuple[list[tuple[str, Values]], list[str]]:
    """Forecast by what needs no network, and say how."""
    horizon, period = recipe.evaluation.horizon, recipe.series.period
    found = [("naive", seasonal_naive(values, origins, horizon, 1))]
    if period > 1:
        found.append(("seasonal naive", seasonal_naive(values, origins, horizon, period)))
    if not recipe.evaluation.exponential_smoothing:
        return found, []
    forecasts, names = exponential_smoothing(values, origins, horizon, period)
    found.append(("exponential smoothing", forecasts))
    note = (
        f"Exponential smoothing is {', '.join(names)}, chosen by AICc and fitted once, to all that "
        "stands before the test part; it reads on from origin to origin with its parameters as "
        "they are."
    )
    return found, [note]
