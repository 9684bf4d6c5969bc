"""Time series: read from CSV and written, their times continued, and scaled for a network and back.

A series is an array `(T, C)` of T time steps and C columns, NaN where a value is missing.
"""

from __future__ import annotations

import csv
import io
import math
import re
from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.errors import MTError
from mt.lines import read_lines

Values = NDArray[np.float64]


class Series(NamedTuple):
    """One or several quantities, observed at the same, equally spaced times."""

    columns: list[str]
    """Names of the quantities."""
    values: Values
    """`(T, C)`, NaN where a value is missing."""
    times: list[str] | None = None
    """When each step was, as the file has it."""
    time: str | None = None
    """Name of the column of the times."""


def read_series(
    path: Path, columns: Sequence[str] | None = None, time: str | None = None
) -> Series:
    """Read a CSV file: a row of names, then a row for each time step.

    An empty cell, or `nan`, is a missing value; so is an empty line where there is one column.

    Args:
        path: The file, which may be compressed.
        columns: Names of the columns to read; None for all but that of the times.
        time: Name of the column that says when a step was; None where there is none.

    Raises:
        MTError: The file cannot be read, is no such table, or lacks a column; the message names the
            line and the column.
    """
    rows = csv.reader(read_lines(path), strict=True)
    values: list[list[float]] = []
    times: list[str] = []
    try:
        head = [name.strip() for name in next(rows, [])]
        wanted = [name for name in head if name != time] if columns is None else list(columns)
        _check_head(path, head, [*wanted, *([time] if time is not None else [])])
        if not wanted:
            raise MTError(f"{path}: there is no column to forecast")
        places = {name: head.index(name) for name in wanted}
        for row in rows:
            cells = row or [""] * (len(head) == 1)
            where = f"{path}: line {rows.line_num}"
            if len(cells) != len(head):
                raise MTError(
                    f"{where} has {len(cells)} cell{'s' * (len(cells) != 1)} and the first line "
                    f"{len(head)}; write one for each column, empty where a value is missing"
                )
            values.append(
                [_number(cells[place], f"{where}, column {n}") for n, place in places.items()]
            )
            if time is not None:
                times.append(cells[head.index(time)].strip())
    except csv.Error as error:
        raise MTError(f"{path}: line {rows.line_num} is not valid CSV ({error})") from error
    if not values:
        raise MTError(f"{path}: there is no row below the names of the columns")
    array = np.array(values, dtype=np.float64)
    return Series(wanted, array, None if time is None else times, time)


def _check_head(path: Path, head: list[str], wanted: Sequence[str]) -> None:
    if not head:
        raise MTError(f"{path}: the first line must hold the names of the columns")
    if len(set(head)) < len(head) or "" in head:
        raise MTError(f"{path}: the columns {', '.join(map(repr, head))} need a name each")
    for name in wanted:
        if name not in head:
            raise MTError(f"{path}: no column is called {name}; there are {', '.join(head)}")


def _number(cell: str, where: str) -> float:
    text = cell.strip()
    if text == "" or text.lower() == "nan":
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value) or "_" in text:
        raise MTError(
            f"{where}: {text!r} is no number; leave the cell empty where the value is missing; a "
            "column of times is what series.time names"
        )
    return value


