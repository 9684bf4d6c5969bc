"""Where systems are good and where not: scores by kind of sentence and word, and what went wrong.

A word here is what `mt.evaluation.words` takes for one, lower-cased.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.evaluation.scores import (
    MAX_RESAMPLED,
    RESAMPLES,
    bootstrap_interval,
    placeholder_fidelity,
    score_systems,
)
from mt.evaluation.tables import METRIC_NAMES, Value, share
from mt.evaluation.words import words
from mt.tokenizer import Tokenizer


class Bucket(NamedTuple):
    """What has something in common."""

    label: str
    size: int
    """Sentences or words."""
    values: list[Value]
    """One for each system."""


class Breakdown(NamedTuple):
    """A score by one property."""

    title: str
    unit: str
    """The score."""
    counted: str
    """What `Bucket.size` counts: sentences or words."""
    buckets: list[Bucket]
    """Those that are not empty, in their order."""


class Check(NamedTuple):
    """Something that may have gone wrong."""

    name: str
    values: list[str]
    """One for each system."""


class Analysis(NamedTuple):
    """What is known of a test set besides its scores."""

    breakdowns: list[Breakdown]
    checks: list[Check]


class Familiarity(NamedTuple):
    """What of a test set stands in the training text."""

    counts: dict[str, int]
    """How often each target word stands there."""
    known: list[float]
    """Of each source, the share of its word trigrams, ends included, that stand there."""
    unknown: list[int]
    """Of each source, the words that do not."""


def familiarity(
    training: Iterable[tuple[Sequence[str], Sequence[str]]],
    sources: Sequence[str],
    targets: Iterable[str],
) -> Familiarity:
    """Look a test set up in the training text, which is read through once and not held.

    Args:
        training: Batches of sources and their targets.
        sources: Of the test set.
        targets: Texts, references and translations, whose words are counted.
    """
    rows = [words(source) for source in sources]
    grams = [_trigrams(row) for row in rows]
    wanted_words = {word for row in rows for word in row}
    wanted_grams = {gram for row in grams for gram in row}
    counts = dict.fromkeys((word for target in targets for word in words(target)), 0)
    seen_words: set[str] = set()
    seen_grams: set[tuple[str, ...]] = set()
    for source_batch, target_batch in training:
        for text in source_batch:
            found = words(text)
            seen_words.update(wanted_words.intersection(found))
            seen_grams.update(wanted_grams.intersection(_trigrams(found)))
        for text in target_batch:
            for word in words(text):
                if word in counts:
                    counts[word] += 1
    return Familiarity(
        counts,
        [sum(gram in seen_grams for gram in row) / len(row) for row in grams],
        [sum(word not in seen_words for word in row) for row in rows],
    )


def _trigrams(row: list[str]) -> list[tuple[str, ...]]:
    padded = ["", *row, ""]
    return list(zip(padded, padded[1:], padded[2:], strict=False)) or [("", "", "")]


# -- Breakdowns ------------------------------------------------------------------------------------


def by_sentence(
    title: str,
    labels: Sequence[str | None],
    order: Sequence[str],
    systems: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    metric: str,
    target_language: str,
) -> Breakdown:
    """Score sentences by a label that each has.

    Args:
        title: Of the property.
        labels: Of each sentence.
        order: All labels, in the order to show.
        systems: Hypotheses of each system.
        references: See `mt.evaluation.scores.corpus_score`, as for the rest.
        metric: Its name.
        target_language: Code.
    """
    buckets = []
    for label in order:
        members = [number for number, own in enumerate(labels) if own == label]
        if members:
            scores = score_systems(
                metric,
                [[[texts[number] for number in members]] for texts in systems],
                [[texts[number] for number in members] for texts in references],
                target_language=target_language,
                test=False,
            )
            values = [Value(score.score, score.interval) for score in scores]
            buckets.append(Bucket(label, len(members), values))
    return Breakdown(title, METRIC_NAMES[metric], "sentences", buckets)


def by_frequency(
    counts: Mapping[str, int], systems: Sequence[Sequence[str]], reference: Sequence[str]
) -> Breakdown:
    """Score how well words are found, by how often they stand in the training text.

    The score is F1 over all sentences, 0 to 100: words are matched within a sentence, wherever they
    stand, as often as they do in both (as in compare-mt, Neubig et al., N19-4007).
    """
    wanted = [Counter(words(line)) for line in reference]
    found = [[Counter(words(line)) for line in hypotheses] for hypotheses in systems]
    buckets = []
    for label, low, high in _FREQUENCIES:
        total = _sizes(wanted, counts, low, high)
        if not total.sum():
            continue
        values = []
        for rows in found:
            matched = [row & other for row, other in zip(rows, wanted, strict=True)]
            sums = [_sizes(row, counts, low, high) for row in (matched, rows)]
            values.append(_f1(np.stack([*sums, total], axis=1)))
        buckets.append(Bucket(label, int(total.sum()), values))
    return Breakdown("Word frequency in the training text", "F1 of words", "words", buckets)


def _sizes(
    rows: Sequence[Counter[str]], counts: Mapping[str, int], low: int, high: float
) -> NDArray[np.int64]:
    """Count each sentence's words that stand so often in the training text."""
    return np.array(
        [sum(n for word, n in row.items() if low <= counts.get(word, 0) <= high) for row in rows]
    )


