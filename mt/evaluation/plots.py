"""Pictures of the report, as small SVGs that take their colours from the page.

So they follow light and dark, stay sharp on paper, and cost a few kilobytes each. Classes that
begin with `plot-` are styled in `report.css`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

from mt.evaluation.markup import Markup, element
from mt.evaluation.tables import Value

if TYPE_CHECKING:
    from mt.evaluation.behaviour import Bin

WIDTH, HEIGHT = 440, 230
"""Size of a picture in SVG units; the page stretches it."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 88, 14, 34
_POINTS = 240  # about one for each two pixels: more would only blacken the line


class Series(NamedTuple):
    """One line of a chart."""

    name: str
    """What is written at its end."""
    points: list[tuple[float, float]]
    """(x, y), in the order of x."""
    style: str = "a"
    """`a` to `d`: the stroke's colour and dash."""
    dots: bool = False
    """Mark every point."""
    band: Sequence[tuple[float, float, float]] = ()
    """What is shaded: (x, least, greatest), in the order of x."""


def training_curves(metrics: Path, unit: str = "nats per token") -> list[Markup]:
    """Return a `<figure>` for each curve that a run's `metrics.csv` holds, against its updates.

    Loss in `unit`, what validations measure, learning rate and gradient norm. Columns, cells and
    values that are missing, empty, infinite or no numbers are passed over; where a step stands
    twice, as after a resumed run, the later row counts.
    """
    columns = _read_columns(metrics)
    figures = []

    def series(column: str, name: str, style: str = "a", dots: bool = False) -> list[Series]:
        points = columns.get(column, [])
        return [Series(name, points, style, dots)] if len(points) > 1 else []

    loss = series("loss", "training") + series("valid_loss", "validation", "b", dots=True)
    if loss:
        figures.append(line_chart("Loss", unit, loss))
    for name, (note, mark, measured) in _MEASURES.items():
        lines = [
            line
            for (column, called), style in zip(measured.items(), STYLES, strict=False)
            for line in series(column, called, style, dots=True)
        ]
        if lines:
            figures.append(line_chart(f"Validation {name}", note, lines, mark=mark))
    if rate := series("learning_rate", ""):
        figures.append(line_chart("Learning rate", "per update", rate, from_zero=True))
    if norm := series("gradient_norm", ""):
        figures.append(line_chart("Gradient norm", "before clipping", norm))
    return figures


STYLES = "abcd"
"""Styles of a series, by which those of one name look the same in every picture."""
_MEASURES = {
    "BLEU": ("0 to 100", "max", {"valid_bleu": ""}),
    "accuracy": ("percent", None, {"valid_accuracy": "accuracy", "valid_macro_accuracy": "macro"}),
    "MASE": ("the less the better", None, {"valid_mase": ""}),
}
"""What validations may measure: what is said of it, which value is the best, and its columns, each
with what its line is called."""


