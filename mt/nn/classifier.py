"""A recurrent text classifier: tokens to the scores of classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mt.nn.architecture import ClassifierArchitecture
from mt.nn.dropout import Dropout
from mt.nn.embedding import NgramEmbedding
from mt.nn.linear import Linear
from mt.nn.recurrent import make_stack


class AttentionPooling(nn.Module):
    """A mean of vectors, weighted by how they answer a learned query.

    u_t = tanh(W h_t + b), α = softmax_t(u_t · q), s = Σ_t α_t h_t (Yang et al., "Hierarchical
    Attention Networks for Document Classification", N16-1174, equations 5 to 7).
    """

    def __init__(self, size: int):
        super().__init__()
        self.project = Linear(size, size)
        self.query = nn.Parameter(torch.empty(size))
        nn.init.normal_(self.query, std=size**-0.5)

    def forward(self, vectors: Tensor, pad: Tensor) -> Tensor:
        """Pool `(B, T, D)` to `(B, D)`; `pad` `(B, T)` is True at padding."""
        scores = torch.tanh(self.project(vectors)) @ self.query
        weights = scores.masked_fill(pad, -torch.inf).softmax(1)
        return (weights[..., None] * vectors).sum(1)


class ClassifierNetwork(nn.Module):
    """Embedding, recurrent layers, pooling over the text, and an output layer.

    Sequences are packed, so the backward direction starts at each text's own end, and what stands
    beside a text in its batch never matters.

    Args:
        architecture: Its size.
        vocabulary: Number of tokens.
        classes: Number of classes.
        initialize: Draw good first weights, which takes time; of no use where stored ones follow.
    """

    def __init__(
        self,
        architecture: ClassifierArchitecture,
        vocabulary: int,
        classes: int,
        initialize: bool = True,
    ):
        super().__init__()
        self.architecture = architecture
        locked = architecture.locked_dropout
        outputs = architecture.hidden_size * (2 if architecture.bidirectional else 1)
        self.embedding = NgramEmbedding(
            vocabulary,
            architecture.embedding_size,
            Dropout(architecture.embedding_dropout, locked),
            architecture.word_dropout,
            architecture.ngrams,
            architecture.ngram_buckets,
        )
        self.stack = make_stack(
            architecture.cell,
            architecture.embedding_size,
            architecture.hidden_size,
            architecture.layers,
            architecture.residual_from,
            Dropout(architecture.layer_dropout, locked),
            architecture.bidirectional,
        )
        self.attention = AttentionPooling(outputs) if architecture.pooling == "attention" else None
        self.output_dropout = Dropout(architecture.output_dropout)
        self.output = nn.Linear(outputs, classes)
        if initialize:
            self.stack.reset_parameters()

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Score the classes of texts.

        Args:
            tokens: Ids `(B, T)`, padded at the end.
            lengths: `(B,)` on the CPU, each from 1 to T.

        Returns:
            Unnormalised log-probabilities `(B, C)`.
        """
        rows = self.embedding.rows(tokens)
        packed = pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
        packed, _ = self.stack(self.embedding(packed))
        vectors, _ = pad_packed_sequence(packed, batch_first=True, total_length=tokens.shape[1])
        pooled = self._pool(vectors, lengths.to(tokens.device))
        logits: Tensor = self.output(self.output_dropout(pooled))
        return logits

    def _pool(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Make one vector `(B, D)` of those `(B, T, D)` of each text."""
        pad = torch.arange(vectors.shape[1], device=vectors.device) >= lengths[:, None]
        match self.architecture.pooling:
            case "mean":  # padded vectors are zero
                return vectors.sum(1) / lengths[:, None].to(vectors.dtype)
            case "max":
                return vectors.masked_fill(pad[..., None], -torch.inf).amax(1)
            case "attention":
                assert self.attention is not None
                pooled: Tensor = self.attention(vectors, pad)
                return pooled
        rows = torch.arange(len(vectors), device=vectors.device)
        last = vectors[rows, lengths - 1]
        if not self.architecture.bidirectional:
            return last
        half = self.architecture.hidden_size  # the backward direction ends at the beginning
        return torch.cat((last[:, :half], vectors[:, 0, half:]), dim=1)
