"""Language models: the network, what it tells of text, what it writes, and its bundle."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mt.bundle import Bundle, load_bundle, save_bundle
from mt.bundle.files import load_tokenizer
from mt.bundle.language_model import (
    LanguageModelBundle,
    load_language_model,
    save_language_model,
)
from mt.errors import MTError
from mt.language_model import LanguageModel
from mt.nn.architecture import KERNELS, Architecture, LanguageModelArchitecture
from mt.nn.cells import CELLS
from mt.nn.language_model import LanguageNetwork
from mt.nn.recurrent import make_layer
from mt.nn.seq2seq import Seq2Seq
from mt.recipe import TokenizerSpec
from mt.search.options import SearchOptions
from mt.search.sampling import SamplingOptions, draw, narrow
from mt.tokenizer import BOS, EOS, Tokenizer, Tokenizers, train_tokenizer
from mt.translator import Advice, Translator


def network(vocabulary: int = 11, **options: Any) -> LanguageNetwork:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embedding_size": 6, "hidden_size": 8, "layers": 2}
    model = LanguageNetwork(LanguageModelArchitecture(**(sizes | options)), vocabulary).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def reader(tokenizer: Tokenizer, running: bool = False, **options: Any) -> LanguageModel:
    model = network(len(tokenizer), **options)
    return LanguageModel(LanguageModelBundle(model, tokenizer, "xx", running), "cpu")


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


# The network


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_windows_and_the_whole_agree(cell: str, tie: bool) -> None:
    model = network(cell=cell, tie_embeddings=tie)
    tokens = torch.randint(11, (3, 9))
    vectors, final = model(tokens)
    whole = model.output(vectors)
    state, found = None, []
    for step in tokens.unbind(1):
        result = model.step(step, state)
        found.append(result.logits)
        state = result.state
    close(torch.stack(found, 1), whole)
    first, carried = model(tokens[:, :4])
    second, after = model(tokens[:, 4:], carried)
    close(torch.cat((first, second), 1), vectors)
    for layer, other in zip(after, final, strict=True):
        for one, two in zip(layer, other, strict=True):
            close(one, two)


@pytest.mark.parametrize("cell", KERNELS)
def test_weight_drop_drops_weights_on_the_state_alone(cell: str) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 5, 4, dtype=torch.float64)
    layer = make_layer(cell, 4, 6, weight_drop=1.0).double()
    without = make_layer(cell, 4, 6).double()
    without.load_state_dict(layer.state_dict())
    close(layer.eval()(inputs)[0], without(inputs)[0])
    with torch.no_grad():
        for name, weight in without.named_parameters():
            if "weight_hh" in name:
                weight.zero_()
    outputs, final = layer.train()(inputs)
    expected, state = without(inputs)
    close(outputs, expected)
    for one, two in zip(final, state, strict=True):
        close(one, two)


def test_weight_drop_draws_anew_and_trains_what_it_keeps() -> None:
    model = network(weight_drop=0.5, layers=1).train()
    tokens = torch.randint(11, (2, 6))
    one, other = model(tokens)[0], model(tokens)[0]
    assert not torch.equal(one, other)
    one.sum().backward()
    gradient = dict(model.stack.named_parameters())["layers.0.kernel.weight_hh_l0"].grad
    assert gradient is not None
    assert 0.3 < float((gradient == 0).double().mean()) < 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "model.hidden_size: must be at least 1"),
        ({"layers": 0}, "model.layers: must be at least 1"),
        ({"weight_drop": 1.5}, "model.weight_drop: must be from 0 to below 1"),
        ({"residual_from": 1}, "model.residual_from"),
        ({"cell": "ssru", "weight_drop": 0.1}, "model.cell is ssru; choose one of these"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageModelArchitecture(**options)


# Scores

TEXT = ["abc de", "", "fghij abc", "a"]


def by_hand(model: LanguageModel, lines: list[str]) -> list[float]:
    """The chain rule, token by token, from the network's single step."""
    totals, state = [], None
    last = EOS
    for row in model.tokenizer.encode_raw(lines):
        total = 0.0
        if not model.running:
            state, last = None, BOS
        for token in (*row, EOS):
            result = model.model.step(torch.tensor([last]), state)
            total += result.logits.log_softmax(-1)[0, token].item()
            state, last = result.state, token
        totals.append(total)
    return totals


@pytest.mark.parametrize("running", [False, True])
def test_scores_are_the_chain_rule(letters: Tokenizer, running: bool) -> None:
    model = reader(letters, running)
    found = model.score(TEXT)
    assert [total for total, _ in found] == pytest.approx(by_hand(model, TEXT), abs=1e-9)
    assert [count for _, count in found] == [len(row) + 1 for row in letters.encode_raw(TEXT)]


@given(st.permutations(TEXT * 2), st.integers(1, 60))
@settings(max_examples=20)
def test_a_line_scores_alike_alone_and_in_any_batch(
    letters: Tokenizer, lines: list[str], batch_tokens: int
) -> None:
    model = reader(letters)
    alone = {line: model.score([line])[0] for line in lines}
    for line, (total, count) in zip(lines, model.score(lines, batch_tokens), strict=True):
        assert total == pytest.approx(alone[line][0], abs=1e-10)
        assert count == alone[line][1]


