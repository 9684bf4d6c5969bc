"""A series and what comes next: the public Python API of forecasters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mt.bundle.forecaster import ForecasterBundle, load_forecaster
from mt.errors import MTError
from mt.nn.recurrent import StackState
from mt.series import Values
from mt.translator import resolve_device

_ROWS = 8192
"""Paths that are drawn at a time."""


class Forecast(NamedTuple):
    """What comes next, by step and column."""

    values: Values
    """`(H, C)`: each step forecast from the one before it."""
    lower: Values
    """`(H, C)`: lower end of the prediction interval of each."""
    upper: Values
    """`(H, C)`: its upper end."""


class Forecaster:
    """A bundle, ready to forecast.

    Args:
        bundle: Its parts; the network moves to `device`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
    """

    def __init__(self, bundle: ForecasterBundle, device: str | torch.device = "auto"):
        self.device = resolve_device(device)
        self.model = bundle.model.to(self.device)
        self.columns, self.time = bundle.columns, bundle.time
        self.scaling = bundle.scaling
        self.spread = torch.tensor(bundle.spread, dtype=self.model.dtype, device=self.device)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Forecaster:
        """Read a bundle.

        Raises:
            MTError: The bundle is missing, damaged, of another version or task, or the device is
                not there.
        """
        return cls(load_forecaster(Path(folder)), device)

    def forecast(
        self,
        values: ArrayLike,
        horizon: int,
        interval: float = 0.9,
        samples: int = 1000,
        seed: int = 1,
    ) -> Forecast:
        """Forecast what follows upon a series.

        Args:
            values: `(T, C)`, or `(T,)` of one column, NaN where a value is missing.
            horizon: Time steps to forecast.
            interval: Probability of the prediction intervals.
            samples: Paths that are drawn for them.
            seed: Of the draw.

        Raises:
            MTError: An option is out of range, or the series is not of the bundle's columns.
        """
        array = self._check(values)
        point = self.forecast_from(array, [len(array)], horizon)[0]
        lower, upper = self.intervals(array, [len(array)], horizon, interval, samples, seed)
        return Forecast(point, lower[0], upper[0])

    def forecast_from(self, values: Values, origins: Sequence[int], horizon: int) -> Values:
        """Forecast from several origins, each from the steps before it.

        The next step is the location of its predicted distribution, which then is read as if it had
        been observed.

        Args:
            values: `(T, C)`.
            origins: Numbers of steps before each forecast, at least 1, ascending.
            horizon: Time steps to forecast.

        Returns:
            `(O, H, C)`.
        """
        self._check_horizon(horizon)
        outputs, state, before = self._read(self._check(values), origins)
        with torch.inference_mode():
            z = self.model.run_on(outputs, state, horizon)
        return self._invert(z, before)

    def intervals(
        self,
        values: Values,
        origins: Sequence[int],
        horizon: int,
        interval: float = 0.9,
        samples: int = 1000,
        seed: int = 1,
    ) -> tuple[Values, Values]:
        """Draw paths from several origins, and take the quantiles of each step.

        A path draws each step from its predicted distribution and reads on from what it drew:
        ancestral sampling, as in DeepAR (arXiv:1704.04110). Predicted scales are multiplied by what
        they were too small by on the validation part. A network that was trained on squared or
        absolute errors predicts no scale: then the errors are taken to be Gaussian, or Laplacian,
        as wide as they were there. The same draws serve every origin.

        Args:
            values: `(T, C)`.
            origins: As in `forecast_from`.
            horizon: Time steps to forecast.
            interval: Probability between both ends.
            samples: Paths.
            seed: Of the draw.

        Returns:
            The lower and the upper ends, `(O, H, C)`.

        Raises:
            MTError: An option is out of range.
        """
        self._check_horizon(horizon)
        if not 0 < interval < 1:
            raise MTError(f"--interval: must be above 0 and below 1, not {interval:g}")
        if samples < 1:
            raise MTError(f"--samples must be at least 1, not {samples}")
        outputs, state, before = self._read(self._check(values), origins)
        noise = self._noise(samples, horizon, seed)
        at_once = max(1, _ROWS // samples)
        ends = []
        for start in range(0, len(origins), at_once):
            chosen = slice(start, start + at_once)
            count = len(outputs[chosen])
            with torch.inference_mode():
                z = self.model.run_on(
                    outputs[chosen].repeat_interleave(samples, 0),
                    [
                        tuple(t[:, chosen].repeat_interleave(samples, 1) for t in layer)
                        for layer in state
                    ],
                    horizon,
                    noise.repeat(count, 1, 1),
                    self.spread,
                )
            z = z.view(count, samples, horizon, len(self.columns))
            paths = self._invert(z, before[chosen, None])
            ends.append(np.quantile(paths, (0.5 - interval / 2, 0.5 + interval / 2), axis=1))
        lower, upper = np.concatenate(ends, axis=1)
        return lower, upper

    def predict_next(self, values: Values) -> tuple[Tensor, Tensor]:
        """Read a whole series, and predict after each step the next one.

        Returns:
            The scaled values of the steps from the second on `(T - 1, C)`, NaN where missing, and
            the network's outputs before each.
        """
        z = self._scaled(self._check(values))
        with torch.inference_mode():
            outputs, _ = self.model(z[None, :-1])
        return z[1:], outputs[0]

    def _check(self, values: ArrayLike) -> Values:
        array = np.asarray(values, dtype=np.float64)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2 or array.shape[1] != len(self.columns) or len(array) == 0:
            raise MTError(
                f"a series of shape {array.shape} is not (time steps, {len(self.columns)}), the "
                f"columns {', '.join(self.columns)}"
            )
        if np.isinf(array).any():
            raise MTError("the series holds an infinite value; write NaN where one is missing")
        return array

    @staticmethod
    def _check_horizon(horizon: int) -> None:
        if horizon < 1:
            raise MTError(f"--horizon must be at least 1, not {horizon}")

    def _scaled(self, values: Values) -> Tensor:
        z = self.scaling.apply(values, self.columns)
        return torch.from_numpy(z).to(self.device, self.model.dtype)

    def _read(self, values: Values, origins: Sequence[int]) -> tuple[Tensor, StackState, Values]:
        """Read on from origin to origin: outputs `(O, …)` and states at each, and the values before
        it that differences are added to, `(O, K, C)`."""
        lag = self.scaling.difference
        filled = self.scaling.filled(values, self.columns)
        before = np.stack([filled[max(0, origin - lag) : origin] for origin in origins])
        if lag and (before.shape[1] < lag or np.isnan(before).any()):
            raise MTError(
                f"the series is too short: it must tell a value of each of the {lag} time steps "
                "that differences are taken over"
            )
        z = self._scaled(values)[None]
        outputs, states, state, start = [], [], None, 0
        with torch.inference_mode():
            for origin in origins:
                if origin > start:
                    read, state = self.model(z[:, start:origin], state)
                    start = origin
                assert state is not None
                outputs.append(read[:, -1])
                states.append(state)
        together = [
            tuple(torch.cat(tensors, dim=1) for tensors in zip(*layers, strict=True))
            for layers in zip(*states, strict=True)
        ]
        return torch.cat(outputs), together, before

    def _invert(self, z: Tensor, before: Values) -> Values:
        return self.scaling.invert(z.double().cpu().numpy(), before)

    def _noise(self, samples: int, horizon: int, seed: int) -> Tensor:
        """Draw `(samples, horizon, C)` of location 0 and scale 1, alike on every device."""
        generator = torch.Generator().manual_seed(seed)
        shape = samples, horizon, len(self.columns)
        if self.model.architecture.loss == "absolute":  # by the inverse of Laplace's distribution
            uniform = torch.rand(shape, dtype=torch.float64, generator=generator) - 0.5
            noise = -uniform.sign() * torch.log1p(-2 * uniform.abs())
        else:
            noise = torch.randn(shape, dtype=torch.float64, generator=generator)
        return noise.to(self.device, self.model.dtype)
