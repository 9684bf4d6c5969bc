"""The encoder: source tokens to a memory that attention reads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mt.nn.architecture import Architecture
from mt.nn.embedding import Embedding
from mt.nn.recurrent import BidirectionalStack


class Memory(NamedTuple):
    """What the encoder knows of a batch of sentences."""

    states: Tensor
    """`(B, S, H)`: a vector for each source token."""
    source_pad: Tensor
    """`(B, S)`, True at padding."""
    summary: Tensor
    """`(B, 2H)`: the final hidden states of both directions."""


class Encoder(nn.Module):
    """Embedding, bidirectional LSTM layers, and a projection of both directions to H units."""

    def __init__(self, architecture: Architecture, embedding: Embedding):
        super().__init__()
        hidden_size = architecture.hidden_size
        self.embedding = embedding
        self.stack = BidirectionalStack(
            architecture.embedding_size,
            hidden_size,
            architecture.encoder_layers,
            architecture.residual,
            architecture.layer_dropout,
        )
        self.project = nn.Linear(2 * hidden_size, hidden_size, bias=False)

    def forward(self, source: Tensor, source_lengths: Tensor) -> Memory:
        """Encode.

        Args:
            source: Token ids `(B, S)`, padded at the end.
            source_lengths: `(B,)` on the CPU, each from 1 to S.
        """
        tokens = pack_padded_sequence(
            source, source_lengths, batch_first=True, enforce_sorted=False
        )
        packed, summary, _ = self.stack(tokens._replace(data=self.embedding(tokens.data)))
        # Projected while still packed: padding costs nothing. Without dropout, which would blur the
        # scores of the attention; `context_dropout` and `output_dropout` act on what it reads.
        packed = packed._replace(data=self.project(packed.data))
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=source.shape[1])
        positions = torch.arange(source.shape[1], device=source.device)
        source_pad = positions >= source_lengths.to(source.device)[:, None]
        return Memory(states, source_pad, summary)
