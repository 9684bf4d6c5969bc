"""The report of a text classifier, and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mt.evaluation import page, plots
from mt.evaluation.card import card
from mt.evaluation.classes import (
    ClassScores,
    Floats,
    class_scores_json,
    most_confused,
)
from mt.evaluation.markup import Markup, element, join
from mt.evaluation.tables import Value, count, markdown, share

_MISTAKES = 30
"""Mistakes that a report shows, those that the network was surest of."""
_SHOWN = 400
"""Characters of a text that it shows."""
_PAIRS = 20
"""Pairs of classes that it names."""
_TOP = 3
"""Likeliest classes of a mistake that it names."""


@dataclass(frozen=True)
class TestTexts:
    """A test set, its scores, and what they are of."""

    __test__ = False  # no test of ours, whatever pytest may think

    scores: ClassScores
    texts: Sequence[str]
    labels: Sequence[int]
    logs: Floats
    """`(N, C)`: natural logarithm of each class's probability."""


@dataclass(frozen=True)
class ClassReport:
    """All that a report shows."""

    title: str
    """Headline, such as the name of the run."""
    classes: Sequence[str]
    """Their names."""
    tests: list[TestTexts]
    facts: list[tuple[str, str]] = field(default_factory=list)
    """Label and value."""
    cleaning: list[tuple[str, int]] | None = None
    """Rule and number of texts, in the order of the table."""
    curves: Path | None = None
    """The run's `metrics.csv`."""
    recipe_yaml: str | None = None
    """The resolved recipe."""


def score_rows(scores: Sequence[ClassScores]) -> list[list[str]]:
    """Table test sets: a row of names, then a row for each."""
    rows = [["test set", "texts", "accuracy", "macro accuracy", "macro F1", "calibration error"]]
    for one in scores:
        rows.append(
            [
                one.name,
                f"{one.texts:,}",
                *map(str, (one.accuracy, one.macro_accuracy, one.macro_f1)),
                f"{one.calibration_error:.1f}",
            ]
        )
    return rows


def class_rows(one: ClassScores) -> list[list[str]]:
    """Table the classes of a test set, those with the lowest F1 first."""
    rows = [["class", "texts", "taken for it", "precision, %", "recall, %", "F1, %"]]
    for row in sorted(one.classes, key=lambda row: row.f1):
        if row.texts or row.predicted:
            shares = (f"{100 * value:.1f}" for value in (row.precision, row.recall, row.f1))
            rows.append([row.name, f"{row.texts:,}", f"{row.predicted:,}", *shares])
    return rows


def write_class_report(folder: Path, report: ClassReport) -> None:
    """Write report.html, report.md and scores.json, each whole or not at all.

    Raises `MTError` where they cannot be written.
    """
    scores = [test.scores for test in report.tests]
    names = [one.name for one in scores]
    parts = [
        ("verdict", None, _verdict(report)),
        ("classes", "Classes", page.by_set(names, map(_classes, scores))),
        ("confusion", "What is taken for what", page.by_set(names, map(_confusion, scores))),
        ("breakdown", "Length and certainty", page.by_set(names, map(_charts, scores))),
        ("mistakes", "Mistakes", _mistakes(report)),
        ("training", "Training", page.training(report.curves, "nats per text")),
        ("cleaning", "Cleaning", page.cleaning(report.cleaning, "texts")),
        ("recipe", "Recipe", page.recipe(report.recipe_yaml)),
    ]
    subtitle = f"classifier, {len(report.classes):,} classes"
    lines = [markdown(score_rows(scores)), "Percentages; in brackets 95% bootstrap intervals.", ""]
    for one in scores:
        lines += [f"## Classes of {one.name}", "", markdown(class_rows(one))]
        pairs = _pair_rows(one)
        if len(pairs) > 1:
            lines += [f"## Most confused in {one.name}", "", markdown(pairs)]
    contents = {
        "report.html": page.html(report.title, subtitle, parts),
        "report.md": page.brief(f"{report.title}, {subtitle}", lines, report.facts),
        "scores.json": class_scores_json(scores),
    }
    page.write(folder, contents)


