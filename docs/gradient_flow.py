"""Figures and table of docs/gradient-flow.md: how far back a loss is felt, by cell and length.

python docs/gradient_flow.py   (writes docs/gradient-flow-*.svg and prints the table; minutes)

The task is to name, after the last of T symbols, the first one, so that all that is learnt has to
come back through T steps.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from mt.evaluation.plots import Series, line_chart, write_svg
from mt.nn.cells import State
from mt.nn.gradients import gradient_norms, mean_norm
from mt.nn.recurrent import make_layer

HERE = Path(__file__).parent
SYMBOLS, HIDDEN, BATCH, UPDATES = 8, 32, 64, 1500
LENGTHS = 10, 30, 100
SHOWN = "elman-tanh", "gru", "lstm"
SEED = 1


class Network(nn.Module):
    """One recurrent layer that reads symbols, and a softmax over them on its last output."""

    def __init__(self, cell: str, gain: float = 1.0):
        super().__init__()
        torch.manual_seed(SEED)
        self.layer = make_layer(cell, SYMBOLS, HIDDEN)
        self.layer.reset_parameters()
        with torch.no_grad():
            for name, parameter in self.layer.named_parameters():
                if "weight_hh" in name:  # orthogonal, so that `gain` is its every singular value
                    parameter *= gain
        self.output = nn.Linear(HIDDEN, SYMBOLS)

    def losses(self, symbols: Tensor) -> Tensor:
        """`(B, T)` to `(B,)`, in nats, by one call of the layer."""
        outputs, _ = self.layer(one_hot(symbols, SYMBOLS).float())
        return cross_entropy(self.output(outputs[:, -1]), symbols[:, 0], reduction="none")

    def flow(self, symbols: Tensor) -> list[float]:
        """The geometric mean over the batch of the gradient's norm at each time step."""
        states: list[State] = []
        state = (torch.zeros(len(symbols), HIDDEN),) * self.layer.states
        output = torch.empty(0)
        for inputs in one_hot(symbols, SYMBOLS).float().unbind(1):
            output, state = self.layer.step(inputs, state)
            states.append(state)
        losses = cross_entropy(self.output(output), symbols[:, 0], reduction="none")
        return [mean_norm(step) for step in gradient_norms(losses, states)]


class Trained(NamedTuple):
    """A network after training."""

    network: Network
    accuracy: float
    """On sequences it has not seen, from 0 to 1."""
    losses: list[float]
    norms: list[float]
    """Of the gradient of all weights at each update, before clipping."""


def draw(length: int, seed: int, count: int = BATCH) -> Tensor:
    """Draw sequences."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(SYMBOLS, (count, length), generator=generator)


def train(cell: str, length: int, clip: float, sgd: bool = False) -> Trained:
    """Train with Adam, or with momentum alone; `clip` 0 clips nothing."""
    network = Network(cell)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    if sgd:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses, norms = [], []
    for update in range(UPDATES):
        loss = network.losses(draw(length, 1000 + update)).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), clip or math.inf)
        losses.append(loss.item())
        norms.append(float(norm))
        optimizer.step()
    with torch.no_grad():
        symbols = draw(length, 1, 1000)
        outputs, _ = network.layer(one_hot(symbols, SYMBOLS).float())
        right = network.output(outputs[:, -1]).argmax(1) == symbols[:, 0]
    return Trained(network, right.float().mean().item(), losses, norms)


def save(name: str, title: str, unit: str, x_name: str, lines: dict[str, list[float]]) -> None:
    """Write one picture that stands alone, in the colours of the report."""
    styles = ("a", "b", "c", "d")
    series = [
        Series(label, [(float(x), y) for x, y in enumerate(ys, start=1) if math.isfinite(y)], style)
        for (label, ys), style in zip(lines.items(), styles, strict=False)
    ]
    figure = line_chart(title, unit, series, x_name=x_name, log=True)
    write_svg(HERE / f"gradient-flow-{name}.svg", figure)


def main() -> None:
    """Write every figure and print the table."""
    longest = LENGTHS[-1]
    symbols = draw(longest, 2)
    for name, networks in {
        "vanishing": [("elman-tanh", 0.8), ("elman-tanh", 1.0), ("elman-relu", 1.2)],
        "exploding": [("elman-tanh", 1.4), ("elman-relu", 1.6), ("elman-relu", 2.0)],
    }.items():
        flows = {f"{cell}, {gain}": Network(cell, gain).flow(symbols) for cell, gain in networks}
        save(name, name.title(), "", "time step", flows)
    print(
        "| cell | length | first step / last, before | after, clipped at 1 | accuracy | "
        "after, unclipped | accuracy |"
    )
    print("|---|---|---|---|---|---|---|")
    for length in LENGTHS:
        symbols = draw(length, 2)
        before = {cell: Network(cell).flow(symbols) for cell in SHOWN}
        clipped = {cell: train(cell, length, 1.0) for cell in SHOWN}
        free = {cell: train(cell, length, 0.0) for cell in SHOWN}
        save(f"before-{length}", "Before training", "", "time step", before)
        for name, runs in (("clipped", clipped), ("unclipped", free)):
            flows = {cell: run.network.flow(symbols) for cell, run in runs.items()}
            save(f"{name}-{length}", f"After training, {name}", "", "time step", flows)
        for cell in SHOWN:
            cells = [cell, str(length), f"{before[cell][0] / before[cell][-1]:.1e}"]
            for run in (clipped[cell], free[cell]):
                flow = run.network.flow(symbols)
                cells += [f"{flow[0] / flow[-1]:.1e}", f"{run.accuracy:.0%}"]
            print(f"| {' | '.join(cells)} |", flush=True)
    for length in LENGTHS:
        alone = Network("lstm", gain=0.0).flow(draw(length, 2))
        print(f"lstm, length {length}, before, U = 0: {alone[0] / alone[-1]:.1e}")
    exploding = {
        name: train("elman-tanh", 10, clip, sgd=True)
        for name, clip in (("clipped", 1.0), ("unclipped", 0.0))
    }
    for name, run in exploding.items():
        print(f"elman-tanh, length 10, momentum, {name}: accuracy {run.accuracy:.0%}")
    save(
        "training",
        "Gradient norm of the weights",
        "before clipping",
        "updates",
        {name: run.norms for name, run in exploding.items()},
    )


if __name__ == "__main__":
    main()
