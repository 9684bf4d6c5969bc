"""The report of a forecaster, and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mt.evaluation import page
from mt.evaluation.card import card
from mt.evaluation.forecasts import ForecastScores, RollingOrigin, forecast_scores_json
from mt.evaluation.markup import Markup, element, join
from mt.evaluation.plots import STYLES, Series, line_chart
from mt.evaluation.tables import count, markdown
from mt.forecaster import Forecast
from mt.series import Values

_BEFORE = 4
"""Steps that a picture shows before the forecast, for each that is forecast."""


@dataclass(frozen=True)
class ForecastReport:
    """All that a report shows."""

    title: str
    """Headline, such as the name of the run."""
    columns: list[str]
    """Names of what is forecast."""
    found: RollingOrigin
    """The scores on the test part."""
    values: Values
    """The series, `(T, C)`."""
    cuts: tuple[int, int]
    """First steps of the validation and of the test part."""
    examples: list[tuple[int, Forecast]]
    """Origins in the test part, and the forecasts from there."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    """Label and value."""
    curves: Path | None = None
    """The run's `metrics.csv`."""
    recipe_yaml: str | None = None
    """The resolved recipe."""


def score_rows(found: RollingOrigin) -> list[list[str]]:
    """Table the methods: a row of names, then a row for each column and method."""
    columns = list(dict.fromkeys(one.column for one in found.methods))
    several = len(columns) > 1
    head = ["method", "MASE", "MAE", "RMSE", f"{100 * found.interval:g}% covers", "width"]
    rows = [["column", *head] if several else head]
    for one in sorted(found.methods, key=lambda one: columns.index(one.column)):
        covered = "" if one.coverage is None else f"{100 * one.coverage:.1f}%"
        width = "" if one.width is None else f"{one.width:.4g}"
        row = [one.method, f"{one.mase:.3f}", f"{one.mae:.4g}", f"{one.rmse:.4g}", covered, width]
        rows.append([one.column, *row] if several else row)
    return rows


def setting(found: RollingOrigin) -> str:
    """Say how forecasts were measured."""
    return (
        f"{found.origins:,} origins in the test part, 1 to {found.horizon} steps ahead; MASE is "
        f"scaled by the training part's mean |x(t) - x(t-{found.period})|; the share of the values "
        f"that a {100 * found.interval:g}% interval covers, and its mean width, are the network's."
    )


def write_forecast_report(folder: Path, report: ForecastReport) -> None:
    """Write report.html, report.md and scores.json, each whole or not at all.

    Raises `MTError` where they cannot be written.
    """
    found = report.found
    notes = [setting(found), *found.notes]
    compared = [page.wide(page.table(score_rows(found))), *(element("p", note) for note in notes)]
    parts = [
        ("verdict", None, _verdict(report)),
        ("methods", "Beside other methods", join(compared)),
        ("forecasts", "Forecasts", _forecasts(report)),
        ("series", "The series", _series(report)),
        ("training", "Training", page.training(report.curves, "per value")),
        ("recipe", "Recipe", page.recipe(report.recipe_yaml)),
    ]
    subtitle = f"forecaster of {', '.join(report.columns)}"
    lines = [markdown(score_rows(found)), *(f"{note}\n" for note in notes)]
    contents = {
        "report.html": page.html(report.title, subtitle, parts),
        "report.md": page.brief(f"{report.title}, {subtitle}", lines, report.facts),
        "scores.json": forecast_scores_json(found),
    }
    page.write(folder, contents)


def _verdict(report: ForecastReport) -> Markup:
    cards = []
    for one in _of_first_method(report.found):
        tiles = [
            page.tile(
                f"{one.mase:.3f}", f"MASE, 1 to {report.found.horizon} steps ahead", (), "lead"
            ),
            page.tile(f"{one.mae:.4g}", "mean absolute error"),
            page.tile(
                f"{100 * (one.coverage or 0):.1f}%",
                f"of values within the {100 * report.found.interval:g}% interval",
            ),
        ]
        cards.append(page.verdict(one.column, count(report.found.origins, "origin"), tiles))
    return join([*cards, page.facts(report.facts)])


def _of_first_method(found: RollingOrigin) -> list[ForecastScores]:
    return [one for one in found.methods if one.method == found.methods[0].method]


def _forecasts(report: ForecastReport) -> Markup | None:
    figures = []
    horizon = report.found.horizon
    for number, name in enumerate(report.columns):
        by_step = [
            Series(one.method.replace("exponential", "exp."), points, style)
            for one, style in zip(
                (one for one in report.found.methods if one.column == name), STYLES, strict=False
            )
            if (points := _points(np.array(one.mae_by_step), 1))
        ]
        figures.append(
            line_chart(
                f"Error by horizon: {name}",
                "mean absolute error",
                by_step,
                x_name="steps ahead",
                from_zero=True,
            )
        )
        for origin, forecast in report.examples:
            first = max(0, origin - _BEFORE * horizon)
            ends = zip(forecast.lower[:, number], forecast.upper[:, number], strict=True)
            band = [(origin + ahead, float(a), float(b)) for ahead, (a, b) in enumerate(ends)]
            actual = _points(report.values[first : origin + horizon, number], first)
            lines = [
                Series("forecast", _points(forecast.values[:, number], origin), "b", band=band),
                Series("series", actual),
            ]
            interval = f"after {origin:,} steps, with its {100 * report.found.interval:g}% interval"
            figures.append(
                line_chart(
                    f"Forecast: {name}",
                    interval,
                    lines,
                    x_name="steps",
                    x_from_zero=False,
                    log=False,
                )
            )
    return page.charts(figures)


def _series(report: ForecastReport) -> Markup | None:
    figures = []
    for number, name in enumerate(report.columns):
        column = report.values[:, number]
        ends = [0, *report.cuts, len(column)]
        lines = [
            Series(part, points, style)
            for part, style, first, end in zip(
                ("training", "validation", "test"), "abc", ends, ends[1:], strict=False
            )
            if (points := _points(column[first:end], first))
        ]
        figures.append(line_chart(name, "as it is", lines, x_name="steps", log=False))
    return page.charts(figures)


def _points(values: Values, first: int) -> list[tuple[float, float]]:
    """Pair the known values of one column with the numbers of their steps."""
    return [
        (float(step), float(value))
        for step, value in enumerate(values, start=first)
        if not np.isnan(value)
    ]


def forecast_card(
    columns: Sequence[str],
    rows: Sequence[tuple[str, str]],
    found: RollingOrigin | None,
    recipe_yaml: str,
) -> str:
    """Write the Markdown card of a bundle.

    Args:
        columns: Names of what it forecasts.
        rows: What it was made from, by name.
        found: Scores on the test part; None while training goes on.
        recipe_yaml: The resolved recipe.
    """
    about = (
        "A recurrent network that reads a time series and forecasts what comes next. The folder "
        "holds weights\nand configuration only: loading it runs no code, and it holds no values of "
        "the series."
    )
    scores = "" if found is None else f"{markdown(score_rows(found))}\n{setting(found)}\n"
    command = "mt forecast THIS_FOLDER --input series.csv --horizon 12"
    title = f"Forecaster of {', '.join(columns)}"
    return card(title, about, command, rows, scores, recipe_yaml)
