"""Translations and scores of the same sentences in batches of different sizes, in float32.

python benchmarks/batches.py [BUNDLE] [SOURCE]   (default: the quickstart's, and its test text)

Each sentence alone is compared with the same sentences in random order, batched in several ways.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from mt.corpus import load_corpus
from mt.lines import read_lines
from mt.options import parse_train
from mt.translator import Translator

SENTENCES = 1000
BATCH_TOKENS = 64, 1024, 8192


def test_text(side: str) -> list[str]:
    """Return the quickstart's test sentences, or their references, `target`."""
    corpus = load_corpus(parse_train(["recipes/quickstart.yaml"]).recipe.corpus)
    return list(corpus.tests["test"][side])


def main() -> None:
    """Print the table."""
    bundle = sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart/bundle"
    lines = read_lines(Path(sys.argv[2])) if len(sys.argv) > 2 else test_text("source")
    texts = [line for line in lines if line.strip()][:SENTENCES]
    translator = Translator.load(bundle, "cpu")
    alone = [translator.n_best([text])[0][0] for text in texts]
    order = random.Random(1).sample(range(len(texts)), len(texts))
    print(f"{bundle}, {len(texts):,} sentences, {translator.options}")
    print("\n| batch, padded source tokens | other texts | greatest difference of a score |")
    print("|---|---|---|")
    for batch_tokens in BATCH_TOKENS:
        found = translator.n_best([texts[n] for n in order], batch_tokens=batch_tokens)
        pairs = [(alone[n], best[0]) for n, best in zip(order, found, strict=True)]
        others = sum(one.text != other.text for one, other in pairs)
        furthest = max(abs(one.score - other.score) for one, other in pairs)
        print(f"| {batch_tokens:,} | {others} | {furthest:.1e} |", flush=True)


if __name__ == "__main__":
    main()
