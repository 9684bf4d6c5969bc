"""Text to text: the public Python API."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mt.batches import Batch, pad, pair_batches, plan_decoding
from mt.bundle import Bundle, LanguageModelBundle, load_bundle, load_graphs
from mt.errors import MTError
from mt.nn.language_model import forced
from mt.placeholders import find, mask, unmask
from mt.scripts import SPACELESS
from mt.search import Fusion, Hypothesis, search
from mt.search.options import SearchOptions
from mt.tokenizer import BOS, EOS, PAD, UNK, Tokenizer

if TYPE_CHECKING:
    from mt.onnx import OnnxNetwork

MAX_SOURCE = 1024
"""Source tokens past this are cut off."""
BATCH_TOKENS = 2048
"""Padded source tokens of a batch unless told otherwise."""

_log = logging.getLogger("mt")


class Translation(NamedTuple):
    """One translation of a sentence."""

    text: str
    """Raw text, on one line."""
    score: float
    """What the search ranks by: the normalised log-probability, less penalties."""
    log_probability: float
    """Natural logarithm of the probability, end of sentence included."""
    tokens: int
    """Target tokens, end of sentence included."""


class Alignment(NamedTuple):
    """Where attention was while each word of a translation was written."""

    source: list[tuple[int, int]]
    """Where each of S source words begins and ends in the text; single tokens where the script
    puts no spaces between words."""
    target: list[tuple[int, int]]
    """The same for T words of the translation."""
    weights: NDArray[np.float32]
    """`(T, S)`: the tokens' weights, summed over a source word's and averaged over a target
    word's. A row adds up to 1 less what was on the end of sentence."""


NOTHING = Translation("", 0.0, 0.0, 0)
"""What a blank text becomes."""


class Advice(NamedTuple):
    """A language model that has a say in what is written."""

    bundle: LanguageModelBundle
    weight: float
    """Of its log-probabilities."""
    use: Literal["fusion", "rerank"] = "fusion"
    """Whether it is asked for each token (see `mt.search.fusion`), or once for each of the
    `beam_size` best translations, which are ordered anew."""


class SearchBatch(NamedTuple):
    """Encoded sentences that are searched together."""

    numbers: list[int]
    """Places of the sentences among the texts."""
    sources: list[list[int]]
    """Tokens of each, without special tokens."""
    held: list[list[str]]
    """What the placeholders of each stand for."""
    prefixes: list[list[int]] | None
    """Tokens that each translation must begin with."""


