"""Recurrent cells: what one time step does to a state, equation by equation.

x is the input, h the hidden state of the step before, σ the logistic function, * the product of
units. W act on the input, U on the state. Where a kernel of PyTorch runs whole sequences,
`mt.nn.recurrent` uses it with the same weights; the equations here then serve single steps of deep
transitions, and the proof that both agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

State = tuple[Tensor, ...]
"""What a layer carries from step to step: tensors `(…, H)`; the cell decides how many."""


class Cell(nn.Module, ABC):
    """Any cell.

    Args:
        input_size: Units of an input; 0 for a cell that lives on its state alone.
        hidden_size: Units of the output and of each tensor of the state.
    """

    states: ClassVar[int] = 1
    """Tensors of a state."""
    gates: ClassVar[int] = 1
    """Rows of the weight matrices, in units of `hidden_size`."""
    recurrent: ClassVar[bool] = True
    """Whether there are weights U at all."""
    biased: ClassVar[bool] = True
    """Whether there are biases."""
    keeping: ClassVar[int | None] = None
    """Which gate, among the blocks of rows, keeps the past."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        rows = self.gates * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden_size)) if self.recurrent else None
        self.bias_ih = nn.Parameter(torch.empty(rows)) if self.biased else None
        self.bias_hh = nn.Parameter(torch.empty(rows)) if self.recurrent and self.biased else None
        for parameter in self.parameters():  # as PyTorch does; `reset_parameters` is better
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)

    def reset_parameters(self) -> None:
        """Draw first weights; see `initialize`."""
        initialize(self, type(self))

    def project(self, inputs: Tensor) -> Tensor:
        """Give what the step owes to its input, W x + b: `(…, I)` to `(…, gates * H)`."""
        return linear(inputs, self.weight_ih, self.bias_ih)

    @abstractmethod
    def advance(self, projected: Tensor, state: State) -> State:
        """Compute the next state of N rows from `project`'s result and the state before."""

    def output(self, state: State) -> Tensor:
        """Give what a state shows to the layers above: `(N, H)`."""
        return state[0]

    def _recur(self, hidden: Tensor) -> Tensor:
        assert self.weight_hh is not None
        return linear(hidden, self.weight_hh, self.bias_hh)


class Elman(Cell):
    """h_t = φ(W x_t + U h + b) (Elman 1990), φ one of tanh, σ and ReLU."""

    activation: ClassVar[Callable[[Tensor], Tensor]]

    def advance(self, projected: Tensor, state: State) -> State:
        """See `Cell.advance`."""
        return (type(self).activation(projected + self._recur(state[0])),)


class ElmanTanh(Elman):
    """Elman's network with tanh."""

    activation = torch.tanh


class ElmanSigmoid(Elman):
    """Elman's network with the logistic function, as in the original."""

    activation = torch.sigmoid

    def reset_parameters(self) -> None:
        """Begin as an Elman network with tanh: its state is 2 h - 1, so from h = ½ where it has 0.

        For σ(2x) = (1 + tanh x) / 2. With weights as small as those of tanh, which is four times as
        steep, each step back would leave a quarter of a gradient at most.
        """
        super().reset_parameters()
        assert self.weight_hh is not None
        assert self.bias_hh is not None
        with torch.no_grad():
            self.weight_ih.mul_(2)
            self.weight_hh.mul_(4)
            self.bias_hh.copy_(-self.weight_hh.sum(dim=1) / 2)


