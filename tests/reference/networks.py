"""Recurrent networks in NumPy, written from their equations: forward, and backward by hand.

One sequence at a time, in float64. An input x has T rows of I units, states have T rows of H. A
`backward` takes the gradient of the loss with respect to what `forward` returned and gives those
with respect to the input, the first state and each weight, which has its weight's name: W acts on
the input, U on the state before, b and c are biases.

Back-propagation through time goes from the last step to the first: what a state does to the loss is
what it does to this step's output, plus what it does, through U, to the next step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Weights = dict[str, Array]


class Gradients(NamedTuple):
    """Derivatives of the loss."""

    inputs: Array
    """`(T, I)`."""
    first: tuple[Array, ...]
    """Of each tensor of the first state, `(H,)`."""
    weights: Weights
    states: list[Array]
    """Of the whole state at each step."""


def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "tanh": (np.tanh, lambda y: 1 - y**2),
    "sigmoid": (logistic, lambda y: y * (1 - y)),
    "relu": (lambda x: np.maximum(x, 0), lambda y: (y > 0).astype(float)),
}
"""A function and its derivative, given what the function returned."""


class Network(ABC):
    """A recurrent network; `forward` keeps in `steps` what going back needs of each step."""

    def __init__(self, weights: Weights):
        self.weights = weights

    def forward(self, x: Array, first: tuple[Array, ...]) -> Array:
        self.x, self.steps, state, states = x, [], first, []
        for x_t in x:
            state = self.step(x_t, *state)
            states.append(state[0])
        return np.stack(states)

    def backward(self, d_states: Array) -> Gradients:
        d = {name: np.zeros_like(weight) for name, weight in self.weights.items()}
        d_x, by_state = np.zeros_like(self.x), []
        d_next: tuple[Array, ...] = (np.zeros(d_states.shape[1]),) * self.tensors
        for t in reversed(range(len(self.x))):
            d_h = d_states[t] + d_next[0]
            d_state, d_x[t], d_next = self.back(t, d, d_h, *d_next[1:])
            by_state.append(d_state)
        return Gradients(d_x, d_next, d, by_state[::-1])

    tensors = 1
    """Tensors of a state."""
    steps: list[tuple[Array, ...]]

    @abstractmethod
    def step(self, x_t: Array, *state: Array) -> tuple[Array, ...]:
        """The next state."""

    @abstractmethod
    def back(
        self, t: int, d: Weights, d_h: Array, *d_rest: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        """Add to the gradients `d` of the weights what step t owes them.

        `d_h` is the whole gradient of the state's first tensor, `d_rest` what came back from the
        step after to the others. Returns the gradients of the whole state, of the input, and of
        each tensor of the state before.
        """


class Elman(Network):
    """h_t = φ(W x_t + b + U h_{t-1} + c)."""

    def __init__(self, weights: Weights, activation: str):
        super().__init__(weights)
        self.function, self.derivative = ACTIVATIONS[activation]

    def step(self, x_t: Array, *state: Array) -> tuple[Array, ...]:
        w, (before,) = self.weights, state
        h = self.function(w["W"] @ x_t + w["b"] + w["U"] @ before + w["c"])
        self.steps.append((before, h))
        return (h,)

    def back(
        self, t: int, d: Weights, d_h: Array, *d_rest: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        w, (before, h) = self.weights, self.steps[t]
        d_sum = d_h * self.derivative(h)
        d["W"] += np.outer(d_sum, self.x[t])
        d["U"] += np.outer(d_sum, before)
        d["b"] += d_sum
        d["c"] += d_sum
        return d_h, w["W"].T @ d_sum, (w["U"].T @ d_sum,)


class LSTM(Network):
    """i, f, o = σ(sums), g = tanh(sums), c_t = f c + i g, h_t = o tanh(c_t); rows i, f, g, o."""

    tensors = 2

    def step(self, x_t: Array, *state: Array) -> tuple[Array, ...]:
        w, (h, before) = self.weights, state
        sums = np.split(w["W"] @ x_t + w["b"] + w["U"] @ h + w["c"], 4)
        i, f, o = (logistic(sums[n]) for n in (0, 1, 3))
        g = np.tanh(sums[2])
        cell = f * before + i * g
        self.steps.append((h, before, i, f, g, o, cell))
        return o * np.tanh(cell), cell

    def back(
        self, t: int, d: Weights, d_h: Array, *d_rest: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        w, (h, before, i, f, g, o, cell) = self.weights, self.steps[t]
        d_cell = d_rest[0] + d_h * o * (1 - np.tanh(cell) ** 2)
        d_sums = np.concatenate(
            (
                d_cell * g * i * (1 - i),
                d_cell * before * f * (1 - f),
                d_cell * i * (1 - g**2),
                d_h * np.tanh(cell) * o * (1 - o),
            )
        )
        d["W"] += np.outer(d_sums, self.x[t])
        d["U"] += np.outer(d_sums, h)
        d["b"] += d_sums
        d["c"] += d_sums
        d_state = np.concatenate((d_h, d_cell))
        return d_state, w["W"].T @ d_sums, (w["U"].T @ d_sums, d_cell * f)


class GRU(Network):
    """r, z = σ(sums), n = tanh(W x + b + r (U h + c)), h_t = (1 - z) n + z h; rows r, z, n."""

    def step(self, x_t: Array, *state: Array) -> tuple[Array, ...]:
        w, (h,) = self.weights, state
        from_input = np.split(w["W"] @ x_t + w["b"], 3)
        from_state = np.split(w["U"] @ h + w["c"], 3)
        r, z = (logistic(from_input[n] + from_state[n]) for n in (0, 1))
        n = np.tanh(from_input[2] + r * from_state[2])
        self.steps.append((h, r, z, n, from_state[2]))
        return ((1 - z) * n + z * h,)

    def back(
        self, t: int, d: Weights, d_h: Array, *d_rest: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        w, (h, r, z, n, candidate) = self.weights, self.steps[t]
        d_n = d_h * (1 - z) * (1 - n**2)
        d_r = d_n * candidate * r * (1 - r)
        d_z = d_h * (h - n) * z * (1 - z)
        d_input = np.concatenate((d_r, d_z, d_n))
        d_state = np.concatenate((d_r, d_z, d_n * r))
        d["W"] += np.outer(d_input, self.x[t])
        d["b"] += d_input
        d["U"] += np.outer(d_state, h)
        d["c"] += d_state
        return d_h, w["W"].T @ d_input, (w["U"].T @ d_state + d_h * z,)


def published_gru(weights: Weights, x: Array, h: Array) -> Array:
    """The GRU of the paper as published (v3): n = tanh(W x + b + U (r h) + c)."""
    w = weights
    for x_t in x:
        from_input = np.split(w["W"] @ x_t + w["b"], 3)
        u = np.split(w["U"], 3)
        c = np.split(w["c"], 3)
        r, z = (logistic(from_input[n] + u[n] @ h + c[n]) for n in (0, 1))
        h = (1 - z) * np.tanh(from_input[2] + u[2] @ (r * h) + c[2]) + z * h
    return h


class Softmax:
    """The mean over time of -log softmax(V h_t + a)[target]."""

    def __init__(self, weights: Weights):
        self.weights = weights

    def forward(self, states: Array, targets: npt.NDArray[np.int64]) -> float:
        logits = states @ self.weights["V"].T + self.weights["a"]
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.states, self.targets = states, targets
        self.probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        chosen = self.probabilities[np.arange(len(targets)), targets]
        return float(-np.log(chosen).mean())

    def backward(self) -> tuple[Array, Weights]:
        d_logits = self.probabilities.copy()
        d_logits[np.arange(len(self.targets)), self.targets] -= 1
        d_logits /= len(self.targets)
        weights = {"V": d_logits.T @ self.states, "a": d_logits.sum(axis=0)}
        return d_logits @ self.weights["V"], weights


class SquaredError:
    """The mean over time and units of (V h_t + a - target)²."""

    def __init__(self, weights: Weights):
        self.weights = weights

    def forward(self, states: Array, targets: Array) -> float:
        self.states = states
        self.difference = states @ self.weights["V"].T + self.weights["a"] - targets
        return float((self.difference**2).mean())

    def backward(self) -> tuple[Array, Weights]:
        d_output = 2 * self.difference / self.difference.size
        weights = {"V": d_output.T @ self.states, "a": d_output.sum(axis=0)}
        return d_output @ self.weights["V"], weights


class DotAttention:
    """Weights softmax over s of q_t · m_s; the context is the weighted mean of the memory."""

    def forward(self, queries: Array, memory: Array) -> Array:
        self.queries, self.memory = queries, memory
        self.attention = softmax(self._scores())
        return self.attention @ memory

    def _scores(self) -> Array:
        return self.queries @ self.memory.T

    def backward(self, d_context: Array) -> tuple[Array, Array, Weights]:
        """Derivatives by the queries, the memory and the weights."""
        d_attention = d_context @ self.memory.T
        mean = (self.attention * d_attention).sum(axis=1, keepdims=True)
        d_queries, d_memory, weights = self._backward(self.attention * (d_attention - mean))
        return d_queries, d_memory + self.attention.T @ d_context, weights

    def _backward(self, d_scores: Array) -> tuple[Array, Array, Weights]:
        return d_scores @ self.memory, d_scores.T @ self.queries, {}


class AdditiveAttention(DotAttention):
    """The same with scores v · tanh(W q_t + U m_s + b)."""

    def __init__(self, weights: Weights):
        self.weights = weights

    def _scores(self) -> Array:
        w = self.weights
        sums = (self.queries @ w["W"].T)[:, None] + self.memory @ w["U"].T + w["b"]
        self.energies = np.tanh(sums)  # (T, S, H)
        return self.energies @ w["v"]

    def _backward(self, d_scores: Array) -> tuple[Array, Array, Weights]:
        w = self.weights
        d_sums = d_scores[:, :, None] * w["v"] * (1 - self.energies**2)
        d_query, d_key = d_sums.sum(axis=1), d_sums.sum(axis=0)
        weights = {
            "W": d_query.T @ self.queries,
            "U": d_key.T @ self.memory,
            "b": d_sums.sum(axis=(0, 1)),
            "v": (d_scores[:, :, None] * self.energies).sum(axis=(0, 1)),
        }
        return d_query @ w["W"], d_key @ w["U"], weights


def softmax(scores: Array) -> Array:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result