def _read_columns(path: Path) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, dict[float, float]] = {}
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            for row in rows:
                cells = dict(zip(header, map(_number, row), strict=False))
                step = cells.get("step")
                for column, value in cells.items():
                    if step is not None and value is not None:
                        found.setdefault(column, {})[step] = value
    except (OSError, csv.Error):
        pass  # what was read until then is still worth showing
    return {column: sorted(points.items()) for column, points in found.items()}


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def line_chart(
    title: str,
    unit: str,
    lines: Sequence[Series],
    *,
    mark: str | None = None,
    from_zero: bool = False,
    x_name: str = "updates",
    x_from_zero: bool = True,
    log: bool | None = None,
) -> Markup:
    """Return a `<figure>` of lines, over updates unless `x_name` says otherwise, each with its last
    value at its end.

    `mark="max"` names the highest point. Long series are drawn as means of equal spans with a band
    from the least to the greatest value. The y axis is logarithmic where a spike would otherwise
    flatten all the rest, or where `log` says so: then every y is above zero.
    """
    ys = [y for line in lines for _, y in line.points]
    ys += [y for line in lines for _, low, high in line.band for y in (low, high)]
    xs = [x for line in lines for x, _ in line.points]
    if log is None:
        log = min(ys) > 0 and max(ys) > 20 * median(ys)
    y_ticks = _log_ticks(min(ys), max(ys)) if log else _ticks(0 if from_zero else min(ys), max(ys))
    start = 0.0 if x_from_zero else min(xs)
    x_ticks = [tick for tick in _ticks(start, max(xs)) if tick >= start]
    x_of = _scale(start, max(xs), _LEFT, WIDTH - _RIGHT)
    low, high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))
    curve: Callable[[float], float] = math.log if log else float
    linear = _scale(curve(low), curve(high), HEIGHT - _BOTTOM, _TOP)

    def y_of(y: float) -> float:
        return linear(curve(y))

    parts = _axes(x_ticks, y_ticks, x_of, y_of, WIDTH - _RIGHT, x_name)
    ends: list[tuple[float, float, Series]] = []
    for line in lines:
        if line.band:
            rim = [(x, low) for x, low, _ in line.band] + [(x, y) for x, _, y in line.band[::-1]]
            parts.append(element("path", d=_path(rim, x_of, y_of) + "Z", class_="plot-band"))
        spans = _spans(line.points)
        if len(spans) < len(line.points):
            rim = [(x, low) for x, _, low, _ in spans] + [(x, top) for x, _, _, top in spans[::-1]]
            parts.append(element("path", d=_path(rim, x_of, y_of) + "Z", class_="plot-band"))
        drawn = [(x, y) for x, y, _, _ in spans]
        kind = f"plot-line plot-{line.style}"
        parts.append(element("path", d=_path(drawn, x_of, y_of), class_=kind))
        if line.dots and len(spans) <= 60:
            parts += [
                _dot(x, y, x_of, y_of, f"plot-dot plot-{line.style}", x_name) for x, y in drawn
            ]
        ends.append((y_of(drawn[-1][1]), drawn[-1][1], line))
    parts += _end_labels(ends)

    summary = f"{title}: "
    summary += "; ".join(
        f"{line.name} from {_short(line.points[0][1])} to {_short(line.points[-1][1])}".strip()
        for line in lines
    )
    note = unit
    if mark == "max":
        x, y = max(lines[0].points, key=lambda point: (point[1], -point[0]))
        parts.append(_dot(x, y, x_of, y_of, "plot-best", x_name))
        note = f"best {y:.1f} at update {x:,.0f}"
        summary += f"; {note}"
    if log:
        note += ", logarithmic"
    return _figure(title, note, summary, parts)


