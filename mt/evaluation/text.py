"""How well a language model knows text: perplexity and bits per character, with their spread."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mt.evaluation.scores import RESAMPLES, bootstrap_interval


@dataclass(frozen=True)
class TextScores:
    """A test set as a language model sees it."""

    name: str
    lines: int
    tokens: int
    """Ends of lines included."""
    characters: int
    """Ends of lines included."""
    log_probability: float
    """Natural logarithm of the probability of it all."""
    perplexity: float
    """exp(-log-probability / tokens); it depends on how text is cut into tokens."""
    interval: tuple[float, float] | None
    """95% bootstrap interval of the perplexity, over lines; None for a single one."""
    bits_per_character: float
    """-log2 of the probability, per character: the same measure for every tokenizer."""

    def __str__(self) -> str:
        return f"perplexity {self.perplexity:.2f} · {self.bits_per_character:.3f} bits a character"


def score_text(
    name: str, lines: Sequence[str], scored: Sequence[tuple[float, int]], seed: int = 12345
) -> TextScores:
    """Sum up what a model has told of each line.

    Args:
        name: Of the test set.
        lines: Raw text.
        scored: For each line its log-probability (natural) and number of tokens, both with its end.
        seed: Of the bootstrap.
    """
    logs = np.array([log for log, _ in scored], dtype=np.float64)
    tokens = np.array([count for _, count in scored], dtype=np.int64)
    characters = sum(map(len, lines)) + len(lines)
    total, count = float(logs.sum()), int(tokens.sum())
    interval = None
    if len(lines) > 1:
        random = np.random.default_rng(seed)
        drawn = (random.integers(len(lines), size=len(lines)) for _ in range(RESAMPLES))
        low, high = bootstrap_interval([-logs[one].sum() / tokens[one].sum() for one in drawn])
        interval = math.exp(low), math.exp(high)
    return TextScores(
        name,
        len(lines),
        count,
        characters,
        total,
        math.exp(min(-total / max(1, count), 700)),
        interval,
        -total / math.log(2) / max(1, characters),
    )


def text_scores_json(scores: Sequence[TextScores]) -> str:
    """Write scores as JSON."""
    return json.dumps({"tests": [asdict(one) for one in scores]}, indent=2) + "\n"
