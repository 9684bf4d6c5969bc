"""Classifiers: the network, what it tells of texts, and its bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mt.bundle import load_bundle
from mt.bundle.classifier import ClassifierBundle, load_classifier, save_classifier
from mt.bundle.language_model import load_language_model
from mt.classifier import Classifier, encode_texts
from mt.errors import MTError
from mt.nn.architecture import ClassifierArchitecture
from mt.nn.cells import CELLS
from mt.nn.classifier import AttentionPooling, ClassifierNetwork
from mt.nn.dropout import Dropout
from mt.nn.embedding import NgramEmbedding
from mt.tokenizer import EOS, Tokenizer

POOLINGS = ("last", "mean", "max", "attention")
CLASSES = ("cold", "mild", "warm")


def network(vocabulary: int = 11, **options: Any) -> ClassifierNetwork:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embedding_size": 6, "hidden_size": 5, "layers": 2}
    architecture = ClassifierArchitecture(**(sizes | options))
    model = ClassifierNetwork(architecture, vocabulary, len(CLASSES)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def teller(tokenizer: Tokenizer, max_length: int = 50, **options: Any) -> Classifier:
    model = network(len(tokenizer), **options)
    return Classifier(ClassifierBundle(model, tokenizer, CLASSES, max_length), "cpu")


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


# The network


def by_hand(model: ClassifierNetwork, tokens: Tensor) -> Tensor:
    """The scores `(C,)` of one text `(T,)`, without any padding, step by step."""
    vectors = model.embedding(model.embedding.rows(tokens[None]))
    for number, layer in enumerate(model.stack.layers, start=1):
        below = vectors
        vectors, _ = layer(vectors)
        if number >= 2:
            vectors = vectors + below
    steps = vectors[0].unbind(0)
    match model.architecture.pooling:
        case "last":
            half = model.architecture.hidden_size
            pooled = steps[-1]
            if model.architecture.bidirectional:
                pooled = torch.cat((steps[-1][:half], steps[0][half:]))
        case "mean":
            pooled = torch.stack(steps).mean(0)
        case "max":
            pooled = torch.stack(steps).max(0).values
        case _:
            assert model.attention is not None
            project, query = model.attention.project, model.attention.query
            energies = [
                (torch.tanh(project.weight @ step + project.bias) @ query).item() for step in steps
            ]
            shares = np.exp(energies) / np.exp(energies).sum()
            pooled = sum(
                (share * step for share, step in zip(shares.tolist(), steps, strict=True)),
                torch.zeros_like(steps[0]),
            )
    return model.output.weight @ pooled + model.output.bias


@pytest.mark.parametrize("ngrams", [1, 4])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_row_is_pooled_as_if_it_were_alone(
    pooling: str, bidirectional: bool, ngrams: int
) -> None:
    model = network(pooling=pooling, bidirectional=bidirectional, ngrams=ngrams, ngram_buckets=9)
    lengths = torch.tensor([4, 9, 1, 7, 9])
    tokens = torch.randint(4, 11, (5, 9))
    expected = torch.stack(
        [by_hand(model, row[:length]) for row, length in zip(tokens, lengths, strict=True)]
    )
    for padding in (0, 5):  # what stands in padded places never matters
        padded = tokens.clone()
        for row, length in enumerate(lengths.tolist()):
            padded[row, length:] = padding
        padded = nn.functional.pad(padded, (0, 3), value=padding)
        close(model(padded, lengths), expected)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_keeps_rows_apart(cell: str) -> None:
    model = network(cell=cell, pooling="last")
    tokens, lengths = torch.randint(4, 11, (3, 6)), torch.tensor([6, 2, 4])
    alone = [
        model(row[None, :length], torch.tensor([length]))
        for row, length in zip(tokens, lengths.tolist(), strict=True)
    ]
    close(model(tokens, lengths), torch.cat(alone))


@given(st.lists(st.lists(st.integers(0, 10), min_size=9, max_size=9), min_size=1, max_size=4))
@settings(max_examples=30)
def test_ngrams_share_a_row_exactly_where_they_are_the_same(texts: list[list[int]]) -> None:
    buckets = 2**31 - 1  # so many that the hash is not cut, and no table of that size
    with torch.device("meta"):
        embedding = NgramEmbedding(11, 1, Dropout(0.0), 0.0, longest=4, buckets=buckets)
    rows = embedding.rows(torch.tensor(texts))
    assert rows.shape == (len(texts), 9, 4)
    row_of: dict[tuple[int, ...], int] = {}
    for text, found in zip(texts, rows.tolist(), strict=True):
        for place, numbers in enumerate(found):
            for length, number in enumerate(numbers, start=1):
                before = [0] * 3 + text[: place + 1]  # padding stands before the beginning
                assert row_of.setdefault(tuple(before[-length:]), number) == number
    assert len(set(row_of.values())) == len(row_of)
    for ngram, number in row_of.items():
        assert number == ngram[0] if len(ngram) == 1 else 11 <= number < 11 + buckets


def test_ngrams_stay_within_their_buckets() -> None:
    embedding = NgramEmbedding(11, 1, Dropout(0.0), 0.0, longest=4, buckets=7)
    rows = embedding.rows(torch.randint(0, 11, (20, 30)))
    assert set(rows[..., 1:].flatten().tolist()) == set(range(11, 18))


def test_a_vector_is_the_sum_of_those_of_its_ngrams() -> None:
    torch.manual_seed(1)
    embedding = NgramEmbedding(11, 6, Dropout(0.0), 0.0, longest=3, buckets=50).double()
    tokens = torch.randint(4, 11, (2, 7))
    rows = embedding.rows(tokens)
    plain = embedding.weight[tokens] * embedding.scale
    close(embedding(rows), plain)  # n-grams begin at zero
    nn.init.normal_(embedding.weight)
    for row, vectors in zip(rows, embedding(rows), strict=True):
        for numbers, vector in zip(row, vectors, strict=True):
            one, two, three = embedding.weight[numbers]
            close(vector, (one + two + three) * embedding.scale)
    embedding(rows)[0, 3].sum().backward()
    assert embedding.weight.grad is not None
    moved = embedding.weight.grad.abs().sum(1).nonzero().flatten()
    assert set(moved.tolist()) == set(rows[0, 3].tolist())


def test_attention_is_its_equations() -> None:
    torch.manual_seed(1)
    pooling = AttentionPooling(4).double()
    vectors = torch.randn(2, 5, 4, dtype=torch.float64)
    pad = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    weight, bias = (p.detach().numpy() for p in pooling.project.parameters())
    query = pooling.query.detach().numpy()
    for row, length in enumerate((5, 3)):
        h = vectors[row, :length].numpy()
        u = np.tanh(h @ weight.T + bias)
        a = np.exp(u @ query) / np.exp(u @ query).sum()
        close(pooling(vectors, pad)[row], torch.from_numpy(a @ h))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "model.hidden_size: must be at least 1"),
        ({"output_dropout": 2.0}, "model.output_dropout: must be from 0 to below 1"),
        ({"residual_from": 1}, "model.residual_from"),
        ({"ngrams": 0}, "model.ngrams: must be at least 1"),
        ({"ngram_buckets": 0}, "model.ngram_buckets: must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierArchitecture(**options)


# Answers

TEXT = ["abc de", "", "fghij abc", "a", "   ", "abcabcabc hgf"]


@given(st.permutations(TEXT * 2), st.integers(1, 60), st.sampled_from(POOLINGS), st.integers(1, 3))
@settings(max_examples=20)
def test_a_text_is_classified_alike_alone_and_in_any_batch(
    letters: Tokenizer, texts: list[str], batch_tokens: int, pooling: str, ngrams: int
) -> None:
    classifier = teller(letters, pooling=pooling, ngrams=ngrams, ngram_buckets=20)
    alone = {text: classifier.log_probabilities([text])[0] for text in TEXT}
    found = classifier.log_probabilities(texts, batch_tokens)
    close(found, torch.stack([alone[text] for text in texts]))


def test_classes_come_with_the_likeliest_first(letters: Tokenizer) -> None:
    classifier = teller(letters)
    logs = classifier.log_probabilities(TEXT)
    close(logs.exp().sum(1), torch.ones(len(TEXT), dtype=torch.float64))
    for row, predictions in zip(logs, classifier.classify(TEXT, top=9), strict=True):
        by_class = {one.label: one.probability for one in predictions}
        assert [by_class[name] for name in CLASSES] == pytest.approx(row.exp().tolist())
        shares = [one.probability for one in predictions]
        assert shares == sorted(shares, reverse=True)
    best = [predictions[:1] for predictions in classifier.classify(TEXT, top=3)]
    assert classifier.classify(TEXT) == best
    assert classifier.classify([]) == []


def test_only_the_beginning_of_a_text_is_read(letters: Tokenizer) -> None:
    classifier = teller(letters, max_length=4)
    one, same, other = classifier.log_probabilities(["abcdefgh", "abcdjjjjjjj", "bbcdefgh"])
    [row] = encode_texts(letters, ["abcdefgh"], 4)
    assert len(row) == 5
    assert row[-1] == EOS
    assert encode_texts(letters, ["abcdjjjjjjj"], 4) == [row]
    close(one, same)
    assert not torch.equal(one, other)


# Bundles


def test_a_bundle_comes_back_as_it_was(letters: Tokenizer, tmp_path: Path) -> None:
    for pooling in POOLINGS:
        model = network(len(letters), pooling=pooling, ngrams=2, ngram_buckets=9).float()
        saved = ClassifierBundle(model, letters, CLASSES, 7, "# A model\n")
        save_classifier(saved, tmp_path / "bundle")
        loaded = load_classifier(tmp_path / "bundle")
        assert (loaded.classes, loaded.max_length, loaded.card) == (CLASSES, 7, "# A model\n")
        assert loaded.model.architecture == model.architecture
        assert Classifier(loaded).classify(TEXT) == Classifier(saved).classify(TEXT)


def test_damage_and_other_tasks_are_told(letters: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    save_classifier(ClassifierBundle(network(len(letters)), letters, CLASSES, 7), folder)
    with pytest.raises(MTError, match=r"of task classification, not translation; use mt classify"):
        load_bundle(folder)
    with pytest.raises(MTError, match="of task classification, not language-model"):
        load_language_model(folder)
    config = json.loads((folder / "config.json").read_text())
    names = "`classes` must be two or more different names of one line each"
    for key, value, message in (
        ("vocabulary", 7, "vocabulary size is not that of the tokenizer"),
        ("max_length", "7", "`max_length` is missing or of the wrong type"),
        ("max_length", 0, "`max_length` must be at least 1"),
        ("classes", "cold", "`classes` is missing or of the wrong type"),
        ("classes", ["cold"], names),
        ("classes", ["cold", "cold", "warm"], names),
        ("classes", ["cold", "mild", "wa\nrm"], names),
        ("classes", ["cold", "mild", ""], names),
        ("classes", ["cold", "mild", 3], names),
        ("classes", ["cold", "warm"], "weight `output"),
        ("architecture", {"depth": 3}, "unknown option `depth`"),
        ("architecture", {"pooling": "sum"}, "`pooling` cannot be 'sum'"),
    ):
        (folder / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(MTError, match=message) as caught:
            load_classifier(folder)
        assert "\n" not in str(caught.value)
    (folder / "config.json").write_text(json.dumps(config))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(MTError, match="SHA-256 differs"):
        load_classifier(folder)
