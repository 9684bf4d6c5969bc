"""Dropout: a new draw at every position, or one for a whole sentence."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

Vectors = TypeVar("Vectors", Tensor, PackedSequence)


def drop(vectors: Tensor, p: float) -> Tensor:
    """Blank each number with probability `p` and scale the others up by 1 / (1 - p).

    PyTorch's own draws number by number on the CPU, which takes several times as long; here a
    random word decides on four, by 16 bits each, so that `p` is rounded to a multiple of 2^-16.
    """
    if vectors.device.type != "cpu" or p == 1:
        return dropout(vectors, p)
    count = vectors.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    threshold = min(round(p * 2**16), 2**16 - 1) - 2**15
    keep = words.view(torch.int16)[:count].view(vectors.shape) >= threshold
    return vectors * keep.to(vectors.dtype).mul_(1 / (1 - p))


class Dropout(nn.Module):
    """Blanks units in training and scales the others up by 1 / (1 - p).

    Args:
        p: Probability of blanking.
        locked: Blank the same units at every position of a sentence (variational dropout, Gal &
            Ghahramani, arXiv:1512.05287).
    """

    def __init__(self, p: float, locked: bool = False):
        super().__init__()
        self.p, self.locked = p, locked

    @property
    def off(self) -> bool:
        """Nothing is blanked."""
        return not self.training or self.p == 0

    def forward(self, vectors: Vectors) -> Vectors:
        """Blank units of `(B, T, F)`, or of packed vectors."""
        if self.off:
            return vectors
        if isinstance(vectors, PackedSequence):
            if not self.locked:
                return vectors._replace(data=drop(vectors.data, self.p))
            sizes = vectors.batch_sizes
            mask = self.mask(vectors.data[: int(sizes[0])])
            # Packed are first all first positions, then all second ones …: the longest first.
            rows = torch.cat([torch.arange(int(size)) for size in sizes]).to(mask.device)
            return vectors._replace(data=vectors.data * mask[rows])
        if not self.locked:
            return drop(vectors, self.p)
        return vectors * self.mask(vectors[:, 0])[:, None]

    def mask(self, like: Tensor) -> Tensor:
        """Draw what to multiply the vectors of B sentences by, `(B, F)`."""
        return drop(torch.ones_like(like), self.p)

    def step(self, vectors: Tensor, mask: Tensor | None) -> Tensor:
        """Blank units of one position `(N, F)`, those of `mask` where it is given."""
        if self.off:
            return vectors
        return drop(vectors, self.p) if mask is None else vectors * mask
