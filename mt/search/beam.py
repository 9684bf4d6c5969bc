"""Beam search over sentences x hypotheses, all on the device."""

from __future__ import annotations

from itertools import count
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mt.search.constraints import Constraints
from mt.search.hypotheses import Decoder, DecoderState, Hypothesis
from mt.search.options import SearchOptions
from mt.search.scoring import Coverage, best_tokens, sum_dtype, token_scores


def beam_search(
    decoder: Decoder,
    state: DecoderState,
    source_lengths: Tensor,
    options: SearchOptions,
    constraints: Constraints,
    *,
    bos: int,
) -> list[list[Hypothesis]]:
    """The `n_best` best finished hypotheses of each sentence, best first.

    A sentence has `beam_size` slots. At each step every live hypothesis is continued by every
    token; the best continuations by log-probability take the free slots. One that ends in the end
    of sentence is finished: it keeps its slot for good and is ranked by its score. The sentence is
    done when no live hypothesis is left, or, with the same result, when none could still finish
    above the n-th best score. With one slot this is greedy search; with a slot for each possible
    translation it is exhaustive.

    `state` has B rows, `source_lengths` (B,) lies on the device of the search. Ties go to the
    hypothesis that finished first, then to the better hypothesis of the step before, then to the
    lowest token id.
    """
    device, eos = source_lengths.device, constraints.eos
    results: list[list[Hypothesis]] = [[] for _ in range(len(source_lengths))]
    active = list(range(len(results)))
    coverage = Coverage(source_lengths, options.coverage_penalty)
    tokens = torch.full((len(active),), bos, device=device)
    history = tokens.new_empty(len(active), 1, 0)  # (B, K, step)
    live = torch.zeros(len(active), 1, dtype=sum_dtype(device), device=device)  # (B, K)
    free = torch.full((len(active), 1), options.beam_size, device=device)  # slots
    pool = _Pool.empty(len(active), options.n_best, live)
    # Negative length penalties favour short hypotheses: then the bound is that of the next step.
    longest = [options.normalizer(length + 1) for length in constraints.longest]
    reach = torch.tensor(longest, dtype=live.dtype, device=device)  # (B,)
    taken = [0] * len(active)  # slots
    width = options.beam_size  # the most free slots of any sentence
    rows, places = active, None  # each row's sentence, and place in (B, K) where some are empty

    for step in count():
        output = decoder.step(tokens, state)
        log_probs = token_scores(output)
        told = history.flatten(0, 1)
        constraints.apply(log_probs, step, rows, told if places is None else told[places])
        normalizer = options.normalizer(step + 1)
        bound_normalizer = reach if options.length_penalty >= 0 else options.normalizer(step + 2)
        if options.coverage_penalty:
            looks = output.attention
            penalty = coverage.add(None if looks is None else _spread(looks, live, places, 0.0))
        for exact in (False, True):
            values, ids, undecided = (
                _spread(part, live, places, fill)
                for part, fill in zip(
                    best_tokens(log_probs, width, exact=exact), (-inf, 0, False), strict=True
                )
            )
            sums = (live.flatten().unsqueeze(1) + values).nan_to_num(nan=-inf, neginf=-inf)
            sums, order = sums.view(len(active), -1).sort(dim=1, descending=True, stable=True)
            sums, order = sums[:, :width], order[:, :width]
            slots = torch.arange(sums.shape[1], device=device)
            sums = sums.masked_fill(slots >= free, -inf)
            parents = order // values.shape[1]  # (B, K')
            tokens = ids.view(len(active), -1).gather(1, order)
            ended = (tokens == eos) & (sums > -inf)

            scores = sums / normalizer
            if options.coverage_penalty:
                scores = scores + penalty.gather(1, parents)
            scores = torch.cat([pool.scores, scores.masked_fill(~ended, -inf)], dim=1)
            scores, ranks = scores.sort(dim=1, descending=True, stable=True)
            scores, ranks = scores[:, : options.n_best], ranks[:, : options.n_best]

            # A log-probability only falls, and no penalty is above 0. An infinite bound tells that
            # nothing is alive. A tie with the bound would go to what has finished already.
            alive = sums.masked_fill(ended, -inf)
            done = scores[:, -1] >= alive.amax(dim=1) / bound_normalizer
            undecided = (undecided.view(live.shape) & (live > -inf)).any(dim=1)
            # The only moment of the step at which the host waits for the device.
            finishing, leaving, again = torch.stack([ended.sum(dim=1), done, undecided]).tolist()
            if not any(again):
                break

        free = free - ended.sum(dim=1, keepdim=True)
        taken = [slots + new for slots, new in zip(taken, finishing, strict=True)]
        if any(finishing):
            pool = pool.merge(scores, ranks, sums, history, parents)
        live, state, keep = alive, output.state, None
        index = parents + torch.arange(len(active), device=device).unsqueeze(1) * history.shape[1]
        if any(leaving):
            gone = [i for i, is_done in enumerate(leaving) if is_done]
            for i, hypotheses in zip(gone, pool.hypotheses(gone), strict=True):
                limit = constraints.longest[active[i]]
                results[active[i]] = [
                    Hypothesis(path, log_prob, score, finished=len(path) < limit)
                    for path, log_prob, score in hypotheses
                ]
            kept = [i for i, is_done in enumerate(leaving) if not is_done]
            if not kept:
                break
            active, taken = [active[i] for i in kept], [taken[i] for i in kept]
            keep = torch.tensor(kept, device=device)
            index, tokens, live, free = index[keep], tokens[keep], live[keep], free[keep]
            reach, pool = reach[keep], pool.keep(keep)
        # Where every sentence has filled some slots, fewer rows are decoded from the next step on.
        width = options.beam_size - min(taken)
        history = torch.cat([history.flatten(0, 1)[index], tokens.unsqueeze(2)], dim=2)
        tokens = tokens.flatten()
        rows = [sentence for sentence in active for _ in range(live.shape[1])]
        # On a GPU empty places cost less than to learn which they are.
        places = (live > -inf).flatten().nonzero().squeeze(1) if device.type == "cpu" else None
        if places is not None:
            tokens, rows = tokens[places], [rows[place] for place in places.tolist()]
        state = state.reorder(index, places)
        if options.coverage_penalty:
            coverage.reorder(index, keep)
    return results


