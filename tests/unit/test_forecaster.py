"""Forecasters: the network, its masks, free-running forecasts, intervals and bundle."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mt.bundle import load_bundle
from mt.bundle.forecaster import ForecasterBundle, load_forecaster, save_forecaster
from mt.errors import MTError
from mt.forecaster import Forecaster
from mt.nn.architecture import ForecasterArchitecture
from mt.nn.cells import CELLS
from mt.nn.forecaster import LEAST_SCALE, ForecasterNetwork
from mt.series import Scaling

LOSSES = ["squared", "absolute", "gaussian"]


def network(columns: int = 2, **options: Any) -> ForecasterNetwork:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 7, "layers": 2}
    model = ForecasterNetwork(ForecasterArchitecture(**(sizes | options)), columns).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def forecaster(
    columns: int = 2, difference: int = 0, transform: Any = "none", **options: Any
) -> Forecaster:
    names = [f"c{number}" for number in range(columns)]
    scaling = Scaling(transform, difference, [0.5] * columns, [2.0] * columns)
    model = network(columns, **options)
    return Forecaster(ForecasterBundle(model, names, None, scaling, [0.3] * columns), "cpu")


def series(steps: int = 40, columns: int = 2, missing: float = 0.2) -> np.ndarray:
    random = np.random.default_rng(1)
    values = random.uniform(1, 5, (steps, columns))
    values[random.random(values.shape) < missing] = math.nan
    return values


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


# The network


@pytest.mark.parametrize("cell", CELLS)
def test_steps_and_the_whole_agree(cell: str) -> None:
    model = network(cell=cell)
    values = torch.from_numpy(np.stack([series(9), series(18)[9:]]))
    whole, final = model(values)
    state, found = None, []
    for step in values.unbind(1):
        outputs, state = model.step(step, state)
        found.append(outputs)
    close(torch.stack(found, 1), whole)
    assert state is not None
    for layer, other in zip(state, final, strict=True):
        for one, two in zip(layer, other, strict=True):
            close(one, two)


def test_a_missing_value_is_zero_and_says_so() -> None:
    """The stack is given the mean, which is zero, and a mask: another network than of a zero."""
    model = network()
    values = torch.from_numpy(series(9))[None]
    missing = torch.isnan(values)
    expected, _ = model.stack(torch.cat((values.nan_to_num(), missing.double()), -1))
    close(model(values)[0], model.head(expected))
    assert not torch.allclose(model(values.nan_to_num())[0], model(values)[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_their_formulas_and_a_missing_target_has_none(loss: Any) -> None:
    model = network(loss=loss)
    values = torch.from_numpy(series(30))[None]
    outputs, _ = model(values[:, :-1])
    targets = values[:, 1:]
    location, scale = model.predict(outputs)
    if loss == "gaussian":
        assert (scale > LEAST_SCALE).all()
        expected = -torch.distributions.Normal(location, scale).log_prob(targets.nan_to_num())
    else:
        assert (scale == 1).all()
        error = targets.nan_to_num() - location
        expected = error.abs() if loss == "absolute" else error**2
    known = ~torch.isnan(targets)
    found = model.losses(outputs, targets)
    close(found[known], expected[known])
    assert (found[~known] == 0).all()
    assert 0 < (~known).sum() < known.sum()
    # Nor has it a gradient: that of the sum is that of the known ones, and finite.
    [gradient] = torch.autograd.grad(found.sum(), model.head.weight, retain_graph=True)
    [alone] = torch.autograd.grad(expected[known].sum(), model.head.weight)
    close(gradient, alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "model.hidden_size: must be at least 1"),
        ({"layers": 0}, "model.layers: must be at least 1"),
        ({"output_dropout": 2.0}, "model.output_dropout: must be from 0 to below 1"),
        ({"cell": "ssru", "weight_drop": 0.1}, "model.cell is ssru; choose one of these"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ForecasterArchitecture(**options)


# Forecasts


def by_hand(reader: Forecaster, values: np.ndarray, horizon: int) -> np.ndarray:
    """Step by step, with the scaling of each value worked out again."""
    transform = {"none": float, "log": math.log, "sqrt": math.sqrt}[reader.scaling.transform]
    back = {"none": float, "log": math.exp, "sqrt": lambda y: max(y, 0.0) ** 2}
    lag = reader.scaling.difference
    rows = [[transform(x) if not math.isnan(x) else x for x in row] for row in values.tolist()]
    filled = [list(row) for row in rows]
    state, found, outputs = None, [], torch.empty(0)
    for step in range(len(rows) + horizon):
        if step >= len(rows):
            location, _ = reader.model.predict(outputs[0])
            z = location.tolist()
            before = filled[step - lag] if lag else [0.0] * len(z)
            y = [2 * one + 0.5 + other for one, other in zip(z, before, strict=True)]
            filled.append(y)
            found.append([back[reader.scaling.transform](one) for one in y])
        else:
            before = rows[step - lag] if lag else [0.0] * len(rows[0])
            if step < lag:
                before = [math.nan] * len(rows[0])
            z = [(a - b - 0.5) / 2 for a, b in zip(rows[step], before, strict=True)]
            if lag and step >= lag:
                for column, value in enumerate(rows[step]):
                    if math.isnan(value):
                        filled[step][column] = filled[step - lag][column] + 0.5
        outputs, state = reader.model.step(torch.tensor([z], dtype=torch.float64), state)
    return np.array(found)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("difference", [0, 1, 4])
@pytest.mark.parametrize("transform", ["none", "sqrt"])
def test_a_forecast_runs_on_from_what_it_has_said(
    loss: Any, difference: int, transform: Any
) -> None:
    reader = forecaster(difference=difference, transform=transform, loss=loss)
    values = series()
    values[:4] = 2.5  # differences need a beginning
    found = reader.forecast(values, 9, samples=3)
    np.testing.assert_allclose(found.values, by_hand(reader, values, 9), atol=1e-9)
    assert (found.lower < found.upper).all()


@given(st.lists(st.integers(5, 40), min_size=1, max_size=6, unique=True).map(sorted))
@settings(max_examples=15)
def test_forecasts_from_many_origins_are_those_of_each_alone(origins: list[int]) -> None:
    reader = forecaster(difference=3)
    values = series()
    values[:3] = 2.5
    found = reader.forecast_from(values, origins, 6)
    ends = reader.intervals(values, origins, 6, samples=11)
    for number, origin in enumerate(origins):
        # What comes after an origin is not known there.
        alone = reader.forecast(values[:origin], 6, samples=11)
        np.testing.assert_allclose(found[number], alone.values, atol=1e-10)
        np.testing.assert_allclose(ends[0][number], alone.lower, atol=1e-10)
        np.testing.assert_allclose(ends[1][number], alone.upper, atol=1e-10)


def test_a_seed_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = forecaster()
    values = series()
    one = reader.intervals(values, [30, 40], 5, samples=20, seed=3)
    assert np.shape(one) == (2, 2, 5, 2)
    monkeypatch.setattr("mt.forecaster._ROWS", 1)  # however many paths are drawn at a time
    same = reader.intervals(values, [30, 40], 5, samples=20, seed=3)
    other = reader.intervals(values, [30, 40], 5, samples=20, seed=4)
    np.testing.assert_allclose(one, same, atol=1e-12)
    assert not np.allclose(one, other)


def autoregression(phi: float, spread: float, loss: Any) -> Forecaster:
    """A network that is exactly x' = φx: two rectified units carry the two signs.

    The scale that a Gaussian one predicts is half of the truth, as was found out afterwards.
    """
    model = ForecasterNetwork(
        ForecasterArchitecture(hidden_size=2, cell="elman-relu", loss=loss), 1
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        weights = dict(model.stack.named_parameters())
        weights["layers.0.kernel.weight_ih_l0"][:, 0] = torch.tensor(
            [phi, -phi], dtype=torch.float64
        )
        model.head.weight[0] = torch.tensor([1.0, -1.0])
        if loss == "gaussian":
            predicted = spread / 2 - LEAST_SCALE
            model.head.bias[1] = math.log(math.expm1(predicted))  # softplus, undone
            spread = 2.0
    scaling = Scaling("none", 0, [0.0], [1.0])
    return Forecaster(ForecasterBundle(model.eval(), ["x"], None, scaling, [spread]), "cpu")


@pytest.mark.parametrize("loss", ["squared", "gaussian"])
def test_intervals_are_those_of_an_autoregression(loss: Any) -> None:
    """Of x' = φx + e, the variance h steps ahead is σ² (1 - φ^2h) / (1 - φ²)."""
    phi, sigma, samples = 0.8, 0.5, 40_000
    reader = autoregression(phi, sigma, loss)
    found = reader.forecast([1.0, 2.0], 8, interval=0.8, samples=samples)
    ahead = np.arange(1, 9)
    deviation = sigma * np.sqrt((1 - phi ** (2 * ahead)) / (1 - phi**2))
    np.testing.assert_allclose(found.values[:, 0], 2 * phi**ahead, rtol=0, atol=1e-12)
    for end, quantile in ((found.lower, -1.2815516), (found.upper, 1.2815516)):
        expected = 2 * phi**ahead + quantile * deviation
        # Five standard errors of a sample quantile, √(p (1 - p) / n) / density.
        np.testing.assert_array_less(np.abs(end[:, 0] - expected), 5 * 1.71 * deviation / 200)


