"""Scores as tables, for Markdown and for LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mt.evaluation.scores import Score, SetScores

METRIC_NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF2",
    "chrf++": "chrF2++",
    "ter": "TER",
    "bleu-lc-tok": "BLEU lc-tok",
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


def score_rows(one: SetScores) -> list[list[str]]:
    """Table the systems of a test set: a row of names, then a row for each.

    A score stands with its 95% interval, that of a later system also with its difference from the
    first and the p-values of both tests, and last how many sentences it has better and worse.
    """
    head = ["system", *(METRIC_NAMES.get(score.metric, score.metric) for score in one.scores)]
    rows = [[one.system, *map(_cell, one.scores)]]
    for other in one.others:
        cells = [_cell(*pair) for pair in zip(other.scores, one.scores, strict=True)]
        share = f"{other.better:,} / {other.equal:,} / {other.worse:,}"
        rows.append([other.name, *cells, share])
    if one.others:
        head.append("sentences better / equal / worse")
        rows[0].append("")
    return [head, *rows]


NOTE = "in brackets 95% bootstrap intervals; p by paired bootstrap / approximate randomization"
"""What the cells hold besides the scores."""


def p_value(value: float) -> str:
    """Say a p-value: `0.03`, `<0.001`."""
    return "<0.001" if value < 0.001 else f"{value:.2g}"


def _cell(score: Score, first: Score | None = None) -> str:
    text = str(Value(score.score, score.interval))
    if first is not None:
        text += f", {score.score - first.score:+.1f}"
        tests = score.p_bootstrap, score.p_randomization
        values = [p_value(value) for value in tests if value is not None]
        if values:
            text += f" (p {' / '.join(values)})"
    return text


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
