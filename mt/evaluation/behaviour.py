"""How a network behaves on a test set: how sure it is, where it looks, what the search misses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.evaluation.scores import Score, score_systems
from mt.evaluation.tables import share
from mt.translator import Alignment, Translator

BINS = 10
"""Bins of the calibration, each as wide as the others."""


class Bin(NamedTuple):
    """Tokens that the network was about equally sure of."""

    confidence: float
    """Mean probability of the token that it held for the most likely."""
    accuracy: float
    """Share of these that are the reference's."""
    tokens: int


class BeamPoint(NamedTuple):
    """What a beam of some size finds."""

    size: int
    score: Score
    speed: float
    """Sentences a second."""


class Behaviour(NamedTuple):
    """What is known of a network besides its translations."""

    calibration: list[Bin]
    """Those that are not empty, the least sure first."""
    facts: list[tuple[str, str]]
    """Name and value."""
    beams: Sequence[BeamPoint] = ()


def beam_curve(
    translator: Translator,
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    metric: str,
    sizes: Sequence[int],
) -> list[BeamPoint]:
    """Translate and score a test set with beams of several sizes.

    Args:
        translator: Translates.
        sources: Of the test set.
        references: One or more streams.
        metric: Its name.
        sizes: Of the beams.
    """
    points = []
    for size in sorted(set(sizes)):
        began = time.monotonic()
        found = translator.translate(sources, replace(translator.options, beam_size=size))
        speed = len(sources) / max(1e-9, time.monotonic() - began)
        target_language = translator.languages[1]
        [score] = score_systems(metric, [[found]], references, target_language=target_language)
        points.append(BeamPoint(size, score, speed))
    return points


def behaviour(
    translator: Translator,
    sources: Sequence[str],
    reference: Sequence[str],
    hypotheses: Sequence[str],
    alignments: Sequence[Alignment | None],
) -> Behaviour:
    """Observe a network on a test set.

    Args:
        translator: It.
        sources: Of the test set.
        reference: Of each source.
        hypotheses: What the translator found.
        alignments: Of these.
    """
    confidence, right = translator.confidences(sources, reference)
    bins = calibration(confidence, right)
    off = sum(one.tokens * abs(one.confidence - one.accuracy) for one in bins) / len(right)
    facts = [
        ("Expected calibration error", f"{100 * off:.1f}%"),
        (
            "Reference tokens that are the most likely ones, knowing those before",
            share(int(right.sum()), len(right)),
        ),
        *_search_errors(translator, sources, reference, hypotheses),
        *_attention([one.weights for one in alignments if one is not None]),
    ]
    return Behaviour(bins, facts)


def calibration(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> list[Bin]:
    """Compare how sure a network is with how often it is right (Guo et al., arXiv:1706.04599).

    Args:
        confidence: Probability of the most likely token at each place.
        right: Whether it is the one.
    """
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(
            float(confidence[places == place].mean()),
            float(right[places == place].mean()),
            int((places == place).sum()),
        )
        for place in range(BINS)
        if (places == place).any()
    ]


def _search_errors(
    translator: Translator,
    sources: Sequence[str],
    reference: Sequence[str],
    hypotheses: Sequence[str],
) -> list[tuple[str, str]]:
    """Where the network scores the reference above what was found, the search is to blame for what
    is wrong; elsewhere the network is (Stahlberg and Byrne, D19-1331)."""
    scores = []
    for texts in (reference, hypotheses):
        rows = translator.score(sources, texts)
        scores.append([p / translator.options.normalizer(tokens) for p, tokens in rows])
    above = other_texts = 0
    for wanted, found, text, other in zip(*scores, reference, hypotheses, strict=True):
        if text.split() != other.split():
            other_texts += 1
            above += wanted > found + 1e-6
    if not other_texts:
        return []
    name = "Search errors: references that the network scores above what was found"
    return [(name, share(above, other_texts))]


def _attention(tables: Sequence[NDArray[np.float32]]) -> list[tuple[str, str]]:
    """Say how sharp attention is, and how much of the sources it leaves out."""
    tables = [table for table in tables if table.size]
    if not tables:
        return []
    rows = np.concatenate([_entropy(table) for table in tables])
    most = np.concatenate([table.max(axis=0) for table in tables])
    return [
        ("Entropy of a translated word's attention to source words", f"{rows.mean():.2f} bits"),
        (
            "Source words that no translated word gave a tenth of its attention",
            share(int((most < 0.1).sum()), len(most)),
        ),
    ]


def _entropy(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """In bits, of each row, which is taken to add up to 1."""
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-9)
    result: NDArray[np.float32] = -(shares * np.log2(np.maximum(shares, 1e-9))).sum(axis=1)
    return result
