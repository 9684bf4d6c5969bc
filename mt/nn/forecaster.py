"""A recurrent forecaster: each step of a series to the distribution of the next one."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mt.nn.architecture import ForecasterArchitecture
from mt.nn.dropout import Dropout
from mt.nn.linear import Linear
from mt.nn.recurrent import StackState, make_stack

LEAST_SCALE = 1e-3
"""Least scale of a predicted distribution, in standard deviations of the training part."""


class Prediction(NamedTuple):
    """The distribution of a step's values, by column."""

    location: Tensor
    """`(…, C)`: the mean of a Gaussian, the median of a Laplace distribution."""
    scale: Tensor
    """`(…, C)`: the Gaussian's standard deviation; one where the loss leaves it out."""


class ForecasterNetwork(nn.Module):
    """Recurrent layers and a linear head.

    A step's input is its values, zero (their mean) where one is missing, beside a mask that tells
    which are: the GRU-simple of Che et al. (arXiv:1606.01865), less the time since the last value.

    Args:
        architecture: Its size.
        columns: Values of a step.
        initialize: Draw good first weights; of no use where stored ones follow.
    """

    def __init__(self, architecture: ForecasterArchitecture, columns: int, initialize: bool = True):
        super().__init__()
        self.architecture, self.columns = architecture, columns
        hidden_size, locked = architecture.hidden_size, architecture.locked_dropout
        self.stack = make_stack(
            architecture.cell,
            2 * columns,
            hidden_size,
            architecture.layers,
            architecture.residual_from,
            Dropout(architecture.layer_dropout, locked),
            weight_drop=architecture.weight_drop,
        )
        self.output_dropout = Dropout(architecture.output_dropout, locked)
        parts = 2 if architecture.loss == "gaussian" else 1
        self.head = Linear(hidden_size, parts * columns)
        if initialize:
            self.stack.reset_parameters()
            nn.init.xavier_uniform_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the state."""
        return self.head.weight.dtype

    def forward(self, values: Tensor, state: StackState | None = None) -> tuple[Tensor, StackState]:
        """Read steps, and predict after each the one that follows.

        Args:
            values: `(B, T, C)`, scaled, NaN where one is missing.
            state: From before; none where rows begin.

        Returns:
            What `predict` makes distributions of, `(B, T, …)`, and the state after the last step.
        """
        vectors, after = self.stack(_inputs(values), state)
        return self.head(self.output_dropout(vectors)), after

    def step(self, values: Tensor, state: StackState | None) -> tuple[Tensor, StackState]:
        """Read one step of N rows, values `(N, C)`; see `forward`."""
        vectors, after = self.stack.step(_inputs(values), state)
        return self.head(vectors), after

    def predict(self, outputs: Tensor) -> Prediction:
        """Read the head's outputs `(…, C)`, or `(…, 2C)` with scales.

        A scale is softplus(s), as in DeepAR (arXiv:1704.04110), never below `LEAST_SCALE`.
        """
        if self.architecture.loss != "gaussian":
            return Prediction(outputs, torch.ones_like(outputs))
        location, scale = outputs.chunk(2, dim=-1)
        return Prediction(location, softplus(scale) + LEAST_SCALE)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of each value `(…, C)`; it is zero where the target is missing (NaN).

        `squared`: (x - m)²; `absolute`: |x - m|; `gaussian`: the negative log-likelihood
        ln(s √(2π)) + (x - m)² / 2s², in nats.
        """
        missing = torch.isnan(targets)
        location, scale = self.predict(outputs)
        error = torch.where(missing, location.detach(), targets) - location
        if self.architecture.loss == "absolute":
            found = error.abs()
        elif self.architecture.loss == "squared":
            found = error**2
        else:
            found = scale.log() + 0.5 * math.log(2 * math.pi) + 0.5 * (error / scale) ** 2
        return found.masked_fill(missing, 0.0)

    def run_on(
        self,
        outputs: Tensor,
        state: StackState,
        horizon: int,
        noise: Tensor | None = None,
        spread: Tensor | float = 1.0,
    ) -> Tensor:
        """Forecast N rows by themselves: what is predicted is the next input.

        Args:
            outputs: Of the last step that was read, `(N, …)`.
            state: After it.
            horizon: Steps to forecast.
            noise: `(N, horizon, C)` draws of location 0 and scale 1, by which each step's value is
                drawn from its distribution. Without, it is the distribution's location.
            spread: `(C,)`, by which predicted scales are multiplied.

        Returns:
            `(N, horizon, C)`, scaled.
        """
        found: list[Tensor] = []
        for ahead in range(horizon):
            if found:
                outputs, state = self.step(found[-1], state)
            values, scale = self.predict(outputs)
            if noise is not None:
                values = values + spread * scale * noise[:, ahead]
            found.append(values)
        return torch.stack(found, dim=1)


def _inputs(values: Tensor) -> Tensor:
    missing = torch.isnan(values)
    return torch.cat((values.masked_fill(missing, 0.0), missing.to(values.dtype)), dim=-1)
