"""Token embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import PackedSequence

from mt.nn.dropout import Dropout, Vectors

_PRIME, _BASE = 2**31 - 1, 1_000_000_007
"""Of the hash of n-grams: products of two smaller than the prime stay within 64 bits."""


class Embedding(nn.Embedding):
    """A table of token vectors with word dropout and unit dropout.

    The table may also serve as the output layer's weights, so its values have the variance
    1 / embedding_size that keeps logits near one; the vectors read from it are scaled back up to
    unit variance by sqrt(embedding_size) (Vaswani et al., arXiv:1706.03762, section 3.4).
    """

    def __init__(self, vocabulary: int, size: int, dropout: Dropout, word_dropout: float):
        super().__init__(vocabulary, size)
        self.scale = size**0.5
        self.dropout = dropout
        self.word_dropout = word_dropout

    def reset_parameters(self) -> None:
        """Draw first values, of variance 1 / embedding_size."""
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def forward(self, tokens: Vectors) -> Vectors:
        """Look tokens `(B, T)`, or packed ones, up: vectors `(B, T, E)`, or packed."""
        if isinstance(tokens, PackedSequence):
            vectors: Vectors = self.dropout(tokens._replace(data=self.look_up(tokens.data)))
        else:
            vectors = self.dropout(self.look_up(tokens))
        return vectors

    def look_up(self, tokens: Tensor) -> Tensor:
        """Look tokens `(…)` up, with word dropout alone: vectors `(…, E)`."""
        vectors: Tensor = super().forward(tokens) * self.scale
        if self.training and self.word_dropout > 0:
            keep = torch.rand(tokens.shape, device=tokens.device) >= self.word_dropout
            vectors = vectors * keep[..., None]
        return vectors


class NgramEmbedding(Embedding):
    """A table of vectors of tokens and of n-grams: a position has the sum of its own.

    At position t that is the token x_t, and each n-gram x_{t-n+1} … x_t of 2 to `longest` tokens,
    with padding for what would stand before the beginning. All n-grams share `buckets` rows, found
    by a hash (Bojanowski et al., arXiv:1607.04606, section 3.2; of bytes before a recurrent or
    other network: Pagnoni et al., arXiv:2412.09871, section 3.2.1). Rows of n-grams begin at zero,
    so that the network begins as one of tokens.
    """

    def __init__(
        self,
        vocabulary: int,
        size: int,
        dropout: Dropout,
        word_dropout: float,
        longest: int,
        buckets: int,
    ):
        self.vocabulary, self.longest, self.buckets = vocabulary, longest, buckets
        rows = vocabulary + (buckets if longest > 1 else 0)
        super().__init__(rows, size, dropout, word_dropout)

    def reset_parameters(self) -> None:
        """Draw first values of tokens, of variance 1 / embedding_size."""
        super().reset_parameters()
        nn.init.zeros_(self.weight.data[self.vocabulary :])

    def rows(self, tokens: Tensor) -> Tensor:
        """Find the rows of tokens `(B, T)` and of the n-grams that end there: `(B, T, longest)`.

        The hash of x_{t-n+1} … x_t is Σ_j (x_{t-j} + 1) · A^j modulo the prime 2^31 - 1 (Karp &
        Rabin 1987), and once more modulo the number of buckets.
        """
        hashed, found = tokens + 1, [tokens]
        for back in range(1, self.longest):
            before = pad(tokens, (back, 0))[:, : tokens.shape[1]] + 1
            hashed = (hashed + before * pow(_BASE, back, _PRIME)) % _PRIME
            found.append(self.vocabulary + hashed % self.buckets)
        return torch.stack(found, dim=-1)

    def look_up(self, tokens: Tensor) -> Tensor:
        """Add up rows `(…, longest)`, with word dropout of each: vectors `(…, E)`."""
        return super().look_up(tokens).sum(-2)
