"""Lexical shortlists: only tokens that a sentence's translations are likely to hold are scored.

The output layer, the softmax and the search then run over a part of the vocabulary (Jean et al.,
arXiv:1412.2007). What may stand in a translation depends on its source alone, so a translation
still never depends on its batch; but probabilities are higher, being shared among fewer tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from mt.search.hypotheses import Decoder, DecoderState, Hypothesis, NarrowingDecoder


class Shortlist(NamedTuple):
    """What each source token is likely to become."""

    likely: Tensor
    """`(V, K)` int64: target tokens for each source token, filled up with the end of sentence."""
    frequent: Tensor
    """`(F,)` int64: target tokens that any translation may hold."""

    def allowed(self, sources: Sequence[Sequence[int]], vocabulary: int) -> Tensor:
        """Tell what translations may hold.

        Args:
            sources: Tokens of B sentences.
            vocabulary: V, number of target tokens.

        Returns:
            `(B, V)`, True for likely tokens.
        """
        allowed = torch.zeros(len(sources), vocabulary, dtype=torch.bool)
        allowed[:, self.frequent] = True
        for row, source in zip(allowed, sources, strict=True):
            row[self.likely[list(source)]] = True
        return allowed


class _State(NamedTuple):
    """A decoder's state, and what each of its B sentences may not go on with."""

    inner: DecoderState
    banned: Tensor  # (B, C)
    width: int  # places of each sentence
    places: Tensor | None  # (R,), those that are not empty

    def reorder(self, index: Tensor, places: Tensor | None = None) -> _State:
        banned = self.banned
        if len(index) != len(banned):
            banned = banned[index[:, 0] // self.width]
        return _State(self.inner.reorder(index, places), banned, index.shape[1], places)


class _Step(NamedTuple):
    logits: Tensor
    attention: Tensor | None
    state: _State


class NarrowDecoder:
    """A decoder whose vocabulary is what any sentence of a batch may hold: C candidates, in the
    order of their ids. Tokens are numbers of candidates.

    Args:
        decoder: Scores all tokens, or those asked for where it is a `NarrowingDecoder`.
        allowed: `(B, V)`, from `Shortlist.allowed`.
        always: Tokens that every translation may hold.
        prefixes: Tokens that each sentence's translation may hold besides.
        bos: Begin of sentence, which is read but not written.
        device: Where the decoder computes.
    """

    def __init__(
        self,
        decoder: Decoder,
        allowed: Tensor,
        always: Collection[int],
        prefixes: Sequence[Sequence[int]],
        bos: int,
        device: torch.device,
    ):
        allowed = allowed.clone()
        allowed[:, list(always)] = True
        for row, prefix in zip(allowed, prefixes, strict=True):
            row[list(prefix)] = True
        wanted = allowed.any(dim=0)
        wanted[bos] = True
        candidates = wanted.nonzero().squeeze(1)  # (C,)
        self.ids = candidates.tolist()
        self.numbers = {token: number for number, token in enumerate(self.ids)}
        self.candidates = candidates.to(device)
        self.decoder = decoder
        self.columns: Tensor | slice = self.candidates  # of the decoder's logits
        if isinstance(decoder, NarrowingDecoder):
            self.decoder, self.columns = decoder.narrow(self.candidates), slice(None)
        self.banned = ~allowed[:, candidates].to(device)

    def start(self, state: DecoderState) -> _State:
        """Wrap the decoder's first state, one row a sentence."""
        return _State(state, self.banned, 1, None)

    def step(self, tokens: Tensor, state: _State) -> _Step:
        """See `Decoder.step`."""
        output = self.decoder.step(self.candidates[tokens], state.inner)
        sentences = torch.arange(len(state.banned), device=tokens.device)
        sentences = sentences.repeat_interleave(state.width)
        if state.places is not None:
            sentences = sentences[state.places]
        logits = output.logits[:, self.columns].masked_fill(state.banned[sentences], -inf)
        return _Step(logits, output.attention, state._replace(inner=output.state))

    def renumber(self, tokens: Sequence[int]) -> list[int]:
        """Ids to numbers; what is no candidate is left out."""
        return [self.numbers[token] for token in tokens if token in self.numbers]

    def renumber_counts(self, counts: Mapping[int, int]) -> dict[int, int]:
        """The same for the keys."""
        return {self.numbers[token]: count for token, count in counts.items()}

    def restore(self, hypothesis: Hypothesis) -> Hypothesis:
        """Numbers to ids."""
        return hypothesis._replace(tokens=[self.ids[number] for number in hypothesis.tokens])
