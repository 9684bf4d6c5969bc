"""Training batches, planned and laid out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mt.batches import Batch, Ints, Sentences, collate, plan_updates, share
from mt.placeholders import find, mask
from mt.recipe import Batching
from mt.subwords import SubwordSampler
from mt.tokenizer import PAD, Tokenizers


class TrainingBatch(NamedTuple):
    """One device's share of an update."""

    batch: Batch
    update_tokens: int
    """Target tokens (end of sentence included) of the whole update, over all devices and
    accumulated batches, by the best segmentation: the one normaliser of the loss."""


class Share(NamedTuple):
    """Which part of every update a process computes."""

    devices: int
    """Processes that train together."""
    rank: int
    """Which of them this is."""
    accumulate: int
    """Batches that each of them computes for an update."""


class ParallelText:
    """The training text as tokens, in the best segmentation.

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
        self.batching, self._tokenizers = batching, tokenizers
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
        self.kept = np.flatnonzero(longest <= self.batching.max_length)
        """Numbers of the pairs that are trained on."""
        self._updates: dict[int, int] = {}

    def plan(self, tokens: int, seed: int, epoch: int) -> list[Ints]:
        """Plan the updates of an epoch, each with a budget of `tokens`; see `plan_updates`."""
        lengths = self.sources.lengths[self.kept] + 1, self.targets.lengths[self.kept] + 1
        return [self.kept[update] for update in plan_updates(*lengths, tokens, seed, epoch)]

    def updates(self, tokens: int) -> int:
        """Count the updates of an epoch; it is the same for every seed and epoch."""
        if tokens not in self._updates:
            self._updates[tokens] = len(self.plan(tokens, 0, 0))
        return self._updates[tokens]

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


class BatchStream(IterableDataset[TrainingBatch]):
    """All batches of a run on one device, epoch after epoch, from any update on."""

    def __init__(self, text: ParallelText, seed: int, share: Share, start: int, stop: int):
        self.text, self.seed, self.share = text, seed, share
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[TrainingBatch]:
        worker = get_worker_info()
        workers, mine = (worker.num_workers, worker.id) if worker else (1, 0)
        devices, rank, accumulate = self.share
        parts = devices * accumulate
        tokens = self.text.batching.tokens * parts
        updates = self.text.updates(tokens)
        plan, planned = [], -1
        for step in range(self.start, self.stop):
            epoch, index = divmod(step, updates)
            if epoch != planned:
                plan, planned = self.text.plan(tokens, self.seed, epoch), epoch
            for micro in range(accumulate):
                # Loader processes take turns, so that their batches come in the planned order.
                if ((step - self.start) * accumulate + micro) % workers == mine:
                    part = micro * devices + rank
                    yield self.text.batch(plan[index], parts, part, (self.seed, step, part))


class DataModule(L.LightningDataModule):
    """Feeds a trainer from where its last checkpoint stood.

    The whole run is one pass of Lightning over one stream: where it resumes is then just a number
    of updates, the same in the middle of an epoch as at its end.
    """

    def __init__(self, text: ParallelText, seed: int, updates: int):
        super().__init__()
        self.text, self.seed, self.updates = text, seed, updates

    def train_dataloader(self) -> DataLoader[TrainingBatch]:
        """Make the loader of the batches that are still to come."""
        trainer = self.trainer
        assert trainer is not None
        share = Share(trainer.world_size, trainer.global_rank, trainer.accumulate_grad_batches)
        stream = BatchStream(self.text, self.seed, share, trainer.global_step, self.updates)
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=self.text.batching.workers,
            pin_memory=torch.cuda.is_available(),
        )
