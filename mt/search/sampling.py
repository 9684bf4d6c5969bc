"""Tokens drawn at random from what a network predicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mt.errors import MTError


@dataclass(frozen=True)
class SamplingOptions:
    """Which tokens may be drawn, and how likely.

    Raises `MTError`, naming the option, for values that are out of range.
    """

    temperature: float = 1.0
    """What logits are divided by: below 1 the likely become likelier; 0 always takes the
    likeliest."""
    top_k: int = 0
    """Draw among so many likeliest tokens only; 0 sets no limit (Fan et al., arXiv:1805.04833)."""
    top_p: float = 1.0
    """Draw among the fewest likeliest tokens that together have this probability (nucleus
    sampling, Holtzman et al., arXiv:1904.09751); 1 sets no limit."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise MTError(f"--temperature: must be at least 0, not {self.temperature}")
        if self.top_k < 0:
            raise MTError(f"--top-k: must be at least 0, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise MTError(f"--top-p: must be above 0 and at most 1, not {self.top_p}")


def narrow(logits: Tensor, options: SamplingOptions) -> Tensor:
    """Give the probabilities `(N, V)` that tokens are drawn with.

    Args:
        logits: `(N, V)`, minus infinity where a token is forbidden; one at least is not.
        options: What narrows them. `top_p` looks at what temperature and `top_k` have left.
    """
    if options.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    logits = logits / options.temperature
    if 0 < options.top_k < logits.shape[-1]:
        # By place, not by value: of equal ones, no more than `top_k` may stay.
        places = logits.topk(options.top_k).indices
        logits = torch.full_like(logits, -torch.inf).scatter(-1, places, logits.gather(-1, places))
    probabilities = logits.softmax(-1)
    if options.top_p < 1:
        ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= options.top_p, 0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, places, ordered)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a token for each of N rows: `(N, V)` to `(N,)`."""
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
