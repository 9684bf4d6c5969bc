"""How well a language model knows text: perplexity and bits per character, with their spread."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 1000
"""Bootstrap samples of an interval."""


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
        found = np.empty(RESAMPLES)
        for number in range(RESAMPLES):
            chosen = random.integers(len(lines), size=len(lines))
            found[number] = -logs[chosen].sum() / tokens[chosen].sum()
        low, high = np.exp(np.quantile(found, (0.025, 0.975)))
        interval = float(low), float(high)
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
