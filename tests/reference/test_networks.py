"""The product's recurrent layers and attention against NumPy, forward and backward, in float64.

Each gradient by hand is compared with autograd's through the product's modules and with central
differences of the loss by hand: two proofs that share nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networks import (
    GRU,
    LSTM,
    AdditiveAttention,
    Array,
    DotAttention,
    Elman,
    Softmax,
    SquaredError,
    Weights,
    published_gru,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, mse_loss

from mt.nn.architecture import Architecture
from mt.nn.attention import make_attention
from mt.nn.cells import CELLS
from mt.nn.gradients import gradient_norms
from mt.nn.recurrent import KernelLayer, RecurrentLayer, UnrolledLayer, make_layer

T, S, D, H, V = 6, 5, 3, 4, 7
FORWARD = 1e-10
BACKWARD = 1e-7

RECURRENT: dict[str, Callable[[Weights], Any]] = {
    "elman-tanh": lambda weights: Elman(weights, "tanh"),
    "elman-sigmoid": lambda weights: Elman(weights, "sigmoid"),
    "elman-relu": lambda weights: Elman(weights, "relu"),
    "gru": GRU,
    "lstm": LSTM,
}
LAYERS: dict[str, Callable[[str], RecurrentLayer]] = {
    "kernel": lambda cell: KernelLayer(cell, D, H, bidirectional=False),
    "equations": lambda cell: UnrolledLayer(cell, D, H, bidirectional=False, depth=1),
}
BOTH = [
    (cell, layer)
    for cell in RECURRENT
    for layer in LAYERS
    if (cell, layer) != ("elman-sigmoid", "kernel")  # PyTorch has none
]
NAMES = {"W": "weight_ih", "U": "weight_hh", "b": "bias_ih", "c": "bias_hh"}


def distance(one: Array, other: Array) -> float:
    """||a - n|| / max(||a||, ||n||)."""
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(one), np.linalg.norm(other)))


def differences(loss: Callable[[], float], values: Array, step: float = 1e-4) -> Array:
    """Central differences of a loss by each of `values`, which move in place.

    Two widths are combined so that the error falls with the fourth power of the step.
    """
    slopes = np.empty_like(values)
    for place in np.ndindex(values.shape):
        kept, losses = values[place], []
        for shift in (step, -step, 2 * step, -2 * step):
            values[place] = kept + shift
            losses.append(loss())
        values[place] = kept
        slopes[place] = (8 * (losses[0] - losses[1]) - losses[2] + losses[3]) / (12 * step)
    return slopes


def numbers(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def leaf(values: Array) -> Tensor:
    return torch.from_numpy(values.copy()).requires_grad_()


def gradient(tensor: Tensor) -> Array:
    assert tensor.grad is not None
    return tensor.grad.numpy()


class Sequence:
    """One input sequence, its first state, a network by hand, and an output layer with a loss."""

    def __init__(self, cell: str, output: str):
        gates, states = CELLS[cell].gates, CELLS[cell].states
        rows = gates * H
        shapes = {"W": (rows, D), "U": (rows, H), "b": (rows,), "c": (rows,)}
        self.weights = {n: numbers(*s, seed=k) for k, (n, s) in enumerate(shapes.items())}
        self.x = numbers(T, D, seed=5)
        self.first = tuple(numbers(H, seed=6 + number) for number in range(states))
        self.top = {"V": numbers(V, H, seed=8), "a": numbers(V, seed=9)}
        self.network = RECURRENT[cell](self.weights)
        self.output: Softmax | SquaredError
        if output == "softmax":
            self.targets: Any = np.random.default_rng(10).integers(V, size=T)
            self.output, self.torch_loss = Softmax(self.top), cross_entropy
        else:
            self.targets = numbers(T, V, seed=10)
            self.output, self.torch_loss = SquaredError(self.top), mse_loss

    def loss(self) -> float:
        return self.output.forward(self.network.forward(self.x, self.first), self.targets)

    def gradients(self) -> dict[str, Array]:
        """Of everything that the loss depends on, by hand."""
        self.loss()
        d_states, d_top = self.output.backward()
        found = self.network.backward(d_states)
        first = {f"first {n}": gradient for n, gradient in enumerate(found.first)}
        return {"x": found.inputs, **first, **found.weights, **d_top}

    def values(self) -> dict[str, Array]:
        """What these gradients are of."""
        first = {f"first {n}": values for n, values in enumerate(self.first)}
        return {"x": self.x, **first, **self.weights, **self.top}


def load(layer: RecurrentLayer, weights: Weights) -> dict[str, nn.Parameter]:
    """Give a layer the weights by hand; return its parameters by their names there."""
    if isinstance(layer, KernelLayer):
        module: nn.Module = layer.double().kernel
        suffix = "_l0"
    else:
        module, suffix = layer.double().cells[0], ""
    parameters = {name: getattr(module, f"{long}{suffix}") for name, long in NAMES.items()}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(weights[name]))
    return parameters


@pytest.mark.parametrize("output", ["softmax", "squared error"])
@pytest.mark.parametrize(("cell", "kind"), BOTH)
def test_forward_and_autograd_equal_the_equations(cell: str, kind: str, output: str) -> None:
    reference = Sequence(cell, output)
    expected_loss, expected = reference.loss(), reference.gradients()
    layer = LAYERS[kind](cell)
    leaves = dict(load(layer, reference.weights))
    x, top, bias = leaf(reference.x), leaf(reference.top["V"]), leaf(reference.top["a"])
    first = [leaf(values) for values in reference.first]
    states, _ = layer(x[None], tuple(tensor[None, None] for tensor in first))
    by_hand = reference.network.forward(reference.x, reference.first)
    assert np.abs(states[0].detach().numpy() - by_hand).max() <= FORWARD
    loss = reference.torch_loss(linear(states[0], top, bias), torch.from_numpy(reference.targets))
    assert abs(loss.item() - expected_loss) <= FORWARD
    loss.backward()
    leaves |= {"x": x, "V": top, "a": bias} | {f"first {n}": t for n, t in enumerate(first)}
    assert leaves.keys() == expected.keys()
    for name, tensor in leaves.items():
        assert distance(expected[name], gradient(tensor)) <= BACKWARD, name


@pytest.mark.parametrize("output", ["softmax", "squared error"])
@pytest.mark.parametrize("cell", RECURRENT)
def test_gradients_by_hand_equal_central_differences(cell: str, output: str) -> None:
    reference = Sequence(cell, output)
    expected = reference.gradients()
    if cell == "elman-relu":  # no sum may lie at the kink, where there is no derivative
        w, before = reference.weights, np.stack([before for before, _ in reference.network.steps])
        sums = reference.x @ w["W"].T + w["b"] + before @ w["U"].T + w["c"]
        assert np.abs(sums).min() > 0.01
    for name, values in reference.values().items():
        assert distance(expected[name], differences(reference.loss, values)) <= BACKWARD, name


@pytest.mark.parametrize("cell", RECURRENT)
def test_the_norms_of_gradient_flow_are_those_of_back_propagation(cell: str) -> None:
    """The loss of the last step alone, so that all of it comes back through time."""
    reference = Sequence(cell, "softmax")
    layer = make_layer(cell, D, H)
    load(layer, reference.weights)
    states = []
    output = torch.empty(0)
    state = tuple(torch.from_numpy(values)[None] for values in reference.first)
    for x in torch.from_numpy(reference.x)[:, None]:
        output, state = layer.step(x, state)
        states.append(state)
    weights = numbers(H, seed=11)
    norms = gradient_norms(output @ torch.from_numpy(weights), states)
    reference.loss()
    expected = reference.network.backward(np.stack([0 * weights] * (T - 1) + [weights])).states
    close = np.abs(norms[:, 0].numpy() - [np.linalg.norm(gradient) for gradient in expected])
    assert norms.shape == (T, 1)
    assert close.max() <= FORWARD


def test_pytorch_computes_the_gru_of_the_first_version() -> None:
    """The reset gate acts after the product with U there, before it in the published paper."""
    reference = Sequence("gru", "softmax")
    layer = LAYERS["kernel"]("gru")
    load(layer, reference.weights)
    first = tuple(torch.from_numpy(values)[None, None] for values in reference.first)
    states, _ = layer(torch.from_numpy(reference.x)[None], first)
    last = states[0, -1].detach().numpy()
    ours = reference.network.forward(reference.x, reference.first)[-1]
    assert np.abs(last - ours).max() <= FORWARD
    assert (
        np.abs(last - published_gru(reference.weights, reference.x, *reference.first)).max() > 0.01
    )


# Attention


class Attending:
    """Queries over a memory, by hand; the loss weighs every unit of the contexts."""

    def __init__(self, kind: str):
        self.queries, self.memory = numbers(T, H, seed=1), numbers(S, H, seed=2)
        self.weights = {
            "W": numbers(H, H, seed=3),
            "U": numbers(H, H, seed=4),
            "b": numbers(H, seed=5),
            "v": numbers(H, seed=6),
        }
        self.loss_weights = numbers(T, H, seed=7)
        self.attention = DotAttention()
        if kind == "additive":
            self.attention = AdditiveAttention(self.weights)
        else:
            self.weights = {}

    def loss(self) -> float:
        context = self.attention.forward(self.queries, self.memory)
        return float((context * self.loss_weights).sum())

    def gradients(self) -> dict[str, Array]:
        self.loss()
        queries, memory, weights = self.attention.backward(self.loss_weights)
        return {"queries": queries, "memory": memory, **weights}


ATTENTIONS = "dot", "additive"


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_and_its_gradients_equal_the_equations(kind: str) -> None:
    reference = Attending(kind)
    expected = reference.gradients()
    attention = make_attention(Architecture(hidden_size=H, attention=kind)).double()
    names = {"query.weight": "W", "key.weight": "U", "key.bias": "b", "energy.weight": "v"}
    leaves: dict[str, Tensor] = {names[name]: p for name, p in attention.named_parameters()}
    with torch.no_grad():
        for name, parameter in leaves.items():
            parameter.copy_(torch.from_numpy(reference.weights[name]).view(parameter.shape))
    leaves |= {"queries": leaf(reference.queries), "memory": leaf(reference.memory)}
    memory, nothing = leaves["memory"][None], torch.zeros(1, S, dtype=torch.bool)
    context, weights = attention(leaves["queries"][None], attention.keys(memory), memory, nothing)
    by_hand = reference.attention.forward(reference.queries, reference.memory)
    assert np.abs(context[0].detach().numpy() - by_hand).max() <= FORWARD
    assert np.abs(weights[0].detach().numpy() - reference.attention.attention).max() <= FORWARD
    (context[0] * torch.from_numpy(reference.loss_weights)).sum().backward()
    assert leaves.keys() == expected.keys()
    for name, tensor in leaves.items():
        found = gradient(tensor).reshape(expected[name].shape)
        assert distance(expected[name], found) <= BACKWARD, name


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_gradients_of_attention_equal_central_differences(kind: str) -> None:
    reference = Attending(kind)
    expected = reference.gradients()
    values = {"queries": reference.queries, "memory": reference.memory, **reference.weights}
    assert values.keys() == expected.keys()
    for name, array in values.items():
        assert distance(expected[name], differences(reference.loss, array)) <= BACKWARD, name
