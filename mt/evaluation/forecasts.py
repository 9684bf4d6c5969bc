"""How good forecasts are: rolling origins, errors by horizon, and the methods to compare with.

Values are `(T, C)`, forecasts `(O, H, C)`: of each of O origins, H steps ahead. An origin is the
number of steps that its forecast knows; NaN is a missing value, and counts nowhere.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.errors import MTError
from mt.series import Values, fill_by_phase

Column = NDArray[np.float64]


@dataclass(frozen=True)
class ForecastScores:
    """One method's forecasts of one column."""

    method: str
    column: str
    mae: float
    """Mean absolute error, over all origins and steps ahead."""
    rmse: float
    """Root of the mean squared error."""
    mase: float
    """Mean absolute scaled error (Hyndman & Koehler 2006): the MAE divided by `mase_scale`."""
    mae_by_step: list[float]
    """MAE one step ahead, two steps ahead, …; NaN where all values are missing."""
    coverage: float | None = None
    """Share of the values that lie within their prediction interval; None without intervals."""
    width: float | None = None
    """Mean width of the intervals."""

    def __str__(self) -> str:
        covered = "" if self.coverage is None else f" · coverage {100 * self.coverage:.1f}%"
        return f"MASE {self.mase:.3f} · MAE {self.mae:.4g} · RMSE {self.rmse:.4g}{covered}"


@dataclass(frozen=True)
class RollingOrigin:
    """An evaluation of several methods from the same origins."""

    horizon: int
    """Steps ahead."""
    origins: int
    """Forecasts that were made."""
    period: int
    """Of the seasonal-naive forecast, and of MASE's scale."""
    interval: float
    """Probability of the prediction intervals."""
    methods: list[ForecastScores]
    """The network first."""
    notes: list[str]
    """How the others were made."""


def rolling_origins(first: int, end: int, horizon: int, stride: int) -> list[int]:
    """List the origins from `first` on whose forecasts end before step `end`."""
    return list(range(first, end - horizon + 1, stride))


def following(values: Values, origins: Sequence[int], horizon: int) -> Values:
    """Take what came after each origin, `(O, H, C)`."""
    return np.stack([values[origin : origin + horizon] for origin in origins])


def mase_scale(train: Values, period: int) -> Column:
    """Compute what MASE divides by, `(C,)`: the training part's mean |x_t - x_{t - period}|.

    It is the in-sample error of the naive forecast, of a period above 1 of the seasonal-naive one
    (Hyndman & Koehler 2006, doi:10.1016/j.ijforecast.2006.03.001).

    Raises:
        MTError: It is zero, or there are no two such values.
    """
    differences = np.abs(train[period:] - train[:-period])
    if len(differences) == 0 or np.isnan(differences).all(axis=0).any():
        raise MTError(
            f"series.period: no two values of the training part are {period} steps apart; lower it"
        )
    scale: Column = np.nanmean(differences, axis=0)
    if (scale <= 1e-14 * np.nanmax(np.abs(train), axis=0)).any():  # nothing but rounding
        raise MTError(
            f"series.period: the training part repeats itself every {period} steps, so that MASE "
            "has nothing to divide by"
        )
    return scale


def score_forecasts(
    method: str,
    columns: Sequence[str],
    forecasts: Values,
    actual: Values,
    scale: Column,
    ends: tuple[Values, Values] | None = None,
) -> list[ForecastScores]:
    """Measure forecasts, column by column.

    Args:
        method: Its name.
        columns: Their names.
        forecasts: `(O, H, C)`.
        actual: What came, `(O, H, C)`.
        scale: See `mase_scale`.
        ends: Of the prediction intervals, lower and upper, `(O, H, C)`.

    Raises:
        MTError: All values of a column are missing.
    """
    scores = []
    for number, name in enumerate(columns):
        came = actual[..., number]
        known = ~np.isnan(came)
        if not known.any():
            raise MTError(f"column {name}: every value is missing where forecasts are measured")
        error = np.abs(forecasts[..., number] - came)
        counts = known.sum(axis=0)
        sums = np.where(known, error, 0.0).sum(axis=0)
        by_step = [float(s / n) if n else math.nan for s, n in zip(sums, counts, strict=True)]
        mae = float(error[known].mean())
        coverage = width = None
        if ends is not None:
            lower, upper = (end[..., number][known] for end in ends)
            inside = (lower <= came[known]) & (came[known] <= upper)
            coverage, width = float(inside.mean()), float((upper - lower).mean())
        rmse = float(np.sqrt((error[known] ** 2).mean()))
        mase = mae / float(scale[number])
        scores.append(ForecastScores(method, name, mae, rmse, mase, by_step, coverage, width))
    return scores


