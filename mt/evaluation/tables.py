"""Scores as tables, for Markdown and for LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import stdev
from typing import NamedTuple

from mt.evaluation.scores import MAX_RESAMPLED, Score, SetScores

METRIC_NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF2",
    "chrf++": "chrF2++",
    "ter": "TER",
    "bleu-lc-tok": "BLEU lc-tok",
    "comet": "COMET",
}
"""What a metric is called."""
LOWER_IS_BETTER = ("ter",)
"""Metrics of which less is more."""


class Value(NamedTuple):
    """A figure."""

    score: float
    interval: tuple[float, float] | None
    """95% bootstrap confidence interval; None where there is one sentence, or over 10,000."""

    def __str__(self) -> str:
        interval = "" if self.interval is None else " [{:.1f}, {:.1f}]".format(*self.interval)
        return f"{self.score:.1f}{interval}"


def share(part: int, total: int) -> str:
    """Say a percentage, which never rounds to none or all, and what it counts."""
    percent = 100 * part / total if total else 0.0
    text = f"{percent:.1f}"
    if part and text == "0.0":
        text = "<0.1"
    elif part < total and text == "100.0":
        text = ">99.9"
    return f"{text}% ({part:,} of {total:,})"


def score_rows(sets: Sequence[SetScores], between: str = ", ") -> list[list[str]]:
    """Table the systems of test sets: a row of names, then a row for each.

    A score stands with its spread over training runs, if there are several, and its 95% interval;
    that of a later system also with its difference from the first and the p-values of both tests,
    and last how many sentences it has better, equal and worse. `between` stands between a score and
    the difference.
    """
    metrics = [METRIC_NAMES.get(score.metric, score.metric) for score in sets[0].scores]
    rows = [["test set", "system", *metrics, "better / equal / worse"]]
    for one in sets:
        rows.append([one.name, one.system, *map(_cell, one.scores), ""])
        for other in one.others:
            pairs = zip(other.scores, one.scores, strict=True)
            cells = [f"{_cell(its)}{between}{_difference(its, first)}" for its, first in pairs]
            counts = f"{other.better:,} / {other.equal:,} / {other.worse:,}"
            rows.append([one.name, other.name, *cells, counts])
    kept = slice(0 if len(sets) > 1 else 1, None if sets[0].others else -1)
    return [row[kept] for row in rows]


def count(number: int, noun: str) -> str:
    """Say how many there are: `1 sentence`, `1,000 sentences`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def note(one: SetScores) -> str:
    """Say what the cells of `score_rows` hold besides the scores; it may be nothing."""
    scores = [*one.scores, *(score for other in one.others for score in other.scores)]
    parts = []
    if any(score.runs for score in scores):
        parts.append("± standard deviation over training runs")
    if any(score.interval for score in scores):
        parts.append("in brackets 95% bootstrap intervals")
    if any(score.p_bootstrap is not None for score in scores):
        parts.append("p by paired bootstrap / approximate randomization")
    return "; ".join(parts)


def caveat(one: SetScores) -> str | None:
    """Say what the number of sentences takes the meaning from, if anything."""
    if one.sentences == 1:
        return (
            "A single sentence: it says nothing of others, so there are no intervals and no tests, "
            "and its BLEU says little; chrF does more."
        )
    if one.sentences > MAX_RESAMPLED:
        return f"No intervals and tests above {MAX_RESAMPLED:,} sentences."
    return None


def p_value(value: float) -> str:
    """Say a p-value: `0.03`, `<0.001`."""
    return "<0.001" if value < 0.001 else f"{value:.2g}"


def _cell(score: Score) -> str:
    text = str(Value(score.score, score.interval))
    if score.runs:
        number, _, interval = text.partition(" ")
        text = f"{number} ± {stdev(score.runs):.1f} {interval}".rstrip()
    return text


def _difference(score: Score, first: Score) -> str:
    text = f"{score.score - first.score:+.1f}"
    tests = score.p_bootstrap, score.p_randomization
    values = [p_value(value) for value in tests if value is not None]
    return f"{text} (p {' / '.join(values)})" if values else text


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown, the first row its head."""
    first, *others = (
        _line(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows
    )
    return "\n".join([first, "|" + "---|" * len(rows[0]), *others, ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "|": r"\textbar{}",
    }
)


def latex(rows: Sequence[Sequence[str]]) -> str:
    """Write a table in LaTeX, the first row its head; it asks for the package booktabs."""
    lines = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    top = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*top, *lines[1:], r"\bottomrule", r"\end{tabular}", ""])
