"""Random segmentations of training text, each a function of its seed alone.

SentencePiece samples segmentations too, but from a generator that starts anew in every process,
whatever its seed: a resumed run could not repeat what an uninterrupted one does.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

from mt.tokenizer import UNK, Tokenizer

_SPACE = "▁"
_REMEMBERED = 2**15  # lattices of words: under 100 MB


class _Ways(NamedTuple):
    """The pieces that can end at one place of a word."""

    starts: list[int]
    weights: list[float]
    """Their shares of the probability, each added to those before it; the sum is arbitrary."""


class SubwordSampler:
    """Samples segmentations of a SentencePiece model, word by word.

    - `bpe`: BPE-dropout (Provilkov et al., arXiv:1910.13267): before each merge, every pair that
      could be merged is passed over with probability `strength`; the best of the others is merged.
    - `unigram`: segmentations drawn in proportion to P(segmentation) ** `strength` (Kudo,
      arXiv:1804.10959), exactly, by forward filtering and backward sampling.

    Args:
        tokenizer: The model.
        strength: See above; 0 gives BPE's best segmentation and unigram's uniform distribution.
    """

    def __init__(self, tokenizer: Tokenizer, strength: float):
        processor = tokenizer.processor
        self._strength = strength
        self._ids: dict[str, int] = {}
        self._scores: dict[str, float] = {}
        self._bytes: dict[int, int] = {}
        self._spelling: list[bytes] = []
        self._whole = {UNK, *tokenizer.user_defined}
        for number in range(len(tokenizer)):
            piece = processor.id_to_piece(number)
            if processor.is_byte(number):
                byte = int(piece[1:-1], 16)
                self._bytes[byte] = number
                self._spelling.append(bytes([byte]))
                continue
            self._spelling.append(piece.encode())
            if not (processor.is_control(number) or number in self._whole):
                self._ids[piece] = number
                self._scores[piece] = processor.get_score(number)
        self._unknown = min(self._scores.values(), default=0.0) - 10  # SentencePiece's penalty
        self._longest = max(map(len, self._scores), default=1)
        self._lattices: dict[str, list[_Ways]] = {}
        self._words = re.compile(f"{_SPACE}*[^{_SPACE}]*")
        self._split: Callable[[str, random.Random], list[str]] = (
            self._merge if tokenizer.kind == "bpe" else self._draw
        )

    def sample(self, sentences: Sequence[Sequence[int]], seed: int) -> list[list[int]]:
        """Segment sentences anew, each given by its tokens in any segmentation.

        Symbols and unknown characters are always one token; no special tokens are added.
        """
        generator = random.Random(seed)
        return [self._sentence(ids, generator) for ids in sentences]

    def _sentence(self, ids: Sequence[int], generator: random.Random) -> list[int]:
        found: list[int] = []
        for whole, run in groupby(ids, self._whole.__contains__):
            if whole:
                found.extend(run)
                continue
            text = b"".join(self._spelling[number] for number in run).decode()
            for word in self._words.findall(text):
                for piece in self._split(word, generator) if word else ():
                    if piece in self._ids:
                        found.append(self._ids[piece])
                    else:
                        found.extend(self._bytes[byte] for byte in piece.encode())
        return found

    def _merge(self, word: str, generator: random.Random) -> list[str]:
        scores, drop, draw = self._scores, self._strength, generator.random
        pieces = list(word)
        while len(pieces) > 1:
            best, place = -math.inf, -1
            for left in range(len(pieces) - 1):
                score = scores.get(pieces[left] + pieces[left + 1])
                # Only a pair that would win needs a draw: what happens to others has no effect.
                if score is not None and score > best and draw() >= drop:
                    best, place = score, left
            if place < 0:
                break
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        return pieces

    def _draw(self, word: str, generator: random.Random) -> list[str]:
        if word not in self._lattices:
            if len(self._lattices) == _REMEMBERED:
                self._lattices.clear()
            self._lattices[word] = self._lattice(word)
        lattice, draw = self._lattices[word], generator.random
        pieces, end = [], len(word)
        while end > 0:
            starts, weights = lattice[end - 1]
            start = starts[bisect_right(weights, draw() * weights[-1], hi=len(starts) - 1)]
            pieces.append(word[start:end])
            end = start
        return pieces[::-1]

    def _lattice(self, word: str) -> list[_Ways]:
        # totals[i]: log of the summed weight of all segmentations of word[:i]
        totals, lattice = [0.0], []
        for end in range(1, len(word) + 1):
            ways = {}
            for start in range(max(0, end - self._longest), end):
                score = self._scores.get(word[start:end])
                if score is None and end - start == 1:
                    score = self._unknown
                if score is not None:
                    ways[start] = totals[start] + self._strength * score
            highest = max(ways.values())
            weights = list(accumulate(math.exp(weight - highest) for weight in ways.values()))
            totals.append(highest + math.log(weights[-1]))
            lattice.append(_Ways(list(ways), weights))
        return lattice
