"""Forecasters from the command line: they learn what there is to know, resume, and forecast."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import Command

from mt.cli import COMMANDS
from mt.errors import MTError
from mt.forecaster import Forecaster
from mt.options import parse_train
from mt.series import read_series
from mt.training.train import train

SIGMA = 0.7
"""Standard deviation of what is new in each step of `walk`."""

RECIPE: dict[str, Any] = {
    "task": "forecasting",
    "series": {
        "files": "series.csv",
        "time": "day",
        "columns": ["wave", "walk"],
        "valid_size": 150,
        "test_size": 150,
        "period": 7,
    },
    "model": {"hidden_size": 16},
    "batches": {"steps": 800, "window": 40},
    "training": {
        "learning_rate": 1e-2,
        "warmup_steps": 10,
        "ema": 0.95,
        "checkpoint_minutes": 0.001,
    },
    "evaluation": {"horizon": 10, "stride": 3, "samples": 200},
    "trainer": {
        "max_steps": 300,
        "accelerator": "cpu",
        "val_check_interval": 100,
        "gradient_clip_val": 1.0,
    },
}


def walk(steps: int, seed: int) -> np.ndarray:
    """A second-order autoregression, x'' = 1.3 x' - 0.6 x + e, around 5."""
    values = [0.0, 0.0]
    for noise in np.random.default_rng(seed).normal(0, SIGMA, steps + 98):
        values.append(1.3 * values[-1] - 0.6 * values[-2] + noise)
    return 5 + np.array(values[100:])


