"""Windows of a series and the loss on them: every window once, parts alike, gaps without a loss."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mt.bundle.forecaster import ForecasterBundle
from mt.corpus.series import load_series
from mt.errors import MTError
from mt.forecaster import Forecaster
from mt.nn.architecture import ForecasterArchitecture
from mt.nn.forecaster import LEAST_SCALE, ForecasterNetwork
from mt.recipe import ForecastEvaluation, ForecastingRecipe, SeriesBatching, SeriesOptions
from mt.series import Scaling
from mt.training.forecasting import ForecasterModule, ForecastMeasure, Windows, spread
from mt.training.module import Budget
from mt.training.validation import Moment

VALUES = np.arange(100, dtype=np.float64)[:, None] + [0, 0.5]
VALUES[20:45, 0] = math.nan
VALUES[24:44, 1] = math.nan  # windows of 7 within this gap predict nothing


def rows(batch: Any) -> list[tuple[float, ...]]:
    values = batch.values[~torch.isnan(batch.values).all(dim=(1, 2))]
    return [tuple(row) for row in values.flatten(1).nan_to_num(-1).tolist()]


def expected() -> Counter[tuple[float, ...]]:
    windows = [VALUES[start : start + 8] for start in range(93)]
    kept = [window for window in windows if not np.isnan(window[1:]).all()]
    assert len(kept) < len(windows)
    return Counter(tuple(np.nan_to_num(window, nan=-1).flatten().tolist()) for window in kept)


def test_every_window_with_something_to_predict_is_read_once_an_epoch() -> None:
    data = Windows(VALUES, SeriesBatching(steps=50, window=7))
    orders = []
    for epoch in (0, 1):
        plan = data.plan(50, seed=1, epoch=epoch)
        assert len(plan) == data.updates(50)
        batches = [data.batch(update, 1, 0, (1,)) for update in plan]
        read = [row for one in batches for row in rows(one.batch)]
        assert Counter(read) == expected()
        assert all(len(one.batch.values) <= 7 for one in batches)
        for one in batches:
            assert one.normalizer == int((~torch.isnan(one.batch.values[:, 1:])).sum()) > 0
        orders.append(read)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("parts", [2, 3, 40])
def test_parts_share_an_update_out(parts: int) -> None:
    data = Windows(VALUES, SeriesBatching(steps=50, window=7))
    for update in data.plan(50, 1, 0)[:4]:
        whole = data.batch(update, 1, 0, (1,))
        shares = [data.batch(update, parts, part, (1,)) for part in range(parts)]
        assert {one.normalizer for one in shares} == {whole.normalizer}
        assert Counter(row for one in shares for row in rows(one.batch)) == Counter(
            rows(whole.batch)
        )


def model(columns: int = 2, **options: Any) -> ForecasterNetwork:
    torch.manual_seed(0)
    return ForecasterNetwork(ForecasterArchitecture(hidden_size=5, **options), columns).double()


def test_the_loss_of_an_update_is_that_of_its_rows() -> None:
    learner = ForecasterModule(model(), ForecastingRecipe(), Budget(9, None))
    data = Windows(VALUES / 50 - 1, SeriesBatching(steps=50, window=7))
    update = data.plan(50, 1, 0)[0]
    whole = learner.loss_sums(data.batch(update, 1, 0, (1,)).batch)
    parts = [learner.loss_sums(data.batch(update, 3, part, (1,)).batch) for part in range(3)]
    assert sum(one.loss.item() for one in parts) == pytest.approx(whole.loss.item())
    assert sum(one.outputs for one in parts) == whole.outputs
    nothing = learner.loss_sums(data.batch(update, 40, 39, (1,)).batch)
    assert (nothing.loss.item(), nothing.outputs) == (0, 0)
    nothing.loss.backward()
    assert all(bool((p.grad == 0).all()) for p in learner.model.parameters())


@pytest.mark.parametrize("loss", ["squared", "absolute", "gaussian"])
def test_the_spread_is_of_errors_in_predicted_scales(loss: Any) -> None:
    network = model(loss=loss).eval()
    values = np.random.default_rng(1).normal(size=(60, 2))
    values[45:50, 0] = math.nan
    bundle = ForecasterBundle(
        network, ["a", "b"], None, Scaling("none", 0, [0.0] * 2, [1.0] * 2), [1.0] * 2
    )
    found = spread(Forecaster(bundle, "cpu"), values, 40)
    outputs, _ = network(torch.from_numpy(values)[None, :-1])
    seen = outputs[0, 39:].detach()
    errors = values[40:] - seen[:, :2].numpy()
    if loss == "gaussian":
        errors /= (torch.log1p(seen[:, 2:].exp()) + LEAST_SCALE).numpy()
    if loss == "absolute":
        expected = np.nanmean(np.abs(errors), axis=0)
    else:
        expected = np.sqrt(np.nanmean(errors**2, axis=0))
    assert found == pytest.approx(expected.tolist())
    if loss == "gaussian":  # a network that is less sure than it could be is left so
        with torch.no_grad():
            network.head.bias[2:] = 5.0
        assert spread(Forecaster(bundle, "cpu"), values, 40) == [1.0, 1.0]


def write(folder: Path, rows: int = 60) -> str:
    path = folder / "series.csv"
    path.write_text("t,a\n" + "".join(f"{n},{math.sin(n) + n % 3}\n" for n in range(rows)))
    return str(path)


def recipe(file: str, **series: Any) -> ForecastingRecipe:
    options: dict[str, Any] = {"files": file, "time": "t", "valid_size": 15, "test_size": 10}
    return ForecastingRecipe(
        series=SeriesOptions(**(options | series)),
        batches=SeriesBatching(window=8),
        evaluation=ForecastEvaluation(horizon=4),
    )


def test_parts_follow_upon_each_other(tmp_path: Path) -> None:
    split = load_series(recipe(write(tmp_path)))
    assert (split.valid, split.test, len(split.series.values)) == (35, 50, 60)
    assert split.series.times == [str(n) for n in range(60)]
    assert "series.csv: 60 time steps of a" in split.origin
    other = load_series(recipe(write(tmp_path, 61)))
    assert other.digest != split.digest
    assert load_series(recipe(write(tmp_path))).digest == split.digest


def test_a_validation_sees_no_test_and_measures_forecasts(tmp_path: Path) -> None:
    described = recipe(write(tmp_path))
    split = load_series(described)
    network = model(1).eval()
    scaling = Scaling.fit(split.train, ["a"], "none", 0)
    bundle = ForecasterBundle(network, ["a"], "t", scaling, [1.0])
    measured = [
        ForecastMeasure(one, bundle, described.evaluation, 1)(
            network, Moment(1, False, torch.device("cpu"), None)
        )
        for one in (split, changed_after(split))
    ]
    assert measured[0] == measured[1]
    reader, values = Forecaster(bundle, "cpu"), split.series.values
    errors = [
        np.abs(reader.forecast(values[:origin], 4, samples=1).values - values[origin : origin + 4])
        for origin in range(35, 47)
    ]
    scale = np.abs(np.diff(values[:35, 0])).mean()
    assert measured[0].score == pytest.approx(-np.mean(errors) / scale)


def changed_after(split: Any) -> Any:
    values = split.series.values.copy()
    values[split.test :] = 1e6
    return split._replace(series=split.series._replace(values=values))


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({"test_size": 40}, "of 60 time steps, .* leave 5 for training, fewer than a window"),
        ({"test_size": 400}, "leave 0 for training"),
        ({"difference": 30}, "fewer than a window and its target; lower them"),
        ({"valid_size": 3}, "series.valid_size: 3 steps are too few for evaluation.horizon 4"),
        ({"test_size": 3}, "series.test_size: 3 steps are too few"),
        ({"columns": ["b"]}, "no column is called b"),
        ({"statsmodels": "co2"}, "set exactly one of series.statsmodels and series.files"),
        ({"files": None}, "set exactly one"),
        ({"statsmodels": "co2", "files": None}, "series.columns and series.time are of files"),
    ],
)
def test_what_cannot_be_split_is_told(tmp_path: Path, series: dict[str, Any], message: str) -> None:
    with pytest.raises(MTError, match=message):
        load_series(recipe(write(tmp_path), **series))


@pytest.mark.parametrize(
    ("name", "steps", "missing", "first"),
    [("sunspots", 309, 0, ("1700", 5.0)), ("co2", 2284, 59, ("1958-03-29", 316.1))],
)
def test_statsmodels_ships_series(name: Any, steps: int, missing: int, first: Any) -> None:
    described = ForecastingRecipe(series=SeriesOptions(statsmodels=name))
    loaded = load_series(described)
    series = loaded.series
    assert series.values.shape == (steps, 1)
    assert int(np.isnan(series.values).sum()) == missing
    assert series.times is not None
    assert (series.times[0], series.values[0, 0]) == first
    assert re.findall(r"(\d+) values missing", loaded.origin) == [str(missing)] * bool(missing)


def test_statsmodels_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(MTError, match=r"statsmodels is not installed; pip install 'mt\[forecast\]"):
        load_series(ForecastingRecipe(series=SeriesOptions(statsmodels="co2")))