class Translator:
    """A trained engine.

    >>> translator = Translator.load("runs/quickstart/bundle")  # doctest: +SKIP
    >>> translator.translate(["Select the file."])  # doctest: +SKIP
    ["Wählen Sie die Datei aus."]

    Args:
        bundle: The engine's parts.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, …
        graphs: What translates in place of `bundle.model`, which then only scores.
        advice: A language model that has a say.

    Raises:
        MTError: The language model has other tokens, or reads lines that follow upon each other.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str | torch.device = "auto",
        graphs: OnnxNetwork | None = None,
        advice: Advice | None = None,
    ):
        self.device = resolve_device(device)
        self.model = bundle.model.to(self.device)
        self._network = graphs or self.model
        self.tokenizers = bundle.tokenizers
        self._symbols = bundle.tokenizers.symbols
        self.languages = bundle.languages
        self.options = bundle.search
        self._shortlist = bundle.shortlist
        self._advice = advice
        if advice is not None:
            if advice.bundle.tokenizer.model != bundle.tokenizers.target.model:
                raise MTError(
                    "--lm: the language model has other tokens than the translator; train it with "
                    "--tokenizer_from the translator's bundle"
                )
            if advice.bundle.running:
                raise MTError("--lm: the language model is of running text, not of sentences")
            advice.bundle.model.to(self.device)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        device: str = "auto",
        engine: Literal["torch", "onnx"] = "torch",
        advice: Advice | None = None,
    ) -> Translator:
        """Read a bundle.

        Args:
            folder: The bundle.
            device: See the class; `onnx` computes on the CPU.
            engine: `torch`, or `onnx` for the graphs that `mt export` has put into the bundle.
            advice: A language model that has a say.

        Raises:
            MTError: The bundle is missing, damaged or of another version, has no graphs for the
                engine, or the device is not there.
        """
        bundle = load_bundle(Path(folder))
        if engine == "torch":
            return cls(bundle, device, advice=advice)
        if device not in ("auto", "cpu"):
            raise MTError(f"--device {device}: the onnx engine computes on the CPU; use cpu")
        from mt.onnx import DECODER, ENCODER, OnnxNetwork

        graphs = load_graphs(Path(folder), (ENCODER, DECODER))
        return cls(bundle, "cpu", OnnxNetwork(graphs, torch.get_num_threads()), advice)

    def translate(
        self,
        texts: Sequence[str],
        options: SearchOptions | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[str]:
        """Translate each text; what holds no visible character becomes blank.

        Args:
            texts: Raw sentences.
            options: Decoding options; by default the bundle's own.
            batch_tokens: Padded source tokens of a batch. It changes the speed, never the text.
        """
        return [best[0].text for best in self.n_best(texts, options, batch_tokens)]

    def n_best(
        self,
        texts: Sequence[str],
        options: SearchOptions | None = None,
        batch_tokens: int = BATCH_TOKENS,
        prefixes: Sequence[str] | None = None,
        first_line: int = 1,
    ) -> list[list[Translation]]:
        """Translate each text into its `options.n_best` best translations, best first.

        Args:
            texts: Raw sentences.
            options: Decoding options; by default the bundle's own.
            batch_tokens: Padded source tokens of a batch.
            prefixes: For each text, how its translation must begin; it may be empty.
            first_line: Line number of the first text, for warnings.
        """
        results = [[NOTHING] for _ in texts]
        for batch in self.plan(texts, batch_tokens, prefixes, first_line):
            for number, found in zip(
                batch.numbers, self.translate_batch(batch, options), strict=True
            ):
                results[number] = found
        return results

    def plan(
        self,
        texts: Sequence[str],
        batch_tokens: int = BATCH_TOKENS,
        prefixes: Sequence[str] | None = None,
        first_line: int = 1,
    ) -> list[SearchBatch]:
        """Encode texts and share them out to batches, the longest first.

        Arguments are those of `n_best`. Blank texts are in no batch.
        """
        numbers = [number for number, text in enumerate(texts) if not _blank(text)]
        held, sources = self._encode_sources([texts[n] for n in numbers], numbers, first_line)
        starts = None
        if prefixes is not None:
            starts = self._encode_targets([prefixes[n] for n in numbers], held)
        return [
            SearchBatch(
                [numbers[row] for row in rows],
                [sources[row] for row in rows],
                [held[row] for row in rows],
                None if starts is None else [starts[row] for row in rows],
            )
            for rows in plan_decoding([len(source) for source in sources], batch_tokens)
        ]

    @torch.inference_mode()
    def translate_batch(
        self, batch: SearchBatch, options: SearchOptions | None = None
    ) -> list[list[Translation]]:
        """Translate a batch into the `options.n_best` best translations of each sentence."""
        self.model.eval()
        options, wanted = options or self.options, (options or self.options).n_best
        advice, fusion = self._advice, None
        if advice is not None and advice.use == "rerank":
            options = replace(options, n_best=options.beam_size)
        elif advice is not None:
            fusion = Fusion(advice.bundle.model, advice.weight)
        sources = [[*row, EOS] for row in batch.sources]
        ids, lengths = pad(sources)
        allowed = None
        if self._shortlist and options.shortlist:
            allowed = self._shortlist.allowed(sources, len(self.tokenizers.target))
        found = search(
            self._network,
            self._network.start(ids.to(self.device), lengths),
            lengths - 1,
            options,
            bos=BOS,
            eos=EOS,
            forbidden=(PAD, UNK, BOS),
            prefixes=batch.prefixes,
            counts=[self._placeholders(row) for row in batch.sources],
            allowed=allowed,
            fusion=fusion,
            device=self.device,
        )
        if advice is not None and advice.use == "rerank":
            found = [self._rerank(row, advice, options)[:wanted] for row in found]
        return [
            self._decode(hypotheses, held)
            for hypotheses, held in zip(found, batch.held, strict=True)
        ]

    def _rerank(
        self, hypotheses: list[Hypothesis], advice: Advice, options: SearchOptions
    ) -> list[Hypothesis]:
        """Order the hypotheses of a sentence by what a language model says of them, too."""
        if not hypotheses:
            return []
        rows = [hypothesis.tokens for hypothesis in hypotheses]
        inputs, _ = pad([[BOS, *row] for row in rows])
        outputs, lengths = pad([[*row, EOS] for row in rows])
        said, _ = forced(advice.bundle.model.eval(), inputs, outputs, None, self.device)
        scored = []
        for one, told, length in zip(
            hypotheses, said.sum(1).tolist(), lengths.tolist(), strict=True
        ):
            more = advice.weight * told
            score = one.score + more / options.normalizer(length)
            scored.append(one._replace(log_probability=one.log_probability + more, score=score))
        return sorted(scored, key=lambda one: -one.score)

    @torch.inference_mode()
    def score(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        batch_tokens: int = BATCH_TOKENS,
        first_line: int = 1,
    ) -> list[tuple[float, int]]:
        """Score given translations.

        Args:
            sources: Raw source sentences.
            targets: Raw translations, one for each.
            batch_tokens: Padded tokens of a batch.
            first_line: Line number of the first pair, for warnings.

        Returns:
            For each pair the natural logarithm of the translation's probability and its number of
            tokens, both with the end of sentence.
        """
        encoded, wanted = self.encode_pairs(sources, targets, first_line)
        scores = [(0.0, 0)] * len(sources)
        for batch, log_probs in self._forced(encoded, wanted, batch_tokens):
            real = batch.target_out != PAD
            chosen = torch.zeros(real.shape, dtype=torch.float64, device=self.device)
            tokens = batch.target_out[real][:, None]
            chosen[real] = log_probs.gather(1, tokens)[:, 0].double()
            for number, total in zip(batch.ids.tolist(), chosen.sum(1).tolist(), strict=True):
                scores[number] = (total, len(wanted[number]) + 1)
        return scores

    @torch.inference_mode()
    def confidences(
        self, sources: Sequence[str], targets: Sequence[str], batch_tokens: int = BATCH_TOKENS
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Ask the network for each token of given translations, knowing those before it.

        Arguments are those of `score`.

        Returns:
            Over all tokens, ends of sentences included, the probability of the token that is the
            most likely, and whether it is the one that is there.
        """
        encoded, wanted = self.encode_pairs(sources, targets)
        found, right = [np.empty(0, np.float32)], [np.empty(0, np.bool_)]
        for batch, log_probs in self._forced(encoded, wanted, batch_tokens):
            best, tokens = log_probs.max(dim=1)
            found.append(best.exp().float().cpu().numpy())
            there = batch.target_out[batch.target_out != PAD]
            right.append((tokens == there).cpu().numpy())
        return np.concatenate(found), np.concatenate(right)

    def _forced(
        self, encoded: list[list[int]], wanted: list[list[int]], batch_tokens: int
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Yield batches of pairs, and the log-probabilities of all tokens at each of a batch's N
        places that is no padding, `(N, V)`."""
        self.model.eval()
        for batch in pair_batches(encoded, wanted, batch_tokens):
            batch = batch.to(self.device)
            vectors = self.model(batch.source, batch.source_lengths, batch.target_in)
            logits = self.model.output(vectors[batch.target_out != PAD])
            wide = logits if logits.dtype == torch.float64 else logits.float()
            yield batch, wide.log_softmax(-1)

    @torch.inference_mode()
    def align(
        self, sources: Sequence[str], targets: Sequence[str], batch_tokens: int = BATCH_TOKENS
    ) -> list[Alignment]:
        """Tell where attention is while given translations are written, word by word.

        Arguments are those of `score`.

        Raises:
            ValueError: The network has no attention.
        """
        held, encoded = self._encode_sources(sources, range(len(sources)), 1)
        wanted = self._encode_targets(targets, held)
        found: dict[int, Alignment] = {}
        self.model.eval()
        source_side, target_side = self.tokenizers
        for batch in pair_batches(encoded, wanted, batch_tokens):
            batch = batch.to(self.device)
            weights = self.model.align(batch.source, batch.source_lengths, batch.target_in)
            for n, matrix in zip(batch.ids.tolist(), weights.float().cpu().numpy(), strict=True):
                source, columns = self._words(source_side, encoded[n], sources[n], held[n])
                target, rows = self._words(target_side, wanted[n], targets[n], held[n])
                table = np.zeros((len(rows), len(columns)), np.float32)
                for column, tokens in enumerate(columns):
                    summed = matrix[:, tokens].sum(axis=1)
                    table[:, column] = [summed[written].mean() for written in rows]
                found[n] = Alignment(source, target, table)
        return [found[number] for number in range(len(sources))]

    def _words(
        self, tokenizer: Tokenizer, ids: list[int], text: str, held: list[str]
    ) -> tuple[list[tuple[int, int]], list[list[int]]]:
        """Group tokens to words, and find these in their text; what normalisation has changed is
        left out."""
        alone = SPACELESS.search(text) is not None
        groups: list[list[int]] = []
        for place, piece in enumerate(tokenizer.pieces(ids)):
            if alone or not groups or piece.startswith("\u2581"):
                groups.append([])
            groups[-1].append(place)
        decoded = tokenizer.decode([[ids[place] for place in group] for group in groups])
        spans, kept, end = [], [], 0
        for group, word in zip(groups, decoded, strict=True):
            whole = unmask(word, self._symbols, held).strip()
            start = text.find(whole, end)
            if whole and start >= 0:
                end = start + len(whole)
                spans.append((start, end))
                kept.append(group)
        return spans, kept

    def encode_pairs(
        self, sources: Sequence[str], targets: Sequence[str], first_line: int = 1
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Turn sentences and their translations into tokens, without special ones.

        Arguments are those of `score`. A target's placeholders are masked as its source's are.
        """
        if len(sources) != len(targets):
            raise MTError(f"{len(sources)} sources but {len(targets)} targets to score")
        held, encoded = self._encode_sources(sources, range(len(sources)), first_line)
        return encoded, self._encode_targets(targets, held)

    def _encode_sources(
        self, texts: Sequence[str], numbers: Sequence[int], first_line: int
    ) -> tuple[list[list[str]], list[list[int]]]:
        """Return what the placeholders of each text stand for, and its tokens."""
        symbols = self._symbols
        texts = [_nfc(text) for text in texts]
        held = [find(text, symbols) for text in texts]
        masked = [mask(text, symbols, row) for text, row in zip(texts, held, strict=True)]
        sources = self.tokenizers.source.encode(masked)
        for number, source in zip(numbers, sources, strict=True):
            if len(source) > MAX_SOURCE:
                _log.warning(
                    "line %d: %d tokens are too many for one sentence; only the first %d are used",
                    first_line + number,
                    len(source),
                    MAX_SOURCE,
                )
                del source[MAX_SOURCE:]
        return held, sources

    def _placeholders(self, source: list[int]) -> dict[int, int]:
        """Return how often each placeholder's symbol stands in a translation: as in the source."""
        ids, target_ids = (tokenizer.symbols for tokenizer in self.tokenizers)
        return {target_ids[symbol]: source.count(ids[symbol]) for symbol in self._symbols}

    def _decode(self, hypotheses: list[Hypothesis], held: list[str]) -> list[Translation]:
        if not hypotheses:  # the options leave no translation at all
            return [NOTHING]
        texts = self.tokenizers.target.decode([h.tokens for h in hypotheses])
        return [
            Translation(
                unmask(text, self._symbols, held), h.score, h.log_probability, len(h.tokens) + 1
            )
            for text, h in zip(texts, hypotheses, strict=True)
        ]

    def _encode_targets(self, texts: Sequence[str], held: list[list[str]]) -> list[list[int]]:
        pairs = zip(texts, held, strict=True)
        masked = [mask(_nfc(text), self._symbols, row) for text, row in pairs]
        return self.tokenizers.target.encode(masked)


def _blank(text: str) -> bool:
    """Tell whether a text holds nothing but spaces, controls and other invisible characters."""
    return all(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Zs") for c in text)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn `auto` into the best device at hand and check a named one.

    Raises:
        MTError: The name is no device, or the machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise MTError(
            f"--device {device}: unknown device; use auto, cpu, cuda or cuda:N"
        ) from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise MTError(f"--device {device}: this machine has no such GPU; use --device cpu")
    if resolved.type not in ("cpu", "cuda"):
        try:
            torch.ones(1, device=resolved).item()
        except (RuntimeError, AssertionError) as error:
            raise MTError(
                f"--device {device}: this machine cannot compute there; use --device cpu"
            ) from error
    return resolved