def test_running_text_is_read_on_and_side_by_side(letters: Tokenizer) -> None:
    model = reader(letters, running=True)
    lines = TEXT * 400  # longer than what is read at a time
    scored = model.score(lines)
    assert scored[0][0] != pytest.approx(scored[4][0], abs=1e-6)  # what stood before matters
    half = len(lines) // 4
    texts = [lines, lines[:half], lines[3:half]]
    found = model.score_texts(texts)
    for text, (total, count) in zip(texts, found, strict=True):
        expected = model.score(text)
        assert total == pytest.approx(sum(one for one, _ in expected), abs=1e-8)
        assert count == sum(number for _, number in expected)
    assert model.score([]) == model.score_texts([]) == []


# What it writes


def test_the_likeliest_token_is_always_taken_at_temperature_zero(letters: Tokenizer) -> None:
    model = reader(letters)
    prompts = ["abc", "", "a de"]
    found = model.generate(prompts, 12, SamplingOptions(temperature=0))
    for prompt, text in zip(prompts, found, strict=True):
        [row] = letters.encode_raw([prompt])
        state, last, tokens = None, BOS, list(row)
        for token in row:
            state, last = model.model.step(torch.tensor([last]), state).state, token
        for _ in range(12):
            result = model.model.step(torch.tensor([last]), state)
            logits = result.logits[0].clone()
            logits[:3] = -math.inf  # padding, unknown and beginning
            last, state = int(logits.argmax()), result.state
            if last == EOS:
                break
            tokens.append(last)
        assert text == letters.decode([tokens])[0]
        assert text.startswith(prompt)


def test_a_seed_repeats_and_lines_end_where_they_stand_alone(letters: Tokenizer) -> None:
    for running in (False, True):
        model = reader(letters, running)
        texts = model.generate(["ab"] * 6, 40, seed=3)
        assert texts == model.generate(["ab"] * 6, 40, seed=3)
        assert texts != model.generate(["ab"] * 6, 40, seed=4)
        assert len(set(texts)) > 1
        assert any("\n" in text for text in texts) == running


logits = st.lists(st.floats(-5, 5), min_size=2, max_size=7)


@given(logits, st.integers(0, 8), st.floats(0.01, 1), st.floats(0.1, 3))
def test_what_is_narrowed_is_what_the_options_say(
    values: list[float], top_k: int, top_p: float, temperature: float
) -> None:
    given_logits = torch.tensor([values], dtype=torch.float64)
    found = narrow(given_logits, SamplingOptions(temperature, top_k, top_p))[0]
    assert float(found.sum()) == pytest.approx(1)
    plain = (given_logits[0] / temperature).softmax(-1)
    kept = torch.nonzero(found)[:, 0].tolist()
    order = sorted(range(len(values)), key=lambda n: -float(plain[n]))
    assert sorted(float(plain[n]) for n in kept) == pytest.approx(
        sorted(float(plain[n]) for n in order[: len(kept)])
    )  # the likeliest
    assert len(kept) <= (top_k or len(values))
    among = plain[order[: top_k or len(values)]]
    among = among / among.sum()
    assert float(among[: len(kept)].sum()) >= top_p - 1e-9
    assert float(among[: len(kept) - 1].sum()) < top_p + 1e-9  # and no more than it takes
    expected = plain[kept] / plain[kept].sum()
    torch.testing.assert_close(found[kept], expected)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.2, 0.0]]).repeat(20_000, 1)
    counts = Counter(draw(probabilities, torch.Generator().manual_seed(1)).tolist())
    assert counts[3] == 0
    for token, share in enumerate((0.5, 0.3, 0.2)):  # within five standard deviations
        assert counts[token] / 20_000 == pytest.approx(share, abs=5 * 0.0036)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "--temperature: must be at least 0"),
        ({"top_k": -1}, "--top-k: must be at least 0"),
        ({"top_p": 0.0}, "--top-p: must be above 0"),
        ({"top_p": 1.5}, "--top-p: must be above 0"),
    ],
)
def test_impossible_sampling_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MTError, match=message):
        SamplingOptions(**options)


# Tokens that are characters or bytes


@pytest.fixture(scope="module")
def characters(cache: Path) -> Tokenizer:
    spec = TokenizerSpec(
        kind="char",
        vocab_size=500,
        normalization="identity",
        character_coverage=1.0,
        byte_fallback=False,
    )
    return train_tokenizer(spec, lambda: ["abc  dé", " xyz"])


@pytest.fixture(scope="module")
def bytes_(cache: Path) -> Tokenizer:
    spec = TokenizerSpec(kind="byte", normalization="identity", placeholders=False)
    return train_tokenizer(spec, lambda: ["any text"])


