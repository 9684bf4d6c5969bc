"""The sentences of a report: which it shows at once, and how each looks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mt.evaluation import plots
from mt.evaluation.markup import Markup, element, join
from mt.evaluation.words import word_diff

if TYPE_CHECKING:
    from mt.translator import Alignment

EXAMPLES = 8
"""Sentences in each of the groups worst, best, changed most and random."""
MOST_SENTENCES = 5000
"""Sentences of a test set that the page's searchable list holds at most."""


class Example(NamedTuple):
    """One translated sentence."""

    source: str
    reference: str
    hypothesis: str
    others: Sequence[str] = ()
    """Translations of the systems that it is compared with, in the order of `SetScores.others`."""
    alignment: Alignment | None = None
    """Where attention was while `hypothesis` was written."""
    n_best: Sequence[tuple[str, float]] = ()
    """The best translations that the search found, with what it ranks them by."""


class Group(NamedTuple):
    """Sentences that are shown together."""

    title: str
    places: list[int]


def choose(chrf: Sequence[Sequence[float]], systems: Sequence[str]) -> list[Group]:
    """Choose the sentences that a reader should see first.

    Args:
        chrf: For each system, the chrF2 of each sentence.
        systems: Their names.
    """
    first, *others = chrf
    order = sorted(range(len(first)), key=lambda place: (first[place], place))
    if len(order) <= 3 * EXAMPLES:
        return [Group("All sentences, worst first", order)]
    groups = []
    for name, theirs in zip(systems[1:], others, strict=True):
        gains = [abs(mine - its) for mine, its in zip(first, theirs, strict=True)]
        ranked = sorted(range(len(gains)), key=lambda place: (-gains[place], place))
        changed = [place for place in ranked[:EXAMPLES] if gains[place]]
        if changed:
            groups.append(Group(f"Changed most, against {name}", changed))
    # A fixed seed: the same translations give the same page.
    drawn = random.Random(1).sample(order[EXAMPLES:-EXAMPLES], EXAMPLES)
    return [
        *groups,
        Group("Worst", order[:EXAMPLES]),
        Group("Best", order[: -EXAMPLES - 1 : -1]),
        Group("Random", sorted(drawn)),
    ]


def legend(examples: Iterable[Example]) -> Markup:
    """Say what the marks mean."""
    return element(
        "p",
        "Ranked by chrF. ",
        "Point at a word of a translation, or move to it with the arrow keys, to see the source "
        "words that attention was on. "
        if any(example.alignment for example in examples)
        else None,
        element("del", "Marked so"),
        ": only in the reference; ",
        element("ins", "marked so"),
        ": only in the translation.",
    )


def show(
    examples: Sequence[Example],
    chrf: Sequence[Sequence[float]],
    systems: Sequence[str],
    languages: tuple[str, str],
    room: int,
) -> tuple[Markup, int]:
    """Show a test set: how its scores are spread, groups of examples, and the list of all.

    Args:
        examples: All sentences, in their order.
        chrf: For each system, the chrF2 of each sentence.
        systems: Their names.
        languages: Codes of source and target.
        room: Size of the list at most, in bytes.

    Returns:
        What is shown, and the size of the list.
    """
    page = _Page(examples, chrf, systems, languages)
    groups = choose(chrf, systems)
    if len(groups) == 1:
        return join(map(page.group, groups)), 0
    chart = plots.histogram("Sentence chrF", list(chrf[0]))
    browser, used = page.browser(room)
    return join(
        [element("div", chart, class_="charts one"), *map(page.group, groups), browser]
    ), used


class _Row(NamedTuple):
    """What is shown of a sentence."""

    number: int
    """From 1."""
    chrf: list[float]
    """Of each system."""
    source: str
    reference: list[str]
    """In pieces, see `word_diff`; so are the translations."""
    translations: list[list[str]]
    attention: list[list[Any]] | None
    """Places of source words, of target words, and the weights of each of these; see
    `_attention`."""
    n_best: list[list[str]]
    """Score and text."""


