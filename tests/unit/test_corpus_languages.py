"""Pairs in the wrong language, found by a classifier that was made for the purpose."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mt.bundle import save_bundle
from mt.bundle.classifier import ClassifierBundle, save_classifier
from mt.corpus import ParallelCorpus, load_corpus
from mt.corpus.languages import LanguageRule
from mt.errors import MTError
from mt.nn.architecture import ClassifierArchitecture
from mt.nn.classifier import ClassifierNetwork
from mt.options import parse_train
from mt.recipe import Cleaning, Corpus, TokenizerSpec
from mt.tokenizer import train_tokenizer
from mt.training.folder import published


def make_identifier(folder: Path, sureness: float, classes: tuple[str, ...] = ("aa", "bb")) -> Path:
    """A classifier by hand: text of the letters a to m is of the first class, else of the second.

    `sureness` is what a text of either has for its probability, about.
    """
    spec = TokenizerSpec(kind="char", vocab_size=100, normalization="identity", byte_fallback=False)
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokenizer = train_tokenizer(spec, lambda: [letters, f"{letters} "])
    options: dict[str, Any] = {"embedding_size": 1, "hidden_size": 1, "cell": "elman-tanh"}
    architecture = ClassifierArchitecture(**options, bidirectional=False, pooling="max")
    model = ClassifierNetwork(architecture, len(tokenizer), len(classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for letter in "nopqrstuvwxyz":
            [[token]] = tokenizer.encode([letter])
            model.embedding.weight[token] = 9.0
        for name, parameter in model.stack.named_parameters():
            if "weight_ih" in name:
                parameter.fill_(1.0)
        odds = float(torch.logit(torch.tensor(sureness)))
        model.output.bias[0], model.output.weight[1, 0] = odds, 2 * odds
    bundle = ClassifierBundle(model.eval(), tokenizer, classes, 200)
    save_classifier(bundle, folder)
    return folder


PAIRS = [
    ("abcd efgh ijkl", "nopq rstu vwxy"),
    ("bcda efgh ijkl", "opqn rstu vwxy"),
    ("nopq rstu vwxz", "nopq rstu vwyx"),  # the source is not
    ("cdab efgh ijkl", "dcba efgh iklj"),  # nor is the target
    ("stuv", "abcd"),  # too short to tell
    *(
        (f"{a}{b} ijkl efgh", f"{c}{d} rstu vwxy")
        for a in "abcd"
        for b in "efgh"
        for c, d in ["no"]
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = tmp_path / "text"
    text.mkdir()
    for split, pairs in (("train", PAIRS), ("valid", [("x", "y")]), ("test", [("z", "w")])):
        for side, language in enumerate(("aa", "bb")):
            content = "".join(f"{pair[side]}\n" for pair in pairs)
            (text / f"{split}.{language}").write_text(content)
    return text


def load(text: Path, identifier: Path | None, **options: Any) -> ParallelCorpus:
    cleaning = Cleaning(
        held_out="exact",
        language_identifier=None if identifier is None else str(identifier),
        **({"language_min_characters": 10} | options),
    )
    return load_corpus(Corpus(source="aa", target="bb", files=str(text), cleaning=cleaning))


def pairs(corpus: ParallelCorpus) -> set[tuple[str, str]]:
    return set(zip(corpus.train["source"], corpus.train["target"], strict=True))


def test_pairs_in_another_language_are_dropped(tmp_path: Path, folder: Path) -> None:
    sure = make_identifier(tmp_path / "sure", 0.97)
    found = load(folder, sure)
    assert pairs(found) == set(PAIRS) - set(PAIRS[2:4])
    assert ("wrong language", 2) in [(c.rule, c.dropped) for c in found.cleaning]
    assert "wrong language" not in [c.rule for c in load(folder, None).cleaning]
    # Below the probability that is asked for, nothing is; and short text is left alone.
    assert pairs(load(folder, sure, language_probability=0.98)) == set(PAIRS)
    assert pairs(load(folder, sure, language_min_characters=15)) == set(PAIRS)
    assert pairs(load(folder, sure, language_min_characters=0)) == set(PAIRS) - set(PAIRS[2:5])


def test_the_cache_knows_a_bundle_by_its_content(tmp_path: Path, folder: Path) -> None:
    one = make_identifier(tmp_path / "one", 0.97)
    first = load(folder, one)
    shutil.copytree(one, tmp_path / "copy")
    assert load(folder, tmp_path / "copy").folder == first.folder
    shutil.rmtree(one)
    make_identifier(one, 0.6)
    other = load(folder, one)
    assert other.folder != first.folder
    assert pairs(other) == set(PAIRS)


def test_a_language_goes_by_its_code_or_its_first_part(tmp_path: Path) -> None:
    bundle = make_identifier(tmp_path / "bundle", 0.97, ("pt", "zh-Hans"))
    for source, target in (("pt", "zh-Hans"), ("pt-BR", "zh-hans"), ("PT_br", "zh-Hans")):
        rule = LanguageRule(bundle, Corpus(source=source, target=target))
        assert rule.right([("abcd efgh ijkl mabc def", "x")]) == [True]
        assert rule.right([("nopq rstu vwxy nopq rst", "x")]) == [False]


def test_mistakes_are_one_line(tmp_path: Path, folder: Path, make_bundle: Any) -> None:
    save_bundle(make_bundle(), tmp_path / "translator")
    other = make_identifier(tmp_path / "other", 0.97, ("aa", "cc"))
    for bundle, message in (
        (tmp_path / "none", "none: no such bundle"),
        (tmp_path / "translator", "of task translation, not classification; use mt translate"),
        (other, "language_identifier: .*other does not know 'bb' but aa, cc; leave it out"),
    ):
        with pytest.raises(MTError, match=message) as caught:
            load(folder, bundle)
        assert "\n" not in str(caught.value)
    with pytest.raises(MTError, match=r"corpus\.cleaning\.language_probability: must be from 0"):
        Cleaning(language_probability=1.5)


def test_the_path_is_one_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes/one.yaml"
    recipe.write_text(yaml.safe_dump({"corpus": {"cleaning": {"language_identifier": "runs/id"}}}))
    read = parse_train([str(recipe)]).recipe
    assert read.corpus.cleaning.language_identifier == str(tmp_path / "runs/id")
    given = parse_train([str(recipe), "--corpus.cleaning.language_identifier", "mine"]).recipe
    here = str(Path.cwd() / "mine")
    assert given.corpus.cleaning.language_identifier == here
    assert "language_identifier: id\n" in published(read)
