"""What a search is asked to do: the `search:` section of a recipe and the decoding options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SearchOptions:
    """Decoding options. Lengths are in target tokens, without the end of sentence."""

    beam_size: int = 5
    """Hypotheses kept for each sentence; 1 is greedy search."""
    length_penalty: float = 1.0
    """Exponent of the length normalisation; 0 compares plain log-probabilities."""
    normalization: Literal["average", "gnmt"] = "average"
    """Divide a log-probability by `length ** length_penalty` (`average`) or by
    `((5 + length) / 6) ** length_penalty` (`gnmt`, arXiv:1609.08144, eq. 14); the length counts the
    end of sentence."""
    coverage_penalty: float = 0.0
    """Weight of the coverage penalty (arXiv:1609.08144, eq. 14), which favours hypotheses whose
    attention has seen every source token; 0 turns it off."""
    no_repeat_ngram: int = 0
    """Never repeat an n-gram of this many tokens within a translation; 0 allows all."""
    min_length: int = 0
    """Shortest translation, in tokens."""
    min_length_ratio: float = 0.0
    """Shortest translation as a multiple of the source's tokens."""
    max_length: int = 0
    """Longest translation, in tokens; 0 stands for 2 x source + 10. Never above 512."""
    max_length_ratio: float = 0.0
    """Longest translation as a multiple of the source's tokens; 0 sets no such limit."""
    n_best: int = 1
    """Translations returned for each sentence, best first; at most `beam_size`."""
