"""Text to tokens and back, and random segmentations."""

from __future__ import annotations

import io
import itertools
import math
import os
import random
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mt.errors import MTError
from mt.recipe import TokenizerSpec
from mt.subwords import SubwordSampler
from mt.tokenizer import (
    BOS,
    EOS,
    PAD,
    UNK,
    Tokenizer,
    train_tokenizer,
)

KINDS = "bpe", "unigram"
SYMBOLS = ["{name}", "⟪x⟫"]
# "▁" is SentencePiece's own spelling of the space, and surrogates are no text.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=30)


@pytest.fixture(scope="module", params=KINDS)
def spec(request: pytest.FixtureRequest) -> TokenizerSpec:
    return TokenizerSpec(kind=request.param, vocab_size=320, user_symbols=SYMBOLS)


@pytest.fixture(scope="module")
def trained(cache: Path, spec: TokenizerSpec, words: list[str]) -> Tokenizer:
    return train_tokenizer(spec, lambda: words)


@pytest.fixture(scope="module")
def identity(cache: Path, words: list[str]) -> Tokenizer:
    spec = TokenizerSpec(vocab_size=300, normalization="identity")
    return train_tokenizer(spec, lambda: words)


# Training


def test_training_is_deterministic(
    spec: TokenizerSpec, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    for folder in ("a", "b"):
        monkeypatch.setenv("MT_CACHE", str(tmp_path / folder))
        models.append(train_tokenizer(spec, lambda: words).model)
    assert models[0] == models[1]


def test_a_drawn_part_of_the_corpus_depends_on_the_seed_alone(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        monkeypatch.setenv("MT_CACHE", str(tmp_path / folder))
        spec = TokenizerSpec(vocab_size=300, max_sentences=60, seed=seed)
        models.append(train_tokenizer(spec, lambda: words).model)
    assert models[0] == models[1] != models[2]


def test_the_same_training_is_taken_from_the_cache(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MT_CACHE", str(tmp_path))
    spec = TokenizerSpec(vocab_size=300)
    first = train_tokenizer(spec, lambda: words)
    (file,) = (tmp_path / "tokenizers").iterdir()
    other = train_tokenizer(TokenizerSpec(vocab_size=290), lambda: words).model
    assert len(list((tmp_path / "tokenizers").iterdir())) == 2
    file.write_bytes(other)  # only a reader of the cache can see this
    assert train_tokenizer(spec, lambda: words).model == other
    assert train_tokenizer(spec, lambda: [*words, "one more"]).model != other
    assert first.model != other


def test_a_damaged_cache_is_made_again(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MT_CACHE", str(tmp_path))
    spec = TokenizerSpec(vocab_size=300)
    first = train_tokenizer(spec, lambda: words)
    (file,) = (tmp_path / "tokenizers").iterdir()
    file.write_bytes(b"")
    assert train_tokenizer(spec, lambda: words).model == first.model
    assert file.read_bytes() == first.model


def test_special_tokens_and_size(trained: Tokenizer) -> None:
    assert len(trained) == 320
    special = trained.processor
    assert (special.pad_id(), special.unk_id(), special.bos_id(), special.eos_id()) == (
        (PAD, UNK, BOS, EOS)
    )
    every = range(len(trained))
    assert len(set(trained.pieces(every))) == 320


@pytest.mark.parametrize("kind", KINDS)
def test_a_corpus_too_small_for_the_vocabulary(kind: str, words: list[str]) -> None:
    spec = TokenizerSpec(kind=kind, vocab_size=30_000)
    with pytest.raises(
        MTError, match=r"tokenizer\.vocab_size: .*30000.* 400 .*smaller vocab"
    ) as it:
        train_tokenizer(spec, lambda: words)
    assert "\n" not in str(it.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_too_small_for_the_characters(kind: str, words: list[str]) -> None:
    spec = TokenizerSpec(kind=kind, vocab_size=100)
    with pytest.raises(MTError, match=r"tokenizer\.vocab_size") as caught:
        train_tokenizer(spec, lambda: words)
    assert "larger vocabulary" in str(caught.value)
    for word in ("smaller vocabulary", "INTERNAL"):
        assert word not in str(caught.value)


@pytest.mark.parametrize("texts", [[], [""], ["", "  "]])
def test_no_text_to_train_on(texts: list[str]) -> None:
    with pytest.raises(MTError):
        train_tokenizer(TokenizerSpec(vocab_size=300), lambda: texts)


def test_joint_training_shares_tokens_that_separate_training_keeps_apart() -> None:
    source, target = ["abab baba abba"] * 30, ["xyxy yxyx xyyx"] * 30
    spec = TokenizerSpec(vocab_size=275)
    one = train_tokenizer(spec, lambda: itertools.chain(source, target))
    known = [
        set("".join(t.pieces(range(len(t))))) for t in (one, train_tokenizer(spec, lambda: source))
    ]
    assert set("abxy") <= known[0]
    assert set("ab") <= known[1]
    assert one.encode(source[:1]) != train_tokenizer(spec, lambda: source).encode(source[:1])
    assert train_tokenizer(spec, lambda: source).processor.piece_to_id("x") == UNK


@pytest.mark.parametrize("kept", [0, 5, 0.5])
def test_a_damaged_model_is_refused(kept: float, tokenizer: Tokenizer) -> None:
    size = int(kept * len(tokenizer.model)) if kept < 1 else int(kept)
    with pytest.raises(MTError, match="the tokenizer model is damaged"):
        Tokenizer(tokenizer.model[:size])


def test_a_foreign_model_is_refused(words: list[str]) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_writer=model, vocab_size=60, minloglevel=2
    )
    with pytest.raises(MTError, match="pad 0, unk 1, bos 2, eos 3"):
        Tokenizer(model.getvalue())


# Encoding and decoding


@settings(max_examples=150)
@given(ANY_TEXT)
@example("<s></s><unk><0x41>")
@example("日本語\u2028\u0085\x00🙂\U0010ffff")
def test_byte_fallback_spells_any_text(identity: Tokenizer, text: str) -> None:
    (ids,) = identity.encode([text])
    assert not {PAD, UNK, BOS, EOS} & set(ids)
    assert identity.decode([ids]) == [squeeze_all(text)]


def squeeze_all(text: str) -> str:
    """SentencePiece joins spaces before it tokenizes, and line ends become spaces after."""
    joined = " ".join(word for word in text.split(" ") if word)
    return joined.replace("\n", " ").replace("\r", " ")


LATIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x24F) | st.sampled_from("ｅﬁ①Å"))


@settings(max_examples=150)
@given(LATIN.filter(lambda text: "\x7f" not in text))
def test_compatible_characters_become_one_under_nfkc(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode([text])
    assert UNK not in ids[0]
    assert tokenizer.decode(ids) == [squeeze_all(unicodedata.normalize("NFKC", text))]


def test_nfkc_and_identity_differ(tokenizer: Tokenizer, identity: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(["ｅﬁ①"])) == ["efi1"]
    assert identity.decode(identity.encode(["ｅﬁ①"])) == ["ｅﬁ①"]


def test_without_byte_fallback_unknown_characters_are_unknown(letters: Tokenizer) -> None:
    best = letters.encode(["a漢b", "漢字", "ab 漢cd"])
    assert [ids.count(UNK) for ids in best] == [1, 1, 1]
    sampled = SubwordSampler(letters, 1.0).sample(best, 1)
    assert [letters.pieces(ids) for ids in sampled] == [
        ["▁", "a", "<unk>", "b"],
        ["▁", "<unk>"],
        ["▁", "a", "b", "▁", "<unk>", "c", "d"],
    ]


@pytest.mark.parametrize(("coverage", "unknown"), [(0.99, 1), (1.0, 0)])
def test_rare_characters_get_no_token_of_their_own(
    cache: Path, words: list[str], coverage: float, unknown: int
) -> None:
    spec = TokenizerSpec(vocab_size=40, byte_fallback=False, character_coverage=coverage)
    rare = train_tokenizer(spec, lambda: [*words, "ø"])
    (ids,) = rare.encode(["aøb"])
    assert ids.count(UNK) == unknown


def test_user_symbols_stay_one_token(trained: Tokenizer, spec: TokenizerSpec) -> None:
    sampler = SubwordSampler(trained, 0.5)
    for symbol in SYMBOLS:
        number = trained.processor.piece_to_id(symbol)
        for text in (symbol, f"abc{symbol}def", f"abc {symbol} def", f"{symbol}{symbol}"):
            best = trained.encode([text])
            for (ids,) in (best, sampler.sample(best, 1)):
                assert ids.count(number) == text.count(symbol)
                assert trained.decode([ids]) == [text]


@given(st.lists(st.integers(0, 299), max_size=20))
@example([4 + 0x0A])
@example([4 + 0x0D, 4 + 0x0A])
@example([270, 4 + 0x0D, 271])
@example([PAD, UNK, BOS, EOS])
def test_no_tokens_ever_decode_to_a_line_end(tokenizer: Tokenizer, ids: list[int]) -> None:
    (text,) = tokenizer.decode([ids])
    assert "\n" not in text
    assert "\r" not in text
    text.encode()  # and what comes out is always valid Unicode


def test_byte_tokens_can_spell_line_ends(tokenizer: Tokenizer) -> None:
    assert tokenizer.pieces([4 + 0x0A, 4 + 0x0D]) == ["<0x0A>", "<0x0D>"]


def test_a_list_of_texts_equals_one_text_at_a_time(tokenizer: Tokenizer, words: list[str]) -> None:
    assert tokenizer.encode(words) == [tokenizer.encode([text])[0] for text in words]
    assert tokenizer.encode([]) == tokenizer.decode([]) == []
    assert tokenizer.encode(["", " "]) == [[], []]


# Random segmentations


@settings(max_examples=60)
@given(text=ANY_TEXT | st.text("abcdefghij {nam}", max_size=30), seed=st.integers(0, 2**32 - 1))
def test_a_sample_spells_the_same_text(
    trained: Tokenizer, spec: TokenizerSpec, text: str, seed: int
) -> None:
    (best,) = trained.encode([text])
    for strength in (0.1, 0.9):
        sampler = SubwordSampler(trained, strength)
        (sampled,) = sampler.sample([best], seed)
        assert trained.decode([sampled]) == trained.decode([best])
        assert sampler.sample([sampled], seed) == [sampled]  # whatever it is drawn from


def test_sampling_is_a_function_of_its_seed(
    trained: Tokenizer, spec: TokenizerSpec, words: list[str]
) -> None:
    sampler = SubwordSampler(trained, 0.3)
    best = trained.encode(words)
    first = sampler.sample(best, 5)
    assert first == sampler.sample(best, 5) == SubwordSampler(trained, 0.3).sample(best, 5)
    assert first != sampler.sample(best, 6)
    assert first != best


def test_sampling_is_the_same_in_every_process(
    trained: Tokenizer, spec: TokenizerSpec, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(trained.model)
    best = trained.encode(words[:20])
    code = f"""
from pathlib import Path
from mt.recipe import TokenizerSpec
from mt.subwords import SubwordSampler
from mt.tokenizer import Tokenizer
tokenizer = Tokenizer(Path({str(file)!r}).read_bytes())
print(SubwordSampler(tokenizer, 0.3).sample({best!r}, 5))
"""
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.stdout.strip() == str(SubwordSampler(trained, 0.3).sample(best, 5))


def test_what_sampling_remembers_changes_nothing(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unigram = train_tokenizer(TokenizerSpec(kind="unigram", vocab_size=300), lambda: words)
    best = unigram.encode(words)
    sampler = SubwordSampler(unigram, 0.3)
    first = sampler.sample(best, 5)
    assert sampler.sample(best, 5) == first
    monkeypatch.setattr("mt.subwords._REMEMBERED", 2)  # a memory that is full all the time
    assert SubwordSampler(unigram, 0.3).sample(best, 5) == first


def test_bpe_without_dropout_is_the_best_segmentation(
    tokenizer: Tokenizer, words: list[str]
) -> None:
    sampler = SubwordSampler(tokenizer, 0.0)
    texts = [*words, "ｅﬁ① ab漢字", "  spaces   between ", ""]
    best = tokenizer.encode(texts)
    assert sampler.sample(best, 1) == best


def test_bpe_with_certain_dropout_spells_letters(tokenizer: Tokenizer) -> None:
    sampler = SubwordSampler(tokenizer, 1.0)
    assert tokenizer.pieces(sampler.sample(tokenizer.encode(["abc de"]), 1)[0]) == list("▁abc▁de")


def merges_by_hand(
    pieces: tuple[str, ...], rank: dict[str, float], dropout: float
) -> dict[tuple[str, ...], float]:
    """The exact distribution of BPE-dropout: every pair of a step is dropped on its own."""
    pairs = [n for n in range(len(pieces) - 1) if pieces[n] + pieces[n + 1] in rank]
    result: Counter[tuple[str, ...]] = Counter()
    for dropped in itertools.product((True, False), repeat=len(pairs)):
        weight = math.prod(dropout if d else 1 - dropout for d in dropped)
        left = [n for n, d in zip(pairs, dropped, strict=True) if not d]
        if not left:
            result[pieces] += weight
            continue
        n = max(left, key=lambda n: (rank[pieces[n] + pieces[n + 1]], -n))
        merged = (*pieces[:n], pieces[n] + pieces[n + 1], *pieces[n + 2 :])
        for path, share in merges_by_hand(merged, rank, dropout).items():
            result[path] += weight * share
    return result


def segmentations(word: str, score: dict[str, float]) -> list[tuple[str, ...]]:
    if not word:
        return [()]
    return [
        (word[:end], *rest)
        for end in range(1, len(word) + 1)
        if word[:end] in score
        for rest in segmentations(word[end:], score)
    ]


def exact_distribution(
    tokenizer: Tokenizer, kind: str, word: str, strength: float
) -> dict[tuple[str, ...], float]:
    processor = tokenizer.processor
    score = {
        processor.id_to_piece(n): processor.get_score(n)
        for n in range(4, len(tokenizer))
        if not processor.is_byte(n)
    }
    if kind == "bpe":
        return merges_by_hand(tuple(word), score, strength)
    paths = segmentations(word, score)
    weights = [math.exp(strength * sum(score[piece] for piece in path)) for path in paths]
    return {path: weight / sum(weights) for path, weight in zip(paths, weights, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [0.2, 0.6])
def test_samples_follow_the_exact_distribution(kind: str, strength: float) -> None:
    generator = random.Random(0)
    syllables = ["ab", "bab", "abc", "ca", "cab", "bc", "a"]
    texts = ["".join(generator.choices(syllables, k=generator.randint(1, 4))) for _ in range(900)]
    spec = TokenizerSpec(kind=kind, vocab_size=286)
    tokenizer = train_tokenizer(spec, lambda: texts)
    word = "abcab"
    expected = exact_distribution(tokenizer, kind, "▁" + word, strength)
    assert len(expected) >= 4
    draws = 4000
    sampled = SubwordSampler(tokenizer, strength).sample(tokenizer.encode([word] * draws), 3)
    counts = Counter(tuple(tokenizer.pieces(ids)) for ids in sampled)
    assert set(counts) <= set(expected)
    for path, probability in expected.items():
        deviation = math.sqrt(probability * (1 - probability) / draws)
        assert abs(counts[path] / draws - probability) < 5 * deviation + 1 / draws, path
