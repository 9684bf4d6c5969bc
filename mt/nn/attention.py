"""Attention: how a decoder state looks at the encoder's memory.

Every kind turns queries `(B, T, H)` and a memory `(B, S, H)` into contexts `(B, T, C)` and weights
`(B, T, S)`; whatever depends on the memory alone is computed once a sentence, as its keys.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from mt.nn.architecture import Architecture
from mt.nn.linear import Linear, bmm

_CHUNK_ELEMENTS = 1 << 18
"""Elements of additive attention's `(B, T, S, H)` that exist at a time on a CPU: a megabyte,
which a core's own cache holds."""
_CHUNK_ELEMENTS_GPU = 1 << 25
"""The same on a GPU: enough to keep it busy."""
_UNITS_OF_GRAPH = 64
"""Units of them that exist at a time in a graph, which cannot be cut otherwise: the bounds of rows
would become constants."""


class Attention(nn.Module, ABC):
    """Any kind of attention.

    Some kinds also look at where attention was in the steps before: its `past`, `(N, S, P)`, a
    vector for each source token of each of N rows. These work one step at a time.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.context_size = architecture.hidden_size
        """C: units of a context."""
        self.coverage = (
            Linear(1, architecture.hidden_size, bias=False) if architecture.coverage else None
        )
        """Lets scores depend on the sum of the weights that a token has had (Tu et al.,
        arXiv:1601.04811; See et al., arXiv:1704.04368)."""

    @property
    def past_size(self) -> int:
        """P: what is remembered of each source token."""
        return 0 if self.coverage is None else 1

    def keys(self, memory: Tensor) -> Tensor:
        """What of the score depends on the memory alone: `(B, S, H)` to `(B, S, …)`."""
        return memory

    def recall(self, keys: Tensor, past: Tensor) -> Tensor:
        """Add to the keys of N rows, `(N, S, …)`, what their past `(N, S, P)` says."""
        if self.coverage is None:
            return keys
        covered: Tensor = keys + self.coverage(past[..., :1])
        return covered

    def remember(self, past: Tensor, weights: Tensor) -> Tensor:
        """Add the weights of a step, `(N, S)`, to the past `(N, S, P)`."""
        return past if self.coverage is None else past + weights[..., None]

    @abstractmethod
    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, source_pad: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: `(B, T, H)`.
            keys: `(B, S, …)`, from `keys(memory)`.
            memory: `(B, S, H)`.
            source_pad: `(B, S)`, True at padding, which gets weight 0.

        Returns:
            The context `(B, T, C)` and the weights `(B, T, S)`, which sum to one over S.
        """


class NoAttention(Attention):
    """A plain encoder-decoder, which has the encoder's last state to go by (arXiv:1409.3215)."""

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        self.context_size = 0

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, source_pad: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """See `Attention.forward`: the context is empty, and there are no weights."""
        return query[..., :0], None


class ScoredAttention(Attention):
    """Scores by a subclass, masked softmax over the source, weighted mean of the memory."""

    @abstractmethod
    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Compare queries `(B, T, H)` with keys `(B, S, H)`: `(B, T, S)`."""

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, source_pad: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """See `Attention.forward`."""
        scores = self.scores(query, keys)
        weights = scores.masked_fill(source_pad[:, None], -math.inf).softmax(dim=-1)
        return bmm(weights, memory), weights


class DotAttention(ScoredAttention):
    """score = q · m (Luong et al., arXiv:1508.04025)."""

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See `ScoredAttention.scores`."""
        return bmm(query, keys.transpose(1, 2))


class ScaledDotAttention(DotAttention):
    """score = q · m / √H (Vaswani et al., arXiv:1706.03762)."""

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See `ScoredAttention.scores`."""
        return super().scores(query / math.sqrt(query.shape[-1]), keys)


class GeneralAttention(DotAttention):
    """score = q · W m (Luong et al., arXiv:1508.04025)."""

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        size = architecture.hidden_size
        self.project = Linear(size, size, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """See `Attention.keys`."""
        projected: Tensor = self.project(memory)
        return projected


class AdditiveAttention(ScoredAttention):
    """score = v · tanh(W q + U m + b) (Bahdanau et al., arXiv:1409.0473)."""

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        size = architecture.hidden_size
        self.query = Linear(size, size, bias=False)
        self.key = Linear(size, size)
        self.energy = nn.Linear(size, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """See `Attention.keys`."""
        projected: Tensor = self.key(memory)
        return projected

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See `ScoredAttention.scores`."""
        return additive_scores(self.query(query), keys, self.energies())

    def energies(self) -> Tensor:
        """Give v, `(H,)`."""
        return self.energy.weight[0]


