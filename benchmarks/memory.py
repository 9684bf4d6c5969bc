"""Resident memory while planning and training over millions of pairs.

python benchmarks/memory.py [PAIRS]   (default: 5,000,000; needs about 3 GB of disk)

The text is synthetic: sentences of 4 to 25 words drawn from 30,000 made-up ones. The figures are
the process's resident set beyond what it holds once torch, Lightning and datasets are imported.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def resident() -> float:
    """Resident set of this process, in GB; pages of mapped files count too."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def peak() -> float:
    """Highest resident set so far, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def write_corpus(folder: Path, pairs: int) -> None:
    """Write a synthetic parallel corpus."""
    draw = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 10))) for _ in range(30_000)]
    with open(folder / "train.xx", "w") as source, open(folder / "train.yy", "w") as target:
        for _ in range(pairs):
            chosen = draw.choices(words, k=draw.randint(4, 25))
            source.write(" ".join(chosen) + "\n")
            target.write(" ".join(word[::-1] for word in chosen) + "\n")


def main() -> None:
    """Print the table."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MT_CACHE"] = str(folder / "cache")
        write_corpus(folder, pairs)
        measure(folder, pairs)


def measure(folder: Path, pairs: int) -> None:
    """Go through a run step by step, as `mt train` does."""
    import torch

    from mt.corpus import load_corpus
    from mt.nn.architecture import Architecture
    from mt.nn.seq2seq import Seq2Seq
    from mt.recipe import Batching, Corpus, TokenizerSpec, Training, TranslationRecipe
    from mt.tokenizer import Tokenizers, train_tokenizer
    from mt.training.datamodule import DataModule
    from mt.training.module import Budget
    from mt.training.parallel_text import ParallelText
    from mt.training.trainer import make_trainer, without_advice
    from mt.training.translation import TranslationModule

    base, began = resident(), time.monotonic()
    print(f"| {pairs:,} pairs | seconds | resident beyond the libraries, GB | peak, GB |")
    print("|---|---|---|---|")

    def row(step: str) -> None:
        nonlocal began
        now = time.monotonic()
        print(f"| {step} | {now - began:.0f} | {resident() - base:.2f} | {peak() - base:.2f} |")
        began = now

    corpus = load_corpus(Corpus(source="xx", target="yy", files=str(folder)))
    row("corpus: read, split, cleaned")
    spec = TokenizerSpec(vocab_size=8000, max_sentences=200_000)

    def sentences() -> Iterator[str]:
        for sources, targets in corpus.batches():
            yield from sources
            yield from targets

    tokenizer = train_tokenizer(spec, sentences)
    row("tokenizer, on 200,000 sentences")
    batching = Batching(tokens=1200, subword_sampling=0.1)
    text = ParallelText(corpus.batches(), Tokenizers(tokenizer, tokenizer), batching)
    row("tokenized")
    text.plan(batching.tokens, 1, 0)
    row("an epoch planned")
    model = Seq2Seq(Architecture(embedding_size=64, hidden_size=64), len(tokenizer), len(tokenizer))
    module = TranslationModule(model, Training(), 1, Budget(200, None))
    trainer = make_trainer(
        TranslationRecipe(trainer={"max_steps": 200, "accelerator": "cpu"}), folder
    )
    with without_advice():
        trainer.fit(module, datamodule=DataModule(text, 1, 200))
    row("200 updates of a small model")
    assert torch.isfinite(next(model.parameters())).all()


if __name__ == "__main__":
    main()