class ElmanReLU(Elman):
    """Elman's network with the rectifier."""

    activation = torch.relu


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gates by Gers et al. 2000).

    i, f, o = σ(W x_t + U h + b)      input, forget and output gate
    g       = tanh(W x_t + U h + b)   candidate
    c_t     = f * c + i * g
    h_t     = o * tanh(c_t)
    """

    states = 2
    gates = 4
    keeping = 1

    def advance(self, projected: Tensor, state: State) -> State:
        """See `Cell.advance`."""
        hidden, cell = state
        i, f, g, o = self._gates(projected + self._recur(hidden))
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    def _gates(self, sums: Tensor) -> tuple[Tensor, ...]:
        return sums.chunk(4, dim=-1)


class LayerNormLSTM(LSTM):
    """An LSTM whose gates' sums are normalised, each gate by itself.

    Each of i, f, g, o is N(W x_t + U h) before its σ or tanh, with N(v) = γ * (v - mean) / std + β
    over the units of the gate (Ba et al., arXiv:1607.06450, gate by gate as in RNMT+, Chen et al.,
    arXiv:1804.09849).
    """

    biased = False

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        norms = [nn.LayerNorm(hidden_size) for _ in range(4)]
        nn.init.ones_(norms[1].bias)  # the forget gate; see `initialize`
        self.norms = nn.ModuleList(norms)

    def _gates(self, sums: Tensor) -> tuple[Tensor, ...]:
        parts = sums.chunk(4, dim=-1)
        return tuple(norm(part) for norm, part in zip(self.norms, parts, strict=True))


class GRU(Cell):
    """Gated recurrent unit (Cho et al., arXiv:1406.1078v1): the reset gate after the product by U.

    r, z = σ(W x_t + b + U h + b')               reset and update gate
    n    = tanh(W x_t + b + r * (U h + b'))      candidate
    h_t  = (1 - z) * n + z * h

    This is the variant of PyTorch and cuDNN; the paper as published, arXiv:1406.1078v3, has
    U (r * h) in the candidate.
    """

    gates = 3
    keeping = 1

    def advance(self, projected: Tensor, state: State) -> State:
        """See `Cell.advance`."""
        (hidden,) = state
        reset, update, candidate = projected.chunk(3, dim=-1)
        u_reset, u_update, u_candidate = self._recur(hidden).chunk(3, dim=-1)
        new = torch.tanh(candidate + torch.sigmoid(reset + u_reset) * u_candidate)
        return (new + torch.sigmoid(update + u_update) * (hidden - new),)


class SSRU(Cell):
    """Simpler simple recurrent unit (Kim et al. 2019, "From Research to Production and Back").

    f   = σ(W x_t + b)                forget gate
    c_t = f * c + (1 - f) * (W' x_t + b')
    h_t = ReLU(c_t)

    The paper has no b'. No matrix acts on the state, so a step costs almost nothing beside the
    products with the input.
    """

    gates = 2
    recurrent = False
    keeping = 0

    def advance(self, projected: Tensor, state: State) -> State:
        """See `Cell.advance`."""
        forget, new = projected.chunk(2, dim=-1)
        return (new + torch.sigmoid(forget) * (state[0] - new),)

    def output(self, state: State) -> Tensor:
        """See `Cell.output`."""
        return torch.relu(state[0])


CELLS: dict[str, type[Cell]] = {
    "elman-tanh": ElmanTanh,
    "elman-sigmoid": ElmanSigmoid,
    "elman-relu": ElmanReLU,
    "gru": GRU,
    "lstm": LSTM,
    "layer-norm-lstm": LayerNormLSTM,
    "ssru": SSRU,
}
"""Every cell by its name in a recipe."""


def initialize(module: nn.Module, cell: type[Cell]) -> None:
    """Set the weights of a cell or kernel as trained networks like them.

    Input matrices get Glorot's uniform values gate by gate, recurrent matrices are orthogonal gate
    by gate (Saxe et al., arXiv:1312.6120), and biases are zero but for that of the gate which keeps
    the past (an LSTM's forget gate, a GRU's update gate), which is one, so that memories last from
    the first step on (Jozefowicz et al. 2015).

    Args:
        module: Has parameters called `weight_ih…`, `weight_hh…`, `bias_ih…` and `bias_hh…`.
        cell: What they belong to.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith("weight") and parameter.numel():
                draw = nn.init.xavier_uniform_ if "_ih" in name else nn.init.orthogonal_
                for gate in parameter.chunk(cell.gates):
                    draw(gate)
            elif name.startswith("bias"):
                parameter.zero_()
                if cell.keeping is not None and name.startswith("bias_ih"):
                    parameter.chunk(cell.gates)[cell.keeping].fill_(1.0)