def test_absolute_errors_stand_for_a_laplace_distribution() -> None:
    found = autoregression(0.0, 0.5, "absolute").forecast([1.0], 2, 0.8, samples=40_000)
    expected = 0.5 * math.log(1 / 0.2)  # P(X > x) = exp(-x / b) / 2 = 0.1
    np.testing.assert_allclose(found.upper[:, 0], expected, atol=0.04)
    np.testing.assert_allclose(found.lower[:, 0], -expected, atol=0.04)


@pytest.mark.parametrize("loss", ["squared", "gaussian"])
def test_intervals_cover_a_gaussian_autoregression(loss: Any) -> None:
    random, x = np.random.default_rng(2), [0.0]
    for noise in random.normal(0, 0.5, 5000):
        x.append(0.8 * x[-1] + noise)
    values = np.array(x)[:, None]
    origins = list(range(100, 4900, 5))
    reader = autoregression(0.8, 0.5, loss)
    lower, upper = reader.intervals(values, origins, 6, 0.9, samples=400)
    actual = np.stack([values[origin : origin + 6] for origin in origins])
    inside = (lower <= actual) & (actual <= upper)
    np.testing.assert_allclose(inside.mean(axis=(0, 2)), 0.9, atol=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon": 0}, "--horizon must be at least 1, not 0"),
        ({"interval": 1.0}, "--interval: must be above 0 and below 1, not 1"),
        ({"samples": 0}, "--samples must be at least 1"),
        ({"values": np.ones((9, 3))}, r"shape \(9, 3\) is not \(time steps, 2\), the columns c0"),
        ({"values": np.ones((0, 2))}, r"shape \(0, 2\)"),
        ({"values": np.full((9, 2), np.inf)}, "holds an infinite value"),
    ],
)
def test_impossible_forecasts_are_refused(change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"values": series(), "horizon": 3}
    with pytest.raises(MTError, match=message):
        forecaster().forecast(**(options | change))


