"""Ids to tensors: which sentences share a batch, and how a batch is laid out.

Planning is a pure function of lengths, budget, seed and epoch. It plans *updates*: all that one
optimizer step sees, whatever the number of devices or accumulated batches, which then share each
update out. So one device with twice the budget, two devices, and one device that accumulates two
batches all see the same updates.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mt.tokenizer import BOS, EOS, PAD

Ints = npt.NDArray[np.integer]


class Batch(NamedTuple):
    """Sentences as padded tensors. Sources end with the end of sentence; B rows."""

    source: Tensor
    """`(B, S)` token ids."""
    source_lengths: Tensor
    """`(B,)` tokens of each source, on the CPU, where packing wants them."""
    target_in: Tensor
    """`(B, T)`: the beginning of sentence, then the target."""
    target_out: Tensor
    """`(B, T)`: the target, then the end of sentence, then padding."""
    ids: Tensor
    """`(B,)` numbers of the sentences in their corpus."""

    def to(self, device: torch.device) -> Batch:
        """Move all but the lengths."""
        source, lengths, target_in, target_out, ids = self
        return Batch(
            source.to(device, non_blocking=True),
            lengths,
            target_in.to(device, non_blocking=True),
            target_out.to(device, non_blocking=True),
            ids,
        )


class Sentences:
    """Token ids of many sentences in one flat array: a few bytes a token, nothing else."""

    def __init__(self, vocabulary: int):
        # These grow in place: no second copy is ever held.
        self._flat = array("H" if vocabulary <= 1 << 16 else "i")
        self._lengths, self._ends = array("i"), array("q")

    def extend(self, encoded: Iterable[Sequence[int]]) -> None:
        """Append sentences, each its token ids without special tokens."""
        for row in encoded:
            self._flat.extend(row)
            self._lengths.append(len(row))
            self._ends.append(len(self._flat))

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """`(n,)` tokens of each sentence: a view, to be gone before the next `extend`."""
        return np.asarray(self._lengths)

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, number: int) -> Sequence[int]:
        end = self._ends[number]
        return self._flat[end - self._lengths[number] : end]


def plan_updates(
    source_lengths: Ints, target_lengths: Ints, tokens: int, seed: int, epoch: int
) -> list[Ints]:
    """Share sentences out to updates of similar length.

    Args:
        source_lengths: `(n,)` tokens of each source as the network sees it.
        target_lengths: `(n,)` tokens of each target as the network sees it.
        tokens: Budget of an update: rows times the longest side of any row. A longer sentence is an
            update of its own.
        seed: Decides, with `epoch`, which equally long sentences meet, and the order of updates.
        epoch: From 0.

    Returns:
        Sentence numbers of each update. Every sentence is in exactly one; their number does not
        depend on seed or epoch.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(source_lengths))
    # Equal targets with nearly equal sources: little padding on either side.
    order = order[np.lexsort((source_lengths[order], target_lengths[order]))]
    longest = np.maximum(source_lengths, target_lengths)[order]
    updates, start = [], 0
    while start < len(order):
        # An update of k rows has at least the budget's floor at its own longest row.
        most = max(1, tokens // int(longest[start]))
        running = np.maximum.accumulate(longest[start : start + most])
        fits = running * np.arange(1, len(running) + 1) <= tokens
        rows = max(1, len(fits) if fits.all() else int(fits.argmin()))
        updates.append(order[start : start + rows])
        start += rows
    return [updates[number] for number in random.permutation(len(updates))]


def share(update: Ints, parts: int, part: int) -> Ints:
    """Give one of `parts` devices or accumulated batches its rows of an update.

    Rows are dealt in turn, so parts are alike in size and length; a part may be empty.
    """
    return update[part::parts]


def collate(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    ids: Sequence[int] | Ints,
) -> Batch:
    """Lay sentences out as tensors.

    Args:
        sources: Token ids without special tokens.
        targets: Token ids without special tokens.
        ids: The sentences' numbers in their corpus.
    """
    source, lengths = pad([[*row, EOS] for row in sources])
    target_out, _ = pad([[*row, EOS] for row in targets])
    target_in, _ = pad([[BOS, *row] for row in targets])
    return Batch(source, lengths, target_in, target_out, torch.as_tensor(np.asarray(ids)))


def pair_batches(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], tokens: int
) -> Iterator[Batch]:
    """Lay all pairs out in batches of similar length, the longest first.

    Args:
        sources: Token ids without special tokens.
        targets: Token ids without special tokens.
        tokens: Budget of padded tokens of a batch's longer side; a longer pair is a batch of its
            own.

    Yields:
        Batches whose `ids` are the places of their pairs.
    """
    lengths = [max(len(s), len(t)) + 1 for s, t in zip(sources, targets, strict=True)]
    for places in plan_decoding(lengths, tokens):
        yield collate([sources[n] for n in places], [targets[n] for n in places], places)


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pad rows at the end: ids `(B, L)` and lengths `(B,)`."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = np.full((len(rows), int(lengths.max())), PAD, np.int64)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return torch.from_numpy(padded), lengths


def plan_decoding(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group sentences of similar length for decoding, the longest first.

    Args:
        lengths: Source tokens of each sentence.
        tokens: Budget of padded source tokens a batch; a longer sentence is a batch of its own.

    Returns:
        Sentence numbers of each batch.
    """
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        # Sorted, so a batch is as wide as its first sentence.
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= tokens:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches
