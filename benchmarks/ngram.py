"""A language model beside a count-based one: interpolated, modified Kneser-Ney 5-grams.

python benchmarks/ngram.py [RUN]

RUN is the folder of a language model's run, such as runs/lm-en: both learn from its training text,
cleaned, and are measured on its test text, in the same tokens. The estimate is Chen & Goodman's
(1998, "An Empirical Study of Smoothing Techniques for Language Modeling", section 3) with KenLM's
treatment of sentence starts (Heafield et al. 2013): nothing stands before them, so they keep their
own counts.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.corpus.text import load_text
from mt.language_model import LanguageModel
from mt.options import parse_train
from mt.recipe import LanguageModelRecipe
from mt.tokenizer import BOS, EOS

Ints = NDArray[np.int64]
ORDER = 5


class Grams(NamedTuple):
    """The n-grams of one order: keys sorted, and the (adjusted) count of each."""

    keys: Ints
    counts: Ints


class Contexts(NamedTuple):
    """What follows each context: in all, and as different tokens counted once, twice, more."""

    keys: Ints
    total: Ints
    kinds: Ints  # (n, 3)


class KneserNey:
    """An interpolated model of sentences, each a row of token ids between BOS and EOS."""

    def __init__(self, sentences: list[list[int]], vocabulary: int, order: int = ORDER):
        if vocabulary**order >= 1 << 63:
            raise ValueError(f"{vocabulary} tokens are too many for {order}-grams in 64 bits")
        self.vocabulary, self.order = vocabulary, order
        flat, place = _lay_out(sentences)
        self.tables: list[tuple[Grams, Contexts, NDArray[np.float64]]] = []
        raw = {n: self._count(flat, place, n) for n in range(1, order + 1)}
        for n in range(1, order + 1):
            grams = raw[n]
            if n < order:  # in how many ways it is continued to the left
                suffixes, ways = np.unique(raw[n + 1].keys % vocabulary**n, return_counts=True)
                starts = grams.keys // vocabulary ** (n - 1) == BOS
                counts = np.zeros_like(grams.counts)
                found = np.searchsorted(suffixes, grams.keys).clip(max=len(suffixes) - 1)
                same = suffixes[found] == grams.keys
                counts[same] = ways[found[same]]
                counts[starts] = grams.counts[starts]
                grams = Grams(grams.keys[counts > 0], counts[counts > 0])
            if n == 1:  # a sentence's start is never predicted
                grams = Grams(grams.keys[grams.keys != BOS], grams.counts[grams.keys != BOS])
            contexts, where = np.unique(grams.keys // vocabulary, return_inverse=True)
            total = np.bincount(where, grams.counts).astype(np.int64)
            kinds = np.stack(
                [np.bincount(where, _kind(grams.counts) == kind) for kind in (1, 2, 3)], axis=1
            ).astype(np.int64)
            table = Contexts(contexts, total, kinds)
            self.tables.append((grams, table, _discounts(grams.counts)))

    def _count(self, flat: Ints, place: Ints, n: int) -> Grams:
        """Count the n-grams that lie within sentences."""
        keys = np.zeros(len(flat) - n + 1, dtype=np.int64)
        for offset in range(n):
            keys = keys * self.vocabulary + flat[offset : len(flat) - n + 1 + offset]
        inside = place[n - 1 :] >= n - 1
        return Grams(*np.unique(keys[inside], return_counts=True))

    def log_probability(self, sentences: list[list[int]]) -> float:
        """The natural logarithm of the probability of sentences with their ends."""
        flat, place = _lay_out(sentences)
        where = np.flatnonzero(place > 0)
        probability = np.full(len(where), 1 / (self.vocabulary - 1))  # all but BOS
        context, power = np.zeros(len(where), dtype=np.int64), 1
        for n, (grams, contexts, discounts) in enumerate(self.tables, start=1):
            if n > 1:
                context = context + power * flat[np.maximum(where - n + 1, 0)]
                power *= self.vocabulary
            known = place[where] >= n - 1
            row = np.searchsorted(contexts.keys, context).clip(max=len(contexts.keys) - 1)
            known &= contexts.keys[row] == context
            key = context * self.vocabulary + flat[where]
            gram = np.searchsorted(grams.keys, key).clip(max=len(grams.keys) - 1)
            count = np.where(grams.keys[gram] == key, grams.counts[gram], 0)
            kept = np.maximum(count - np.where(count > 0, discounts[_kind(count)], 0), 0)
            total = contexts.total[row]
            left = (contexts.kinds[row] * discounts[1:]).sum(1) / total
            probability = np.where(known, kept / total + left * probability, probability)
        return float(np.log(probability).sum())


def _lay_out(sentences: list[list[int]]) -> tuple[Ints, Ints]:
    """All tokens in a row, and the place of each in its sentence: 0 of BOS."""
    rows = [[BOS, *row, EOS] for row in sentences]
    flat = np.array([token for row in rows for token in row], dtype=np.int64)
    return flat, np.concatenate([np.arange(len(row)) for row in rows])


def _kind(counts: Ints) -> Ints:
    return np.minimum(counts, 3)


def _discounts(counts: Ints) -> NDArray[np.float64]:
    """What is taken from a count of 0, 1, 2, and 3 or more (Chen & Goodman, equation 26)."""
    n1, n2, n3, n4 = (max(1, int((counts == k).sum())) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    values = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return np.array([0, *(min(max(value, 0.0), k) for k, value in enumerate(values, 1))])


def main() -> None:
    """Print a table."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/lm-en")
    if not (run / "recipe.yaml").exists():
        print(f"{run}: no run; make one with `make train RECIPE=recipes/lm-en.yaml`")
        return
    recipe = parse_train([str(run / "recipe.yaml")]).recipe
    assert isinstance(recipe, LanguageModelRecipe)
    text = load_text(recipe.corpus)
    model = LanguageModel.load(run / "bundle", "cpu")
    known, lines = list(text.each()), text.tests["test"]
    counted = KneserNey(model.tokenizer.encode_raw(known), len(model.tokenizer))
    scored = model.score(lines)
    tokens = sum(count for _, count in scored)
    characters = sum(map(len, lines)) + len(lines)
    totals = {
        f"Kneser-Ney, {ORDER}-grams": counted.log_probability(model.tokenizer.encode_raw(lines)),
        "network": sum(total for total, _ in scored),
    }
    print("| model | perplexity of a token | bits a character |\n|---|---|---|")
    for name, total in totals.items():
        bits = -total / math.log(2) / characters
        print(f"| {name} | {math.exp(-total / tokens):.2f} | {bits:.3f} |")


if __name__ == "__main__":
    main()
