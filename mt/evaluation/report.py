"""One HTML page that says how good a translator is, and shows it; the same in brief as Markdown.

The page is a single file with no outside reference: it opens from disk, offline, on paper, in
light and dark. All text from data is escaped (see `mt.evaluation.markup`), and the page's own
content security policy lets no other script run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, NamedTuple

from mt.evaluation import page, plots
from mt.evaluation.examples import Example, legend, show
from mt.evaluation.markup import Markup, element, join
from mt.evaluation.scores import (
    Score,
    SetScores,
    placeholder_fidelity,
    scores_json,
)
from mt.evaluation.tables import (
    LOWER_IS_BETTER,
    METRIC_NAMES,
    Value,
    caveat,
    count,
    markdown,
    note,
    p_value,
    score_rows,
)

if TYPE_CHECKING:
    from mt.evaluation.analysis import Analysis, Breakdown
    from mt.evaluation.behaviour import BeamPoint, Behaviour

MOST_BYTES = 12_000_000
"""Size of all the page's searchable lists together at most, in bytes."""


class TestSet(NamedTuple):
    """A test set: its scores and all its sentences, in their order."""

    scores: SetScores
    examples: list[Example]
    sentences: Mapping[str, list[list[float]]]
    """By metric, and by system in the order of `scores`, the score of each sentence; chrF2 (`chrf`)
    is always there."""
    analysis: Analysis | None = None
    behaviour: Behaviour | None = None
    """Of the first system's network."""


@dataclass(frozen=True)
class ReportData:
    """All that a report shows."""

    title: str
    """Headline, such as the name of the run."""
    sets: list[TestSet]
    """The test sets, the most important first."""
    languages: tuple[str, str]
    """Codes of the source and target language."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    """Label and value: data, model size, training time, hardware, seed, commit."""
    cleaning: list[tuple[str, int]] | None = None
    """Rule and number of pairs, in the order of the table."""
    curves: Path | None = None
    """The run's `metrics.csv`."""
    recipe_yaml: str | None = None
    """The resolved recipe."""
    translations_per_second: float | None = None
    """Speed of decoding the test sets, in sentences per second."""
    gradient_flow: list[tuple[int, float]] | None = None
    """See `mt.evaluation.gradients.gradient_flow`."""


def write_report(folder: Path, data: ReportData) -> None:
    """Write report.html, report.md, scores.json and sentences.tsv, each whole or not at all.

    Raises MTError where they cannot be written.
    """
    contents = {
        "report.html": report_html(data),
        "report.md": report_markdown(data),
        "scores.json": scores_json([one.scores for one in data.sets]),
        "sentences.tsv": sentences_tsv(data.sets),
    }
    page.write(folder, contents)


def sentences_tsv(sets: Sequence[TestSet]) -> str:
    """Return the text of `sentences.tsv`: a line for each sentence and system, its number within
    its test set counted from 1, and its scores."""
    metrics = list(dict.fromkeys(metric for one in sets for metric in one.sentences))
    lines = [["test set", "sentence", "system", *metrics]]
    for one in sets:
        systems = [one.scores.system, *(other.name for other in one.scores.others)]
        for number in range(one.scores.sentences):
            for place, system in enumerate(systems):
                values = (one.sentences[metric][place][number] for metric in metrics)
                lines.append(
                    [one.scores.name, str(number + 1), system, *map("{:.2f}".format, values)]
                )
    return "".join("\t".join(line) + "\n" for line in lines)


def report_markdown(data: ReportData) -> str:
    """Return the text of `report.md`: scores, what was measured, facts."""
    parts = []
    for test in data.sets:
        one = test.scores
        parts += [
            f"## {one.name}, {count(one.sentences, 'sentence')}",
            "",
            markdown(score_rows([one])),
            "",
        ]
        parts += [f"- {METRIC_NAMES[score.metric]}: `{score.signature}`" for score in one.scores]
        parts += [f"- {told}" for told in (note(one), caveat(one)) if told] + [""]
        if test.analysis is not None:
            parts += [markdown(rows) for rows in _analysis_rows(one, test.analysis)]
        if test.behaviour is not None:
            parts.append(markdown([("observed", ""), *test.behaviour.facts]))
            beams = [
                (str(one.size), f"{one.score.score:.1f}", f"{one.speed:,.0f}")
                for one in test.behaviour.beams
            ]
            if beams:
                head = ("beam size", METRIC_NAMES[one.scores[0].metric], "sentences a second")
                parts.append(markdown([head, *beams]))
    return page.brief(f"{data.title}, {' to '.join(data.languages)}", parts, data.facts)


def report_html(data: ReportData) -> str:
    """Return the text of the page."""
    names = [test.scores.name for test in data.sets]
    parts = [
        ("verdict", None, _verdict(data)),
        ("training", "Training", page.training(data.curves, flow=data.gradient_flow)),
        ("cleaning", "Cleaning", page.cleaning(data.cleaning, "pairs")),
        ("breakdown", "Breakdown", page.by_set(names, map(_breakdown, data.sets))),
        ("behaviour", "Behaviour of the network", page.by_set(names, map(_behaviour, data.sets))),
        ("examples", "Examples", _examples(data)),
        ("recipe", "Recipe", page.recipe(data.recipe_yaml)),
    ]
    return page.html(data.title, f"{data.languages[0]} → {data.languages[1]}", parts)


# -- The first screen ------------------------------------------------------------------------------


