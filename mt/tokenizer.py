"""Text to subword ids and back: SentencePiece models, trained, sampled and decoded."""

from __future__ import annotations

import hashlib
import io
import json
import random
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal, NamedTuple

import sentencepiece

from mt.errors import MTError
from mt.files import cache_folder, write_atomically
from mt.placeholders import SYMBOLS, find, mask
from mt.recipe import TokenizerSpec

PAD, UNK, BOS, EOS = 0, 1, 2, 3
"""Ids of the special tokens in every vocabulary."""


class Tokenizer:
    """A trained SentencePiece model.

    Args:
        model: The serialised model.

    Raises:
        MTError: `model` is no SentencePiece model, or not one with this project's special tokens.
    """

    def __init__(self, model: bytes):
        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor()
        try:
            self.processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise MTError("the tokenizer model is damaged; train or copy it again") from error
        p = self.processor
        self.symbols = {s: i for s in SYMBOLS if (i := p.piece_to_id(s)) != UNK}
        """The symbols of the vocabulary that placeholders are masked by, with their ids."""
        if (p.pad_id(), p.unk_id(), p.bos_id(), p.eos_id()) != (PAD, UNK, BOS, EOS):
            raise MTError(
                "the tokenizer model numbers its special tokens otherwise than "
                "pad 0, unk 1, bos 2, eos 3; train it with `mt tokenizer`"
            )

    @cached_property
    def _proto(self) -> Any:
        from sentencepiece.sentencepiece_model_pb2 import ModelProto  # for training alone

        proto = ModelProto()
        proto.ParseFromString(self.model)
        return proto

    @property
    def kind(self) -> Literal["bpe", "unigram"]:
        """How the model segments.

        Raises:
            MTError: In a way that is neither.
        """
        kinds: dict[int, Literal["bpe", "unigram"]] = {1: "unigram", 2: "bpe"}
        kind = kinds.get(self._proto.trainer_spec.model_type)
        if kind is None:
            raise MTError("the tokenizer model is neither of kind bpe nor unigram; train another")
        return kind

    @property
    def user_defined(self) -> list[int]:
        """Ids of the pieces that are never split: user symbols and those of placeholders."""
        pieces = self._proto.pieces
        return [number for number, piece in enumerate(pieces) if piece.type == piece.USER_DEFINED]

    def __len__(self) -> int:
        """Tokens of the vocabulary, special ones included."""
        return int(self.processor.get_piece_size())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Segment each text in the best way; no special tokens are added."""
        ids: list[list[int]] = self.processor.encode(list(texts), num_threads=1)
        return ids

    def encode_raw(self, texts: Sequence[str]) -> list[list[int]]:
        """Segment raw text: its characters composed (NFC), its placeholders masked."""
        texts = [unicodedata.normalize("NFC", text) for text in texts]
        if self.symbols:
            symbols = list(self.symbols)
            texts = [mask(text, symbols, find(text, symbols)) for text in texts]
        return self.encode(texts)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Turn tokens back into text, each on one line."""
        texts: list[str] = self.processor.decode([list(map(int, row)) for row in ids])
        # Byte tokens can spell line ends, which would break "one line in, one line out".
        return [text.replace("\n", " ").replace("\r", " ") for text in texts]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Name the tokens as a person reads them."""
        return [str(self.processor.id_to_piece(int(i))) for i in ids]


class Tokenizers(NamedTuple):
    """The tokenizer of each side; the same object where the vocabulary is joint."""

    source: Tokenizer
    target: Tokenizer

    @property
    def symbols(self) -> list[str]:
        """The symbols that both vocabularies have for placeholders."""
        return [symbol for symbol in self.source.symbols if symbol in self.target.symbols]


def train_tokenizer(spec: TokenizerSpec, texts: Callable[[], Iterable[str]]) -> Tokenizer:
    """Train a SentencePiece model, or take it from the cache where the same was trained before.

    Args:
        spec: What to train.
        texts: Gives the training text anew at each call, one sentence an item.

    Raises:
        MTError: The text is too small for the vocabulary, or empty.
    """
    digest = hashlib.blake2b(json.dumps(asdict(spec), sort_keys=True).encode(), digest_size=16)
    sentences = placeholders = 0
    for text in texts():
        if spec.placeholders:
            placeholders = max(placeholders, len(find(text)))
        digest.update(text.encode())
        digest.update(b"\n")
        sentences += 1
    if sentences == 0:
        raise MTError("there is no text to train a tokenizer on")
    cached = cache_folder("tokenizers") / f"{digest.hexdigest()}.model"
    if cached.exists():
        try:
            return Tokenizer(cached.read_bytes())
        except MTError:
            pass  # damaged: made again below
    model = io.BytesIO()
    symbols = SYMBOLS[:placeholders]  # none for text without placeholders
    most = min(sentences, spec.max_sentences)
    members = set(random.Random(spec.seed).sample(range(sentences), most))
    symbols_of_its_own = [*spec.user_symbols, *symbols]
    options: dict[str, Any] = {
        "model_type": spec.kind,
        "vocab_size": spec.vocab_size,
        "byte_fallback": spec.byte_fallback,
        "character_coverage": spec.character_coverage,
    }
    seen: Iterable[str] = (mask(text, symbols) for n, text in enumerate(texts()) if n in members)
    if not spec.subwords:  # every space counts, and the vocabulary is what is there
        options |= {"remove_extra_whitespaces": False, "add_dummy_prefix": False}
        options |= {"hard_vocab_limit": False}
    if spec.kind == "byte":  # a model of one character, which is the space: all else is bytes
        seen = [" "]
        size = 4 + 256 + 1 + len(symbols_of_its_own)
        options |= {"model_type": "char", "vocab_size": size, "byte_fallback": True}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(seen),
            model_writer=model,
            **options,
            normalization_rule_name=spec.normalization,
            user_defined_symbols=symbols_of_its_own,
            max_sentence_length=16384,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        advice = "choose a smaller vocabulary or bring more text"
        if "smaller than required_chars" in reason or "(vocab_size) >= (0)" in reason:
            reason = "fewer than there are symbols and characters"
            advice = "choose a larger vocabulary or lower tokenizer.character_coverage"
        raise MTError(
            f"tokenizer.vocab_size: cannot train {spec.vocab_size} tokens on {sentences:,} "
            f"sentences ({reason}); {advice}"
        ) from error
    write_atomically(cached, model.getvalue())
    return Tokenizer(model.getvalue())
