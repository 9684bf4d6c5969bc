from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mt.bundle import Bundle
from mt.evaluation.behaviour import behaviour, calibration
from mt.tokenizer import EOS, PAD, UNK
from mt.translator import Alignment, Translator

TEXTS = ["abc de", "fgh", "ij a"]


def biased(make_bundle: Callable[..., Bundle], **biases: float) -> Translator:
    """A network that always gives the same probabilities."""
    bundle = make_bundle()
    output = bundle.model.output
    with torch.no_grad():
        output.weight.zero_()
        output.bias.zero_()
        for name, bias in biases.items():
            output.bias[{"eos": EOS, "pad": PAD, "unk": UNK}[name]] = bias
    return Translator(bundle._replace(model=bundle.model.double()), "cpu")


def test_calibration_is_a_table_of_how_sure_and_how_right() -> None:
    confidence = np.array([0.05, 0.31, 0.39, 0.95, 1.0, 0.9], np.float32)
    right = np.array([False, True, False, True, True, False])
    bins = calibration(confidence, right)
    assert [one.tokens for one in bins] == [1, 2, 3]
    assert [one.confidence for one in bins] == pytest.approx([0.05, 0.35, 2.85 / 3])
    assert [one.accuracy for one in bins] == pytest.approx([0, 0.5, 2 / 3])
    assert calibration(confidence[:0], right[:0]) == []


def test_the_ends_are_what_a_network_is_right_about_that_knows_nothing_else(
    make_bundle: Callable[..., Bundle],
) -> None:
    translator = biased(make_bundle, eos=3.0)
    size = len(translator.tokenizers.target)
    sure = math.exp(3) / (math.exp(3) + size - 1)
    confidence, right = translator.confidences(TEXTS, TEXTS)
    tokens = sum(len(row) + 1 for row in translator.tokenizers.target.encode(TEXTS))
    assert len(confidence) == len(right) == tokens
    assert confidence == pytest.approx([sure] * tokens)
    assert right.sum() == len(TEXTS)
    found = behaviour(translator, TEXTS, TEXTS, TEXTS, [None] * 3)
    facts = dict(found.facts)
    off = 100 * abs(sure - 3 / tokens)
    assert facts.pop("Expected calibration error") == f"{off:.1f}%"
    assert list(facts.values()) == [f"{300 / tokens:.1f}% (3 of {tokens})"]


def test_a_search_error_is_a_reference_that_scores_above_what_was_found(
    make_bundle: Callable[..., Bundle],
) -> None:
    """Where ends are likely, short texts score high: the first is such, the last is the same."""
    translator = biased(make_bundle, eos=5.0)
    found = behaviour(translator, TEXTS, ["a", "abcde", "i"], ["abcde fgh", "a", "i"], [None] * 3)
    [told] = [value for name, value in found.facts if name.startswith("Search errors")]
    assert told == "50.0% (1 of 2)"


def test_attention_that_is_spread_or_leaves_words_out(
    make_bundle: Callable[..., Bundle],
) -> None:
    spans = [(0, 1), (2, 3), (4, 5), (6, 7)]
    sharp = Alignment(spans, spans[:1], np.array([[0, 0.5, 0, 0]], np.float32))
    even = Alignment(spans, spans[:1], np.full((1, 4), 0.25, np.float32))
    empty = Alignment([], [], np.zeros((0, 0), np.float32))
    found = behaviour(biased(make_bundle), ["a"], ["a"], ["a"], [sharp, even, empty, None])
    facts = dict(found.facts)
    assert facts["Entropy of a translated word's attention to source words"] == "1.00 bits"
    left = facts["Source words that no translated word gave a tenth of its attention"]
    assert left == "37.5% (3 of 8)"
