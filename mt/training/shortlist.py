"""Lexical shortlists, learned from where a trained network's attention is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from mt.batches import Ints, pair_batches
from mt.recipe import ShortlistOptions
from mt.search.shortlist import Shortlist
from mt.tokenizer import EOS, PAD
from mt.translator import Translator

PAIRS = 200_000
"""Training pairs that are aligned, drawn evenly from a larger text."""
_TOKENS = 8192
"""Padded tokens that are aligned at a time."""


@torch.inference_mode()
def learn_shortlist(
    translator: Translator,
    batches: Iterable[tuple[Sequence[str], Sequence[str]]],
    pairs: int,
    options: ShortlistOptions,
) -> Shortlist:
    """Count, for each source token, the target tokens whose attention was on it the most.

    Args:
        translator: A trained engine with attention.
        batches: Raw source sentences and their translations, a batch at a time.
        pairs: How many there are in all.
        options: Lengths of the lists.
    """
    vocabulary = len(translator.tokenizers.target)
    every = -(-pairs // PAIRS)
    links, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for sources, targets in batches:
        found = _links(translator, sources[::every], targets[::every])
        new, times = np.unique(found, return_counts=True)
        links, places = np.unique(np.concatenate((links, new)), return_inverse=True)
        weights = np.concatenate((counts, times))
        counts = np.bincount(places, weights, len(links)).astype(np.int64)
    source, target = np.divmod(links, vocabulary)
    frequency = np.bincount(target, counts, vocabulary)
    frequent = np.argsort(-frequency, kind="stable")[: options.frequent]
    likely = np.full((len(translator.tokenizers.source), options.size), EOS)
    order = np.lexsort((target, -counts, source))  # by source token, the most frequent links first
    source, target = source[order], target[order]
    rank = np.arange(len(source)) - np.searchsorted(source, source)
    kept = rank < options.size
    likely[source[kept], rank[kept]] = target[kept]
    return Shortlist(torch.from_numpy(likely), torch.from_numpy(frequent))


def coverage(
    shortlist: Shortlist, translator: Translator, sources: Sequence[str], targets: Sequence[str]
) -> tuple[float, float]:
    """Measure a list on a text: which share of the target tokens it allows, and how many tokens it
    allows a sentence on average."""
    encoded, wanted = translator.encode_pairs(sources, targets)
    vocabulary = len(translator.tokenizers.target)
    known = total = size = 0
    for source, target in zip(encoded, wanted, strict=True):
        [allowed] = shortlist.allowed([[*source, EOS]], vocabulary)
        known += int(allowed[target].sum())
        total += len(target)
        size += int(allowed.sum())
    return known / max(1, total), size / max(1, len(encoded))


def _links(translator: Translator, sources: Sequence[str], targets: Sequence[str]) -> Ints:
    """Number the pairs of linked tokens: source id times V plus target id."""
    encoded, wanted = translator.encode_pairs(sources, targets)
    model, vocabulary = translator.model.eval(), len(translator.tokenizers.target)
    found = [np.empty(0, np.int64)]
    for batch in pair_batches(encoded, wanted, _TOKENS):
        source, source_lengths, target_in, target_out, _ = batch.to(translator.device)
        weights = model.align(source, source_lengths, target_in)
        tokens = source.gather(1, weights.argmax(dim=2)) * vocabulary + target_out
        found.append(tokens[(target_out != PAD) & (target_out != EOS)].cpu().numpy())
    return np.concatenate(found)
