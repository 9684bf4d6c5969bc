"""What a search for options has found: a table and pictures."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mt.evaluation import page
from mt.evaluation.markup import Markup
from mt.evaluation.plots import Series, line_chart, point_chart
from mt.evaluation.tables import markdown


class Trial(NamedTuple):
    """One choice of values."""

    number: int
    state: str
    """`complete`, `pruned` or `fail`."""
    score: float | None
    """The validation's, the greater the better; a pruned trial's last one; None of a failed one."""
    told: str
    """The same as a person reads it."""
    seconds: float
    values: dict[str, Any]
    """By option."""


def trial_rows(trials: Sequence[Trial]) -> list[list[str]]:
    """Table trials, the best first, those that were not finished last."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    order = {"complete": 0, "pruned": 1}

    def rank(trial: Trial) -> tuple[int, float]:
        return order.get(trial.state, 2), -(trial.score if trial.score is not None else 0.0)

    rows = [["trial", "state", "validation", "minutes", *names]]
    for trial in sorted(trials, key=rank):
        values = [_short(trial.values.get(name, "")) for name in names]
        minutes = f"{trial.seconds / 60:.1f}"
        rows.append([str(trial.number), trial.state, trial.told, minutes, *values])
    return rows


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_sweep_report(folder: Path, title: str, trials: Sequence[Trial], best: str) -> None:
    """Write trials.csv, report.md and report.html.

    Args:
        folder: Where.
        title: Headline.
        trials: All of them; one at least is complete.
        best: The best recipe, YAML.

    Raises:
        MTError: They cannot be written.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "score", "told", "seconds", *names])
    for trial in trials:
        score = "" if trial.score is None else f"{trial.score:.6g}"
        values = [trial.values.get(name, "") for name in names]
        writer.writerow(
            [trial.number, trial.state, score, trial.told, f"{trial.seconds:.1f}", *values]
        )
    rows = trial_rows(trials)
    parts = [
        ("verdict", None, _best(rows)),
        ("search", "Search", _charts(trials, names)),
        ("trials", "Trials", page.wide(page.table(rows))),
        ("recipe", "The best recipe", page.recipe(best)),
    ]
    contents = {
        "trials.csv": text.getvalue(),
        "report.md": page.brief(title, [markdown(rows)]),
        "report.html": page.html(title, "search for options", parts),
    }
    page.write(folder, contents)


def _best(rows: Sequence[Sequence[str]]) -> Markup | None:
    """Show how many were tried, and the first row of `trial_rows`."""
    states = Counter(row[1] for row in rows[1:])
    tried = ", ".join(f"{count} {state}" for state, count in states.items())
    best = zip(["Best trial", "State", "Validation", "Minutes", *rows[0][4:]], rows[1], strict=True)
    return page.facts([("Trials", tried), *best])


def _charts(trials: Sequence[Trial], names: Sequence[str]) -> Markup | None:
    complete = [(t, t.score) for t in trials if t.state == "complete" and t.score is not None]
    best, points = -float("inf"), []
    for trial, score in complete:
        best = max(best, score)
        points.append((float(trial.number), best))
    figures = []
    if len(points) > 1:
        note = "the best score so far, the greater the better"
        figures.append(line_chart("Search", note, [Series("", points)], x_name="trials"))
    by_value = "score by value, the greater the better"
    for name in names:
        values = [(t.values.get(name), score) for t, score in complete]
        numbers = [(float(v), s) for v, s in values if _is_number(v) and v is not None]
        if len(numbers) == len(values) and len({x for x, _ in numbers}) > 1:
            xs = [x for x, _ in numbers]
            wide = min(xs) > 0 and max(xs) > 20 * min(xs)
            dots = [Series("", numbers)]
            figures.append(point_chart(name, by_value, dots, x_name="", log=wide))
        elif len({str(v) for v, _ in values}) > 1:
            kinds = sorted({str(v) for v, _ in values})
            dots = [Series("", [(float(kinds.index(str(v))), s) for v, s in values])]
            figures.append(point_chart(name, by_value, dots, x_name="", kinds=kinds))
    return page.charts(figures)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