class NormalizedAdditiveAttention(AdditiveAttention):
    """score = g v / ‖v‖ · tanh(W q + U m + b), with g of its own to learn.

    The weight normalisation of Salimans & Kingma (arXiv:1602.07868) on Bahdanau's attention, as
    GNMT's public implementations have it; g begins at 1 / √H.
    """

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        self.gain = nn.Parameter(torch.tensor(architecture.hidden_size**-0.5))

    def energies(self) -> Tensor:
        """Give g v / ‖v‖, `(H,)`."""
        energies = super().energies()
        normalized: Tensor = self.gain / torch.linalg.vector_norm(energies) * energies
        return normalized


class LocationAwareAttention(AdditiveAttention):
    """score = v · tanh(W q + U m + V f + b), f = F ∗ the weights of the step before.

    Filters over the neighbours of each source token see where attention was last (Chorowski et al.,
    arXiv:1506.07503).
    """

    FILTERS = 10
    WIDTH = 7  # source tokens, half of them on each side

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        self.filters = nn.Conv1d(1, self.FILTERS, self.WIDTH, padding="same", bias=False)
        self.location = Linear(self.FILTERS, architecture.hidden_size, bias=False)

    @property
    def past_size(self) -> int:
        """See `Attention.past_size`: the weights of the step before come last."""
        return super().past_size + 1

    def recall(self, keys: Tensor, past: Tensor) -> Tensor:
        """See `Attention.recall`."""
        near = self.filters(past[..., -1][:, None]).transpose(1, 2)  # (N, S, filters)
        located: Tensor = super().recall(keys, past) + self.location(near)
        return located

    def remember(self, past: Tensor, weights: Tensor) -> Tensor:
        """See `Attention.remember`."""
        return torch.cat((super().remember(past[..., :-1], weights), weights[..., None]), dim=-1)


class MultiHeadAttention(Attention):
    """Scaled dot product in several subspaces at once (Vaswani et al., arXiv:1706.03762)."""

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        size = architecture.hidden_size
        self.heads = architecture.attention_heads
        self.query = Linear(size, size)
        self.key = Linear(size, size)
        self.value = Linear(size, size)
        self.output = Linear(size, size)

    def keys(self, memory: Tensor) -> Tensor:
        """Keys and values of all heads side by side: `(B, S, 2H)`."""
        return torch.cat((self.key(memory), self.value(memory)), dim=-1)

    def recall(self, keys: Tensor, past: Tensor) -> Tensor:
        """See `Attention.recall`; values stay as they are."""
        key, value = keys.chunk(2, dim=-1)
        return torch.cat((super().recall(key, past), value), dim=-1)

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, source_pad: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """See `Attention.forward`; the weights are the mean over heads."""
        key, value = keys.chunk(2, dim=-1)
        q, k, v = (self._split(x) for x in (self.query(query), key, value))
        scores = self._scores(q, k).masked_fill(source_pad[:, None, None], -math.inf)
        weights = scores.softmax(dim=-1)
        context: Tensor = self.output((weights @ v).transpose(1, 2).flatten(2))
        return context, weights.mean(dim=1)

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Compare `(B, heads, T, H / heads)` with `(B, heads, S, H / heads)`."""
        return query @ keys.transpose(2, 3) / math.sqrt(query.shape[-1])

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, T, H / heads)


class MultiHeadAdditiveAttention(MultiHeadAttention):
    """Bahdanau's score in several subspaces at once (RNMT+, Chen et al., arXiv:1804.09849)."""

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        size = architecture.hidden_size // self.heads
        self.energy = nn.Parameter(torch.empty(self.heads, 1, size))
        nn.init.uniform_(self.energy, -(size**-0.5), size**-0.5)

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        heads = zip(query.unbind(1), keys.unbind(1), self.energy[:, 0], strict=True)
        return torch.stack([additive_scores(*head) for head in heads], dim=1)


