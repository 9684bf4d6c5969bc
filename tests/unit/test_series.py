"""Series: read from CSV, continued in time, scaled and back."""

from __future__ import annotations

import csv
import gzip
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.errors import MTError
from mt.series import Scaling, continue_times, fill_by_phase, read_series, write_csv


def write(folder: Path, text: str) -> Path:
    path = folder / "series.csv"
    path.write_text(text)
    return path


def test_a_file_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path, 'day,"a, b", c\n2001-01-01,1.5,\n2001-01-02,nan,-2e3\n2001-01-03,NaN,4\n'
    )
    series = read_series(path, time="day")
    assert series.columns == ["a, b", "c"]
    np.testing.assert_array_equal(
        series.values, [[1.5, math.nan], [math.nan, -2000], [math.nan, 4]]
    )
    assert series.times == ["2001-01-01", "2001-01-02", "2001-01-03"]
    other = read_series(path, ["c"])
    assert (other.columns, other.times, other.time) == (["c"], None, None)
    np.testing.assert_array_equal(other.values[:, 0], series.values[:, 1])


def test_an_empty_line_is_a_missing_value_of_the_only_column(tmp_path: Path) -> None:
    path = tmp_path / "series.csv.gz"
    path.write_bytes(gzip.compress(b"a\r\n1\r\n\r\n3\r\n"))
    np.testing.assert_array_equal(read_series(path).values, [[1], [math.nan], [3]])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the first line must hold the names"),
        ("a,b\n", {}, "there is no row below the names"),
        ("a,b\n1,2\n1\n", {}, r"line 3 has 1 cell and the first line 2; write one for each"),
        ("a,b\n1,2\n1,2,3\n", {}, "line 3 has 3 cells"),
        ("a,b\n1,2\n\n1,2\n", {}, "line 3 has 0 cells"),
        ("a,b\n1,2\n3,x\n", {}, "line 3, column b: 'x' is no number; leave the cell empty"),
        ("a,b\n1,inf\n", {}, "line 2, column b: 'inf' is no number"),
        ("a\n1_000\n", {}, "line 2, column a: '1_000' is no number"),
        ("a,a\n1,2\n", {}, "need a name each"),
        ("a,\n1,2\n", {}, "need a name each"),
        ("a,b\n1,2\n", {"time": "t"}, "no column is called t; there are a, b"),
        ("a,b\n1,2\n", {"columns": ["c"]}, "no column is called c"),
        ("a\n1\n", {"time": "a"}, "there is no column to forecast"),
        ('a\n"1\n', {}, "line 2 is not valid CSV"),
    ],
)
def test_mistakes_are_told_by_line_and_column(
    tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(MTError, match=message) as caught:
        read_series(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MTError, match=r"cannot read .*nowhere\.csv: No such file"):
        read_series(tmp_path / "nowhere.csv")


numbers = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.10g}"))


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=9))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float]]
) -> None:
    path = tmp_path_factory.mktemp("written") / "series.csv"
    path.write_text(write_csv([("x", "y"), *rows]))
    assert read_series(path).values.tolist() == [list(row) for row in rows]
    assert next(csv.reader(io.StringIO(path.read_text()))) == ["x", "y"]


@pytest.mark.parametrize(
    ("times", "after"),
    [
        (["3", "4", "5"], ["6", "7", "8"]),
        (["-4", "-2"], ["0", "2", "4"]),
        (["2000", "1990"], ["1980", "1970", "1960"]),
        (["2001-12-30", "2001-12-31"], ["2002-01-01", "2002-01-02", "2002-01-03"]),
        (["2001-12-15", "2001-12-22"], ["2001-12-29", "2002-01-05", "2002-01-12"]),
        (["2003-11-01", "2003-12-01"], ["2003-12-31", "2004-01-30", "2004-02-29"]),  # 30 days
        (["2003-10-01", "2003-11-01", "2003-12-01"], ["2004-01-01", "2004-02-01", "2004-03-01"]),
        (["2003-09-30", "2003-10-31", "2003-11-30"], ["2003-12-31", "2004-01-31", "2004-02-29"]),
        (["1999-02-03", "2000-02-03", "2001-02-03"], ["2002-02-03", "2003-02-03", "2004-02-03"]),
        (["2001-11", "2001-12"], ["2002-01", "2002-02", "2002-03"]),
        (["2001-07", "2001-10"], ["2002-01", "2002-04", "2002-07"]),
        (["1", "2", "4"], None),
        (["1", "1"], None),
        (["1"], None),
        (["Monday", "Tuesday"], None),
        (["2001-01-01", "2001-01-02", "2001-01-04"], None),
        (["9999-12-30", "9999-12-31"], None),
        (["9999-11", "9999-12"], None),
    ],
)
def test_times_go_on_by_their_rule(times: list[str], after: list[str] | None) -> None:
    assert continue_times(times, 3) == after


