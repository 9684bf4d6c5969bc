"""The series of a recipe: read, and cut into training, validation and test part."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mt.errors import MTError, require
from mt.recipe import ForecastingRecipe, SeriesOptions
from mt.series import Series, Values, read_series


class SplitSeries(NamedTuple):
    """A series and where it is cut: in the order of time."""

    series: Series
    valid: int
    """First step of the validation part; those before are the training part."""
    test: int
    """First step of the test part."""
    origin: str
    """Where it comes from."""
    digest: str
    """Hash of the series and of the options that chose from it."""

    @property
    def train(self) -> Values:
        """The values of the training part."""
        return self.series.values[: self.valid]


def load_series(recipe: ForecastingRecipe) -> SplitSeries:
    """Read a recipe's series, and cut it.

    Raises:
        MTError: It is missing, malformed, or too short for the recipe.
    """
    options = recipe.series
    if (options.statsmodels is None) == (options.files is None):
        raise MTError(
            "series: set exactly one of series.statsmodels and series.files, null for the other"
        )
    if options.files is not None:
        series = read_series(Path(options.files), options.columns or None, options.time)
        origin = Path(options.files).name
    else:
        series, origin = _read_statsmodels(options)
    steps = len(series.values)
    test = steps - options.test_size
    valid = test - options.valid_size
    longest = recipe.batches.window + options.difference
    if valid < longest + 1:
        raise MTError(
            f"{origin}: of {steps} time steps, series.valid_size and series.test_size leave "
            f"{max(0, valid)} for training, fewer than a window and its target; lower them, "
            "batches.window or series.difference"
        )
    for part in ("valid", "test"):
        size = getattr(options, f"{part}_size")
        if size < recipe.evaluation.horizon:
            raise MTError(
                f"series.{part}_size: {size} steps are too few for evaluation.horizon "
                f"{recipe.evaluation.horizon}; raise the one or lower the other"
            )
    told = f"{origin}: {steps:,} time steps of {', '.join(series.columns)}"
    if missing := int(np.isnan(series.values).sum()):
        told += f", {missing:,} value{'s' * (missing > 1)} missing"
    content = json.dumps([asdict(options) | {"files": None}, series.columns, series.times])
    digest = hashlib.blake2b(content.encode() + series.values.tobytes(), digest_size=16)
    return SplitSeries(series, valid, test, told, digest.hexdigest())


def _read_statsmodels(options: SeriesOptions) -> tuple[Series, str]:
    """Read a series that statsmodels ships."""
    require("series.statsmodels", "forecast", "statsmodels")
    from statsmodels.datasets import co2, sunspots

    if options.columns or options.time is not None:
        raise MTError("series.columns and series.time are of files; leave them out")
    if options.statsmodels == "sunspots":
        table = sunspots.load_pandas().data
        times = [str(int(year)) for year in table["YEAR"]]
        name, time, values = "sunspots", "year", table["SUNACTIVITY"]
    else:
        table = co2.load_pandas().data
        times = [day.date().isoformat() for day in table.index]
        name, time, values = "co2", "date", table["co2"]
    columns = np.asarray(values, dtype=np.float64)[:, None]
    return Series([name], columns, times, time), f"statsmodels' {options.statsmodels}"
