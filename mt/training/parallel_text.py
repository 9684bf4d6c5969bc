"""Parallel text to batches of tokens, newly segmented in every epoch where that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from mt.batches import Ints, Sentences, collate, plan_updates, share
from mt.placeholders import find, mask
from mt.recipe import Batching
from mt.subwords import SubwordSampler
from mt.tokenizer import PAD, Tokenizers
from mt.training.datamodule import TrainingBatch, TrainingData


class ParallelText(TrainingData):
    """Parallel training text as tokens, in the best segmentation.

    Args:
        batches: Raw source sentences and, line by line, their translations, a batch at a time.
        tokenizers: Their tokenizers.
        batching: Pairs with a side over its `max_length` tokens are left out.
    """

    def __init__(
        self,
        batches: Iterable[tuple[Sequence[str], Sequence[str]]],
        tokenizers: Tokenizers,
        batching: Batching,
    ):
        strength = batching.subword_sampling
        self.samplers = [
            SubwordSampler(tokenizer, strength) for tokenizer in tokenizers if strength > 0
        ]
        super().__init__(batching.tokens, batching.workers)
        self._max_length, self._tokenizers = batching.max_length, tokenizers
        self.sources, self.targets = (Sentences(len(tokenizer)) for tokenizer in tokenizers)
        self.extend(batches)

    def extend(self, batches: Iterable[tuple[Sequence[str], Sequence[str]]]) -> None:
        """Append text; see the class."""
        tokenizers, symbols = self._tokenizers, self._tokenizers.symbols
        for sources, targets in batches:
            held = [find(source, symbols) for source in sources]
            sources, targets = (
                [mask(text, symbols, row) for text, row in zip(side, held, strict=True)]
                for side in (sources, targets)
            )
            self.sources.extend(tokenizers.source.encode(sources))
            self.targets.extend(tokenizers.target.encode(targets))
        longest = np.maximum(self.sources.lengths, self.targets.lengths)
        self.kept = np.flatnonzero(longest <= self._max_length)
        """Numbers of the pairs that are trained on."""
        self._updates.clear()

    def plan(self, tokens: int, seed: int, epoch: int) -> list[Ints]:
        """Plan the updates of an epoch, each with a budget of `tokens`; see `plan_updates`."""
        lengths = self.sources.lengths[self.kept] + 1, self.targets.lengths[self.kept] + 1
        return [self.kept[update] for update in plan_updates(*lengths, tokens, seed, epoch)]

    def batch(self, update: Ints, parts: int, part: int, seed: tuple[int, ...]) -> TrainingBatch:
        """Lay out one part of an update.

        Args:
            update: Sentence numbers.
            parts: Devices times accumulated batches.
            part: Which of them.
            seed: Of the subword sampling.
        """
        tokens = int(self.targets.lengths[update].sum()) + len(update)
        rows = share(update, parts, part)
        # Every device must run every batch; a part without rows computes one row without a loss.
        filler = len(rows) == 0
        if filler:
            rows = update[:1]
        sources: Sequence[Sequence[int]] = [self.sources[number] for number in rows]
        targets: Sequence[Sequence[int]] = [self.targets[number] for number in rows]
        if self.samplers:
            words = np.random.SeedSequence(seed).generate_state(2).tolist()
            sources, targets = (
                sampler.sample(side, word)
                for sampler, side, word in zip(
                    self.samplers, (sources, targets), words, strict=True
                )
            )
        batch = collate(sources, targets, rows)
        if filler:
            batch = batch._replace(target_out=torch.full_like(batch.target_out, PAD))
        return TrainingBatch(batch, tokens)