class _Page:
    def __init__(
        self,
        examples: Sequence[Example],
        chrf: Sequence[Sequence[float]],
        systems: Sequence[str],
        languages: tuple[str, str],
    ):
        self.examples, self.chrf, self.languages = examples, chrf, languages
        self.systems = ["Translation"] if len(systems) == 1 else list(systems)

    def row(self, place: int) -> _Row:
        example = self.examples[place]
        reference, hypothesis = word_diff(example.reference, example.hypothesis)
        others = [word_diff(example.reference, other)[1] for other in example.others]
        attention = None
        if example.alignment is not None:
            attention = _attention(example.source, example.hypothesis, example.alignment)
        return _Row(
            place + 1,
            [round(values[place], 1) for values in self.chrf],
            example.source,
            reference,
            [hypothesis, *others],
            attention,
            [[f"{score:.3f}", text] for text, score in example.n_best],
        )

    def group(self, group: Group) -> Markup:
        return join([element("h3", group.title), *map(self._card, map(self.row, group.places))])

    def _card(self, row: _Row) -> Markup:
        source, target = self.languages
        first, *others = row.chrf
        told = (
            f", {name} {value:.0f}" for name, value in zip(self.systems[1:], others, strict=True)
        )
        number = f"Sentence {row.number:,} · chrF "
        return element(
            "article",
            element("p", number, element("b", f"{first:.0f}"), *told),
            element(
                "dl",
                _text("Source", [row.source], source, "span"),
                _text("Reference", row.reference, target, "del"),
                *(
                    _text(name, pieces, target, "ins")
                    for name, pieces in zip(self.systems, row.translations, strict=True)
                ),
            ),
            _n_best(row.n_best, target) if row.n_best else None,
            class_="example card",
            data_attention=None if row.attention is None else _json(row.attention),
        )

    def browser(self, room: int) -> tuple[Markup, int]:
        """The searchable list of the sentences, and its size in bytes."""
        rows: list[str] = []
        used = 0
        total = len(self.examples)
        for place in range(min(total, MOST_SENTENCES)):
            text = _json(self.row(place))
            size = len(text.encode("utf-8", "replace")) + 1
            if used + size > room:
                break
            used += size
            rows.append(text)
        title = f"All {total:,} sentences"
        if len(rows) < total:
            title = f"The first {len(rows):,} of {total:,} sentences"
        options = [
            element("option", text, value=value)
            for value, text in (
                ("number", "as in the test set"),
                ("worst", "worst first"),
                ("best", "best first"),
                ("longest", "longest source first"),
            )
        ]
        browser = element(
            "details",
            element("summary", title),
            element(
                "div",
                element(
                    "label",
                    "Show sentences with all of these words",
                    Markup(
                        '<input type="search" dir="auto" autocomplete="off" spellcheck="false">'
                    ),
                ),
                element("label", "Order", element("select", *options)),
                element("output", aria_live="polite"),
                class_="controls",
            ),
            element("div", class_="list"),
            element("button", "Show more", type="button", hidden=""),
            Markup(f'<script type="application/json">[{",".join(rows)}]</script>'),
            class_="browser",
            data_source=self.languages[0],
            data_target=self.languages[1],
            data_systems=json.dumps(self.systems, ensure_ascii=False),
        )
        return browser, used


def _attention(source: str, hypothesis: str, alignment: Alignment) -> list[list[Any]]:
    """Pack an alignment: where words begin and end, one after the other, and for each target word a
    string with a digit for each source word, 9 for all of the attention.

    Places count as JavaScript does, in units of UTF-16, and those of the translation from its first
    character that is no space, where the page lets it begin.
    """

    def places(text: str, spans: list[tuple[int, int]], skipped: int = 0) -> list[int]:
        return [len(text[skipped:end].encode("utf-16-le")) // 2 for span in spans for end in span]

    skipped = len(hypothesis) - len(hypothesis.lstrip())
    rows = ["".join(f"{min(9, round(9 * w))}" for w in row) for row in alignment.weights.tolist()]
    target = places(hypothesis, alignment.target, skipped)
    return [places(source, alignment.source), target, rows]


def _text(name: str, pieces: list[str], language: str, mark: str) -> Markup:
    marked = [
        element(mark, piece) if index % 2 else piece for index, piece in enumerate(pieces) if piece
    ]
    empty = not any(pieces)
    # `dir=auto` takes the direction from the text itself, so no list of languages is needed.
    text = element(
        "dd",
        *(["(empty)"] if empty else marked),
        lang=language,
        dir="auto",
        class_="empty" if empty else None,
    )
    return join([element("dt", name), text])


def _n_best(rows: list[list[str]], language: str) -> Markup:
    texts = [
        join([element("dt", score), element("dd", text, lang=language, dir="auto")])
        for score, text in rows
    ]
    return element("details", element("summary", f"{len(rows)} best"), element("dl", *texts))


def _json(value: object) -> str:
    """JSON that may stand inside `<script>`: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
