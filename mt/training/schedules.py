"""The learning rate over a run, as a pure function of how far it has come."""

from __future__ import annotations

import math

from mt.recipe import Optimization


def learning_rate(
    training: Optimization, step: int, progress: float, plateau: float = 1.0
) -> float:
    """Give the learning rate of an update.

    A linear warm-up from zero, then the recipe's schedule:

    - `constant`: stays;
    - `linear`, `cosine`: fall to zero at the end of the budget (cosine: arXiv:1608.03983);
    - `inverse-sqrt`: falls with 1 / sqrt(step) (arXiv:1706.03762, eq. 3);
    - `plateau`: falls by steps, through `plateau`.

    Args:
        training: The recipe's section.
        step: Updates made so far, from 0.
        progress: Share of the budget that is used, from 0 to 1.
        plateau: Product of the reductions so far.
    """
    warmup = max(1, training.warmup_steps)
    rate = training.learning_rate * min(1.0, (step + 1) / warmup)
    if training.schedule == "linear":
        return rate * max(0.0, 1 - progress)
    if training.schedule == "cosine":
        return rate * (1 + math.cos(math.pi * min(1.0, progress))) / 2
    if training.schedule == "inverse-sqrt":
        return rate * min(1.0, math.sqrt(warmup / (step + 1)))
    return rate * plateau
