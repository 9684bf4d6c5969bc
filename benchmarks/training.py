"""Training on the CPU: speed beside the arithmetic that it needs, by precision and threads.

python benchmarks/training.py [RECIPE] [OPTIONS]   (as of `mt train`; default: the quickstart's)

The arithmetic of an update is two operations for each multiplication with a weight matrix and for
each number of the memory that attention reads or adds up, at each token of a sentence's own length,
and twice as much again for the gradients. The yardstick is the better of 1024- and 2048-square
float32 products, taken in turn with what is measured. A final table says where the time of an
update goes.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from decoding import gemm_rate, work
from torch.profiler import ProfilerActivity, profile

from mt.batches import Batch
from mt.corpus import load_corpus
from mt.nn.seq2seq import Seq2Seq
from mt.options import parse_train
from mt.recipe import TranslationRecipe
from mt.tokenizer import PAD, Tokenizers
from mt.training.datamodule import DataModule
from mt.training.module import Budget
from mt.training.parallel_text import ParallelText
from mt.training.sizing import choose_sizes
from mt.training.trainer import make_trainer, without_advice
from mt.training.translation import TranslationModule, both_sides, make_tokenizers

ROUNDS, WARM, UPDATES, OPERATORS = 3, 10, 60, 16


def operations(model: Seq2Seq, batch: Batch) -> float:
    """Count what an update needs: for each token, and no padding."""
    needs = work(model)
    sources = batch.source_lengths
    targets = (batch.target_out != PAD).sum(1).cpu()
    read = 2 * model.architecture.hidden_size * int((sources * targets).sum())
    tokens = int(sources.sum()) * needs.source + int(targets.sum()) * needs.target
    return 6.0 * (len(sources) * needs.sentence + tokens + read)


class Clock(L.Callback):
    """Times the updates after the first few, counts what they hold, and profiles if told to."""

    def __init__(self, profiled: profile | None = None) -> None:
        self.profiled = profiled
        self.operations, self.tokens, self.places = 0.0, 0, 0
        self.began, self.seconds, self.waited = 0.0, 0.0, 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, number: int
    ) -> None:
        """Count an update."""
        if number + 1 == WARM:
            self.began, self.waited = time.perf_counter(), 0.0
            if self.profiled:
                self.profiled.start()
        elif number + 1 > WARM:
            self.seconds = time.perf_counter() - self.began
            inputs = batch.batch
            self.operations += operations(module.model, inputs)
            self.tokens += int(inputs.source_lengths.sum()) + int((inputs.target_out != PAD).sum())
            self.places += inputs.source.numel() + inputs.target_out.numel()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Stop profiling."""
        if self.profiled:
            self.profiled.stop()


class TimedData(DataModule):
    """Tells a clock how long the trainer waits for each batch."""

    clock: Clock

    def train_dataloader(self) -> Any:
        """Make the loader."""
        batches = iter(super().train_dataloader())
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.clock.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch


def fit(
    recipe: TranslationRecipe, text: ParallelText, tokenizers: Tokenizers, clock: Clock
) -> None:
    """Train a new network."""
    torch.manual_seed(recipe.seed)
    network = Seq2Seq(recipe.model, len(tokenizers.source), len(tokenizers.target))
    updates = WARM + UPDATES
    data = TimedData(text, recipe.seed, updates)
    data.clock = clock
    with tempfile.TemporaryDirectory() as folder, without_advice():
        trainer = make_trainer(recipe, Path(folder))
        trainer.callbacks.append(clock)
        module = TranslationModule(network, recipe.training, recipe.seed, Budget(updates, None))
        trainer.fit(module, datamodule=data)


def main() -> None:
    """Print the tables."""
    for name in ("lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    given = sys.argv[1:] or ["recipes/quickstart.yaml"]
    recipe = parse_train([*given, "--output", "runs/benchmark"]).recipe
    recipe = replace(recipe, auto=[one for one in recipe.auto if one != "trainer.precision"])
    budget = dict.fromkeys(("max_epochs", "max_time"))
    recipe = replace(recipe, trainer={**recipe.trainer, **budget, "max_steps": WARM + UPDATES})
    corpus = load_corpus(recipe.corpus)
    recipe, _ = choose_sizes(recipe, len(corpus.train), lambda: both_sides(corpus))
    tokenizers = make_tokenizers(recipe, corpus)
    text = ParallelText(corpus.batches(), tokenizers, recipe.batches)

    print(" ".join(given))
    kinds = {
        name: replace(recipe, trainer={**recipe.trainer, "precision": name})
        for name in ("32-true", "bf16-mixed")
    }
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rate, best = 0.0, dict.fromkeys(kinds, (0.0, 0.0, 0.0, 0.0))
        for _ in range(ROUNDS):  # in turn, so that a noisy moment meets all
            for name, kind in kinds.items():
                rate, clock = max(rate, gemm_rate()), Clock()
                fit(kind, text, tokenizers, clock)
                sums = clock.tokens, clock.operations, clock.waited
                tokens, done, waited = (value / clock.seconds for value in sums)
                filled = clock.tokens / clock.places
                best[name] = max(best[name], (tokens, done, waited, filled))
        print(f"\n{threads} threads; float32 products at {rate / 1e9:.0f} GFLOP/s\n")
        print(
            "| precision | source + target tokens/s | share of the float32 product rate "
            "| waiting for batches | tokens among the places of a batch |"
        )
        print("|---|---|---|---|---|")
        for name, (tokens, done, waited, filled) in best.items():
            row = f"| {name} | {tokens:,.0f} | {done / rate:.2f} | {waited:.1%} | {filled:.0%} |"
            print(row, flush=True)
    torch.set_num_threads(1)
    for name, kind in kinds.items():
        profiled = profile(activities=[ProfilerActivity.CPU])
        fit(kind, text, tokenizers, Clock(profiled))
        events = sorted(profiled.key_averages(), key=lambda e: -e.self_cpu_time_total)
        total = sum(event.self_cpu_time_total for event in events)
        print(f"\n| {name}, one thread: operator | share of the time | calls an update |")
        print("|---|---|---|")
        for event in events[:OPERATORS]:
            share = event.self_cpu_time_total / total
            print(f"| `{event.key}` | {share:.1%} | {event.count / UPDATES:,.0f} |")


if __name__ == "__main__":
    main()