def additive_scores(query: Tensor, keys: Tensor, energy: Tensor) -> Tensor:
    """Compute v · tanh(q + k) of each query and key, in float32 at least.

    What is summed, `(B, T, S, H)`, never exists as a whole: it is made a few rows at a time while
    they are in the cache, and once more on the way back.

    Args:
        query: q, `(B, T, H)`.
        keys: k, `(B, S, H)`.
        energy: v, `(H,)`.

    Returns:
        `(B, T, S)`.
    """
    exact = torch.promote_types(query.dtype, torch.float32)  # PyTorch's tanh of bfloat16 is slow
    with torch.autocast(query.device.type, enabled=False):
        inputs = query.to(exact), keys.to(exact), energy.to(exact)
        if torch.is_grad_enabled():
            apply: Callable[..., Tensor] = _AdditiveScores.apply
            return apply(*inputs)
        return _additive_scores(*inputs)


class _AdditiveScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, energy: Tensor) -> Tensor:
        ctx.save_for_backward(query, keys, energy)
        return _additive_scores(query, keys, energy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        query, keys, energy = ctx.saved_tensors
        [d_scores] = grads
        d_query, d_keys = torch.empty_like(query), torch.zeros_like(keys)
        d_energy = torch.zeros_like(energy)
        with torch.autocast(query.device.type, enabled=False):
            for rows, steps in _chunks(query, keys):
                hidden = _hidden(query[rows, steps], keys[rows])
                d = d_scores[rows, steps]
                d_energy += d.reshape(-1) @ hidden.flatten(0, 2)
                # The derivative of tanh, times d; v is the same for all sums.
                d_sums = hidden.square_().neg_().add_(1).mul_(d[..., None])
                d_query[rows, steps] = d_sums.sum(2)
                d_keys[rows] += d_sums.sum(1)
        return d_query * energy, d_keys * energy, d_energy


def _additive_scores(query: Tensor, keys: Tensor, energy: Tensor) -> Tensor:
    column = energy[:, None]  # ONNX Runtime is six times as quick with it as with a vector
    if torch.onnx.is_in_onnx_export():
        cuts = [slice(at, at + _UNITS_OF_GRAPH) for at in range(0, len(energy), _UNITS_OF_GRAPH)]
        parts = [_hidden(query[..., cut], keys[..., cut]) @ column[cut] for cut in cuts]
        return reduce(torch.add, parts).squeeze(-1)
    chunks = list(_chunks(query, keys))
    if len(chunks) == 1:
        return (_hidden(query, keys) @ column).squeeze(-1)
    scores = query.new_empty(*query.shape[:2], keys.shape[1])
    for rows, steps in chunks:
        scores[rows, steps] = (_hidden(query[rows, steps], keys[rows]) @ column).squeeze(-1)
    return scores


def _hidden(query: Tensor, keys: Tensor) -> Tensor:
    return (query[:, :, None] + keys[:, None]).tanh_()


def _chunks(query: Tensor, keys: Tensor) -> Iterator[tuple[slice, slice]]:
    """Cut `(B, T)` into rows, or steps of one row, whose sums `(…, S, H)` are few enough."""
    elements = _CHUNK_ELEMENTS_GPU if query.is_cuda else _CHUNK_ELEMENTS
    pairs = max(1, elements // max(1, keys.shape[1:].numel()))
    steps = min(pairs, max(1, query.shape[1]))
    rows = pairs // steps
    for row in range(0, len(query), rows):
        for step in range(0, query.shape[1], steps):
            yield slice(row, row + rows), slice(step, step + steps)


ATTENTIONS: dict[str, type[Attention]] = {
    "none": NoAttention,
    "dot": DotAttention,
    "scaled-dot": ScaledDotAttention,
    "general": GeneralAttention,
    "additive": AdditiveAttention,
    "normalized-additive": NormalizedAdditiveAttention,
    "location-aware": LocationAwareAttention,
    "multi-head": MultiHeadAttention,
    "multi-head-additive": MultiHeadAdditiveAttention,
}
"""Every kind by its name in a recipe."""


def make_attention(architecture: Architecture) -> Attention:
    """Build the attention that `architecture.attention` names."""
    return ATTENTIONS[architecture.attention](architecture)