def seasonal_naive(values: Values, origins: Sequence[int], horizon: int, period: int) -> Values:
    """Forecast the last known value of the same place in the period, `(O, H, C)`.

    With a period of 1 it is the naive forecast: the last known value.

    Raises:
        MTError: No value of some place in the period is known before the first origin.
    """
    filled = fill_by_phase(values, period)
    ahead = np.arange(horizon) % period
    forecasts = np.stack([filled[origin - period + ahead] for origin in origins])
    if origins[0] < period or np.isnan(forecasts).any():
        raise MTError(f"series.period: {period} steps before the test there is no value; lower it")
    return forecasts


class _Smoothing(NamedTuple):
    """Additive exponential smoothing of one column: its parameters and where it stands."""

    alpha: float
    beta: float
    gamma: float
    phi: float
    """Damping of the trend; 1 does not damp it."""
    level: float
    trend: float
    season: list[float]
    """Of the next `period` steps."""
    name: str

    def forecast(self, horizon: int) -> Column:
        """Forecast the next steps."""
        ahead = np.arange(horizon)
        trend = self.trend * np.cumsum(self.phi ** (ahead + 1.0))
        season = np.array(self.season)[ahead % len(self.season)]
        return np.asarray(self.level + trend + season)

    def read(self, value: float) -> _Smoothing:
        """Go on by a step: l' = l + φb + αe, b' = φb + βe, s' = s + γe, where e is the error of the
        forecast l + φb + s; it is zero where the value is missing."""
        level, trend = self.level + self.phi * self.trend, self.phi * self.trend
        error = value - (level + self.season[0])
        error = 0.0 if math.isnan(error) else error
        return self._replace(
            level=level + self.alpha * error,
            trend=trend + self.beta * error,
            season=[*self.season[1:], self.season[0] + self.gamma * error],
        )


def exponential_smoothing(
    values: Values, origins: Sequence[int], horizon: int, period: int
) -> tuple[Values, list[str]]:
    """Forecast by additive exponential smoothing (Hyndman, Koehler, Ord & Snyder 2008).

    Of the models without and with a trend, damped or not, and of a period above 1 without and with
    a season, the one with the least AICc is taken, all fitted once by statsmodels' maximum
    likelihood to what stands before the first origin, with missing values interpolated. From there
    the chosen one reads on, its parameters unchanged.

    Args:
        values: `(T, C)`.
        origins: Numbers of steps before each forecast, ascending.
        horizon: Time steps to forecast.
        period: Time steps of a season.

    Returns:
        The forecasts `(O, H, C)` and the name of each column's model, such as ETS(A,Ad,N).
    """
    found, names = [], []
    for column in values.T:
        state, at, forecasts = _fit_smoothing(column[: origins[0]], period), origins[0], []
        for origin in origins:
            for value in column[at:origin]:
                state = state.read(float(value))
            at = origin
            forecasts.append(state.forecast(horizon))
        found.append(forecasts)
        names.append(state.name)
    return np.moveaxis(np.array(found), 0, -1), names


def _fit_smoothing(history: Column, period: int) -> _Smoothing:
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    known = ~np.isnan(history)
    steps = np.arange(len(history))
    whole = np.interp(steps, steps[known], history[known])
    seasonal = 1 < period <= len(whole) // 2
    best: Any = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that stop early: the AICc judges them
        for season in [None, "add"] if seasonal else [None]:
            for trend, damped in ((None, False), ("add", False), ("add", True)):
                model = ETSModel(
                    whole,
                    trend=trend,
                    damped_trend=damped,
                    seasonal=season,
                    seasonal_periods=period if season else None,
                )
                result = model.fit(disp=False)
                if best is None or result.aicc < best.aicc:
                    best = result
    model, values = best.model, dict(zip(best.model.param_names, best.params, strict=True))
    trend_name = {None: "N", "add": "Ad" if model.damped_trend else "A"}[model.trend]
    return _Smoothing(
        alpha=values["smoothing_level"],
        beta=values.get("smoothing_trend", 0.0),
        gamma=values.get("smoothing_seasonal", 0.0),
        phi=values.get("damping_trend", 1.0),
        level=float(best.level[-1]),
        trend=float(best.slope[-1]) if model.trend else 0.0,
        season=best.season[-period:].tolist() if model.seasonal else [0.0],
        name=f"ETS(A,{trend_name},{'A' if model.seasonal else 'N'})",
    )


def forecast_scores_json(found: RollingOrigin) -> str:
    """Write scores as JSON; null stands for NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps({"version": 1, **plain(asdict(found))}, indent=2) + "\n"
