"""The recipe of a forecaster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mt.errors import MTError
from mt.nn.architecture import ForecasterArchitecture
from mt.recipe.sections import ANY, Optimization, Recipe, check


@dataclass(frozen=True)
class SeriesOptions:
    """A time series, and how it is cut and scaled. One of statsmodels and files is set."""

    statsmodels: Literal["sunspots", "co2"] | None = None
    """A series that the package statsmodels ships: `sunspots` (one a year, from 1700) or `co2`
    (Mauna Loa, one a week, some missing). It needs the extra `forecast`."""
    files: str | None = None
    """A CSV file in place of it: a row of names, then a row for each time step; an empty cell or
    `nan` is a missing value."""
    columns: list[str] = field(default_factory=list)
    """Columns of the file to forecast; none stands for all but `time`."""
    time: str | None = None
    """Column of the file that says when each step was; it is carried through."""
    valid_size: int = 50
    """Time steps before those of the test, which choose the weights."""
    test_size: int = 50
    """Time steps at the end, which measure."""
    period: int = 1
    """Time steps of a season, for the seasonal-naive forecast, exponential smoothing and MASE's
    scale; 1 is no season. The network knows nothing of it."""
    transform: Literal["none", "log", "sqrt"] = "none"
    """What the network sees in place of the values: their logarithm or square root."""
    difference: int = 0
    """The network sees each value less the one so many time steps before; 0 takes the values
    themselves."""

    def __post_init__(self) -> None:
        least: dict[str, tuple[float, float]] = dict.fromkeys(
            ("valid_size", "test_size", "period"), (1, ANY)
        )
        check("series.", self, **least, difference=(0, ANY))


@dataclass(frozen=True)
class SeriesBatching:
    """How a series is cut into windows that are trained on side by side."""

    steps: int = 1024
    """Budget of a batch on each device, in time steps: rows times `window`."""
    window: int = 64
    """Time steps of a row, at most; back-propagation through time goes no further. An epoch reads
    every such window of the training part once."""
    workers: int = 0
    """Processes that prepare batches ahead; 0 prepares them in the training process."""

    def __post_init__(self) -> None:
        check("batches.", self, steps=(1, ANY), window=(1, ANY), workers=(0, ANY))


@dataclass(frozen=True)
class ForecastEvaluation:
    """How forecasts are measured: from many origins, each forecast made from what stood before."""

    horizon: int = 12
    """Time steps to forecast from each origin, on validation and test."""
    stride: int = 1
    """Time steps from one origin to the next."""
    interval: float = 0.9
    """Probability of the prediction intervals."""
    samples: int = 500
    """Paths that are drawn for the intervals."""
    exponential_smoothing: bool = True
    """Compare with statsmodels' exponential smoothing, which needs the extra `forecast`."""

    def __post_init__(self) -> None:
        whole: dict[str, tuple[float, float]] = dict.fromkeys(
            ("horizon", "stride", "samples"), (1, ANY)
        )
        check("evaluation.", self, **whole)
        if not 0 < self.interval < 1:
            raise MTError(
                f"evaluation.interval: must be above 0 and below 1, not {self.interval:g}"
            )


@dataclass(frozen=True)
class ForecastingRecipe(Recipe):
    """From a time series to a forecaster."""

    task: Literal["forecasting"] = "forecasting"
    """What the network learns to do."""
    series: SeriesOptions = field(default_factory=SeriesOptions)
    """The series."""
    model: ForecasterArchitecture = field(default_factory=ForecasterArchitecture)
    """Size of the network."""
    batches: SeriesBatching = field(default_factory=SeriesBatching)
    """How the series is cut into windows."""
    training: Optimization = field(default_factory=Optimization)
    """Optimizer, schedule and stopping; the score of a validation is its MASE, the less the
    better."""
    evaluation: ForecastEvaluation = field(default_factory=ForecastEvaluation)
    """How forecasts are measured."""