def write(path: Path, steps: int, seed: int = 1) -> None:
    days = np.datetime64("2001-03-29") + np.arange(steps)
    wave = 10 + 3 * np.sin(np.arange(steps) * 2 * math.pi / 20)
    values = np.stack((wave, walk(steps, seed)), axis=1)
    missing = np.random.default_rng(seed).random(values.shape) < 0.02
    rows = [
        [str(day), *("" if gone else repr(float(x)) for x, gone in zip(row, gaps, strict=True)), 1]
        for day, row, gaps in zip(days, values, missing, strict=True)
    ]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["day", "wave", "walk", "other"], *rows])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipes/both.yaml` and its series: a noiseless wave and a random walk."""
    folder = tmp_path_factory.mktemp("series")
    write(folder / "series.csv", 2500)
    (folder / "recipes").mkdir()
    (folder / "recipes/both.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.fixture(scope="module")
def run(mt: Command, place: Path) -> Path:
    done = mt("train", "recipes/both.yaml", cwd=place)
    assert done.status == 0, done.err
    assert "MASE" in done.err
    return place / "runs/both"


def train_here(place: Path, *words: object) -> Path:
    """Train with options in this process; the run's folder is the first."""
    recipe = place / "recipes/both.yaml"
    options = parse_train(list(map(str, [recipe, "--output", place / str(words[0]), *words[1:]])))
    train(options.recipe, options.output, options.resume, options.overwrite)
    return options.output


def test_it_learns_what_there_is_to_know(run: Path) -> None:
    reader = Forecaster.load(run / "bundle", "cpu")
    steps = np.arange(400)
    wave, noise = 10 + 3 * np.sin(steps * 2 * math.pi / 20), walk(400, seed=9)
    values = np.stack((wave, noise), axis=1)
    # A wave without noise goes on: what is off is little of its height.
    found = reader.forecast(values[:380], 20)
    assert np.abs(found.values[:, 0] - wave[380:]).max() < 0.3
    # Of a walk that it has never seen, the next step is known but for what is new in it.
    point = reader.forecast_from(values, list(range(50, 399)), 1)[:, 0, 1] - 5
    best = 1.3 * (noise[49:398] - 5) - 0.6 * (noise[48:397] - 5)
    came = noise[50:399] - 5
    assert np.mean((point - came) ** 2) < 1.1 * np.mean((best - came) ** 2)
    _, outputs = reader.predict_next(values)
    scale = reader.model.predict(outputs).scale
    assert scale is not None
    assert float(scale[50:, 1].mean()) * reader.scaling.deviation[1] == pytest.approx(
        SIGMA, rel=0.1
    )


def test_its_intervals_cover(run: Path) -> None:
    reader = Forecaster.load(run / "bundle", "cpu")
    noise = walk(2000, seed=11)
    wave = 10 + 3 * np.sin(np.arange(2000) * 2 * math.pi / 20)
    values = np.stack((wave, noise), axis=1)
    origins = list(range(100, 1990, 10))
    lower, upper = reader.intervals(values, origins, 10, 0.9, samples=300)
    actual = np.stack([values[origin : origin + 10] for origin in origins])
    inside = (lower <= actual) & (actual <= upper)
    assert inside[..., 1].mean() == pytest.approx(0.9, abs=0.05)


def test_the_report_and_the_card_say_so(run: Path) -> None:
    scores = json.loads((run / "scores.json").read_text())
    assert (scores["horizon"], scores["origins"], scores["period"]) == (10, 47, 7)
    by_name = {(one["method"], one["column"]): one for one in scores["methods"]}
    methods = "network", "naive", "seasonal naive", "exponential smoothing"
    assert set(by_name) == {(name, column) for name in methods for column in ("wave", "walk")}
    for name in methods[1:3]:
        assert by_name["network", "walk"]["mase"] < by_name[name, "walk"]["mase"]
    assert by_name["network", "wave"]["mae"] < 0.1 * by_name["naive", "wave"]["mae"]
    for one in by_name.values():
        assert len(one["mae_by_step"]) == 10
        assert one["mase"] > 0
        for name in ("report.html", "report.md", "bundle/README.md"):
            assert f"{one['mase']:.3f}" in (run / name).read_text(), name
    page = (run / "report.html").read_text()
    for words in ("Error by horizon: walk", "Forecast: wave", "Validation MASE"):
        assert words in page
    assert page.count("<figure") == 2 * (1 + 3 + 1) + 4
    with open(run / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["valid_mase"]]
    assert [int(row["step"]) for row in rows] == [100, 200, 300]
    best = min(float(row["valid_mase"]) for row in rows)
    assert best < float(rows[0]["valid_mase"])


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(place: Path) -> None:
    # The schedule looks at the end of the budget: its end is the same, the clock stops it.
    more = (
        *("--training.schedule", "constant", "--model.weight_drop", "0.2"),
        *("--evaluation.exponential_smoothing", "false", "--model.loss", "absolute"),
    )
    half = train_here(place, "half", "--trainer.max_steps", 30, *more)
    train_here(place, "half", "--trainer.max_steps", 50, *more, "--resume")
    whole = train_here(place, "whole", "--trainer.max_steps", 50, *more)
    states = [
        torch.load(folder / "checkpoints/step-50.ckpt", weights_only=True)["state_dict"]
        for folder in (half, whole)
    ]
    assert states[0].keys() == states[1].keys()
    for name, weight in states[0].items():
        assert weight.equal(states[1][name]), name
    scores = [json.loads((folder / "scores.json").read_text()) for folder in (half, whole)]
    assert scores[0] == scores[1]
    assert {one["method"] for one in scores[0]["methods"]} == {
        *("network", "naive", "seasonal naive")
    }


def here(place: Path, run: Path, *words: str) -> None:
    """Forecast three steps in this process."""
    series = str(place / "series.csv")
    COMMANDS["forecast"]([str(run / "bundle"), "--input", series, "--horizon", "3", *words])


def test_it_forecasts(mt: Command, place: Path, run: Path) -> None:
    words = ["forecast", run / "bundle", "--input", "series.csv", "--horizon", 3, "--seed", 1]
    one = mt(*words, cwd=place)
    assert one.status == 0, one.err
    out, picture = place / "out.csv", place / "out.png"
    here(place, run, "--seed", "1", "--output", str(out), "--plot", str(picture))
    assert out.read_text() == one.out
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    here(place, run, "--seed", "2", "--interval", "0.5", "--samples", "50", "--output", str(out))
    rows = list(csv.DictReader(one.out.splitlines()))
    assert list(rows[0]) == ["day", "column", "forecast", "lower", "upper"]
    days = ["2008-02-01", "2008-02-02", "2008-02-03"]
    assert [(row["day"], row["column"]) for row in rows] == [
        (day, column) for day in days for column in ("wave", "walk")
    ]
    reader = Forecaster.load(run / "bundle", "cpu")
    series = read_series(place / "series.csv", reader.columns, reader.time)
    found = reader.forecast(series.values, 3)
    for name, values in zip(("forecast", "lower", "upper"), found, strict=True):
        told = [float(row[name]) for row in rows]
        np.testing.assert_allclose(told, values.flatten(), rtol=1e-5)
    narrow = list(csv.DictReader(out.read_text().splitlines()))
    for row, wide in zip(narrow, rows, strict=True):
        assert row["forecast"] == wide["forecast"]
        assert float(row["upper"]) - float(row["lower"]) < float(wide["upper"]) - float(
            wide["lower"]
        )


def test_steps_are_counted_where_times_have_no_rule(
    place: Path, run: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = (place / "series.csv").read_text().splitlines()
    del text[100]  # a day is left out
    (tmp_path / "gap.csv").write_text("\n".join(text))
    COMMANDS["forecast"](
        [str(run / "bundle"), "--input", str(tmp_path / "gap.csv"), "--horizon", "2"]
    )
    out = capfdbinary.readouterr().out.decode().splitlines()
    assert [line.split(",")[0] for line in out] == ["step", "2500", "2500", "2501", "2501"]


def test_mistakes_are_told(mt: Command, place: Path, run: Path, tmp_path: Path) -> None:
    done = mt("translate", run / "bundle", cwd=place)
    assert done.status == 2
    assert done.err.strip() == (
        f"mt: error: {run / 'bundle'}: the bundle is of task forecasting, not translation; use mt "
        "forecast"
    )
    bundle, recipe = str(run / "bundle"), str(place / "recipes/both.yaml")
    files = {
        "ragged.csv": "day,wave,walk\n2001-01-01,1,2\n2001-01-02,1\n",
        "word.csv": "day,wave,walk\n2001-01-01,1,2\n2001-01-02,1,much\n",
        "other.csv": "day,wave\n2001-01-01,1\n",
        "constant.csv": "day,wave,walk\n" + "2001-01-01,1,2\n" * 600,
        "short.csv": "day,wave,walk\n" + "2001-01-01,1,2\n" * 320,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    ours = "forecast", bundle, "--input", str(place / "series.csv")
    forecast = "forecast", bundle, "--input"
    again = "train", recipe, "--output", str(tmp_path / "x")
    cases: dict[str, tuple[str, ...]] = {
        r"cannot read .*nowhere\.csv: No such file": (*forecast, str(tmp_path / "nowhere.csv")),
        r"ragged\.csv: line 3 has 2 cells": (*forecast, str(tmp_path / "ragged.csv")),
        r"line 3, column walk: 'much' is no number": (*forecast, str(tmp_path / "word.csv")),
        r"no column is called walk": (*forecast, str(tmp_path / "other.csv")),
        r"--horizon must be at least 1, not 0": (*ours, "--horizon", "0"),
        r"--interval: must be above 0 and below 1, not 2": (*ours, "--interval", "2"),
        r"--samples must be at least 1": (*ours, "--samples", "0"),
        r"column wave: its column is constant": (
            *(*again, "--series.files", str(tmp_path / "constant.csv")),
        ),
        r"of 320 time steps, .* leave 20 for training": (
            *(*again, "--series.files", str(tmp_path / "short.csv")),
        ),
        r"evaluation.horizon: must be at least 1": (*again, "--evaluation.horizon", "0"),
        r"evaluation.interval: must be above 0": (*again, "--evaluation.interval", "1"),
        r"series.period: must be at least 1": (*again, "--series.period", "0"),
        r"auto: cannot choose `model.hidden_size`": (*again, "--auto", "[model.hidden_size]"),
        r"a finished run is there": ("train", recipe, "--output", str(run)),
        r"is of task forecasting, not language-model; use mt forecast": ("generate", bundle),
    }
    for message, (command, *arguments) in cases.items():
        with pytest.raises(MTError, match=message) as caught:
            COMMANDS[command](arguments)
        assert "\n" not in str(caught.value), message
    assert not (tmp_path / "x").exists()


def test_packages_that_are_not_there_are_asked_for(
    place: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("matplotlib", "statsmodels"):
        monkeypatch.setitem(sys.modules, package, None)
    words = [str(run / "bundle"), "--input", str(place / "series.csv"), "--plot", "x.png"]
    with pytest.raises(MTError, match=r"--plot: .* not installed; pip install 'mt\[forecast\]'"):
        COMMANDS["forecast"](words)
    with pytest.raises(MTError, match=r"exponential_smoothing: .* 'mt\[forecast\]', or set it to"):
        train_here(place, "none")
    assert not (place / "none").exists()