_FREQUENCIES = [
    ("0", 0, 0),
    ("1", 1, 1),
    ("2–9", 2, 9),
    ("10–99", 10, 99),
    ("100–999", 100, 999),
    ("1,000+", 1000, float("inf")),
]


def _f1(sums: NDArray[np.int64]) -> Value:
    """F1 from the matched, guessed and wanted words of each sentence `(N, 3)`."""

    def score(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        both = totals[..., 1] + totals[..., 2]
        return np.where(both > 0, 200 * totals[..., 0] / np.maximum(both, 1), 0)

    count = len(sums)
    interval = None
    if 1 < count <= MAX_RESAMPLED:
        draws = np.random.default_rng(1).multinomial(count, [1 / count] * count, size=RESAMPLES)
        interval = bootstrap_interval(score((draws @ sums).astype(float)))
    return Value(float(score(sums.sum(axis=0).astype(float))), interval)


_LENGTHS = [(5, "1–5"), (10, "6–10"), (15, "11–15"), (20, "16–20"), (30, "21–30"), (50, "31–50")]
_LONGEST = "51+"
# A share below the whole is at most 1,000 of 1,001 trigrams, or so.
_SHARES = [(0.25, "0–25%"), (0.5, "25–50%"), (0.75, "50–75%"), (0.9999, "75–99%")]
_WHOLE = "100%"
_UNKNOWN = ["none", "1", "2+"]


def _label(value: float, steps: Sequence[tuple[float, str]], last: str) -> str:
    return next((label for most, label in steps if value <= most), last)


# -- Checks ----------------------------------------------------------------------------------------


def checks(
    sources: Sequence[str],
    reference: Sequence[str],
    systems: Sequence[Sequence[str]],
    tokenizer: Tokenizer | None = None,
) -> list[Check]:
    """Count what is likely to be wrong, whatever the translation.

    Args:
        sources: Of the test set.
        reference: Of each source.
        systems: Hypotheses of each system.
        tokenizer: Of the target side; with it, characters that it has no token for are counted.
    """
    found = [Check("Words, of the reference's", [_length(rows, reference) for rows in systems])]
    for name, wrong in (
        ("Empty, where the source is not", _is_empty),
        ("More than twice as long as the reference, and five words", _is_long),
        ("The source as it is, where the reference is not", _is_copy),
        ("Something said twice in a row, not in source or reference", _repeats),
    ):
        shares = []
        for hypotheses in systems:
            rows = zip(sources, reference, hypotheses, strict=True)
            shares.append(share(sum(wrong(*row) for row in rows), len(sources)))
        found.append(Check(name, shares))
    for name, kept in (
        ("All numbers of the source kept", _numbers_kept),
        ("All placeholders of the source kept", placeholder_fidelity),
    ):
        pairs = [kept(sources, hypotheses) for hypotheses in systems]
        if pairs[0][1]:
            found.append(Check(name, [share(part, total) for part, total in pairs]))
    if tokenizer is not None:
        found.append(
            Check("Tokens spelt byte by byte", [_bytes_share(tokenizer, rows) for rows in systems])
        )
    return found


def _length(hypotheses: Sequence[str], reference: Sequence[str]) -> str:
    own, wanted = (sum(len(words(line)) for line in lines) for lines in (hypotheses, reference))
    return f"{own:,} of {wanted:,}" + (f", {100 * own / wanted:.1f}%" if wanted else "")


def _is_empty(source: str, reference: str, hypothesis: str) -> bool:
    return bool(source.strip()) and not hypothesis.strip()


def _is_long(source: str, reference: str, hypothesis: str) -> bool:
    return len(words(hypothesis)) > 2 * len(words(reference)) + 5


def _is_copy(source: str, reference: str, hypothesis: str) -> bool:
    return words(hypothesis) == words(source) != words(reference)


def _repeats(source: str, reference: str, hypothesis: str) -> bool:
    return _stutters(hypothesis) and not _stutters(source) and not _stutters(reference)


def _stutters(text: str) -> bool:
    """Whether a run of one to four words stands twice in a row; signs alone do not count."""
    row = words(text)
    return any(
        row[start : start + size] == row[start + size : start + 2 * size]
        and any(character.isalnum() for word in row[start : start + size] for character in word)
        for size in range(1, 5)
        for start in range(len(row) - 2 * size + 1)
    )


_NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f']\d+)*")


def _numbers_kept(sources: Sequence[str], hypotheses: Sequence[str]) -> tuple[int, int]:
    """Count the sentences that keep their numbers, in whatever way they part digits, and those
    that have any."""

    def numbers(text: str) -> Counter[str]:
        return Counter(re.sub(r"\D", "", number) for number in _NUMBER.findall(text))

    kept = total = 0
    for source, hypothesis in zip(sources, hypotheses, strict=True):
        wanted = numbers(source)
        if wanted:
            total += 1
            kept += wanted <= numbers(hypothesis)
    return kept, total


_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def _bytes_share(tokenizer: Tokenizer, hypotheses: Sequence[str]) -> str:
    pieces = [piece for row in tokenizer.encode(hypotheses) for piece in tokenizer.pieces(row)]
    return share(sum(_BYTE.fullmatch(piece) is not None for piece in pieces), len(pieces))


# -- All of it -------------------------------------------------------------------------------------


def analyse(
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    systems: Sequence[Sequence[str]],
    metric: str,
    target_language: str,
    training: Iterable[tuple[Sequence[str], Sequence[str]]] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Analysis:
    """Break the scores of a test set down, and check the translations.

    Args:
        sources: Of the test set.
        references: One or more streams; where only one is looked at, the first.
        systems: Hypotheses of each system.
        metric: Of sentences.
        target_language: Code.
        training: Batches of the training text, read through once; without, nothing is said of what
            is familiar from it.
        tokenizer: See `checks`.
    """

    def scored(title: str, labels: Sequence[str], order: Sequence[str]) -> Breakdown:
        return by_sentence(title, labels, order, systems, references, metric, target_language)

    lengths = [_label(len(words(source)), _LENGTHS, _LONGEST) for source in sources]
    parts = [scored("Words of the source", lengths, [*(n for _, n in _LENGTHS), _LONGEST])]
    if training is not None:
        targets = (line for lines in (references[0], *systems) for line in lines)
        known = familiarity(training, sources, targets)
        shares = [_label(share, _SHARES, _WHOLE) for share in known.known]
        unknown = [_UNKNOWN[min(number, 2)] for number in known.unknown]
        order = [*(name for _, name in _SHARES), _WHOLE]
        parts += [
            by_frequency(known.counts, systems, references[0]),
            scored("Source trigrams that stand in the training text", shares, order),
            scored("Source words that do not stand in the training text", unknown, _UNKNOWN),
        ]
    return Analysis(parts, checks(sources, references[0], systems, tokenizer))
