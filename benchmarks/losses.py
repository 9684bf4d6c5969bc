"""The output layer's loss with its gradients: plain, by PyTorch in chunks, and ours.

python benchmarks/losses.py

Cross-entropy of a batch of 1,200 tokens, with 256 units and on one thread, forward and backward.
Without label smoothing, which PyTorch's chunks do not know; ours costs the same with it. Each
figure comes from a process of its own: the median of some runs, and the peak of its resident memory
beyond what it had before the first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context

import torch
from costs import resident
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, linear_cross_entropy

from mt.training import losses

TOKENS, UNITS, RUNS = 1200, 256, 15
VOCABULARIES = 4000, 32_000
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def plain(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """All logits at once."""
    logits = linear(features, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(logits, targets, reduction="sum")


def chunked(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """PyTorch's own in chunks."""
    return linear_cross_entropy(
        features,
        weight.to(features.dtype),
        targets,
        linear_bias=bias.to(features.dtype),
        reduction="sum",
        options=torch.nn.LinearCrossEntropyOptions(),
    )


def ours(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """What training does."""
    return losses.linear_cross_entropy(features, weight, bias, targets, 0.0).smoothed


KINDS: dict[str, Loss] = {"plain": plain, "PyTorch, in chunks": chunked, "ours": ours}


def measure(kind: str, vocabulary: int, narrow: bool) -> tuple[float, float, float]:
    """Return milliseconds, MB, and the error of the weights' gradient against float64."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    features = torch.randn(TOKENS, UNITS)
    weight = torch.randn(vocabulary, UNITS) / UNITS**0.5
    bias, targets = torch.zeros(vocabulary), torch.randint(vocabulary, (TOKENS,))
    compute = torch.bfloat16 if narrow else torch.float32
    leaves = [features.to(compute), weight, bias]
    for leaf in leaves:
        leaf.requires_grad_()
    before, taken = resident(), []
    for _ in range(RUNS):
        began = time.perf_counter()
        with torch.autocast("cpu", enabled=narrow):
            loss = KINDS[kind](*leaves, targets)
        gradients = torch.autograd.grad(loss, leaves)
        taken.append(time.perf_counter() - began)
    memory = resident() - before
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = torch.autograd.grad(plain(*exact, targets), exact)
    error = (gradients[1].double() - expected[1]).norm() / expected[1].norm()
    return 1000 * statistics.median(taken), memory, float(error)


def main() -> None:
    """Print the table."""
    print("| vocabulary | precision | loss | milliseconds | memory, MB | gradient's error |")
    print("|---|---|---|---|---|---|")
    for vocabulary in VOCABULARIES:
        for narrow in (False, True):
            for kind in KINDS:
                with get_context("spawn").Pool(1) as pool:
                    figures = pool.apply(measure, (kind, vocabulary, narrow))
                name = "bfloat16" if narrow else "float32"
                cells = "{:,.1f} | {:,.0f} | {:.0e}".format(*figures)
                print(f"| {vocabulary:,} | {name} | {kind} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
