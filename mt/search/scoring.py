"""From a decoder's output to comparable numbers, and the best of them in a fixed order."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from mt.errors import MTError
from mt.search.hypotheses import StepOutput

LEAST_COVERAGE = 1e-8
"""Total attention below this counts as this much, so that no penalty is infinite."""


def sum_dtype(device: torch.device) -> torch.dtype:
    """The type that log-probabilities are summed in: float64 wherever the device has it.

    The sums are a handful of numbers a step, so the width costs nothing and keeps a long
    translation's log-probability as exact as its tokens'.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities (R, V) in float32, or wider where the logits are: a fresh tensor."""
    return logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))


def token_scores(output: StepOutput) -> Tensor:
    """What tokens are compared by, (R, V), a fresh tensor: their log-probabilities, or what the
    decoder itself has made of these and calls `scores`."""
    scores: Tensor | None = getattr(output, "scores", None)
    return log_softmax(output.logits) if scores is None else scores


class Coverage:
    """The coverage penalty of arXiv:1609.08144, eq. 14: `weight` times the sum, over the source
    tokens, of log(min(attention received in all steps, 1)).

    All steps count, the one that yields the end of sentence too; the source tokens are the first
    `source_lengths` positions, so neither padding nor a source's end of sentence must be covered.
    """

    def __init__(self, source_lengths: Tensor, weight: float) -> None:
        self.source_lengths = source_lengths  # (B,)
        self.weight = weight
        self.total: Tensor | None = None  # (B, K, S)

    def add(self, attention: Tensor | None) -> Tensor:
        """Add a step's attention (B * K, S); returns the penalties (B, K), at most 0.

        Raises `MTError` where the decoder has no attention.
        """
        if attention is None:
            raise MTError("--coverage-penalty needs a model with attention: leave it at 0")
        sentences = len(self.source_lengths)
        step = attention.view(sentences, -1, attention.shape[1]).to(sum_dtype(attention.device))
        self.total = step if self.total is None else self.total + step
        logs = self.total.clamp(LEAST_COVERAGE, 1.0).log()
        positions = torch.arange(attention.shape[1], device=attention.device)
        padding = positions >= self.source_lengths.unsqueeze(1)  # (B, S)
        return self.weight * logs.masked_fill(padding.unsqueeze(1), 0.0).sum(dim=2)

    def reorder(self, index: Tensor, keep: Tensor | None) -> None:
        """As `DecoderState.reorder`; `keep` (B',) are the sentences that stay, None for all."""
        assert self.total is not None
        self.total = self.total.flatten(0, 1)[index]
        if keep is not None:
            self.source_lengths = self.source_lengths[keep]


_BLOCK = 64
"""Tokens whose maximum is taken at once on the CPU, where `argmax` and `topk` go one by one."""
_LARGE = 1 << 15
"""Least number of log-probabilities for which that pays."""


def best_token(log_probs: Tensor) -> Tensor:
    """The best token (R,) of each row of `log_probs` (R, V); of equals, that of the lowest id."""
    vocabulary = log_probs.shape[1]
    if log_probs.device.type != "cpu" or log_probs.numel() < _LARGE:
        return log_probs.argmax(dim=1)  # the first of equals
    maxima = _maxima(log_probs)
    if rest := vocabulary % _BLOCK:
        maxima = torch.cat([maxima, log_probs[:, -rest:].amax(dim=1, keepdim=True)], dim=1)
    tokens = maxima.argmax(dim=1, keepdim=True) * _BLOCK + torch.arange(_BLOCK)
    tokens.clamp_(max=vocabulary - 1)
    return tokens.gather(1, log_probs.gather(1, tokens).argmax(dim=1, keepdim=True)).squeeze(1)


def _top(log_probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best log-probabilities of each row, in order, and their tokens."""
    rows, vocabulary = log_probs.shape
    small = log_probs.numel() < _LARGE or vocabulary < 2 * _BLOCK * count
    if log_probs.device.type != "cpu" or small:
        return log_probs.topk(count, dim=1)
    blocks = _maxima(log_probs).topk(count, dim=1, sorted=False).indices
    tokens = (blocks.unsqueeze(2) * _BLOCK + torch.arange(_BLOCK)).flatten(1)
    rest = torch.arange(vocabulary - vocabulary % _BLOCK, vocabulary).expand(rows, -1)
    tokens = torch.cat([tokens, rest], dim=1)
    values, places = log_probs.gather(1, tokens).topk(count, dim=1)
    return values, tokens.gather(1, places)


def _maxima(log_probs: Tensor) -> Tensor:
    """The maximum of each whole block of tokens: `(R, V // _BLOCK)`."""
    blocks = log_probs.shape[1] // _BLOCK
    return log_probs[:, : blocks * _BLOCK].reshape(-1, blocks, _BLOCK).amax(dim=2)


def best_tokens(log_probs: Tensor, count: int, *, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best tokens of each row of `log_probs` (R, V), in order of their ids.

    Returns their log-probabilities (R, K), their ids (R, K), and which rows (R,) have rivals of
    equal log-probability at the border, so that the choice among these is the library's whim.
    With `exact` the lowest ids are chosen in such rows, at the cost of another pass and of waiting
    for the device, and none is marked.
    """
    rows, vocabulary = log_probs.shape
    if count >= vocabulary:
        tokens = torch.arange(vocabulary, device=log_probs.device).repeat(rows, 1)
        return log_probs, tokens, tokens.new_zeros(rows, dtype=torch.bool)
    values, tokens = _top(log_probs, count + 1)
    border = values[:, count - 1]
    undecided = (border == values[:, count]) & (border > -inf)
    tokens = tokens[:, :count]
    if exact:
        # Distinct keys: the greater ones first, then the rivals, the lowest id first among each.
        keys = torch.arange(vocabulary, 0, -1, dtype=torch.int32, device=log_probs.device)
        rivals, level = log_probs[undecided], border[undecided].unsqueeze(1)
        keys = (rivals >= level) * keys + (rivals > level) * vocabulary
        tokens[undecided] = keys.topk(count, dim=1).indices
        undecided = torch.zeros_like(undecided)
    tokens = tokens.sort(dim=1).values
    return log_probs.gather(1, tokens), tokens, undecided
