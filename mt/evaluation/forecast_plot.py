"""A forecast as a picture, by matplotlib."""

from __future__ import annotations

import io

import numpy as np

from mt.forecaster import Forecast
from mt.series import Values

_BEFORE = 5
"""Steps of the series that are shown, for each that is forecast."""


def forecast_png(
    columns: list[str], values: Values, forecast: Forecast, interval: float, times: list[str]
) -> bytes:
    """Draw the end of a series and its forecast, a panel for each column.

    Args:
        columns: Their names.
        values: The series, `(T, C)`.
        forecast: What comes next.
        interval: Probability of its prediction intervals.
        times: Of the series and then of the forecast, `T + H`.

    Returns:
        The content of a PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, horizon = len(values), len(forecast.values)
    first = max(0, steps - max(_BEFORE * horizon, 20))
    before, after = np.arange(first, steps), np.arange(steps - 1, steps + horizon)
    figure = Figure(figsize=(9, 3 * len(columns) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(columns), squeeze=False)[:, 0]
    for number, (name, panel) in enumerate(zip(columns, panels, strict=True)):
        # Forecast and interval begin where the series ends.
        point, lower, upper = (np.append(values[-1, number], part[:, number]) for part in forecast)
        band = f"{100 * interval:g}% interval"
        panel.fill_between(after, lower, upper, color="#0b5f7a", alpha=0.2, lw=0, label=band)
        panel.plot(before, values[first:, number], color="#1d1f24", lw=1.2, label="series")
        panel.plot(after, point, color="#0b5f7a", lw=1.6, marker=".", label="forecast")
        panel.set_title(name, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
        places = np.linspace(first, steps + horizon - 1, 6).round().astype(int)
        panel.set_xticks(places, [times[place] for place in places])
    panels[0].legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.12))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
