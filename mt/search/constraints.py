"""What a hypothesis may continue with: lengths, prefixes, counted and forbidden tokens, n-grams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor

from mt.errors import MTError
from mt.search.options import LONGEST, SearchOptions


class Constraints:
    """The limits of each sentence of a batch, applied to log-probabilities step by step.

    Lengths and prefixes are kept on the host, so that steps at which none applies cost nothing on
    the device, and no step waits for it. Raises `MTError` where a prefix is over 512 tokens.
    """

    def __init__(
        self,
        source_lengths: Sequence[int],
        options: SearchOptions,
        *,
        eos: int,
        forbidden: Sequence[int] = (),
        prefixes: Sequence[Sequence[int]] | None = None,
        counts: Sequence[Mapping[int, int]] | None = None,
        device: torch.device,
    ) -> None:
        if prefixes is None:
            prefixes = [()] * len(source_lengths)
        if len(prefixes) != len(source_lengths):
            raise ValueError(f"{len(prefixes)} prefixes for {len(source_lengths)} sentences")
        if any(eos in prefix for prefix in prefixes):
            raise ValueError("a prefix cannot hold the end of sentence")
        if eos in forbidden:
            raise ValueError("the end of sentence cannot be forbidden")
        counts = counts or [{} for _ in source_lengths]
        if len(counts) != len(source_lengths):
            raise ValueError(f"{len(counts)} counts for {len(source_lengths)} sentences")
        if any(row.keys() != counts[0].keys() for row in counts):
            raise ValueError("the counted tokens must be the same for every sentence")
        too_long = max((len(prefix) for prefix in prefixes), default=0)
        if too_long > LONGEST:
            raise MTError(
                f"a target prefix has {too_long} tokens: shorten it to {LONGEST} or fewer"
            )
        self.eos = eos
        self.no_repeat_ngram = options.no_repeat_ngram
        self.prefixes = prefixes
        # A prefix is a promise: it lifts the limit where it is longer.
        self.longest = [
            max(options.longest(length), len(prefix))
            for length, prefix in zip(source_lengths, prefixes, strict=True)
        ]
        self.room = torch.tensor(self.longest, device=device)
        self.shortest = [options.shortest(length) for length in source_lengths]
        counted = sorted(counts[0]) if counts else []
        self.counted = torch.tensor(counted, dtype=torch.long, device=device)  # (Q,)
        self.counts = torch.tensor(
            [[row[token] for token in counted] for row in counts], dtype=torch.long, device=device
        )  # (B, Q)
        self.forbidden = torch.tensor(sorted(set(forbidden)), dtype=torch.long, device=device)

    def apply(
        self, log_probs: Tensor, step: int, sentences: Sequence[int], history: Tensor
    ) -> None:
        """Set what may not follow to minus infinity, in place.

        `log_probs` (R, V) are those of the token after `step` tokens, `history` (R, step) holds
        these tokens, and `sentences` (R) are the rows' sentences. A prefix token is exempt from
        every other rule, as is the end of sentence at the greatest length.
        """
        device = log_probs.device
        forced = [(i, self._forced(sentence, step)) for i, sentence in enumerate(sentences)]
        forced = [(i, token) for i, token in forced if token >= 0]
        if forced:
            index, token = torch.tensor(forced, device=device).unbind(dim=1)
            kept = log_probs[index, token]
        if len(forced) < len(sentences):
            if len(self.forbidden):
                log_probs.index_fill_(1, self.forbidden, -inf)
            if len(self.counted):
                self._count(log_probs, step, sentences, history)
            if self.no_repeat_ngram:
                self._forbid_repeats(log_probs, history)
            short = [i for i, sentence in enumerate(sentences) if step < self.shortest[sentence]]
            if short:
                log_probs[torch.tensor(short, device=device), self.eos] = -inf
        if forced:
            log_probs.index_fill_(0, index, -inf)
            log_probs[index, token] = kept

    def _forced(self, sentence: int, step: int) -> int:
        """The one token that may follow `step` tokens, or -1 where there is a choice."""
        prefix = self.prefixes[sentence]
        if step < len(prefix):
            return prefix[step]
        return self.eos if step == self.longest[sentence] else -1

    def _count(
        self, log_probs: Tensor, step: int, sentences: Sequence[int], history: Tensor
    ) -> None:
        """Forbid counted tokens that are used up, the end while one is wanting, and all else where
        those that are wanting need the room that is left."""
        index = torch.tensor(sentences, device=log_probs.device)
        used = (history.unsqueeze(2) == self.counted).sum(dim=1)
        left = (self.counts[index] - used).clamp(min=0)  # (R, Q)
        wanting = left.sum(dim=1)
        room = self.room[index] - step
        counted = log_probs[:, self.counted].masked_fill(left == 0, -inf)
        end = log_probs[:, self.eos].masked_fill(wanting > 0, -inf)
        log_probs.masked_fill_(((wanting > 0) & (wanting >= room)).unsqueeze(1), -inf)
        log_probs[:, self.counted] = counted
        log_probs[:, self.eos] = end

    def _forbid_repeats(self, log_probs: Tensor, history: Tensor) -> None:
        n = self.no_repeat_ngram
        if history.shape[1] < n:
            return
        counted = log_probs[:, self.counted]  # how often these stand is decided elsewhere
        ngrams = history.unfold(1, n, 1)  # (R, step - n + 1, n)
        last = history[:, history.shape[1] - n + 1 :].unsqueeze(1)  # (R, 1, n - 1)
        repeats = (ngrams[:, :, :-1] == last).all(dim=2)
        # Where an n-gram's head differs, the end of sentence is struck in place of its last token
        # and restored afterwards: it is never an n-gram's last token itself.
        end = log_probs[:, self.eos].clone()
        log_probs.scatter_(1, torch.where(repeats, ngrams[:, :, -1], self.eos), -inf)
        log_probs[:, self.eos] = end
        log_probs[:, self.counted] = counted
