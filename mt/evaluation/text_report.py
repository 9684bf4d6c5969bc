"""The report of a language model, and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mt.evaluation import page
from mt.evaluation.card import card
from mt.evaluation.markup import Markup, element, join
from mt.evaluation.tables import count, markdown
from mt.evaluation.text import TextScores, text_scores_json


@dataclass(frozen=True)
class TextReport:
    """All that a report shows."""

    title: str
    """Headline, such as the name of the run."""
    language: str
    """Its code."""
    scores: list[TextScores]
    """Of each test set."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    """Label and value."""
    cleaning: list[tuple[str, int]] | None = None
    """Rule and number of lines, in the order of the table."""
    curves: Path | None = None
    """The run's `metrics.csv`."""
    samples: list[str] = field(default_factory=list)
    """Texts that the model has written."""
    recipe_yaml: str | None = None
    """The resolved recipe."""


def score_rows(scores: Sequence[TextScores]) -> list[list[str]]:
    """Table test sets: a row of names, then a row for each."""
    rows = [["test set", "lines", "tokens", "perplexity", "bits a character"]]
    for one in scores:
        spread = "" if one.interval is None else " [{:.2f}, {:.2f}]".format(*one.interval)
        rows.append(
            [
                one.name,
                f"{one.lines:,}",
                f"{one.tokens:,}",
                f"{one.perplexity:.2f}{spread}",
                f"{one.bits_per_character:.3f}",
            ]
        )
    return rows


def write_text_report(folder: Path, report: TextReport) -> None:
    """Write report.html, report.md and scores.json, each whole or not at all.

    Raises `MTError` where they cannot be written.
    """
    parts = [
        ("verdict", None, _verdict(report)),
        ("training", "Training", page.training(report.curves)),
        ("cleaning", "Cleaning", page.cleaning(report.cleaning, "lines")),
        ("samples", "What it writes", _samples(report.samples)),
        ("recipe", "Recipe", page.recipe(report.recipe_yaml)),
    ]
    subtitle = f"language model, {report.language}"
    lines = [markdown(score_rows(report.scores)), ""]
    contents = {
        "report.html": page.html(report.title, subtitle, parts),
        "report.md": page.brief(f"{report.title}, {subtitle}", lines, report.facts),
        "scores.json": text_scores_json(report.scores),
    }
    page.write(folder, contents)


def _verdict(report: TextReport) -> Markup:
    cards = []
    for one in report.scores:
        spread = page.between(one.interval, digits=2)
        tiles = [
            page.tile(f"{one.perplexity:.2f}", "perplexity of a token", spread, "lead"),
            page.tile(f"{one.bits_per_character:.3f}", "bits a character"),
            page.tile(f"{one.tokens:,}", "tokens"),
        ]
        cards.append(page.verdict(one.name, count(one.lines, "line"), tiles))
    return join([*cards, page.facts(report.facts)])


def _samples(samples: Sequence[str]) -> Markup | None:
    if not samples:
        return None
    told = "Drawn token by token from its probabilities, each text from nothing."
    shown = (element("p", sample, class_="sample card") for sample in samples)
    return join([element("p", told), *shown])


def text_card(
    language: str, rows: Sequence[tuple[str, str]], scores: Sequence[TextScores], recipe_yaml: str
) -> str:
    """Write the Markdown card of a bundle.

    Args:
        language: Its code.
        rows: What it was made from, by name.
        scores: On the test sets; empty while training goes on.
        recipe_yaml: The resolved recipe.
    """
    about = (
        "A recurrent network that tells how likely text is, and writes it. The folder holds "
        "weights,\na tokenizer and configuration only: loading it runs no code, and it holds no "
        "training text."
    )
    table = markdown(score_rows(scores)) if scores else ""
    command = 'mt generate THIS_FOLDER --prompt "…"'
    return card(f"Language model {language}", about, command, rows, table, recipe_yaml)