def _verdict(report: ClassReport) -> Markup:
    cards = []
    for test in report.tests:
        one = test.scores
        tiles = [
            _tile(one.accuracy, "accuracy", "lead"),
            _tile(one.macro_accuracy, "macro accuracy, the mean over classes"),
            _tile(one.macro_f1, "macro F1"),
            page.tile(f"{one.calibration_error:.1f}%", "calibration error"),
        ]
        cards.append(page.verdict(one.name, count(one.texts, "text"), tiles))
    return join([*cards, page.facts(report.facts)])


def _tile(value: Value, label: str, kind: str | None = None) -> Markup:
    return page.tile(f"{value.score:.1f}%", label, page.between(value.interval), kind)


def _classes(one: ClassScores) -> Markup:
    rows = class_rows(one)
    shown = page.wide(page.table(rows))
    if len(rows) <= 13:
        return shown
    return element("details", element("summary", f"All {len(rows) - 1} classes"), shown, open="")


def _pair_rows(one: ClassScores) -> list[list[str]]:
    rows = [["class", "other class", "taken for the other", "the other taken for it"]]
    sizes = {row.name: row.texts for row in one.classes}
    for first, second, there, back in most_confused(one, _PAIRS):
        rows.append([first, second, share(there, sizes[first]), share(back, sizes[second])])
    return rows


def _confusion(one: ClassScores) -> Markup:
    there = [row.texts + row.predicted > 0 for row in one.classes]
    kept = np.flatnonzero(there)
    names = [one.classes[place].name for place in kept]
    chart = plots.confusion_matrix(
        "Confusion",
        "rows: the class of a text; columns: what it was taken for; shade: share of the row",
        names,
        np.array(one.confusion)[np.ix_(kept, kept)].tolist(),
    )
    pairs = _pair_rows(one)
    return join([page.wide(chart), page.wide(page.table(pairs)) if len(pairs) > 1 else None])


def _charts(one: ClassScores) -> Markup | None:
    labels = [(row.label, f"{row.texts:,}") for row in one.lengths]
    lengths = plots.interval_chart(
        "Accuracy by length",
        "percent, 95% intervals; by characters, below them the texts",
        labels,
        {"accuracy": [row.accuracy for row in one.lengths]},
        from_zero=False,
    )
    return page.charts([lengths, plots.calibration_chart(one.calibration, "texts")])


def _mistakes(report: ClassReport) -> Markup | None:
    """Show mistakes on the first test set, which the others may be parts of."""
    if not report.tests:
        return None
    test, names = report.tests[0], report.classes
    predicted = test.logs.argmax(1)
    wrong = np.flatnonzero(predicted != np.asarray(test.labels))
    if not len(wrong):
        return element("p", "None.")
    surest = wrong[np.argsort(-test.logs[wrong].max(1), kind="stable")][:_MISTAKES]
    shown = []
    for place in surest.tolist():
        order = np.argsort(-test.logs[place], kind="stable")[:_TOP]
        told = ", ".join(f"{names[n]} {100 * np.exp(test.logs[place, n]):.1f}%" for n in order)
        own = float(np.exp(test.logs[place, test.labels[place]]))
        text, name = test.texts[place], element("b", names[test.labels[place]])
        shown.append(
            element(
                "article",
                element("p", "is ", name, f", which it gave {100 * own:.1f}%"),
                element(
                    "dl",
                    element("dt", "text"),
                    element("dd", text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"),
                    element("dt", "taken for"),
                    element("dd", told),
                ),
                class_="example card",
            )
        )
    told = share(len(wrong), len(test.texts))
    note = f"{told} of the texts of {test.scores.name}; here those that the network was surest of."
    return join([element("p", note), *shown])


def class_card(
    classes: Sequence[str],
    rows: Sequence[tuple[str, str]],
    scores: Sequence[ClassScores],
    recipe_yaml: str,
) -> str:
    """Write the Markdown card of a bundle.

    Args:
        classes: Their names.
        rows: What it was made from, by name.
        scores: On the test sets; empty while training goes on.
        recipe_yaml: The resolved recipe.
    """
    about = (
        "A recurrent network that tells the class of a text. The folder holds weights, a "
        "tokenizer and\nconfiguration only: loading it runs no code, and it holds no training "
        "text."
    )
    told = markdown(score_rows(scores)) if scores else ""
    command = 'echo "…" | mt classify THIS_FOLDER'
    rows = [*rows, ("Classes", ", ".join(classes))]
    return card(f"Classifier, {len(classes)} classes", about, command, rows, told, recipe_yaml)
