"""Text to text: what a sentence's translation may depend on, and what it may not."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mt.batches import collate
from mt.bundle import Bundle
from mt.errors import MTError
from mt.search.options import SearchOptions
from mt.tokenizer import BOS, EOS, PAD, UNK
from mt.translator import MAX_SOURCE, NOTHING, Translation, Translator, resolve_device

BLANK = [NOTHING]
OPTIONS = {
    "greedy": SearchOptions(beam_size=1),
    "beam": SearchOptions(beam_size=4, n_best=3),
    "plain": SearchOptions(beam_size=3, length_penalty=0.0, max_length=7),
    "gnmt": SearchOptions(beam_size=3, normalization="gnmt", coverage_penalty=0.3, n_best=2),
    "limits": SearchOptions(beam_size=2, no_repeat_ngram=2, min_length_ratio=0.5),
    "greedy-limits": SearchOptions(beam_size=1, coverage_penalty=0.2, min_length=3),
}
MODELS: dict[str, dict[str, Any]] = {
    "parallel": {"attention": "dot", "decoder_layers": 2, "encoder_layers": 2},
    "input-feeding": {"attention": "additive", "wiring": "input-feeding"},
}
lines = st.lists(st.text("abcdefghij ", max_size=12), min_size=1, max_size=8)


@pytest.fixture(scope="module", params=MODELS)
def translator(
    request: pytest.FixtureRequest, make_bundle: Callable[..., Bundle], words: list[str]
) -> Translator:
    """A model that has half learnt to swap the letters a to e for f to j."""
    bundle = make_bundle(**MODELS[request.param])
    sources = bundle.tokenizers.source.encode(words)
    swapped = [text.translate(str.maketrans("abcdefghij", "fghijabcde")) for text in words]
    targets = bundle.tokenizers.target.encode(swapped)
    model = bundle.model.train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(100):
        rows = slice(step * 40 % len(words), step * 40 % len(words) + 40)
        batch = collate(sources[rows], targets[rows], range(len(words))[rows])
        real = batch.target_out != PAD
        vectors = model(batch.source, batch.source_lengths, batch.target_in)[real]
        loss = cross_entropy(model.output(vectors), batch.target_out[real])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return exact(bundle)


def exact(bundle: Bundle) -> Translator:
    return Translator(bundle._replace(model=bundle.model.double()), "cpu")


def assert_same(ones: list[Translation], others: list[Translation]) -> None:
    assert [(t.text, t.tokens) for t in ones] == [(t.text, t.tokens) for t in others]
    for one, other in zip(ones, others, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-10)
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-10)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@settings(max_examples=12)
@given(texts=lines, batch_tokens=st.integers(1, 60), seed=st.integers(0, 999))
def test_a_translation_depends_on_its_own_sentence_alone(
    translator: Translator, options: SearchOptions, texts: list[str], batch_tokens: int, seed: int
) -> None:
    alone = [translator.n_best([text], options)[0] for text in texts]
    order = random.Random(seed).sample(range(len(texts)), len(texts))
    together = translator.n_best([texts[n] for n in order], options, batch_tokens)
    assert len(together) == len(texts)
    for number, found in zip(order, together, strict=True):
        assert_same(found, alone[number])


def test_the_models_here_translate_in_many_ways(translator: Translator, words: list[str]) -> None:
    """What the properties here are worth: texts and lengths that differ."""
    found = translator.n_best(words[:60], OPTIONS["beam"])
    assert len({best[0].text for best in found}) > 30
    assert len({best[0].tokens for best in found}) > 4
    assert all(len({t.text for t in best}) > 1 for best in found[:5])


@given(texts=lines)
@settings(max_examples=20)
def test_one_line_in_one_line_out(translator: Translator, texts: list[str]) -> None:
    for options in (OPTIONS["greedy"], OPTIONS["beam"]):
        translations = translator.translate(texts, options)
        assert len(translations) == len(texts)
        for text, translation in zip(texts, translations, strict=True):
            assert "\n" not in translation
            if not text.strip():
                assert translation == ""


def test_blank_lines_stay_blank_and_in_place(translator: Translator) -> None:
    texts = ["", "abc", " ", "\t", "def", "\u3000", "\u200b\ufeff", "\u00ad"]
    found = translator.n_best(texts)
    assert [found[n] for n in (0, 2, 3, 5, 6, 7)] == [BLANK] * 6
    assert_same(found[1], translator.n_best(["abc"])[0])
    assert_same(found[4], translator.n_best(["def"])[0])
    assert found[1][0].tokens > 0
    assert translator.n_best([]) == []
    assert translator.translate(["", " "]) == ["", ""]


def test_the_best_of_n_is_the_translation_and_scores_fall(
    translator: Translator, words: list[str]
) -> None:
    options = OPTIONS["beam"]
    found = translator.n_best(words[:20], options)
    single = translator.translate(words[:20], replace(options, n_best=1))
    assert [best[0].text for best in found] == single
    for best in found:
        assert len(best) == 3
        assert [t.score for t in best] == sorted((t.score for t in best), reverse=True)
        for t in best:
            assert t.score == pytest.approx(t.log_probability / t.tokens)


def test_the_bundle_brings_its_own_options(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle()
    own = bundle._replace(search=SearchOptions(beam_size=1, max_length=2))
    texts = ["abc def ghij", "jih"]
    given_options = Translator(bundle, "cpu").n_best(texts, own.search)
    assert Translator(own, "cpu").n_best(texts) == given_options
    assert all(best[0].tokens <= 3 for best in given_options)


def biased(make_bundle: Callable[..., Bundle], **biases: float) -> Translator:
    """A random model that likes or dislikes some tokens."""
    bundle = make_bundle()
    ids = {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS}
    with torch.no_grad():
        for name, bias in biases.items():
            bundle.model.output.bias[ids[name]] = bias
    return Translator(bundle, "cpu")


@pytest.mark.parametrize("beam_size", [1, 3])
def test_special_tokens_are_never_produced(
    make_bundle: Callable[..., Bundle], beam_size: int
) -> None:
    """However likely: no unknown token, and none that would decode to nothing."""
    options = SearchOptions(beam_size=beam_size, max_length=6)
    for name in ("pad", "unk", "bos"):
        translator = biased(make_bundle, **{name: 50.0}, eos=-50.0)
        [[found]] = translator.n_best(["abc"], options)
        assert found.tokens == 7  # the end of sentence counts
        assert "\u2047" not in found.text
        assert len(translator.tokenizers.target.encode([found.text])[0]) >= 6


def test_lengths_count_no_end_of_sentence(make_bundle: Callable[..., Bundle]) -> None:
    translator = biased(make_bundle, eos=-50.0)
    texts = ["a", "abc def"]
    lengths = [len(row) for row in translator.tokenizers.source.encode(texts)]
    assert [best[0].tokens - 1 for best in translator.n_best(texts)] == [
        2 * length + 10 for length in lengths
    ]


def test_no_translation_at_all_is_an_empty_one(make_bundle: Callable[..., Bundle]) -> None:
    """More different tokens are asked for than there are."""
    options = SearchOptions(beam_size=2, no_repeat_ngram=1, min_length=100, max_length=100)
    translator = biased(make_bundle)
    assert translator.translate(["abc", "", "d"], options) == ["", "", ""]
    assert translator.n_best(["abc"], options) == [BLANK]


def test_a_trained_model_is_not_left_in_training(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(layer_dropout=0.5, output_dropout=0.5)
    expected = Translator(bundle, "cpu").translate(["abc", "def"])
    bundle.model.train()
    translator = Translator(bundle, "cpu")
    assert translator.translate(["abc", "def"]) == expected
    bundle.model.train()
    assert translator.score(["abc"], ["d"]) == translator.score(["abc"], ["d"])


def test_decomposed_text_is_the_same_text(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(joint=False)
    reading = bundle.tokenizers.target  # spells anything, in bytes where it must
    both = bundle._replace(
        tokenizers=bundle.tokenizers._replace(source=reading),
        model=make_model_for(reading, bundle),
    )
    translator = Translator(both, "cpu")
    assert translator.n_best(["a\u0308b"]) == translator.n_best(["\u00e4b"])
    composed, decomposed = (translator.score([t], [t]) for t in ("\u00e4b", "a\u0308b"))
    assert composed == decomposed


def make_model_for(tokenizer: Any, bundle: Bundle) -> Any:
    architecture = replace(bundle.model.architecture, tie_embeddings="none")
    return type(bundle.model)(architecture, len(tokenizer), len(tokenizer))


# Scoring


def spelt_once(text: str) -> bool:
    """Whether single letters are the only way to spell a text."""
    return bool(text) and text == text.strip() and "  " not in text


@pytest.mark.parametrize("name", ["greedy", "beam", "gnmt", "limits"])
def test_a_score_is_the_log_probability_of_the_translation(
    translator: Translator, name: str, words: list[str]
) -> None:
    sources = words[:60]
    # Translations that begin with a space token, as texts do.
    found = translator.n_best(sources, OPTIONS[name], prefixes=["a"] * len(sources))
    pairs = [
        (source, t)
        for source, best in zip(sources, found, strict=True)
        for t in best
        if spelt_once(t.text)
        and len(translator.tokenizers.target.encode([t.text])[0]) + 1 == t.tokens
    ]
    assert len(pairs) >= 20
    scores = translator.score([s for s, _ in pairs], [t.text for _, t in pairs], batch_tokens=50)
    for (log_probability, tokens), (_, t) in zip(scores, pairs, strict=True):
        assert tokens == t.tokens
        assert log_probability == pytest.approx(t.log_probability, abs=1e-9)


@given(texts=lines, batch_tokens=st.integers(1, 60))
@settings(max_examples=20)
def test_a_score_depends_on_its_own_pair_alone(
    translator: Translator, texts: list[str], batch_tokens: int
) -> None:
    targets = [text[::-1] for text in texts]
    together = translator.score(texts, targets, batch_tokens)
    for source, target, found in zip(texts, targets, together, strict=True):
        ((log_probability, tokens),) = translator.score([source], [target])
        assert found[0] == pytest.approx(log_probability, abs=1e-10)
        assert found[1] == tokens


def test_a_score_sums_the_models_log_probabilities(translator: Translator) -> None:
    tokenizer = translator.tokenizers.target
    starts = tokenizer.encode(["a"])[0]
    model = translator.model
    source = torch.tensor([[*translator.tokenizers.source.encode(["abc"])[0], 3]])
    with torch.no_grad():
        vectors = model(source, torch.tensor([source.shape[1]]), torch.tensor([[2, *starts]]))
        logits = model.output(vectors)[0].log_softmax(-1)
    expected = sum(logits[n, t].item() for n, t in enumerate([*starts, 3]))
    ((score, tokens),) = translator.score(["abc"], ["a"])
    assert tokens == len(starts) + 1
    assert score == pytest.approx(expected, abs=1e-10)


def test_blank_pairs_have_a_score_too(translator: Translator) -> None:
    scores = translator.score(["", "abc"], ["", ""])
    assert [tokens for _, tokens in scores] == [1, 1]
    assert all(log_probability < 0 for log_probability, _ in scores)
    assert translator.score([], []) == []


def test_pairs_that_do_not_pair(translator: Translator) -> None:
    with pytest.raises(MTError, match="2 sources but 1 targets"):
        translator.score(["a", "b"], ["a"])


# Long sources


def test_a_long_source_is_cut_with_a_warning_that_names_its_line(
    make_bundle: Callable[..., Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    translator = exact(make_bundle())
    length = MAX_SOURCE - 1  # and the space before the first letter
    whole, longer = "a" * length, "a" * length + "bcd"
    options = SearchOptions(beam_size=1, max_length=5)
    with caplog.at_level(logging.WARNING, "mt"):
        found = translator.n_best(["", whole, longer], options, first_line=100)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"line 102: {MAX_SOURCE + 3} tokens")
    assert_same(found[1], found[2])
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mt"):
        one, other = translator.score([whole, longer], ["a", "a"], first_line=100)
    (record,) = caplog.records
    assert record.getMessage().startswith("line 101: ")
    assert one == pytest.approx(other)


# Prefixes


@given(texts=lines, seed=st.integers(0, 999))
@settings(max_examples=20)
def test_translations_begin_with_their_prefix(
    translator: Translator, texts: list[str], seed: int
) -> None:
    generator = random.Random(seed)
    prefixes = ["".join(generator.choices("abcdef", k=generator.randint(0, 4))) for _ in texts]
    for options in (OPTIONS["greedy"], OPTIONS["beam"]):
        found = translator.n_best(texts, options, 30, prefixes)
        for text, prefix, best in zip(texts, prefixes, found, strict=True):
            if not text.strip():
                assert best == BLANK
                continue
            assert best
            assert all(t.text.startswith(prefix) for t in best)
            assert_same(best, translator.n_best([text], options, prefixes=[prefix])[0])


def test_no_prefix_and_empty_prefixes_are_the_same(translator: Translator) -> None:
    texts = ["abc", "def ghij"]
    for one, other in zip(
        translator.n_best(texts), translator.n_best(texts, prefixes=["", ""]), strict=True
    ):
        assert_same(one, other)


def test_a_translations_own_beginning_changes_nothing_in_greedy_search(
    translator: Translator, words: list[str]
) -> None:
    options, texts = OPTIONS["greedy"], words[:40]
    first = [best[0] for best in translator.n_best(texts, options, prefixes=["a"] * 40)]
    checked = 0
    for length in (1, 2, 4, 7):
        prefixes = [t.text[:length] for t in first]
        again = translator.n_best(texts, options, prefixes=prefixes)
        # Where the beginning is spelt as it was found
        alike = [n for n, prefix in enumerate(prefixes) if spelt_once(prefix)]
        for n in alike:
            assert_same(again[n], [first[n]])
        checked += len(alike)
    assert checked > 40


# Devices


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "cpu:cpu"])
def test_an_unknown_device_is_named(device: str) -> None:
    with pytest.raises(MTError, match=rf"--device {device}.*use auto, cpu, cuda"):
        resolve_device(device)


def test_a_device_that_is_not_there_is_named() -> None:
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(MTError, match=rf"--device {missing}: this machine has no such GPU"):
        resolve_device(missing)


USELESS = ["meta", "xpu", "vulkan", *([] if torch.backends.mps.is_available() else ["mps"])]


@pytest.mark.parametrize("device", USELESS)
def test_a_kind_of_device_that_cannot_compute_here_is_named(device: str) -> None:
    with pytest.raises(MTError, match=f"--device {device}"):
        resolve_device(device)


@settings(max_examples=12)
@given(lines, lines)
def test_words_are_aligned_by_their_tokens_attention(
    translator: Translator, sources: list[str], targets: list[str]
) -> None:
    """The words of these texts are the runs between spaces, and tokens do not cross these."""
    targets = (targets * len(sources))[: len(sources)]
    found = translator.align(sources, targets)
    assert len(found) == len(sources)
    for source, target, one in zip(sources, targets, found, strict=True):
        assert [source[start:end] for start, end in one.source] == source.split()
        assert [target[start:end] for start, end in one.target] == target.split()
        [encoded], [wanted] = translator.encode_pairs([source], [target])
        batch = collate([encoded], [wanted], [0])
        with torch.no_grad():
            [weights] = translator.model.align(batch.source, batch.source_lengths, batch.target_in)
        columns = groups(translator.tokenizers.source.pieces(encoded))
        rows = groups(translator.tokenizers.target.pieces(wanted))
        assert one.weights.shape == (len(rows), len(columns))
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                wanted_weight = weights[row][:, column].sum() / len(row)
                assert one.weights[i, j] == pytest.approx(float(wanted_weight), abs=1e-6)


def groups(pieces: list[str]) -> list[list[int]]:
    found: list[list[int]] = []
    for place, piece in enumerate(pieces):
        if piece.startswith("▁"):
            found.append([])
        found[-1].append(place)
    return found


def test_text_without_spaces_is_aligned_by_tokens(translator: Translator) -> None:
    """Here these are bytes, three to a character, none of which is a text alone."""
    [one] = translator.align(["日本"], ["日本 a"])
    assert one.source == []
    assert one.target == [(3, 4)]
    assert one.weights.shape == (1, 0)


def test_a_network_without_attention_aligns_nothing(make_bundle: Callable[..., Bundle]) -> None:
    with pytest.raises(ValueError, match="aligns nothing"):
        exact(make_bundle(attention="none")).align(["abc"], ["fgh"])


def test_auto_finds_a_device_that_works() -> None:
    assert torch.ones(1, device=resolve_device("auto")).item() == 1
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_loading_checks_the_device(tmp_path: Any, make_bundle: Callable[..., Bundle]) -> None:
    from mt.bundle import save_bundle

    save_bundle(make_bundle(), tmp_path / "bundle")
    with pytest.raises(MTError, match="--device gpu"):
        Translator.load(tmp_path / "bundle", "gpu")
    assert Translator.load(str(tmp_path / "bundle"), "cpu").languages == ("xx", "yy")
