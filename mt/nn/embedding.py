"""Token embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from mt.nn.dropout import Dropout, Vectors


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