@pytest.mark.parametrize("values", [np.ones((3, 2)), np.full((9, 2), np.nan)])
def test_differences_need_values(values: np.ndarray) -> None:
    with pytest.raises(MTError, match="a value of each of the 4 time steps"):
        forecaster(difference=4).forecast(values, 3)


# Bundles


def test_a_bundle_comes_back_as_it_was(tmp_path: Path) -> None:
    for number, time in enumerate((None, "year")):
        scaling = Scaling("log", 3, [0.1, -2.0], [1.5, 2e-3])
        model = network(loss=LOSSES[number]).float()
        saved = ForecasterBundle(model, ["a", "b, c"], time, scaling, [0.25, 1.0], "# A model\n")
        save_forecaster(saved, tmp_path / "bundle")
        loaded = load_forecaster(tmp_path / "bundle")
        assert loaded[1:] == saved[1:]
        assert loaded.model.architecture == model.architecture
        values = series(60, missing=0)
        one, two = (Forecaster(each, "cpu").forecast(values, 5) for each in (saved, loaded))
        for mine, other in zip(one, two, strict=True):
            np.testing.assert_array_equal(mine, other)


def test_damage_and_other_tasks_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    scaling = Scaling("none", 0, [0.0], [1.0])
    save_forecaster(ForecasterBundle(network(1), ["a"], None, scaling, [1.0]), folder)
    with pytest.raises(MTError, match="of task forecasting, not translation; use mt forecast"):
        load_bundle(folder)
    config = json.loads((folder / "config.json").read_text())
    scaling_json = config["scaling"]
    for key, value, message in (
        ("columns", [], "`columns` are no names"),
        ("columns", [3], "`columns` are no names"),
        ("columns", ["a", "a"], "two `columns` have one name"),
        ("time", None, "`time` is missing or of the wrong type"),
        ("spread", [], "`spread` is no list of numbers"),
        ("spread", [-1.0], "`spread` is no list of numbers"),
        ("scaling", scaling_json | {"mean": [math.inf]}, "`scaling.mean` is no list of numbers"),
        ("scaling", scaling_json | {"deviation": [0.0]}, "`scaling.deviation` is no list"),
        ("scaling", scaling_json | {"deviation": [1.0, 1.0]}, "`scaling.deviation` is no list"),
        ("scaling", scaling_json | {"difference": -1}, "`scaling` is damaged"),
        ("scaling", scaling_json | {"transform": "exp"}, "`scaling` is damaged"),
        ("scaling", scaling_json | {"more": 1}, "`scaling` is damaged"),
        ("architecture", {"depth": 3}, "unknown option `depth`"),
        ("architecture", {"loss": "cubic"}, "`loss` cannot be 'cubic'"),
        ("architecture", {"hidden_size": 9}, "weight .* the file|has shape"),
    ):
        (folder / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(MTError, match=message):
            load_forecaster(folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(MTError, match="SHA-256 differs"):
        load_forecaster(folder)
