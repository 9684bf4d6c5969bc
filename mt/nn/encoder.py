"""The encoder: source tokens to a memory that attention reads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mt.nn.architecture import Architecture
from mt.nn.cells import State
from mt.nn.dropout import Dropout
from mt.nn.embedding import Embedding
from mt.nn.linear import Linear
from mt.nn.recurrent import make_stack


class Memory(NamedTuple):
    """What the encoder knows of a batch of sentences."""

    states: Tensor
    """`(B, S, H)`: a vector for each source token; as wide as the layers' outputs, and read by no
    one, where there is neither attention nor a bridge over their mean."""
    source_pad: Tensor
    """`(B, S)`, True at padding."""
    final: State
    """The top layer's state after its last step in each direction, tensors `(B, directions, H)`."""


class Encoder(nn.Module):
    """Embedding, recurrent layers, and a projection of both directions to H units.

    Sequences are packed, so padding costs nothing and the backward direction starts at each
    sentence's own end.
    """

    def __init__(self, architecture: Architecture, embedding: Embedding):
        super().__init__()
        hidden_size, two_way = architecture.hidden_size, architecture.bidirectional
        outputs = hidden_size * (2 if two_way else 1)
        self.embedding = embedding
        self.stack = make_stack(
            architecture.encoder_cell,
            architecture.embedding_size,
            hidden_size,
            architecture.encoder_layers,
            architecture.residual_from,
            Dropout(architecture.layer_dropout, architecture.locked_dropout),
            two_way,
            architecture.encoder_transition_depth,
        )
        read = architecture.attention != "none" or architecture.bridge == "mean"
        self.project = Linear(outputs, hidden_size, bias=False) if read else nn.Identity()

    def forward(self, source: Tensor, source_lengths: Tensor) -> Memory:
        """Encode.

        Args:
            source: Token ids `(B, S)`, padded at the end.
            source_lengths: `(B,)` on the CPU, each from 1 to S.
        """
        tokens = pack_padded_sequence(
            source, source_lengths, batch_first=True, enforce_sorted=False
        )
        packed, finals = self.stack(self.embedding(tokens))
        # Projected while still packed: padding costs nothing. Without dropout, which would blur the
        # scores of the attention; `context_dropout` and `output_dropout` act on what it reads.
        packed = packed._replace(data=self.project(packed.data))
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=source.shape[1])
        positions = torch.arange(source.shape[1], device=source.device)
        source_pad = positions >= source_lengths.to(source.device)[:, None]
        return Memory(states, source_pad, tuple(tensor.transpose(0, 1) for tensor in finals[-1]))
