"""Attention: how a decoder state looks at the encoder's memory.

Every kind turns queries `(B, T, H)` and a memory `(B, S, H)` into contexts `(B, T, H)` and weights
`(B, T, S)`; whatever depends on the memory alone is computed once a sentence, as its keys.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mt.nn.architecture import Architecture

_CHUNK_ELEMENTS = 1 << 22
"""Elements of the (B, T, S, H) tensor of additive attention that are built at a time."""


class Attention(nn.Module, ABC):
    """Any kind of attention."""

    def keys(self, memory: Tensor) -> Tensor:
        """What of the score depends on the memory alone: `(B, S, H)` to `(B, S, …)`."""
        return memory

    @abstractmethod
    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, source_pad: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            query: `(B, T, H)`.
            keys: `(B, S, H)`, from `keys(memory)`.
            memory: `(B, S, H)`.
            source_pad: `(B, S)`, True at padding, which gets weight 0.

        Returns:
            The context `(B, T, H)` and the weights `(B, T, S)`, which sum to one over S.
        """


class ScoredAttention(Attention):
    """Scores by a subclass, masked softmax over the source, weighted mean of the memory."""

    @abstractmethod
    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Compare queries `(B, T, H)` with keys `(B, S, H)`: `(B, T, S)`."""

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, source_pad: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Attention.forward`."""
        scores = self.scores(query, keys)
        weights = scores.masked_fill(source_pad[:, None], -math.inf).softmax(dim=-1)
        return torch.bmm(weights, memory), weights


class DotAttention(ScoredAttention):
    """score = q · m (Luong et al., arXiv:1508.04025)."""

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See `ScoredAttention.scores`."""
        return torch.bmm(query, keys.transpose(1, 2))


class GeneralAttention(DotAttention):
    """score = q · W m (Luong et al., arXiv:1508.04025)."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.project = nn.Linear(hidden_size, hidden_size, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """See `Attention.keys`."""
        projected: Tensor = self.project(memory)
        return projected


class AdditiveAttention(ScoredAttention):
    """score = v · tanh(W q + U m) (Bahdanau et al., arXiv:1409.0473)."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.energy = nn.Linear(hidden_size, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """See `Attention.keys`."""
        projected: Tensor = self.key(memory)
        return projected

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See `ScoredAttention.scores`; built for a few time steps at once to bound the memory."""
        steps = max(1, _CHUNK_ELEMENTS // max(1, keys.numel()))
        return torch.cat(
            [
                self.energy(torch.tanh(chunk[:, :, None] + keys[:, None])).squeeze(-1)
                for chunk in self.query(query).split(steps, dim=1)
            ],
            dim=1,
        )


class MultiHeadAttention(Attention):
    """Scaled dot product in several subspaces at once (Vaswani et al., arXiv:1706.03762)."""

    def __init__(self, hidden_size: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def keys(self, memory: Tensor) -> Tensor:
        """Keys and values of all heads side by side: `(B, S, 2H)`."""
        return torch.cat((self.key(memory), self.value(memory)), dim=-1)

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, source_pad: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Attention.forward`; the weights are the mean over heads."""
        key, value = keys.chunk(2, dim=-1)
        q, k, v = (self._split(x) for x in (self.query(query), key, value))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(source_pad[:, None, None], -math.inf).softmax(dim=-1)
        context: Tensor = self.output((weights @ v).transpose(1, 2).flatten(2))
        return context, weights.mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, T, H / heads)


def make_attention(architecture: Architecture) -> Attention:
    """Build the attention that `architecture.attention` names."""
    hidden_size = architecture.hidden_size
    if architecture.attention == "dot":
        return DotAttention()
    if architecture.attention == "general":
        return GeneralAttention(hidden_size)
    if architecture.attention == "additive":
        return AdditiveAttention(hidden_size)
    return MultiHeadAttention(hidden_size, architecture.attention_heads)
