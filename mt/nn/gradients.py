"""How far back a loss is felt: gradients with respect to the states of a recurrent network.

Back-propagation through time multiplies the gradient by the transposed Jacobian of each step:

    ∂L/∂s_t = (∂s_{t+1}/∂s_t)ᵀ ∂L/∂s_{t+1} + what s_t does to the loss itself

Where these Jacobians shrink vectors, the gradient vanishes exponentially with the distance, and
where they stretch them, it explodes (Bengio et al. 1994; Pascanu et al., arXiv:1211.5063).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mt.nn.cells import State


def gradient_norms(losses: Tensor, states: Sequence[State]) -> Tensor:
    """Measure the gradient of each sequence's loss with respect to its state at each time step.

    An LSTM's hidden state counts as a function of its memory cell, as in the equations; PyTorch's
    fused step on a GPU hides that, so this belongs on the CPU.

    Args:
        losses: `(B,)`, each computed from its own sequence's states.
        states: For each time step, tensors `(B, …)`.

    Returns:
        `(T, B)`: Euclidean norms over all units of a state.
    """
    flat = [tensor for state in states for tensor in state]
    gradients = iter(torch.autograd.grad(losses.sum(), flat))
    norms = []
    for state in states:
        units = torch.cat([next(gradients).flatten(1) for _ in state], dim=1)
        norms.append(torch.linalg.vector_norm(units, dim=1))
    return torch.stack(norms)


def mean_norm(norms: Tensor) -> float:
    """Give the geometric mean of norms `(B,)`, the mean on a logarithmic axis.

    What has vanished further than 1e-30 counts as that.
    """
    return float(norms.clamp_min(1e-30).log().mean().exp())