def test_characters_are_tokens_and_spaces_are_kept(characters: Tokenizer) -> None:
    for text in (" abc ", "é  x", "zyx"):
        [ids] = characters.encode([text])
        assert len(ids) == len(text)
        assert characters.decode([ids]) == [text]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0\u2581")))
def test_any_text_is_bytes_and_back(bytes_: Tokenizer, text: str) -> None:
    assert len(bytes_) == 261
    [ids] = bytes_.encode([text])
    assert len(ids) == len(text.encode())
    assert bytes_.decode([ids]) == [text]


# What it says of translations


def advice(tokenizer: Tokenizer, weight: float, use: Any, running: bool = False) -> Advice:
    model = network(len(tokenizer))
    return Advice(LanguageModelBundle(model, tokenizer, "yy", running), weight, use)


def test_translations_are_ordered_by_both(characters: Tokenizer) -> None:
    torch.manual_seed(1)
    architecture = Architecture(embedding_size=12, hidden_size=16)
    model = Seq2Seq(architecture, len(characters), len(characters)).double().eval()
    tokenizers = Tokenizers(characters, characters)
    bundle = Bundle(model, tokenizers, ("xx", "yy"), SearchOptions())
    options = SearchOptions(beam_size=6, n_best=6, max_length=9)
    sources = ["abc d", "xyz", "dé a"]
    said = advice(characters, 0.7, "rerank")
    plain = Translator(bundle, "cpu").n_best(sources, options)
    found = Translator(bundle, "cpu", advice=said).n_best(sources, options)
    for before, after in zip(plain, found, strict=True):
        told = LanguageModel(said.bundle, "cpu").score([one.text for one in before])
        assert [tokens for _, tokens in told] == [one.tokens for one in before]
        expected = {
            one.text: (one.log_probability + 0.7 * log_probability) / tokens
            for one, (log_probability, tokens) in zip(before, told, strict=True)
        }
        assert [one.text for one in after] == sorted(expected, key=lambda text: -expected[text])
        assert [one.score for one in after] == pytest.approx(sorted(expected.values())[::-1])
    assert found != plain
    [first] = Translator(bundle, "cpu", advice=said).n_best(sources[:1], replace(options, n_best=1))
    assert first[0].text == found[0][0].text


def test_a_say_of_no_weight_changes_nothing(make_bundle: Any, letters: Tokenizer) -> None:
    bundle = make_bundle()
    sources = ["abc de", "fghij abc"]
    expected = Translator(bundle, "cpu").translate(sources)
    for use in ("fusion", "rerank"):
        said = advice(letters, 0.0, use)
        assert Translator(bundle, "cpu", advice=said).translate(sources) == expected


def test_advice_must_be_of_the_same_tokens_and_of_sentences(
    make_bundle: Any, letters: Tokenizer, tokenizer: Tokenizer
) -> None:
    bundle = make_bundle()
    with pytest.raises(MTError, match="--lm: the language model has other tokens"):
        Translator(bundle, "cpu", advice=advice(tokenizer, 0.1, "fusion"))
    with pytest.raises(MTError, match="--lm: the language model is of running text"):
        Translator(bundle, "cpu", advice=advice(letters, 0.1, "fusion", running=True))


# Bundles


def test_a_bundle_comes_back_as_it_was(letters: Tokenizer, tmp_path: Path) -> None:
    for running in (False, True):
        model = network(len(letters), tie_embeddings=running).float()
        saved = LanguageModelBundle(model, letters, "xx", running, "# A model\n")
        save_language_model(saved, tmp_path / "bundle")
        loaded = load_language_model(tmp_path / "bundle")
        assert (loaded.language, loaded.running, loaded.card) == ("xx", running, "# A model\n")
        assert loaded.model.architecture == model.architecture
        assert (loaded.model.output.weight is loaded.model.embedding.weight) == running
        assert LanguageModel(loaded).score(TEXT) == LanguageModel(saved).score(TEXT)
        assert load_tokenizer(tmp_path / "bundle").model == letters.model


def test_damage_and_other_tasks_are_told(
    letters: Tokenizer, make_bundle: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    save_language_model(LanguageModelBundle(network(len(letters)), letters, "xx", False), folder)
    with pytest.raises(MTError, match=r"of task language-model, not translation; use mt generate"):
        load_bundle(folder)
    config = json.loads((folder / "config.json").read_text())
    for key, value, message in (
        ("vocabulary", 7, "vocabulary size is not that of the tokenizer"),
        ("running", "yes", "`running` is missing or of the wrong type"),
        ("architecture", {"depth": 3}, "unknown option `depth`"),
        ("architecture", {"hidden_size": 7}, "has shape"),
    ):
        (folder / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(MTError, match=message):
            load_language_model(folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(MTError, match="SHA-256 differs"):
        load_language_model(folder)
    save_bundle(make_bundle(), tmp_path / "translator")
    with pytest.raises(MTError, match=r"of task translation, not language-model; use mt translate"):
        load_language_model(tmp_path / "translator")
    assert load_tokenizer(tmp_path / "translator").model == letters.model
