"""Measures of forecasts by hand, and the methods that a forecaster is compared with."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from mt.errors import MTError
from mt.evaluation.forecasts import (
    RollingOrigin,
    exponential_smoothing,
    following,
    forecast_scores_json,
    mase_scale,
    rolling_origins,
    score_forecasts,
    seasonal_naive,
)

NAN = math.nan


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def test_origins_end_where_the_values_do() -> None:
    assert rolling_origins(10, 20, 4, 1) == [10, 11, 12, 13, 14, 15, 16]
    assert rolling_origins(10, 20, 4, 3) == [10, 13, 16]
    assert rolling_origins(10, 14, 4, 3) == [10]
    found = following(column(*range(20)), [10, 16], 4)
    assert found[..., 0].tolist() == [[10, 11, 12, 13], [16, 17, 18, 19]]


def test_the_scale_is_the_naive_forecasts_error() -> None:
    values = column(1, 3, 2, NAN, 8, 7)
    # |3 - 1|, |2 - 3|, |7 - 8|; two steps apart |2 - 1|, |8 - 2|.
    assert mase_scale(values, 1).tolist() == [pytest.approx(4 / 3)]
    assert mase_scale(values, 2).tolist() == [pytest.approx(7 / 2)]
    with pytest.raises(MTError, match="no two values of the training part are 6 steps apart"):
        mase_scale(values, 6)
    with pytest.raises(MTError, match="repeats itself every 2 steps"):
        mase_scale(column(1, 2, 1, 2, 1), 2)
    with pytest.raises(MTError, match="repeats itself every 8 steps"):
        mase_scale(np.sin(np.arange(40) * np.pi / 4)[:, None], 8)


def test_scores_are_what_a_hand_computes() -> None:
    actual = np.array([[[1.0], [NAN]], [[4.0], [8.0]]])
    forecasts = np.array([[[2.0], [9.0]], [[4.0], [5.0]]])
    ends = forecasts - 1.5, forecasts + 1.5
    [found] = score_forecasts("m", ["a"], forecasts, actual, np.array([2.0]), ends)
    assert found.mae == pytest.approx((1 + 0 + 3) / 3)
    assert found.rmse == pytest.approx(math.sqrt((1 + 0 + 9) / 3))
    assert found.mase == pytest.approx(4 / 3 / 2)
    assert found.mae_by_step == [pytest.approx(0.5), pytest.approx(3)]
    assert (found.coverage, found.width) == (pytest.approx(2 / 3), pytest.approx(3))
    two = score_forecasts("m", ["a"], forecasts[:1], actual[:1], np.array([2.0]))[0]
    assert two.mae_by_step[0] == 1
    assert math.isnan(two.mae_by_step[1])
    assert (two.coverage, two.width) == (None, None)
    read = json.loads(forecast_scores_json(RollingOrigin(2, 1, 1, 0.9, [two], [])))
    assert read["methods"][0]["mae_by_step"] == [1, None]
    with pytest.raises(MTError, match="column a: every value is missing"):
        score_forecasts("m", ["a"], forecasts, actual * NAN, np.array([2.0]))


def test_columns_are_measured_by_themselves() -> None:
    actual, forecasts = np.zeros((3, 2, 2)), np.ones((3, 2, 2)) * [1.0, 5.0]
    found = score_forecasts("m", ["a", "b"], forecasts, actual, np.array([2.0, 10.0]))
    assert [(one.column, one.mae, one.mase) for one in found] == [("a", 1, 0.5), ("b", 5, 0.5)]


def test_naive_forecasts_say_what_was_last_known() -> None:
    values = column(1, 2, 3, 4, NAN, 6, 7)
    found = seasonal_naive(values, [3, 5, 7], 4, 1)
    assert found[..., 0].tolist() == [[3] * 4, [4] * 4, [7] * 4]
    found = seasonal_naive(values, [3, 5, 7], 4, 3)
    # Before 5: of the places 0, 1, 2 in the period 4, 2 (4 is missing) and 3 are known last.
    assert found[..., 0].tolist() == [[1, 2, 3, 1], [3, 4, 2, 3], [2, 6, 7, 2]]
    with pytest.raises(MTError, match="8 steps before the test there is no value"):
        seasonal_naive(values, [7], 2, 8)


@pytest.mark.parametrize("kind", ["season", "trend", "level"])
def test_exponential_smoothing_is_statsmodels(kind: str) -> None:
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    random, steps = np.random.default_rng(3), np.arange(120)
    values = 20 + np.cumsum(random.normal(size=120)) * 0.3 + random.normal(size=120)
    if kind == "season":
        values += 5 * np.sin(steps * np.pi / 2) + 0.2 * steps
    if kind == "trend":
        values += 2.0 * steps
    period = 4 if kind == "season" else 1
    found, names = exponential_smoothing(values[:, None], [90, 97, 110], 7, period)
    assert names[0].endswith("A)" if kind == "season" else "N)")
    assert names[0].startswith("ETS(A,N" if kind == "level" else "ETS(A,A")
    trend, season = names[0][6:-1].split(",")
    options = {
        "trend": None if trend == "N" else "add",
        "damped_trend": trend == "Ad",
        "seasonal": "add" if season == "A" else None,
        "seasonal_periods": 4 if season == "A" else None,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits of short, plain series stop early, as they do for us
        fitted = ETSModel(values[:90], **options).fit(disp=False)
        for number, origin in enumerate((90, 97, 110)):
            expected = ETSModel(values[:origin], **options).smooth(fitted.params).forecast(7)
            np.testing.assert_allclose(found[number, :, 0], expected, rtol=1e-8)


def test_exponential_smoothing_passes_over_what_is_missing() -> None:
    """A missing value was as forecast: what stands in its place has no part in it."""
    random = np.random.default_rng(4)
    values = (10 + np.cumsum(random.normal(size=60)))[:, None]
    values[20], values[52] = NAN, NAN
    found, _ = exponential_smoothing(values, [50, 55], 3, 1)
    assert np.isfinite(found).all()
    [before], _ = exponential_smoothing(values, [52], 1, 1)
    as_forecast = values.copy()
    as_forecast[52] = before[0]
    again, _ = exponential_smoothing(as_forecast, [50, 55], 3, 1)
    np.testing.assert_allclose(again[1], found[1], rtol=0.02)