def _spread(part: Tensor, live: Tensor, places: Tensor | None, fill: float) -> Tensor:
    """Give what rows have, `(R, …)`, to all of the places of `live` (B, K): `(B * K, …)`."""
    if places is None:
        return part
    spread = part.new_full((live.numel(), *part.shape[1:]), fill)
    spread[places] = part
    return spread


class _Pool(NamedTuple):
    """The P best finished hypotheses of each sentence, best first; empty places score -inf."""

    scores: Tensor  # (B, P)
    sums: Tensor  # (B, P), log-probabilities
    lengths: Tensor  # (B, P)
    tokens: Tensor  # (B, P, T), filled up with zeros

    @classmethod
    def empty(cls, sentences: int, places: int, like: Tensor) -> _Pool:
        scores = like.new_full((sentences, places), -inf)
        lengths = scores.new_zeros(scores.shape, dtype=torch.long)
        return cls(scores, scores, lengths, lengths.new_empty(sentences, places, 0))

    def merge(
        self, scores: Tensor, ranks: Tensor, sums: Tensor, history: Tensor, parents: Tensor
    ) -> _Pool:
        """The pool with the given `scores` (B, P) of the entries `ranks` (B, P): first those of
        this pool, then the new ones with log-probabilities `sums` (B, K'), whose tokens are those
        of hypotheses `parents` (B, K') in `history` (B, K, T')."""
        steps = history.shape[2]
        paths = history.gather(1, parents.unsqueeze(2).expand(-1, -1, steps))
        paths = torch.cat([pad(self.tokens, (0, steps - self.tokens.shape[2])), paths], dim=1)
        lengths = torch.cat([self.lengths, torch.full_like(parents, steps)], dim=1)
        return _Pool(
            scores,
            torch.cat([self.sums, sums], dim=1).gather(1, ranks),
            lengths.gather(1, ranks),
            paths.gather(1, ranks.unsqueeze(2).expand(-1, -1, steps)),
        )

    def keep(self, sentences: Tensor) -> _Pool:
        """The pool of some sentences."""
        return _Pool(*(part[sentences] for part in self))

    def hypotheses(self, sentences: list[int]) -> list[list[tuple[list[int], float, float]]]:
        """Tokens, log-probability and score of what the given sentences have, on the host."""
        parts = self.keep(torch.tensor(sentences, device=self.scores.device))
        return [
            [
                (path[:length], log_prob, score)
                for score, log_prob, length, path in zip(*sentence, strict=True)
                if score > -inf
            ]
            for sentence in zip(*(part.tolist() for part in parts), strict=True)
        ]
