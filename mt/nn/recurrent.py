"""Recurrent layers: cells over whole sequences, in one direction or both, one upon another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import PackedSequence

from mt.nn.cells import CELLS, Cell, State, initialize
from mt.nn.dropout import Dropout, Vectors, drop
from mt.nn.linear import compiles

StackState = list[State]
"""The states of layers, from the bottom up."""
_Step = Callable[..., Any]
_KERNELS: dict[str, tuple[Callable[..., nn.RNNBase], _Step, _Step]] = {
    "elman-tanh": (nn.RNN, torch.rnn_tanh, torch.rnn_tanh_cell),
    "elman-relu": (partial(nn.RNN, nonlinearity="relu"), torch.rnn_relu, torch.rnn_relu_cell),
    "gru": (nn.GRU, torch.gru, torch.gru_cell),
    "lstm": (nn.LSTM, torch.lstm, torch.lstm_cell),
}
"""Cells that PyTorch (cuDNN, oneDNN) runs over whole sequences: as a module, as a function, and
its single step of each."""

RUN_STEPS = 4
"""Steps of a run, on average, that make one call of an LSTM for each run pay."""
RUN_ROWS = 16
"""Rows of a run are a multiple of this in bfloat16, where oneDNN takes some other numbers (82, 109)
three times as long."""


def _runs(inputs: PackedSequence) -> list[tuple[int, int]]:
    """Count the steps, and the sequences, of each stretch in which the same ones are present."""
    rows, steps = torch.unique_consecutive(inputs.batch_sizes, return_counts=True)
    return list(zip(steps.tolist(), rows.tolist(), strict=True))


class RecurrentLayer(nn.Module, ABC):
    """One layer over sequences, in one direction or both.

    Args:
        cell: Name of the cell.
        hidden_size: Units of a state in each direction.
        bidirectional: Run backwards too; both directions' outputs stand side by side.
    """

    def __init__(self, cell: str, hidden_size: int, bidirectional: bool):
        super().__init__()
        self.hidden_size = hidden_size
        self.states = CELLS[cell].states
        self.directions = 2 if bidirectional else 1

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw first weights; see `initialize`."""

    @abstractmethod
    def forward(self, inputs: Vectors, first: State | None = None) -> tuple[Vectors, State]:
        """Run over sequences.

        Args:
            inputs: `(B, T, I)`, or packed.
            first: The state before the first step, tensors `(directions, B, H)`; zero without.

        Returns:
            The outputs, `(B, T, directions * H)` or packed, and the state after the last step of
            each direction, tensors `(directions, B, H)`.
        """

    def _forward_packed(
        self, inputs: PackedSequence, runs: list[tuple[int, int]], first: State | None
    ) -> tuple[PackedSequence, State]:
        """Run over packed sequences, direction by direction and run by run; see `_runs`."""
        data = inputs.data
        parts = [
            part.view(steps, rows, -1)
            for part, (steps, rows) in zip(
                torch.split(data, [steps * rows for steps, rows in runs]), runs, strict=True
            )
        ]
        if first is None:
            first = (data.new_zeros(self.directions, runs[0][1], self.hidden_size),) * self.states
        elif inputs.sorted_indices is not None:
            first = tuple(tensor[:, inputs.sorted_indices] for tensor in first)
        outputs, finals = [], []
        for direction in range(self.directions):
            state = tuple(tensor[direction] for tensor in first)
            found = []
            for part in reversed(parts) if direction else parts:
                # Forward, a sequence that has ended keeps its state; backward, it has not begun.
                rows = part.shape[1]
                output, new = self._run(direction, part, tuple(t[:rows] for t in state))
                found.append(output.flatten(0, 1))
                if rows < len(state[0]):
                    new = tuple(torch.cat((a, b[rows:])) for a, b in zip(new, state, strict=True))
                state = new
            outputs.append(torch.cat(found[::-1] if direction else found))
            finals.append(state)
        final = tuple(map(torch.stack, zip(*finals, strict=True)))
        if inputs.unsorted_indices is not None:
            final = tuple(tensor[:, inputs.unsorted_indices] for tensor in final)
        return inputs._replace(data=torch.cat(outputs, dim=-1)), final

    @abstractmethod
    def _run(self, direction: int, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Run in one direction, 1 for backward, over inputs `(T, N, I)` from a state `(N, H)`; the
        outputs `(T, N, H)` stand in the order of the inputs."""

    @abstractmethod
    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance N rows of a layer of one direction by one time step.

        Args:
            inputs: `(N, I)`.
            state: Tensors `(N, H)`.

        Returns:
            The output `(N, H)` and the new state.
        """


class KernelLayer(RecurrentLayer):
    """A layer that PyTorch runs in one call.

    Args:
        cell: One of `KERNELS`.
        input_size: Units of an input.
        hidden_size: Units of a state in each direction.
        bidirectional: Run backwards too.
        weight_drop: Probability of dropping, in training, a weight on the state: the same ones at
            every step of a call (DropConnect, Merity et al., arXiv:1708.02182).
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        bidirectional: bool,
        weight_drop: float = 0.0,
    ):
        super().__init__(cell, hidden_size, bidirectional)
        make, self._call, self._step = _KERNELS[cell]
        self.kernel = make(input_size, hidden_size, batch_first=True, bidirectional=bidirectional)
        self.cell = CELLS[cell]
        self.weight_drop = weight_drop

    def reset_parameters(self) -> None:
        """See `RecurrentLayer.reset_parameters`."""
        initialize(self.kernel, self.cell)

    def forward(self, inputs: Vectors, first: State | None = None) -> tuple[Vectors, State]:
        """See `RecurrentLayer.forward`."""
        if isinstance(inputs, PackedSequence) and self._can_run(inputs):
            runs = _runs(inputs)
            if RUN_STEPS * len(runs) <= len(inputs.batch_sizes):
                return self._forward_packed(inputs, runs, first)
        given: Any = None
        if first is not None:
            first = tuple(tensor.contiguous() for tensor in first)
            given = first if self.states > 1 else first[0]
        if self.weight_drop and self.training:
            return self._forward_dropped(inputs, first)
        outputs, final = self.kernel(inputs, given)
        return outputs, final if self.states > 1 else (final,)

    def _forward_dropped(self, inputs: Vectors, first: State | None) -> tuple[Vectors, State]:
        """Do the same with some of the weights on the state dropped."""
        if isinstance(inputs, PackedSequence):
            raise TypeError("weight_drop knows sequences of one length only")
        if first is None:
            shape = self.directions, len(inputs), self.hidden_size
            first = (inputs.new_zeros(shape),) * self.states
        weights = [
            drop(weight, self.weight_drop) if name.startswith("weight_hh") else weight
            for name, weight in self.kernel.named_parameters()
        ]
        outputs, *final = self._call(
            inputs,
            list(first) if self.states > 1 else first[0],
            weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=True,
            bidirectional=self.directions > 1,
            batch_first=True,
        )
        return outputs, tuple(final)

    def _can_run(self, inputs: PackedSequence) -> bool:
        """Tell whether runs may be the faster.

        On the CPU, PyTorch takes packed sequences of several lengths through an LSTM step by step,
        but sequences of one length through oneDNN's kernel, which re-packs the weights for each
        call and so needs runs of some steps.
        """
        return isinstance(self.kernel, nn.LSTM) and inputs.data.device.type == "cpu"

    def _run(self, direction: int, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """See `RecurrentLayer._run`."""
        rows = inputs.shape[1]
        if compiles(inputs) and rows % RUN_ROWS:
            more = (0, 0, 0, -rows % RUN_ROWS)
            inputs, state = pad(inputs, more), tuple(pad(tensor, more) for tensor in state)
        outputs, *after = torch.lstm(
            inputs.flip(0) if direction else inputs,
            [tensor[None] for tensor in state],
            list[Tensor](self.kernel.all_weights[direction]),
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=self.training,
            bidirectional=False,
            batch_first=False,
        )
        if direction:
            outputs = outputs.flip(0)
        return outputs[:, :rows], tuple(tensor[0, :rows] for tensor in after)

    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """See `RecurrentLayer.step`.

        A call of the kernel re-packs its weights each time, which would dominate a single step.
        """
        [weights] = self.kernel.all_weights
        if self.states > 1:
            state = self._step(inputs, state, *weights)
        else:
            state = (self._step(inputs, state[0], *weights),)
        return state[0], state


class UnrolledLayer(RecurrentLayer):
    """A layer that is run step by step, with one cell a step or several in a row.

    With several, the first takes the input, and the others carry its state on, each with weights of
    its own: the deep transition of Pascanu et al. (arXiv:1312.6026), which in both directions of an
    encoder and in its decoder makes the BiDeep network (Miceli Barone et al., arXiv:1707.07631).
    """

    def __init__(
        self, cell: str, input_size: int, hidden_size: int, bidirectional: bool, depth: int
    ):
        super().__init__(cell, hidden_size, bidirectional)
        self.cells = nn.ModuleList(
            CELLS[cell](input_size if number == 0 else 0, hidden_size)
            for _ in range(self.directions)
            for number in range(depth)
        )
        """Those of the backward direction follow those of the forward one."""
        self.depth = depth

    def reset_parameters(self) -> None:
        """See `RecurrentLayer.reset_parameters`."""
        for direction in range(self.directions):
            for cell in self._cells(direction):
                cell.reset_parameters()

    def _cells(self, direction: int) -> list[Cell]:
        cells = list(self.cells)[direction * self.depth : (direction + 1) * self.depth]
        return cast("list[Cell]", cells)

    def forward(self, inputs: Vectors, first: State | None = None) -> tuple[Vectors, State]:
        """See `RecurrentLayer.forward`."""
        if isinstance(inputs, PackedSequence):
            return self._forward_packed(inputs, _runs(inputs), first)
        sentences, steps, _ = inputs.shape
        time_major = inputs.transpose(0, 1).flatten(0, 1)
        packed = PackedSequence(time_major, torch.full((steps,), sentences))
        outputs, final = self._forward_packed(packed, [(steps, sentences)], first)
        return outputs.data.view(steps, sentences, -1).transpose(0, 1), final

    def _run(self, direction: int, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """See `RecurrentLayer._run`."""
        cells = self._cells(direction)
        steps = cells[0].project(inputs).unbind(0)
        outputs = []
        for projected in reversed(steps) if direction else steps:
            state = self._advance(cells, projected, state)
            outputs.append(cells[0].output(state))
        return torch.stack(outputs[::-1] if direction else outputs), state

    @staticmethod
    def _advance(cells: list[Cell], projected: Tensor, state: State) -> State:
        state = cells[0].advance(projected, state)
        for cell in cells[1:]:
            state = cell.advance(cell.project(state[0][:, :0]), state)
        return state

    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """See `RecurrentLayer.step`."""
        cells = self._cells(0)
        state = self._advance(cells, cells[0].project(inputs), state)
        return cells[0].output(state), state


def make_layer(
    cell: str,
    input_size: int,
    hidden_size: int,
    bidirectional: bool = False,
    depth: int = 1,
    weight_drop: float = 0.0,
) -> RecurrentLayer:
    """Make a layer, by PyTorch's kernel where there is one.

    Args:
        cell: One of `CELLS`.
        input_size: Units of an input.
        hidden_size: Units of a state in each direction.
        bidirectional: Run backwards too.
        depth: Cells in a row at each step; see `UnrolledLayer`.
        weight_drop: See `KernelLayer`, which alone has it.
    """
    if depth == 1 and cell in _KERNELS:
        return KernelLayer(cell, input_size, hidden_size, bidirectional, weight_drop)
    return UnrolledLayer(cell, input_size, hidden_size, bidirectional, depth)


class RecurrentStack(nn.Module):
    """Layers one upon another, with dropout and residual connections between.

    Args:
        layers: From the bottom up.
        residual_from: The first layer, counted from 1, whose input is added to its output; 0 for
            none. It and those above have inputs as wide as their outputs.
        dropout: Between layers.
    """

    def __init__(self, layers: Iterable[RecurrentLayer], residual_from: int, dropout: Dropout):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.residual_from = residual_from
        self.dropout = dropout

    def reset_parameters(self) -> None:
        """Draw first weights; see `RecurrentLayer.reset_parameters`."""
        for layer in self.layers:
            assert isinstance(layer, RecurrentLayer)
            layer.reset_parameters()

    def forward(
        self, inputs: Vectors, first: StackState | None = None
    ) -> tuple[Vectors, StackState]:
        """Run every layer; see `RecurrentLayer.forward`."""
        vectors, finals = inputs, []
        for number, layer in enumerate(self.layers, start=1):
            below = self.dropout(vectors) if number > 1 else vectors
            vectors, final = layer(below, None if first is None else first[number - 1])
            finals.append(final)
            if 0 < self.residual_from <= number:
                vectors = add(vectors, below)
        return vectors, finals

    def zeros(self, like: Tensor) -> StackState:
        """Make the state before the first step of N rows, of the type of `like` `(N, …)`."""
        layers = cast("list[RecurrentLayer]", list(self.layers))
        return [
            (like.new_zeros(layer.directions, len(like), layer.hidden_size),) * layer.states
            for layer in layers
        ]

    def step(self, inputs: Tensor, state: StackState | None) -> tuple[Tensor, StackState]:
        """Advance N rows of layers of one direction by one step, without dropout.

        Args:
            inputs: `(N, I)`.
            state: Of each layer, tensors `(1, N, H)`; zero without.

        Returns:
            The output `(N, H)` and the new state.
        """
        vectors, finals = inputs, []
        state = self.zeros(inputs) if state is None else state
        for number, layer in enumerate(self.layers, start=1):
            assert isinstance(layer, RecurrentLayer)
            below = vectors
            vectors, after = layer.step(below, tuple(tensor[0] for tensor in state[number - 1]))
            finals.append(tuple(tensor[None] for tensor in after))
            if 0 < self.residual_from <= number:
                vectors = vectors + below
        return vectors, finals


def make_stack(
    cell: str,
    input_size: int,
    hidden_size: int,
    layers: int,
    residual_from: int,
    dropout: Dropout,
    bidirectional: bool = False,
    depth: int = 1,
    weight_drop: float = 0.0,
) -> RecurrentStack:
    """Make layers that are all alike, but that the bottom one reads inputs of `input_size` units.

    The arguments are those of `make_layer` and of `RecurrentStack`.
    """
    outputs = hidden_size * (2 if bidirectional else 1)
    sizes = [input_size] + [outputs] * (layers - 1)
    made = (
        make_layer(cell, size, hidden_size, bidirectional, depth, weight_drop) for size in sizes
    )
    return RecurrentStack(made, residual_from, dropout)


def add(one: Vectors, other: Vectors) -> Vectors:
    """Add vectors, packed or not."""
    if isinstance(one, PackedSequence):
        return one._replace(data=one.data + other.data)
    return one + other
