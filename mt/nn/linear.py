"""Matrix products whose numbers of rows change from batch to batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

ROWS = 64
"""What numbers of rows are rounded up to where each number has a cost of its own."""


def compiles(tensor: Tensor) -> bool:
    """Tell whether a product with this tensor is one that oneDNN compiles for its very shape.

    That is so in bfloat16 on the CPU. It takes milliseconds and a megabyte a shape, which is paid
    back only where the shape returns often.
    """
    if tensor.device.type != "cpu":
        return False
    return tensor.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")


def pad_rows(tensor: Tensor, multiple: int = ROWS) -> Tensor:
    """Append rows of zeros to `(N, …)` until N is a multiple."""
    missing = -len(tensor) % multiple
    return pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, missing)) if missing else tensor


class Linear(nn.Linear):
    """x W^T + b over any number of rows, in shapes that return where that matters."""

    def forward(self, x: Tensor) -> Tensor:
        """Turn `(…, I)` into `(…, O)`."""
        if not compiles(x):
            return super().forward(x)
        rows = x.shape[:-1].numel()
        outputs = super().forward(pad_rows(x.reshape(rows, x.shape[-1])))
        return outputs[:rows].view(*x.shape[:-1], self.out_features)


def bmm(one: Tensor, other: Tensor) -> Tensor:
    """Multiply `(B, N, K)` by `(B, K, M)`: in float32 where any narrower would be compiled."""
    if not compiles(one):
        return torch.bmm(one, other)
    with torch.autocast("cpu", enabled=False):
        return torch.bmm(one.float(), other.float())