def _verdict(data: ReportData) -> Markup:
    cards = []
    for number, one in enumerate(data.sets):
        tiles = [_score_tile(score) for score in one.scores.scores]
        kept, total = _fidelity(one.examples)
        if total:
            # Never round up to a perfect score.
            share = f"{int(kept / total * 1000) / 10:g}%"
            tiles.append(
                page.tile(share, f"placeholders kept: {kept:,} of {count(total, 'sentence')}")
            )
        if number == 0 and data.translations_per_second is not None:
            speed = data.translations_per_second
            tiles.append(
                page.tile(f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}", "sentences a second")
            )
        signatures = [
            join(
                [
                    element("dt", METRIC_NAMES.get(score.metric, score.metric)),
                    element("dd", score.signature),
                ]
            )
            for score in one.scores.scores
        ]
        warning = caveat(one.scores)
        more = [
            _comparison(one.scores),
            element("p", warning, class_="note") if warning else None,
            element("dl", *signatures, class_="signatures"),
        ]
        counted = count(one.scores.sentences, "sentence")
        cards.append(page.verdict(one.scores.name, counted, tiles, *more))
    return join([*cards, page.facts(data.facts)])


def _comparison(one: SetScores) -> Markup | None:
    """What sets the first system apart from the others, in a sentence each and in a table."""
    if not one.others:
        return None
    sentences = []
    for other in one.others:
        first, its = one.scores[0], other.scores[0]
        difference = first.score - its.score
        tests = (("bootstrap", its.p_bootstrap), ("randomization", its.p_randomization))
        told = ", ".join(f"{name} p {p_value(p)}" for name, p in tests if p is not None)
        where = "above" if difference >= 0 else "below"
        sentences.append(
            element(
                "p",
                element(
                    "b", f"{abs(difference):.1f} {METRIC_NAMES[first.metric]} {where} {other.name}"
                ),
                f" (paired {told})" if told else None,
                class_="difference",
            )
        )
    shown = page.wide(page.table(score_rows([one], "\n")), "scores")
    return join([*sentences, shown, element("p", note(one), class_="note")])


def _score_tile(score: Score) -> Markup:
    name = METRIC_NAMES.get(score.metric, score.metric)
    if score.metric in LOWER_IS_BETTER:
        name += " (lower is better)"
    details = []
    if score.runs:
        details.append(f"± {stdev(score.runs):.1f} over {len(score.runs)} training runs")
    details += page.between(score.interval)
    return page.tile(f"{score.score:.1f}", name, details, "lead")


def _fidelity(examples: Sequence[Example]) -> tuple[int, int]:
    return placeholder_fidelity(
        [example.source for example in examples], [example.hypothesis for example in examples]
    )


# -- Breakdown -------------------------------------------------------------------------------------


def _breakdown(test: TestSet) -> Markup | None:
    if test.analysis is None:
        return None
    names = [test.scores.system, *(other.name for other in test.scores.others)]
    figures = [_bucket_chart(one, names) for one in test.analysis.breakdowns if one.buckets]
    *_, checks = _analysis_rows(test.scores, test.analysis)
    legend = [
        element("span", name, class_=f"key key-{style}")
        for name, style in zip(names, plots.STYLES, strict=False)
    ]
    return join(
        [
            element("p", *legend) if len(names) > 1 else None,
            page.charts(figures),
            page.wide(page.table(checks), "checks"),
        ]
    )


def _bucket_chart(one: Breakdown, names: Sequence[str]) -> Markup:
    labels = [(bucket.label, f"{bucket.size:,}") for bucket in one.buckets]
    rows = {
        name: [bucket.values[number] for bucket in one.buckets]
        for number, name in enumerate(names[: len(plots.STYLES)])
    }
    note = f"{one.unit}, 95% intervals; below each its {one.counted}"
    return plots.interval_chart(one.title, note, labels, rows)


def _behaviour(test: TestSet) -> Markup | None:
    if test.behaviour is None:
        return None
    figures = [plots.calibration_chart(test.behaviour.calibration, "tokens")]
    if test.behaviour.beams:
        figures.append(_beam_chart(test.behaviour.beams))
    observed = page.table([("Observed", ""), *test.behaviour.facts])
    return join([page.charts(figures), page.wide(observed, "checks")])


def _beam_chart(beams: Sequence[BeamPoint]) -> Markup:
    labels = [(str(one.size), f"{one.speed:,.0f}/s") for one in beams]
    metric = METRIC_NAMES[beams[0].score.metric]
    note = f"{metric}, 95% intervals; below each its sentences a second"
    row = [Value(one.score.score, one.score.interval) for one in beams]
    return plots.interval_chart("Beam size", note, labels, {metric: row}, from_zero=False)


def _analysis_rows(scores: SetScores, analysis: Analysis) -> list[list[list[str]]]:
    """Every breakdown as a table, and last the checks; each with a row of names at its head."""
    names = [scores.system, *(other.name for other in scores.others)]
    tables = []
    for one in analysis.breakdowns:
        rows = [[one.title, one.counted, *(f"{name}, {one.unit}" for name in names)]]
        for bucket in one.buckets:
            rows.append([bucket.label, f"{bucket.size:,}", *map(str, bucket.values)])
        tables.append(rows)
    tables.append([["check", *names], *([one.name, *one.values] for one in analysis.checks)])
    return tables


# -- Training, cleaning, recipe --------------------------------------------------------------------


def _examples(data: ReportData) -> Markup | None:
    sets = [one for one in data.sets if one.examples]
    if not sets:
        return None
    parts: list[Markup | None] = [legend([example for one in sets for example in one.examples])]
    room = MOST_BYTES
    for one in sets:
        heading = element("h3", f"Test set {one.scores.name}") if len(sets) > 1 else None
        systems = [one.scores.system, *(other.name for other in one.scores.others)]
        shown, used = show(one.examples, one.sentences["chrf"], systems, data.languages, room)
        room -= used
        parts.append(element("div", heading, shown))
    return join(parts)
