"""Which pairs of a corpus are worth training on, as trained models judge: what `mt select` does.

- Moore & Lewis (2010, "Intelligent Selection of Language Model Training Data"): a text is worth
  the less, the more its cross-entropy by a language model of the wanted domain exceeds that by one
  of text in general. Both are in nats a token, ends of lines included.
- Dual conditional cross-entropy (Junczys-Dowmunt 2018, arXiv:1809.00197): with H(y|x) by a
  translator and H(x|y) by one in the other direction, a pair is worth the less, the greater
  |H(y|x) - H(x|y)| + (H(y|x) + H(x|y)) / 2.

Each turns into a score, exp(-difference) and exp(-dual). With both, their product orders the pairs,
the first one no greater than 1, as in the second paper: what is typical of the domain is no excuse
for a bad translation. Alone, the first has no limit, or the most typical texts would all be equal.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mt.errors import MTError
from mt.files import write_atomically
from mt.language_model import LanguageModel
from mt.lines import duration, ending, read_parallel
from mt.options import SelectOptions
from mt.parallel import CHUNK, check_sizes
from mt.translator import Translator

_log = logging.getLogger("mt")
Scores = NDArray[np.float64]


class Domain(NamedTuple):
    """Two language models of the same language."""

    wanted: LanguageModel
    general: LanguageModel


class Directions(NamedTuple):
    """A translator and its counterpart."""

    forward: Translator
    backward: Translator


def domain_scores(models: Domain, lines: Sequence[str]) -> Scores:
    """Judge text by its domain: exp(H_general - H_wanted), `(n,)`."""
    wanted, general = (_per_token(model.score(lines)) for model in models)
    return np.exp(general - wanted)


def dual_scores(models: Directions, sources: Sequence[str], targets: Sequence[str]) -> Scores:
    """Judge pairs by what two translators make of them, from 0 to 1, `(n,)`."""
    there = _per_token(models.forward.score(sources, targets))
    back = _per_token(models.backward.score(targets, sources))
    return np.exp(-(np.abs(there - back) + (there + back) / 2))


def _per_token(scored: Sequence[tuple[float, int]]) -> Scores:
    """Cross-entropies in nats a token."""
    return np.array([-total / max(1, tokens) for total, tokens in scored])


def best(scores: Scores, keep: float) -> NDArray[np.bool_]:
    """Choose the best share of all, of equals the first."""
    order = np.argsort(-scores, kind="stable")
    chosen = np.zeros(len(scores), dtype=bool)
    chosen[order[: math.ceil(keep * len(scores))]] = True
    return chosen


def select(options: SelectOptions) -> tuple[int, int]:
    """Write the best pairs of a corpus, in their order.

    Returns:
        How many pairs were kept, and how many there were.

    Raises:
        MTError: A file or bundle cannot be read, options do not go together, or the outputs cannot
            be written; then they stay as they were.
    """
    check_sizes(threads=options.threads)
    if not 0 < options.keep <= 1:
        raise MTError(f"--keep: must be above 0 and at most 1, not {options.keep}")
    for one, other in (("in_domain", "general"), ("forward", "backward")):
        if (getattr(options, one) is None) != (getattr(options, other) is None):
            names = f"--{one} and --{other}".replace("_", "-")
            raise MTError(f"{names} go together; give both, or neither")
    if options.in_domain is None and options.forward is None:
        raise MTError(
            "nothing to judge by; give --in-domain and --general, or --forward and --backward"
        )
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    sources, targets = read_parallel([options.source, options.target])
    scores = np.ones(len(sources))
    if options.in_domain is not None and options.general is not None:
        domain = Domain(
            *(
                LanguageModel.load(bundle, options.device)
                for bundle in (options.in_domain, options.general)
            )
        )
        if domain.wanted.language != domain.general.language:
            raise MTError(
                f"--in-domain knows {domain.wanted.language} and --general "
                f"{domain.general.language}; give two language models of one language"
            )
        lines = targets if _side(options, domain.wanted.language) else sources
        for chunk in _chunks(len(lines), "domain"):
            scores[chunk] *= domain_scores(domain, lines[chunk])
    if options.forward is not None and options.backward is not None:
        pair = Directions(
            Translator.load(options.forward, options.device),
            Translator.load(options.backward, options.device),
        )
        if pair.forward.languages != pair.backward.languages[::-1]:
            raise MTError(
                f"--forward translates {' to '.join(pair.forward.languages)} and --backward "
                f"{' to '.join(pair.backward.languages)}; give one for each direction"
            )
        for chunk in _chunks(len(sources), "translation"):
            scores[chunk] = np.minimum(1, scores[chunk]) * dual_scores(
                pair, sources[chunk], targets[chunk]
            )
    kept = np.flatnonzero(best(scores, options.keep)).tolist()
    languages = [ending(path) for path in (options.source, options.target)]
    if languages[0] == languages[1]:
        languages = ["source", "target"]
    texts = {
        language: [side[number] for number in kept]
        for language, side in zip(languages, (sources, targets), strict=True)
    }
    texts["scores"] = [f"{score:.6g}" for score in scores]
    for name, lines in texts.items():
        path = Path(f"{options.output}.{name}")
        write_atomically(path, "".join(f"{line}\n" for line in lines))
    return len(kept), len(sources)


def _chunks(count: int, what: str) -> Iterator[slice]:
    """Cut a corpus into chunks, and tell twice a minute how far one is."""
    began = told = time.monotonic()
    for start in range(0, count, CHUNK):
        yield slice(start, start + CHUNK)
        now, done = time.monotonic(), min(start + CHUNK, count)
        if now - told > 30:
            told, rate = now, done / (now - began)
            left = duration((count - done) / rate)
            _log.info(
                "%s: %s of %s pairs · %s/s · %s left",
                what,
                f"{done:,}",
                f"{count:,}",
                f"{rate:,.0f}",
                left,
            )


def _side(options: SelectOptions, language: str) -> bool:
    """Tell whether a language is the target's, by the names of the files."""
    sides = [ending(path) == language for path in (options.source, options.target)]
    if sum(sides) != 1:
        raise MTError(
            f"--in-domain knows {language}, and not one of {options.source.name} and "
            f"{options.target.name} ends in .{language}; rename that file"
        )
    return sides[1]
