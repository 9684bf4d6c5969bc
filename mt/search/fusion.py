"""Shallow fusion: a language model has a say in which token comes next.

A token's score is log p(token | source, tokens before) + weight * log p(token | tokens before), the
second by the language model (Gulcehre et al., arXiv:1503.03535). It is no probability any more: the
scores of all tokens need not add up to one.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mt.search.hypotheses import Decoder, DecoderState
from mt.search.scoring import log_softmax

LayerStates = list[tuple[Tensor, ...]]
"""The states of a language model's layers: tensors `(1, R, H)`."""


class NextTokens(Protocol):
    """What a language model tells of R rows."""

    @property
    def logits(self) -> Tensor:
        """Unnormalised log-probabilities of the next token (R, V)."""

    @property
    def state(self) -> LayerStates:
        """The state after the step."""


class Language(Protocol):
    """A language model that goes on token by token."""

    def step(self, tokens: Tensor, state: LayerStates | None, /) -> NextTokens:
        """Read the last tokens (R,) int64; the state is None where rows begin."""
        ...


class FusedState(NamedTuple):
    """The states of a decoder and of a language model, for the same R rows."""

    decoder: DecoderState
    language: LayerStates | None
    """None before the first token."""
    rows: Tensor | None = None
    """`(B * K,)`: the row of each place, any at an empty one; None where no place is empty."""

    def reorder(self, index: Tensor, places: Tensor | None = None) -> FusedState:
        """See `mt.search.hypotheses.DecoderState`."""
        old, rows = index.reshape(-1), None
        if places is not None:
            old = old[places]
            rows = torch.zeros_like(index).view(-1)
            rows[places] = torch.arange(len(places), device=places.device)
        if self.rows is not None:
            old = self.rows[old]
        language = self.language
        if language is not None:
            language = [tuple(t.index_select(1, old) for t in layer) for layer in language]
        return FusedState(self.decoder.reorder(index, places), language, rows)


class FusedStep(NamedTuple):
    """One step of R rows; see `mt.search.hypotheses.StepOutput`."""

    logits: Tensor
    attention: Tensor | None
    state: FusedState

    @property
    def scores(self) -> Tensor:
        """`(R, V)`: what hypotheses are compared by, as it is."""
        return self.logits


class Fusion(NamedTuple):
    """Who has a say beside the decoder, and how much."""

    language: Language
    weight: float
    """Of its log-probabilities, at least 0."""


class FusedDecoder:
    """A decoder that a language model of the same tokens advises; see the module.

    Args:
        decoder: What translates.
        fusion: What advises it.
        candidates: `(C,)`: the tokens whose numbers `decoder` reads and scores; None for all.
    """

    def __init__(self, decoder: Decoder, fusion: Fusion, candidates: Tensor | None = None):
        self.decoder, self.fusion, self.candidates = decoder, fusion, candidates

    def start(self, state: DecoderState) -> FusedState:
        """Join a state of the decoder's before the first token."""
        return FusedState(state, None)

    def step(self, tokens: Tensor, state: FusedState) -> FusedStep:
        """Feed the last tokens `(R,)` and score the next."""
        output = self.decoder.step(tokens, state.decoder)
        if self.candidates is not None:
            tokens = self.candidates[tokens]
        told = self.fusion.language.step(tokens, state.language)
        said = log_softmax(told.logits)
        if self.candidates is not None:
            said = said[:, self.candidates]
        scores = log_softmax(output.logits).add_(said, alpha=self.fusion.weight)
        return FusedStep(scores, output.attention, FusedState(output.state, told.state, state.rows))