def test_a_missing_value_is_that_of_the_period_before() -> None:
    nan = math.nan
    values = np.array([nan, 2, 3, 4, nan, 6, nan, nan, nan])[:, None]
    found = fill_by_phase(values, 3, 10)[:, 0]
    np.testing.assert_array_equal(found, [nan, 2, 3, 4, 12, 6, 14, 22, 16])
    assert np.isnan(values[4, 0])  # and what was given stays


def series(steps: int, columns: int = 2, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(0.5, 9, (steps, columns))
    values[::7, 0] = math.nan
    return values


@pytest.mark.parametrize("transform", ["none", "log", "sqrt"])
@pytest.mark.parametrize("difference", [0, 1, 5])
@pytest.mark.parametrize("horizon", [3, 12])
def test_scaling_and_back_is_where_it_began(transform: Any, difference: int, horizon: int) -> None:
    values, names = series(60), ["a", "b"]
    scaling = Scaling.fit(values[:40], names, transform, difference)
    z = scaling.apply(values, names)
    known = z[:40]
    np.testing.assert_allclose(np.nanmean(known, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(known, axis=0), 1, atol=1e-12)
    assert np.isnan(z[:difference]).all()
    origin = 60 - horizon
    # A future without gaps, so that each of its differences is known.
    future = np.where(np.isnan(values), 1.0, values)
    together = np.concatenate((values[:origin], future[origin:]))
    filled = scaling.filled(together, names)
    y = filled.copy()
    if difference:
        y[difference:] -= filled[:-difference]
    z = (y - scaling.mean) / scaling.deviation
    back = scaling.invert(z[origin:], filled[max(0, origin - difference) : origin])
    np.testing.assert_allclose(back, future[origin:], rtol=1e-10)


def test_differences_are_filled_by_their_mean() -> None:
    values = np.array([1.0, 2, 4, math.nan, 9])[:, None]
    scaling = Scaling("none", 1, [0.5], [2.0])
    np.testing.assert_array_equal(
        scaling.apply(values, ["a"])[:, 0], [math.nan, 0.25, 0.75, math.nan, math.nan]
    )
    np.testing.assert_array_equal(scaling.filled(values, ["a"])[:, 0], [1, 2, 4, 4.5, 9])


def test_only_the_training_part_is_looked_at() -> None:
    values = series(60)
    scaling = Scaling.fit(values[:40], ["a", "b"], "none", 0)
    np.testing.assert_allclose(scaling.mean, np.nanmean(values[:40], axis=0))
    np.testing.assert_allclose(scaling.deviation, np.nanstd(values[:40], axis=0))


@pytest.mark.parametrize(
    ("values", "transform", "difference", "message"),
    [
        ([3.0] * 9, "none", 0, "column a: its column is constant in the training part"),
        ([1e9 + 1e-6 * n for n in range(9)], "none", 1, "differences are constant"),
        ([0.1 * n for n in range(9)], "none", 1, "differences are constant"),
        ([math.nan] * 8 + [1.0], "none", 0, "column a: the training part has too few values"),
        ([1.0, 2.0, 0.0], "log", 0, "column a: its 3. value 0 has no log; set series.transform"),
        ([1.0, -2.0, 3.0], "sqrt", 0, "column a: its 2. value -2 has no sqrt"),
    ],
)
def test_what_cannot_be_scaled_is_told(
    values: list[float], transform: Any, difference: int, message: str
) -> None:
    with pytest.raises(MTError, match=message):
        Scaling.fit(np.array(values)[:, None], ["a"], transform, difference)
