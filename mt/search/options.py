"""What a search is asked to do: the `search:` section of a recipe and the decoding options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mt.errors import MTError

LONGEST = 512
"""No translation is longer than this, in target tokens without the end of sentence."""


@dataclass(frozen=True)
class SearchOptions:
    """Decoding options. Lengths are in target tokens, without the end of sentence.

    Raises `MTError`, naming the option as the command line spells it, for values out of range.
    """

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
    """Shortest translation, in tokens; the limit on the longest goes first."""
    min_length_ratio: float = 0.0
    """Shortest translation as a multiple of the source's tokens, rounded up."""
    max_length: int = 0
    """Longest translation, in tokens; 0 stands for 2 x source + 10. Never above 512."""
    max_length_ratio: float = 0.0
    """Longest translation as a multiple of the source's tokens, rounded down, at least one token;
    0 sets no such limit."""
    n_best: int = 1
    """Translations returned for each sentence, best first; at most `beam_size`."""
    shortlist: bool = True
    """Look among likely translations of the source's tokens only, where a bundle has a list of
    them (see the recipe's `shortlist`)."""

    def __post_init__(self) -> None:
        for name, least in (
            ("beam_size", 1),
            ("n_best", 1),
            ("coverage_penalty", 0),
            ("no_repeat_ngram", 0),
            ("min_length", 0),
            ("min_length_ratio", 0),
            ("max_length", 0),
            ("max_length_ratio", 0),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise MTError(f"{_flag(name)} must be at least {least}, not {value}")
        # Lengths reach 513: a larger exponent would overflow, or leave nothing but the length.
        if not -10 <= self.length_penalty <= 10:
            raise MTError(f"--length-penalty must be from -10 to 10, not {self.length_penalty}")
        if self.normalization not in ("average", "gnmt"):
            raise MTError(f"--normalization must be average or gnmt, not {self.normalization}")
        if self.n_best > self.beam_size:
            raise MTError(
                f"--n-best {self.n_best} needs --beam-size {self.n_best} or more, "
                f"not {self.beam_size}"
            )
        self._ordered("min_length", "max_length")
        self._ordered("min_length_ratio", "max_length_ratio")
        if self.min_length > LONGEST:
            raise MTError(f"--min-length must be at most {LONGEST}, not {self.min_length}")

    def _ordered(self, least: str, most: str) -> None:
        low, high = getattr(self, least), getattr(self, most)
        if 0 < high < low:
            raise MTError(f"{_flag(least)} {low} must not be above {_flag(most)} {high}")

    def longest(self, source_length: int) -> int:
        """Most tokens in a translation of `source_length` source tokens, both without the end."""
        length = min(self.max_length or 2 * source_length + 10, LONGEST)
        if self.max_length_ratio > 0:
            # The slack undoes the product's rounding: 2.3 * 10 is 22.999999999999996.
            length = min(length, max(1, math.floor(self.max_length_ratio * source_length + 1e-9)))
        return length

    def shortest(self, source_length: int) -> int:
        """Fewest tokens in a translation of `source_length` source tokens; at most `longest`."""
        length = max(self.min_length, math.ceil(self.min_length_ratio * source_length - 1e-9))
        return min(length, self.longest(source_length))

    def normalizer(self, length: int) -> float:
        """What the log-probability of `length` tokens (the end counted) is divided by."""
        base = float(length) if self.normalization == "average" else (5 + length) / 6
        return math.pow(base, self.length_penalty)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