def point_chart(
    title: str,
    unit: str,
    lines: Sequence[Series],
    *,
    x_name: str,
    log: bool = False,
    kinds: Sequence[str] = (),
) -> Markup:
    """Return a `<figure>` of points; those of a line with a name are joined, with the last value at
    its end. With `log` the x axis is logarithmic: every x is above zero. `kinds` are names for the
    x of 0, 1, …, in place of numbers."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    named = [line for line in lines if line.name]
    curve: Callable[[float], float] = math.log if log else float
    x_ticks = _round_numbers(min(xs), max(xs)) if log else _ticks(min(xs), max(xs))
    y_ticks = _ticks(min(ys), max(ys))
    right = WIDTH - (_RIGHT if named else 16)
    low, high = min(x_ticks[0], *xs), max(x_ticks[-1], *xs)
    if kinds:
        low, high = -0.5, len(kinds) - 0.5
    linear = _scale(curve(low), curve(high), _LEFT + 8, right)
    y_of = _scale(y_ticks[0], max(y_ticks[-1], *ys), HEIGHT - _BOTTOM, _TOP)

    def x_of(x: float) -> float:
        return linear(curve(x))

    parts = _axes([] if kinds else x_ticks, y_ticks, x_of, y_of, right, x_name)
    for place, kind in enumerate(kinds):
        x, y, most = f"{x_of(place):.1f}", str(HEIGHT - 14), 50 // len(kinds)
        short = kind if len(kind) <= most else f"{kind[: most - 1]}…"
        text = element("text", element("title", kind), short, x=x, y=y, text_anchor="middle")
        parts.append(text)
    for line in named:
        path = _path(line.points, x_of, y_of)
        parts.append(element("path", d=path, class_=f"plot-line plot-{line.style}"))
    for line in lines:
        kind = f"plot-dot plot-{line.style}"
        parts += [_dot(x, y, x_of, y_of, kind, x_name) for x, y in line.points]
    parts += _end_labels([(y_of(line.points[-1][1]), line.points[-1][1], line) for line in named])
    best = [max(line.points, key=lambda point: point[1]) for line in lines]
    summary = f"{title}: " + "; ".join(
        f"{line.name} {len(line.points)} points, the highest {_short(y)} at {_short(x)}".strip()
        for line, (x, y) in zip(lines, best, strict=True)
    )
    return _figure(title, unit, summary, parts)


def calibration_chart(bins: Sequence[Bin], what: str) -> Markup:
    """Return a `<figure>` of how often one is right, by how sure one was, of `what`: tokens, …"""
    points = [(100 * one.confidence, 100 * one.accuracy) for one in bins]
    ideal = Series("ideal", [(0, 0), (100, 100)], "b")
    return line_chart(
        "Calibration",
        f"percent of {what} right, by how sure the network was",
        [Series("is right", points, dots=True), ideal],
        from_zero=True,
        x_name="% sure",
    )


def histogram(title: str, values: Sequence[float], *, bins: int = 20) -> Markup:
    """Return a `<figure>` of how many values between 0 and 100 fall into each of equal bins."""
    counts = [0] * bins
    for value in values:
        counts[min(max(int(value / 100 * bins), 0), bins - 1)] += 1
    y_ticks = [tick for tick in _ticks(0, max(counts)) if tick == int(tick)]
    x_of = _scale(0, 100, _LEFT, WIDTH - 16)
    # Bars end below the line of the median's label.
    y_of = _scale(0, max(y_ticks[-1], *counts), HEIGHT - _BOTTOM, _TOP + 16)
    parts = _axes([0, 20, 40, 60, 80, 100], y_ticks, x_of, y_of, WIDTH - 16, "")
    for index, count in enumerate(counts):
        left, right = index * 100 / bins, (index + 1) * 100 / bins
        bar = element(
            "rect",
            element("title", f"{left:g} to {right:g}: {count:,}"),
            x=f"{x_of(left) + 1:.1f}",
            y=f"{y_of(count):.1f}",
            width=f"{x_of(right) - x_of(left) - 2:.1f}",
            height=f"{y_of(0) - y_of(count):.1f}",
            class_="plot-bar",
        )
        parts.append(bar)
    middle = median(values)
    x = f"{x_of(middle):.1f}"
    parts.append(
        element("line", x1=x, x2=x, y1=str(_TOP), y2=f"{y_of(0):.1f}", class_="plot-median")
    )
    near_end = middle > 70
    parts.append(
        element(
            "text",
            f"median {middle:.0f}",
            x=f"{x_of(middle) + (-6 if near_end else 6):.1f}",
            y=str(_TOP + 6),
            text_anchor="end" if near_end else None,
            class_="plot-label",
        )
    )
    summary = f"{title}: median {middle:.0f}, mean {fmean(values):.0f}, {len(values):,} sentences"
    return _figure(title, "sentences in each step of 5 points", summary, parts)


def interval_chart(
    title: str,
    unit: str,
    labels: Sequence[tuple[str, str]],
    rows: Mapping[str, Sequence[Value]],
    *,
    from_zero: bool = True,
) -> Markup:
    """Return a `<figure>` of values with their confidence intervals, side by side by category.

    `labels` are two lines for each category, `rows` the values by name, in the styles of `STYLES`.
    """
    lows = [low for row in rows.values() for value, ends in row for low in (ends or [value])]
    y_ticks = _ticks(min(0, *lows) if from_zero else min(lows), max(lows))
    y_of = _scale(y_ticks[0], max(y_ticks[-1], max(lows)), HEIGHT - _BOTTOM - 12, _TOP)
    right = WIDTH - 16
    width = (right - _LEFT) / len(labels)
    parts = _axes([], y_ticks, float, y_of, right, "")
    for place, label in enumerate(labels):
        x = f"{_LEFT + (place + 0.5) * width:.1f}"
        for below, text in enumerate(label):
            y = str(HEIGHT - _BOTTOM + 8 + 14 * below)
            kind = "plot-small" if below or len(labels) > 6 else None
            parts.append(element("text", text, x=x, y=y, text_anchor="middle", class_=kind))
    for number, ((name, row), style) in enumerate(zip(rows.items(), STYLES, strict=False)):
        offset = (number + 1) / (len(rows) + 1)
        for place, value in enumerate(row):
            x = f"{_LEFT + (place + offset) * width:.1f}"
            if value.interval is not None:
                low, high = (f"{y_of(end):.1f}" for end in value.interval)
                kind = f"plot-whisker plot-{style}"
                parts.append(element("line", x1=x, x2=x, y1=low, y2=high, class_=kind))
            tip = element("title", f"{name}, {labels[place][0]}: {value}")
            y = f"{y_of(value.score):.1f}"
            kind = f"plot-dot plot-{style}"
            parts.append(element("circle", tip, cx=x, cy=y, r="3.6", class_=kind))
    summary = f"{title}, {unit}: " + "; ".join(
        f"{label} ({below}): "
        + ", ".join(f"{name} {row[place].score:.1f}" for name, row in rows.items())
        for place, (label, below) in enumerate(labels)
    )
    return _figure(title, unit, summary, parts)


def confusion_matrix(
    title: str, note: str, names: Sequence[str], table: Sequence[Sequence[int]]
) -> Markup:
    """Return a `<figure>` of a square of cells, each as dark as its share of its row.

    Few classes have their numbers in the cells; of many, a cell tells its own when pointed at.
    """
    few = len(names) <= 12
    size = 34.0 if few else max(9.0, min(18.0, 700 / len(names)))
    left = 10 + 6.2 * min(12, max(map(len, names)))
    short = [name if len(name) <= 12 else f"{name[:11]}…" for name in names]
    side = len(names) * size
    parts = []
    for row, (name, cells) in enumerate(zip(names, table, strict=True)):
        middle = f"{left + (row + 0.5) * size:.1f}"
        parts.append(
            element(
                *("text", short[row]),
                **{"x": f"{left - 5:.1f}", "y": middle, "dy": "0.33em", "text-anchor": "end"},
            )
        )
        parts.append(
            element(
                *("text", short[row]),
                transform=f"translate({middle} {left - 5:.1f}) rotate(-90)",
                dy="0.33em",
            )
        )
        total = max(1, sum(cells))
        for column, texts in enumerate(cells):
            if not texts and not few:
                continue
            x, y = left + column * size, left + row * size
            tip = f"{name} taken for {names[column]}: {texts:,} of {sum(cells):,}"
            parts.append(
                element(
                    "rect",
                    element("title", tip),
                    x=f"{x:.1f}",
                    y=f"{y:.1f}",
                    width=f"{size - 1:.1f}",
                    height=f"{size - 1:.1f}",
                    # The root: a few of many can be seen.
                    fill_opacity=f"{(texts / total) ** 0.5:.2f}",
                    class_="plot-cell" if row == column else "plot-cell plot-wrong",
                )
            )
            if few:
                kind = "plot-count plot-on" if texts / total > 0.3 else "plot-count"
                parts.append(
                    element(
                        *("text", f"{texts:,}"),
                        x=f"{x + size / 2:.1f}",
                        y=f"{y + size / 2:.1f}",
                        dy="0.33em",
                        text_anchor="middle",
                        class_=kind,
                    )
                )
    whole = round(left + side + 4)
    return element(
        "figure",
        element("figcaption", element("strong", title), " ", element("span", note)),
        element(
            "svg",
            *parts,
            viewBox=f"0 0 {whole} {whole}",
            style=f"min-width: {0.75 * whole:.0f}px; max-width: {1.3 * whole:.0f}px",
            role="img",
            aria_label=f"{title}: {note}",
            class_="plot",
        ),
        class_="chart",
    )


# -- Parts -----------------------------------------------------------------------------------------


def _figure(title: str, note: str, summary: str, parts: list[Markup]) -> Markup:
    return element(
        "figure",
        element("figcaption", element("strong", title), " ", element("span", note)),
        element(
            "svg",
            *parts,
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=summary,
            class_="plot",
        ),
        class_="chart",
    )


def _axes(
    x_ticks: list[float],
    y_ticks: list[float],
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    right: float,
    x_name: str,
) -> list[Markup]:
    parts = []
    for tick in y_ticks:
        y = f"{y_of(tick):.1f}"
        parts.append(
            element("line", x1=str(_LEFT), x2=f"{right:.1f}", y1=y, y2=y, class_="plot-grid")
        )
        text = element("text", _short(tick), x=str(_LEFT - 8), y=y, dy="0.33em", text_anchor="end")
        parts.append(text)
    for tick in x_ticks:
        x = f"{x_of(tick):.1f}"
        parts.append(element("text", _short(tick), x=x, y=str(HEIGHT - 14), text_anchor="middle"))
    if x_name:
        x, y = f"{right:.1f}", str(HEIGHT - 1)
        parts.append(element("text", x_name, x=x, y=y, text_anchor="end"))
    return parts


def _end_labels(ends: list[tuple[float, float, Series]]) -> list[Markup]:
    """Write each value, its name below it, or beside it where there are many."""
    parts: list[Markup] = []
    below = any(line.name for _, _, line in ends) and 28 * len(ends) <= HEIGHT - _BOTTOM
    room, above, floor = 28 if below else 14, -math.inf, HEIGHT - _BOTTOM - 10 * below
    for number, (y, last, line) in enumerate(sorted(ends, key=lambda end: end[0]), 1):
        # Never one upon the other, nor below the axis.
        above = y = min(max(y, above + room), floor - room * (len(ends) - number))
        x = str(WIDTH - _RIGHT + 8)
        value = element("tspan", _short(last), class_="plot-value", x=x, dy="0.33em")
        place = {"x": x, "dy": "1.15em"} if below else {"dx": "0.4em"}
        name = element("tspan", line.name, **place) if line.name else None
        parts.append(
            element("text", value, name, y=f"{y:.1f}", class_=f"plot-end plot-{line.style}")
        )
    return parts


def _dot(
    x: float,
    y: float,
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    kind: str,
    x_name: str,
) -> Markup:
    return element(
        "circle",
        element("title", f"{_short(y)} at {x:,.0f} {x_name}"),
        cx=f"{x_of(x):.1f}",
        cy=f"{y_of(y):.1f}",
        r="4.5" if kind == "plot-best" else "2.6",
        class_=kind,
    )


def _path(
    points: Sequence[tuple[float, float]],
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
) -> str:
    return "M" + "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in points)


def _spans(points: list[tuple[float, float]]) -> list[tuple[float, float, float, float]]:
    """(x, mean, least, greatest) of at most `_POINTS` spans of equally many points."""
    size = math.ceil(len(points) / _POINTS)
    spans = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [y for _, y in part]
        spans.append((fmean(x for x, _ in part), fmean(values), min(values), max(values)))
    return spans


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers from at or below `low` to about `high`."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from at or below `low` to at or above `high`."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    numbers = [f * 10.0**power for power in range(first, last + 1) for f in (1, 2, 5)]
    start = max(index for index, number in enumerate(numbers) if number <= low)
    end = min(index for index, number in enumerate(numbers) if number >= high)
    return numbers[start : end + 1]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / 4))
    return [10.0**power for power in range(first, last + 1, stride)]


def _short(value: float) -> str:
    """A number for an axis or a label: `12k`, `3.07`, `0.0021`, `2e-5`."""
    size = abs(value)
    if size >= 1_000_000:
        return f"{value / 1_000_000:.3g}M"
    if size >= 10_000 or (size >= 1_000 and value % 100 == 0):
        return f"{value / 1_000:.3g}k"
    if 0 < size < 0.001:
        return f"{value:.2g}".replace("e-0", "e-")
    return f"{value:.3g}" if size < 1_000 else f"{value:.0f}"


_SIZE, _VIEW = 'width="690" height="345"', 'viewBox="-14 0 490 245"'  # room for long names
_STYLE = """<style>
svg { --ink: #1d1f24; --muted: #5d626d; --line: #e3e0d8; --a: #0b5f7a; --b: #b4530a; --c: #6a4c93;
  --d: #3d7a35; font: 11.5px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { --muted: #a0a5b0; --line: #30343d; --a: #6cc5e0;
  --b: #f0a35e; --c: #c3a6ee; --d: #9ad08f } }
text { fill: var(--muted) } .plot-value { font-weight: 650 } .plot-grid { stroke: var(--line) }
.plot-line { fill: none; stroke-width: 1.9 } .plot-band { display: none } .plot-dot { fill: none }
.plot-a { stroke: var(--a) } .plot-b { stroke: var(--b) } .plot-c { stroke: var(--c) }
.plot-d { stroke: var(--d) } text.plot-end { stroke: none }
text.plot-a { fill: var(--a) } text.plot-b { fill: var(--b) } text.plot-c { fill: var(--c) }
text.plot-d { fill: var(--d) }
</style>"""


def write_svg(path: Path, figure: Markup) -> None:
    """Write a chart as a picture that stands alone, in the colours of the report, light and dark.

    Raises:
        OSError: The file cannot be written.
    """
    svg = re.search("<svg.*</svg>", str(figure), re.DOTALL)
    assert svg is not None
    text = re.sub('viewBox="[^"]*"', _VIEW, svg[0], count=1)
    text = text.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" {_SIZE} ', 1)
    body = text.index(">") + 1
    path.write_text(f"{text[:body]}{_STYLE}{text[body:]}\n", encoding="utf-8")
