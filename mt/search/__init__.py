"""Scores to tokens: greedy and beam search over any decoder that keeps the `Decoder` protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mt.search.beam import beam_search
from mt.search.constraints import Constraints
from mt.search.fusion import FusedDecoder, Fusion
from mt.search.greedy import greedy_search
from mt.search.hypotheses import Decoder, DecoderState, Hypothesis, StepOutput
from mt.search.options import SearchOptions
from mt.search.shortlist import NarrowDecoder

__all__ = [
    "Decoder",
    "DecoderState",
    "Fusion",
    "Hypothesis",
    "SearchOptions",
    "StepOutput",
    "search",
]


@torch.no_grad()
def search(
    decoder: Decoder,
    state: DecoderState,
    source_lengths: Tensor,
    options: SearchOptions,
    *,
    bos: int,
    eos: int,
    forbidden: Sequence[int] = (),
    prefixes: Sequence[Sequence[int]] | None = None,
    counts: Sequence[Mapping[int, int]] | None = None,
    allowed: Tensor | None = None,
    fusion: Fusion | None = None,
    device: torch.device | str | None = None,
) -> list[list[Hypothesis]]:
    """Translate a batch: at most `options.n_best` hypotheses for each sentence, best first.

    `state` has one row a sentence (B), and `source_lengths` (B,) int64 counts the source's tokens
    without the end of sentence. `forbidden` are tokens never produced, `prefixes` tokens that each
    sentence's translations must begin with (empty for none); a prefix may hold forbidden tokens,
    may repeat itself, and lifts the limit on the length where it is longer. `counts` tells how
    often some tokens, the same for every sentence, stand in each sentence's translations, exactly;
    only where the greatest length leaves no room are they fewer. `allowed` (B, V) bool leaves each
    sentence some tokens (see `mt.search.shortlist`), besides `eos`, its prefix and the counted
    tokens; probabilities are then among these, and a `NarrowingDecoder` scores no others. `fusion`
    names a language model that has a say (see `mt.search.fusion`); then a hypothesis's
    `log_probability` is the sum of what both have told of it, the second by its weight.
    `device` is where the decoder computes, by default where `source_lengths` lies.

    Where a hypothesis reaches the greatest length, the end of sentence is forced upon it, at its
    true probability. So every hypothesis returned is a whole sentence. There are fewer than
    `n_best` where the options leave fewer, and none where they leave no token to go on with or the
    decoder gives only zero or undefined probabilities.

    Raises `MTError` for a prefix over 512 tokens and for a coverage penalty without attention,
    `ValueError` for prefixes or counts that do not match the batch, prefixes that hold `eos`, and a
    forbidden `eos`.
    """
    device = torch.device(device or source_lengths.device)
    if allowed is not None:
        always = {eos, *(counts[0] if counts else ())}
        starts = prefixes or [()] * len(source_lengths)
        narrow = NarrowDecoder(decoder, allowed, always, starts, bos, device)
        inner: tuple[Decoder, DecoderState] = narrow, narrow.start(state)
        if fusion is not None:
            fused = FusedDecoder(narrow, fusion, narrow.candidates)
            inner = fused, fused.start(inner[1])
        found = search(
            *inner,
            source_lengths,
            options,
            bos=narrow.numbers[bos],
            eos=narrow.numbers[eos],
            forbidden=narrow.renumber(forbidden),
            prefixes=[narrow.renumber(prefix) for prefix in starts],
            counts=counts and [narrow.renumber_counts(row) for row in counts],
            device=device,
        )
        return [[narrow.restore(one) for one in row] for row in found]
    lengths = source_lengths.tolist()
    constraints = Constraints(
        lengths,
        options,
        eos=eos,
        forbidden=forbidden,
        prefixes=prefixes,
        counts=counts,
        device=device,
    )
    if not lengths:
        return []
    if fusion is not None:
        fused = FusedDecoder(decoder, fusion)
        decoder, state = fused, fused.start(state)
    run = greedy_search if options.beam_size == 1 else beam_search
    return run(decoder, state, source_lengths.to(device), options, constraints, bos=bos)
