"""A recurrent language model: tokens to the vectors that predict the next ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mt.nn.architecture import LanguageModelArchitecture
from mt.nn.dropout import Dropout
from mt.nn.embedding import Embedding
from mt.nn.linear import Linear
from mt.nn.recurrent import StackState, make_stack


class ForcedStep(NamedTuple):
    """One step of N rows."""

    logits: Tensor
    """`(N, V)`: unnormalised log-probabilities of the next token."""
    state: StackState


class LanguageNetwork(nn.Module):
    """Embedding, recurrent layers and an output layer.

    Args:
        architecture: Its size.
        vocabulary: Number of tokens.
        initialize: Draw good first weights, which takes time; of no use where stored ones follow.
    """

    def __init__(
        self, architecture: LanguageModelArchitecture, vocabulary: int, initialize: bool = True
    ):
        super().__init__()
        self.architecture = architecture
        size, hidden_size = architecture.embedding_size, architecture.hidden_size
        locked = architecture.locked_dropout
        self.embedding = Embedding(
            vocabulary,
            size,
            Dropout(architecture.embedding_dropout, locked),
            architecture.word_dropout,
        )
        self.stack = make_stack(
            architecture.cell,
            size,
            hidden_size,
            architecture.layers,
            architecture.residual_from,
            Dropout(architecture.layer_dropout, locked),
            weight_drop=architecture.weight_drop,
        )
        self.output_dropout = Dropout(architecture.output_dropout, locked)
        self.combine = Linear(hidden_size, size)
        self.output = nn.Linear(size, vocabulary)
        self.tie_weights()
        if initialize:
            self.stack.reset_parameters()
            if not architecture.tie_embeddings:
                nn.init.normal_(self.output.weight, std=size**-0.5)
            nn.init.zeros_(self.output.bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the state."""
        return self.combine.weight.dtype

    def tie_weights(self) -> None:
        """Make tied weights one parameter again, after each was given a value of its own."""
        if self.architecture.tie_embeddings:
            self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor, state: StackState | None = None) -> tuple[Tensor, StackState]:
        """Read rows of tokens.

        Args:
            tokens: Ids `(B, T)`, padded at the end, which no other position sees.
            state: From before; none where rows begin.

        Returns:
            The vectors `(B, T, E)` that the output layer turns into logits of the next token, and
            the state after the last position.
        """
        states, after = self.stack(self.embedding(tokens), state)
        return self.combine(self.output_dropout(states)), after

    def step(self, tokens: Tensor, state: StackState | None) -> ForcedStep:
        """Read one token of each row.

        Args:
            tokens: Ids `(N,)`.
            state: From before; none where rows begin.
        """
        states, after = self.stack.step(self.embedding.look_up(tokens), state)
        return ForcedStep(self.output(self.combine(states)), after)


def forced(
    model: LanguageNetwork,
    inputs: Tensor,
    outputs: Tensor,
    state: StackState | None,
    device: torch.device,
) -> tuple[Tensor, StackState]:
    """Tell how likely given tokens are.

    Args:
        model: The network, on `device`.
        inputs: Ids `(B, T)` that are read, padded at the end.
        outputs: Ids `(B, T)` of what follows each; 0 is padding.
        state: From before; none where rows begin.
        device: Where to compute.

    Returns:
        The natural logarithm of the probability of each output, `(B, T)` in float64, 0 of padding,
        and the state after the last position.
    """
    outputs = outputs.to(device)
    vectors, after = model(inputs.to(device), state)
    real = outputs != 0
    logits = model.output(vectors[real])
    wide = logits if logits.dtype == torch.float64 else logits.float()
    values = torch.zeros(outputs.shape, dtype=torch.float64, device=device)
    values[real] = -cross_entropy(wide, outputs[real], reduction="none").double()
    return values, after


def detach(state: StackState) -> StackState:
    """Cut a state off from what led to it: where back-propagation through time is truncated."""
    return [tuple(tensor.detach() for tensor in layer) for layer in state]
