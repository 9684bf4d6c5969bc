"""Placeholders: masked, copied by the network, and put back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mt.bundle import Bundle, load_bundle, save_bundle
from mt.nn.architecture import Architecture
from mt.nn.seq2seq import Seq2Seq
from mt.placeholders import SYMBOLS, find, mask, unmask
from mt.recipe import Batching, TokenizerSpec
from mt.search.options import SearchOptions
from mt.subwords import SubwordSampler
from mt.tokenizer import PAD, Tokenizers, train_tokenizer
from mt.training.parallel_text import ParallelText
from mt.translator import Translator

PARTS = "{name}", "{0}", "{}", "{{ x }}", "{{x}}", "${y}", "%(n)s", "%s", "%d", "%1", "%2$s", "%.2f"
TEXTS = st.lists(st.sampled_from([*PARTS, "%PRODUCTNAME", *SYMBOLS, "word", " ", "5%", "{", "€"]))


@given(parts=TEXTS, count=st.integers(0, 9))
@example(parts=["{a}", "⟦1⟧", "⟦2⟧"], count=1)
@example(parts=[*PARTS, "⟦1⟧"], count=9)
def test_what_is_masked_comes_back(parts: list[str], count: int) -> None:
    text, symbols = "".join(parts), SYMBOLS[:count]
    held = find(text, symbols)
    assert unmask(mask(text, symbols), symbols, held) == text
    assert len(held) == len(set(held)) <= count


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Press {key} twice", "Press ⟦1⟧ twice"),
        ("{a}, {b} and {a}", "⟦1⟧, ⟦2⟧ and ⟦1⟧"),
        ("%1 of %2$s in %PRODUCTNAME", "⟦1⟧ of ⟦2⟧ in ⟦3⟧"),
        ("%(count)d at %.2f", "⟦1⟧ at ⟦2⟧"),
        ("100% sure, 5%d", "100% sure, 5%d"),
        ("{no placeholder}", "{no placeholder}"),
        ("nothing at all", "nothing at all"),
    ],
)
def test_what_a_placeholder_is(text: str, masked: str) -> None:
    assert mask(text, SYMBOLS) == masked


def test_a_translation_is_masked_by_its_source() -> None:
    held = find("{a} on {b}")
    assert mask("auf {b}: {a} {c}", SYMBOLS, held) == "auf ⟦2⟧: ⟦1⟧ {c}"
    assert unmask("auf ⟦2⟧: ⟦1⟧⟦3⟧", SYMBOLS, held) == "auf {b}: {a}"


def test_the_vocabulary_has_the_symbols_that_its_text_needs(cache: Path, words: list[str]) -> None:
    spec = TokenizerSpec(vocab_size=320)
    plain = train_tokenizer(spec, lambda: words)
    two = train_tokenizer(spec, lambda: [*words, "{a} and {b}"])
    off = train_tokenizer(
        TokenizerSpec(vocab_size=320, placeholders=False), lambda: [*words, "{a} and {b}"]
    )
    assert [list(t.symbols) for t in (plain, two, off)] == [[], ["⟦1⟧", "⟦2⟧"], []]
    assert Tokenizers(two, plain).symbols == []
    assert Tokenizers(two, two).symbols == ["⟦1⟧", "⟦2⟧"]
    best = two.encode(["ab⟦2⟧c ⟦1⟧"])
    for segmented in (best, SubwordSampler(two, 1).sample(best, 1)):
        assert two.pieces(segmented[0]).count("⟦2⟧") == 1
    assert two.decode(two.encode(["ab ⟦2⟧ c⟦1⟧"])) == ["ab ⟦2⟧ c⟦1⟧"]


def test_every_placeholder_is_kept_even_by_a_network_that_knows_nothing(
    cache: Path, words: list[str]
) -> None:
    tokenizer = train_tokenizer(TokenizerSpec(vocab_size=320), lambda: [*words, "{a} {b} {c}"])
    torch.manual_seed(1)
    model = Seq2Seq(Architecture(embedding_size=16, hidden_size=16), len(tokenizer), len(tokenizer))
    bundle = Bundle(model.eval(), Tokenizers(tokenizer, tokenizer), ("xx", "yy"), SearchOptions())
    texts = ["{x} ab {y} c {x}", "abc", "%s %d %f", "{one}", "{1} {2} {3} {4}", "⟦1⟧ {a}"]
    translator = Translator(bundle, "cpu")
    for beam_size in (1, 4):
        outputs = translator.translate(texts, SearchOptions(beam_size=beam_size))
        for text, output in zip(texts, outputs, strict=True):
            for part in find(
                text, list(tokenizer.symbols)
            ):  # this vocabulary has no symbol for a fourth
                assert output.count(part) == text.count(part)
            assert set(find(output)) <= set(find(text))


def examples(names: list[str], count: int, seed: int) -> list[tuple[str, str]]:
    """The first placeholder goes last: `abc {x} d {y}` becomes `abc d {y} {x}`."""
    generator = random.Random(seed)
    pairs = []
    for _ in range(count):
        a, b = ("".join(generator.choices("abcdef", k=2)) for _ in range(2))
        x, y = generator.sample(names, 2)
        pairs.append((f"{a} {{{x}}} {b} {{{y}}}", f"{a} {b} {{{y}}} {{{x}}}"))
    return pairs


@pytest.mark.parametrize("sampling", [0.0, 0.1])
def test_unseen_placeholders_are_copied(cache: Path, tmp_path: Path, sampling: float) -> None:
    sources, targets = zip(*examples(["one", "two", "three", "four"], 1500, 1), strict=True)
    spec = TokenizerSpec(vocab_size=80, byte_fallback=False)
    joint = train_tokenizer(spec, lambda: [*sources, *targets])
    tokenizers = Tokenizers(joint, joint)
    text = ParallelText(
        [(sources, targets)],
        tokenizers,
        Batching(tokens=600, subword_sampling=sampling),
    )
    torch.manual_seed(1)
    architecture = Architecture(
        embedding_size=32,
        hidden_size=64,
        embedding_dropout=0.0,
        layer_dropout=0.0,
        output_dropout=0.0,
    )
    model = Seq2Seq(architecture, len(joint), len(joint))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for epoch in range(6):
        for number, update in enumerate(text.plan(600, 1, epoch)):
            batch = text.batch(update, 1, 0, (1, epoch, number)).batch
            real = batch.target_out != PAD
            vectors = model(batch.source, batch.source_lengths, batch.target_in)[real]
            optimizer.zero_grad()
            cross_entropy(model.output(vectors), batch.target_out[real]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    save_bundle(Bundle(model.eval(), tokenizers, ("xx", "yy"), SearchOptions()), tmp_path / "it")
    translator = Translator(load_bundle(tmp_path / "it"), "cpu")
    unseen = examples(["Zürich!", "x_9.y", "日本", "<&>"], 50, 2)
    found = translator.translate([source for source, _ in unseen])
    right = [output == target for output, (_, target) in zip(found, unseen, strict=True)]
    assert sum(right) >= 47
    # A score knows them too: the right order is likelier than the wrong one.
    source, target = unseen[0]
    a, b, y, x = target.split()
    (good, tokens), (bad, _) = translator.score([source] * 2, [target, f"{a} {b} {x} {y}"])
    assert good > bad + 1
    assert tokens == translator.n_best([source])[0][0].tokens
    # Whatever must not be repeated: a placeholder that stands twice does.
    twice = SearchOptions(no_repeat_ngram=1)
    assert translator.translate([f"{x} {a} {x}"], twice)[0].count(x) == 2
    prefix = f"{a} {b} {y}"
    assert translator.n_best([source], prefixes=[prefix])[0][0].text.startswith(prefix)
