"""Greedy search: always the most probable token."""

from __future__ import annotations

from itertools import count
from math import inf

import torch
from torch import Tensor

from mt.search.constraints import Constraints
from mt.search.hypotheses import Decoder, DecoderState, Hypothesis
from mt.search.options import SearchOptions
from mt.search.scoring import Coverage, best_token, sum_dtype, token_scores


def greedy_search(
    decoder: Decoder,
    state: DecoderState,
    source_lengths: Tensor,
    options: SearchOptions,
    constraints: Constraints,
    *,
    bos: int,
) -> list[list[Hypothesis]]:
    """What `beam_search` with one hypothesis returns, without its bookkeeping.

    Arguments are those of `beam_search`. Equal log-probabilities: the lowest token id.
    """
    device, eos = source_lengths.device, constraints.eos
    results: list[list[Hypothesis]] = [[] for _ in range(len(source_lengths))]
    active = list(range(len(results)))
    coverage = Coverage(source_lengths, options.coverage_penalty)
    tokens = torch.full((len(active),), bos, device=device)
    history = tokens.new_empty(len(active), 0)
    sums = torch.zeros(len(active), dtype=sum_dtype(device), device=device)
    for step in count():
        output = decoder.step(tokens, state)
        log_probs = token_scores(output)
        constraints.apply(log_probs, step, active, history)
        tokens = best_token(log_probs)
        sums = sums + log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1)
        sums = sums.nan_to_num(nan=-inf, neginf=-inf)
        scores = sums / options.normalizer(step + 1)
        if options.coverage_penalty:
            scores = scores + coverage.add(output.attention).squeeze(1)
        done = ((tokens == eos) | (sums == -inf)).tolist()
        state = output.state
        if any(done):
            gone = [i for i, is_done in enumerate(done) if is_done]
            kept = [i for i, is_done in enumerate(done) if not is_done]
            leaving = torch.tensor(gone, device=device)
            for i, path, log_prob, score in zip(
                gone,
                history[leaving].tolist(),
                sums[leaving].tolist(),
                scores[leaving].tolist(),
                strict=True,
            ):
                if log_prob > -inf:
                    finished = step < constraints.longest[active[i]]
                    results[active[i]] = [Hypothesis(path, log_prob, score, finished)]
            active = [active[i] for i in kept]
            if not active:
                break
            keep = torch.tensor(kept, device=device)
            tokens, history, sums = tokens[keep], history[keep], sums[keep]
            state = state.reorder(keep.unsqueeze(1))
            if options.coverage_penalty:
                coverage.reorder(keep.unsqueeze(1), keep)
        history = torch.cat([history, tokens.unsqueeze(1)], dim=1)
    return results