def write_csv(rows: Iterable[Sequence[str | float]]) -> str:
    """Write a table as CSV, numbers with ten significant digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(
        [f"{cell:.10g}" if isinstance(cell, float) else cell for cell in row] for row in rows
    )
    return text.getvalue()


def continue_times(times: Sequence[str], steps: int) -> list[str] | None:
    """Tell when the next steps are, where times follow a rule: None where they do not.

    Rules are whole numbers equally far apart, and dates (`2001-03-29`, `2001-03`) equally many days
    or months apart; dates that all end their month go on doing so.
    """
    if len(times) < 2:
        return None
    if all(re.fullmatch(r"-?\d{1,15}", time) for time in times):
        numbers = [int(time) for time in times]
        step = numbers[1] - numbers[0]
        if step == 0 or numbers != list(range(numbers[0], numbers[-1] + step, step)):
            return None
        return [str(numbers[-1] + step * ahead) for ahead in range(1, steps + 1)]
    monthly = all(re.fullmatch(r"\d{4}-\d\d", time) for time in times)
    try:
        dates = [date.fromisoformat(time + "-01" if monthly else time) for time in times]
        found = (None if monthly else _by_days(dates, steps)) or _by_months(dates, steps)
        return [day.isoformat()[: 7 if monthly else 10] for day in found] if found else None
    except (ValueError, OverflowError):  # no dates, or beyond the year 9999
        return None


def _by_days(dates: Sequence[date], steps: int) -> list[date] | None:
    days = {(after - before).days for before, after in pairwise(dates)}
    if len(days) > 1 or days == {0}:
        return None
    step = timedelta(days.pop())
    return [dates[-1] + step * ahead for ahead in range(1, steps + 1)]


def _by_months(dates: Sequence[date], steps: int) -> list[date] | None:
    months = [12 * day.year + day.month - 1 for day in dates]
    step = months[1] - months[0]
    ends = all(day.day == monthrange(day.year, day.month)[1] for day in dates)
    alike = len({day.day for day in dates}) == 1
    regular = step and months == list(range(months[0], months[-1] + step, step))
    if not (regular and (ends or alike)):
        return None
    found = []
    for ahead in range(1, steps + 1):
        year, month = divmod(months[-1] + step * ahead, 12)
        last = monthrange(year, month + 1)[1]
        found.append(date(year, month + 1, last if ends else min(dates[-1].day, last)))
    return found


def fill_by_phase(values: Values, period: int, step: Values | float = 0.0) -> Values:
    """Put in a missing value's place the one a period before, plus `step` `(C,)`.

    What is missing at the beginning, with nothing before it, stays missing.

    Args:
        values: `(T, C)`.
        period: Time steps.
        step: What a period adds.
    """
    filled: Values = values.copy()
    for start in range(period, len(values), period):
        now = filled[start : start + period]
        before = filled[start - period : start][: len(now)]
        np.copyto(now, before + step, where=np.isnan(now))
    return filled


Transform = Literal["none", "log", "sqrt"]


@dataclass(frozen=True)
class Scaling:
    """What stands between a series and its network: invertible, by column.

    y_t = f(x_t), then d_t = y_t - y_{t - k} where k > 0 (seasonal differences, Box & Jenkins 1970),
    then z_t = (d_t - mean) / deviation.
    """

    transform: Transform
    """f: the identity, the natural logarithm or the square root."""
    difference: int
    """k, in time steps; 0 takes no differences."""
    mean: list[float]
    """Of d, by column."""
    deviation: list[float]
    """Standard deviation of d, by column."""

    @classmethod
    def fit(
        cls, values: Values, columns: Sequence[str], transform: Transform, difference: int
    ) -> Scaling:
        """Take mean and standard deviation from the training part alone.

        Args:
            values: `(T, C)`, the training part.
            columns: Their names, for messages.
            transform: See `Scaling.transform`.
            difference: See `Scaling.difference`.

        Raises:
            MTError: A column is constant, has no values, or has values that cannot be transformed.
        """
        plain = cls(transform, difference, [0.0] * len(columns), [1.0] * len(columns))
        sizes = np.abs(plain.transformed(values, columns)).T
        differences = plain.apply(values, columns).T
        mean, deviation = [], []
        for name, size, column in zip(columns, sizes, differences, strict=True):
            known = column[~np.isnan(column)]
            if len(known) < 2:
                raise MTError(f"column {name}: the training part has too few values to learn from")
            mean.append(float(known.mean()))
            deviation.append(float(known.std()))
            if deviation[-1] <= 1e-14 * float(np.nanmax(size)):  # nothing but rounding
                what = "differences are" if difference else "column is"
                raise MTError(
                    f"column {name}: its {what} constant in the training part, so there is "
                    "nothing to learn; leave it out with series.columns"
                )
        return cls(transform, difference, mean, deviation)

    def transformed(self, values: Values, columns: Sequence[str]) -> Values:
        """Compute y `(T, C)` from x `(T, C)`.

        Raises:
            MTError: A value has no logarithm or square root.
        """
        least = {"none": -math.inf, "log": 0.0, "sqrt": 0.0}[self.transform]
        bad = np.argwhere((values < least) | ((values <= least) & (self.transform == "log")))
        if len(bad):
            row, column = bad[0]
            raise MTError(
                f"column {columns[column]}: its {row + 1}. value {values[row, column]:g} has no "
                f"{self.transform}; set series.transform: none"
            )
        if self.transform == "log":
            return np.asarray(np.log(values))
        return np.asarray(np.sqrt(values)) if self.transform == "sqrt" else values

    def apply(self, values: Values, columns: Sequence[str]) -> Values:
        """Compute z `(T, C)` from x `(T, C)`; it is missing where what it is made of is.

        Raises:
            MTError: As `transformed` does.
        """
        y = self.transformed(values, columns)
        if self.difference:
            before = np.full_like(y, np.nan)
            before[self.difference :] = y[: -self.difference]
            y = y - before
        z: Values = (y - np.array(self.mean)) / np.array(self.deviation)
        return z

    def filled(self, values: Values, columns: Sequence[str]) -> Values:
        """Compute y `(T, C)`, a missing value replaced by the one that `difference` steps before
        makes likely: that one and the mean difference.

        Raises:
            MTError: As `transformed` does.
        """
        y = self.transformed(values, columns)
        return fill_by_phase(y, self.difference, np.array(self.mean)) if self.difference else y

    def invert(self, z: Values, before: Values) -> Values:
        """Compute x `(…, H, C)` from z `(…, H, C)`.

        Args:
            z: Of H steps.
            before: y `(…, K, C)` of the steps before them, K at least `difference`; of no use
                without differences.
        """
        y = z * np.array(self.deviation) + np.array(self.mean)
        lag = self.difference
        if lag:
            last = before[..., before.shape[-2] - lag :, :]
            for start in range(0, y.shape[-2], lag):
                now = y[..., start : start + lag, :]
                last = last[..., : now.shape[-2], :] + now
                y[..., start : start + lag, :] = last
        if self.transform == "log":
            return np.asarray(np.exp(y))
        return np.asarray(np.maximum(y, 0.0) ** 2) if self.transform == "sqrt" else y
