"""How well texts are classified: accuracy, by class, by length, and how sure it is rightly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.evaluation.behaviour import Bin, calibration
from mt.evaluation.scores import RESAMPLES, bootstrap_interval
from mt.evaluation.tables import Value

LENGTHS = (10, 20, 50, 100, 200, 500, 1000)
"""Characters at which one group of lengths ends and the next one begins."""

Table = NDArray[np.int64]
Floats = NDArray[np.float64]


class ClassRow(NamedTuple):
    """One class on a test set."""

    name: str
    texts: int
    """Texts that are of it."""
    predicted: int
    """Texts that were taken for it."""
    precision: float
    """Of those that were taken for it, the share that are of it; 0 where there are none."""
    recall: float
    """Of those that are of it, the share that were taken for it; 0 where there are none."""
    f1: float
    """The harmonic mean of both, 2 right / (texts + predicted)."""


class LengthRow(NamedTuple):
    """The texts of some lengths."""

    label: str
    """Such as `10–19`."""
    texts: int
    accuracy: Value
    """Percent, with its interval."""


@dataclass(frozen=True)
class ClassScores:
    """A test set as a classifier sees it. Accuracies and F1 are percentages."""

    name: str
    texts: int
    accuracy: Value
    """Texts that are classified right."""
    macro_accuracy: Value
    """The mean recall over the classes that the test set has."""
    macro_f1: Value
    """The mean F1 over the classes that the test set has, or a text was taken for."""
    loss: float
    """Negative log-likelihood of the right class, nats, the mean over texts."""
    calibration_error: float
    """Expected calibration error: how far, on average, the share of right answers is from how sure
    the network was of them (Guo et al., arXiv:1706.04599)."""
    classes: list[ClassRow]
    confusion: list[list[int]]
    """Texts by their class (rows) and what they were taken for (columns)."""
    lengths: list[LengthRow]
    """By characters."""
    calibration: list[Bin]
    """Groups of texts by the probability of the likeliest class."""

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy.score:.2f} · macro accuracy {self.macro_accuracy.score:.2f} "
            f"· macro F1 {self.macro_f1.score:.2f}"
        )


def confusion(labels: Sequence[int], predicted: Sequence[int], classes: int) -> Table:
    """Count texts by their class (rows) and what they were taken for (columns), `(C, C)`."""
    cells = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


class Marginals(NamedTuple):
    """What averages over classes are made of, `(C,)` each."""

    right: Floats
    """Texts of the class that were taken for it."""
    texts: Floats
    """Texts of the class."""
    predicted: Floats
    """Texts that were taken for it."""


def marginals(table: Table) -> Marginals:
    """Sum up a table `(C, C)` of `confusion`."""
    return Marginals(
        np.diagonal(table).astype(float), table.sum(1).astype(float), table.sum(0).astype(float)
    )


def macro_accuracy(sums: Marginals) -> float:
    """Average recall over the classes that there are texts of."""
    there = sums.texts > 0
    return float((sums.right[there] / sums.texts[there]).mean())


def macro_f1(sums: Marginals) -> float:
    """Average F1 over the classes that there are texts of, or that a text was taken for."""
    both = sums.texts + sums.predicted
    there = both > 0
    return float((2 * sums.right[there] / both[there]).mean())


def score_classes(
    name: str,
    texts: Sequence[str],
    labels: Sequence[int],
    logs: Floats,
    classes: Sequence[str],
    seed: int = 12345,
) -> ClassScores:
    """Sum up what a classifier has told of each text.

    Args:
        name: Of the test set.
        texts: Raw text, N of them, at least one.
        labels: `(N,)` numbers of their classes.
        logs: `(N, C)` natural logarithms of the probability of each class.
        classes: Names of the C classes.
        seed: Of the bootstrap.
    """
    predicted = logs.argmax(1)
    right = predicted == np.asarray(labels)
    table = confusion(labels, predicted.tolist(), len(classes))
    sums, random, total = marginals(table), np.random.default_rng(seed), len(labels)
    resampled = list(_resamples(table, random))

    def value(measure: Callable[[Marginals], float]) -> Value:
        drawn = [100 * measure(one) for one in resampled]
        return Value(100 * measure(sums), bootstrap_interval(drawn) if total > 1 else None)

    own = logs[np.arange(total), labels]
    bins = calibration(np.exp(logs.max(1)), right)
    off = sum(one.tokens * abs(one.confidence - one.accuracy) for one in bins) / total
    return ClassScores(
        name,
        total,
        value(lambda one: float(one.right.sum() / total)),
        value(macro_accuracy),
        value(macro_f1),
        float(-own.mean()),
        100 * float(off),
        _class_rows(table, classes),
        table.tolist(),
        _length_rows(texts, right, random),
        bins,
    )


def _resamples(table: Table, random: np.random.Generator) -> Iterator[Marginals]:
    """Draw as many texts anew, with replacement, again and again.

    What counts of a text is the cell that it falls into, so that cells are drawn.
    """
    total, classes = int(table.sum()), len(table)
    rows, columns = np.nonzero(table)
    share, correct = table[rows, columns] / total, rows == columns
    for _ in range(RESAMPLES):
        drawn = random.multinomial(total, share).astype(float)
        yield Marginals(
            _sums(rows, drawn * correct, classes),
            _sums(rows, drawn, classes),
            _sums(columns, drawn, classes),
        )


def _sums(classes: NDArray[np.int64], texts: Floats, size: int) -> Floats:
    """Add up the texts of each class."""
    return np.bincount(classes, texts, size).astype(np.float64)


def _class_rows(table: Table, classes: Sequence[str]) -> list[ClassRow]:
    rows = []
    for number, name in enumerate(classes):
        right = int(table[number, number])
        count, predicted = int(table[number].sum()), int(table[:, number].sum())
        rows.append(
            ClassRow(
                name,
                count,
                predicted,
                right / max(1, predicted),
                right / max(1, count),
                2 * right / max(1, count + predicted),
            )
        )
    return rows


def _length_rows(
    texts: Sequence[str], right: NDArray[np.bool_], random: np.random.Generator
) -> list[LengthRow]:
    group = np.searchsorted(LENGTHS, [len(text) for text in texts], side="right")
    rows = []
    for number, (low, high) in enumerate(zip((0, *LENGTHS), (*LENGTHS, None), strict=True)):
        mine = right[group == number]
        if not len(mine):
            continue
        drawn = random.binomial(len(mine), mine.mean(), RESAMPLES) / len(mine)
        interval = bootstrap_interval(100 * drawn) if len(mine) > 1 else None
        label = f"{low}–{high - 1}" if high else f"{low:,}+"
        rows.append(LengthRow(label, len(mine), Value(100 * float(mine.mean()), interval)))
    return rows


def most_confused(scores: ClassScores, most: int) -> list[tuple[str, str, int, int]]:
    """Name the pairs of classes that are taken for each other most often.

    Returns:
        Of each pair its two names, how many of the first were taken for the second, and of the
        second for the first.
    """
    names = [row.name for row in scores.classes]
    pairs = [
        (names[one], names[other], scores.confusion[one][other], scores.confusion[other][one])
        for one in range(len(names))
        for other in range(one)
    ]
    pairs = [pair for pair in pairs if pair[2] + pair[3]]
    return sorted(pairs, key=lambda pair: -(pair[2] + pair[3]))[:most]


def class_scores_json(scores: Sequence[ClassScores]) -> str:
    """Write scores as JSON; percentages as percentages, text of none of the data but its labels."""
    tests = []
    for one in scores:
        plain = asdict(one)
        for name in ("accuracy", "macro_accuracy", "macro_f1"):
            value: Value = getattr(one, name)
            plain[name] = {"score": value.score, "interval": value.interval}
        plain["classes"] = [row._asdict() for row in one.classes]
        names = [row.name for row in one.classes]
        plain["confusion"] = [
            {"class": names[row], "taken_for": names[column], "texts": texts}
            for row, cells in enumerate(one.confusion)
            for column, texts in enumerate(cells)
            if texts
        ]
        plain["lengths"] = [
            {
                "characters": row.label,
                "texts": row.texts,
                "accuracy": row.accuracy.score,
                "interval": row.accuracy.interval,
            }
            for row in one.lengths
        ]
        plain["calibration"] = [
            {"confidence": bin.confidence, "accuracy": bin.accuracy, "texts": bin.tokens}
            for bin in one.calibration
        ]
        tests.append(plain)
    return json.dumps({"tests": tests}, indent=2) + "\n"
