"""Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates by Gers et al. 2000).

For an input x_t and the previous state (h, c), with σ the logistic function:

    i, f, o = σ(W x_t + U h + b)      input, forget and output gate
    g       = tanh(W x_t + U h + b)   candidate
    c_t     = f * c + i * g
    h_t     = o * tanh(c_t)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def initialize_lstm(lstm: nn.LSTM) -> None:
    """Set the weights as trained networks like them: orthogonal recurrence, open forget gates.

    Input matrices get Glorot's uniform values gate by gate, recurrent matrices are orthogonal gate
    by gate (Saxe et al., arXiv:1312.6120), and biases are zero but for the forget gate's, which is
    one (Jozefowicz et al. 2015), so that memories last from the first step on.
    """
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            if name.startswith("weight_ih"):
                for gate in parameter.chunk(4):
                    nn.init.xavier_uniform_(gate)
            elif name.startswith("weight_hh"):
                for gate in parameter.chunk(4):
                    nn.init.orthogonal_(gate)
            else:
                parameter.zero_()
                if name.startswith("bias_ih"):  # gates stand in the order i, f, g, o
                    parameter.chunk(4)[1].fill_(1.0)


def lstm_step(lstm: nn.LSTM, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Advance a one-layer, one-direction LSTM by one time step.

    A fused sequence call re-packs its weights each time, which would dominate a single step.

    Args:
        lstm: The layer.
        inputs: `(N, I)`.
        hidden: `(N, H)`.
        cell: `(N, H)`.

    Returns:
        The new hidden and cell state, each `(N, H)`.
    """
    [[weight_ih, weight_hh, bias_ih, bias_hh]] = lstm.all_weights
    return torch.lstm_cell(inputs, (hidden, cell), weight_ih, weight_hh, bias_ih, bias_hh)


class BidirectionalStack(nn.Module):
    """Layers of bidirectional LSTMs over packed sequences, with dropout and residuals between.

    Sequences are packed, so padding costs nothing and the backward direction starts at each
    sentence's own end.
    """

    def __init__(
        self, input_size: int, hidden_size: int, layers: int, residual: bool, dropout: float
    ):
        super().__init__()
        self.residual = residual
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.LSTM(input_size if layer == 0 else 2 * hidden_size, hidden_size, bidirectional=True)
            for layer in range(layers)
        )

    def forward(self, inputs: PackedSequence) -> tuple[PackedSequence, Tensor, Tensor]:
        """Run every layer.

        Args:
            inputs: Packed vectors of `input_size`.

        Returns:
            The top layer's packed states of `2 * hidden_size`, and its final hidden and cell
            states, each `(B, 2 * hidden_size)`: the forward direction's at the last token beside
            the backward direction's at the first.
        """
        packed, hidden, cell = inputs, torch.empty(0), torch.empty(0)
        for number, lstm in enumerate(self.layers):
            below = packed
            if number > 0:
                below = packed._replace(data=self.dropout(packed.data))
            packed, (hidden, cell) = lstm(below)
            if self.residual and number > 0:
                packed = packed._replace(data=packed.data + below.data)
        return packed, _join_directions(hidden), _join_directions(cell)


def _join_directions(final: Tensor) -> Tensor:
    return final.transpose(0, 1).flatten(1)  # (2, B, H) -> (B, 2H)
