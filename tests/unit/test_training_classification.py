"""Batches of labelled text and the loss on them: every text once, classes weighed as told."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from mt.corpus.labelled import Examples
from mt.nn.architecture import ClassifierArchitecture
from mt.nn.classifier import ClassifierNetwork
from mt.recipe import ClassificationBatching, ClassificationRecipe, ClassificationTraining
from mt.tokenizer import Tokenizer
from mt.training.classification import ClassifierModule, LabelledBatch, LabelledTexts
from mt.training.module import Budget

RANDOM = np.random.default_rng(1)
TEXTS = ["".join(RANDOM.choice(list("abcdefgh"), RANDOM.integers(1, 9))) for _ in range(90)]
EXAMPLES = Examples(TEXTS, [len(text) % 3 for text in TEXTS])


def rows(batch: Any) -> list[tuple[tuple[int, ...], int]]:
    """The tokens and class of each text that has a part in the loss."""
    assert isinstance(batch, LabelledBatch)
    return [
        (tuple(row[:length].tolist()), label)
        for row, length, label in zip(
            batch.tokens, batch.lengths, batch.labels.tolist(), strict=True
        )
        if label >= 0
    ]


def test_every_text_is_seen_once_an_epoch(letters: Tokenizer) -> None:
    data = LabelledTexts(EXAMPLES, letters, ClassificationBatching(tokens=50))
    seen = []
    for epoch in (0, 1):
        plan = data.plan(50, seed=1, epoch=epoch)
        assert len(plan) == data.updates(50)
        batches = [data.batch(update, 1, 0, (1,)) for update in plan]
        seen.append(Counter(row for one in batches for row in rows(one.batch)))
        assert sum(one.normalizer for one in batches) == len(TEXTS)
        assert all(one.batch.tokens.numel() <= 50 for one in batches)
    assert seen[0] == seen[1]
    assert seen[0].total() == len(TEXTS)
    assert Counter(label for _, label in seen[0].elements()) == Counter(EXAMPLES.labels)


@pytest.mark.parametrize("parts", [2, 3, 40])
def test_parts_share_an_update_out(letters: Tokenizer, parts: int) -> None:
    data = LabelledTexts(EXAMPLES, letters, ClassificationBatching(tokens=50))
    learner = module(letters)
    for update in data.plan(50, 1, 0)[:4]:
        whole = data.batch(update, 1, 0, (1,))
        shares = [data.batch(update, parts, part, (1,)) for part in range(parts)]
        assert {one.normalizer for one in shares} == {whole.normalizer}
        assert Counter(row for one in shares for row in rows(one.batch)) == Counter(
            rows(whole.batch)
        )
        sums = [learner.loss_sums(one.batch) for one in shares]
        expected = learner.loss_sums(whole.batch)
        assert sum(one.outputs for one in sums) == expected.outputs
        for name in ("loss", "plain"):
            total = sum(getattr(one, name).item() for one in sums)
            assert total == pytest.approx(getattr(expected, name).item())


def module(letters: Tokenizer, **options: Any) -> ClassifierModule:
    torch.manual_seed(0)
    none = {"embedding_dropout": 0.0, "output_dropout": 0.0, "layer_dropout": 0.0}
    architecture = ClassifierArchitecture(embedding_size=6, hidden_size=8, **none)
    model = ClassifierNetwork(architecture, len(letters), 3).double()
    recipe = ClassificationRecipe(training=ClassificationTraining(**options))
    counts = np.bincount(EXAMPLES.labels)
    return ClassifierModule(model, recipe, counts, Budget(9, None)).double()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_the_loss_is_smoothed_and_weighed(
    letters: Tokenizer, smoothing: float, weights: str
) -> None:
    learner = module(letters, label_smoothing=smoothing, class_weights=weights)
    data = LabelledTexts(EXAMPLES, letters, ClassificationBatching())
    batch = data.batch(np.arange(len(TEXTS)), 1, 0, (1,)).batch
    assert isinstance(batch, LabelledBatch)
    logs = learner.model(batch.tokens, batch.lengths).log_softmax(1)
    counts = Counter(EXAMPLES.labels)
    loss = plain = weight_sum = 0.0
    for row, label in zip(logs.tolist(), batch.labels.tolist(), strict=True):
        weight = 1.0 if weights == "none" else len(TEXTS) / (3 * counts[label])
        smoothed = -(1 - smoothing) * row[label] - smoothing * sum(row) / 3
        loss, plain, weight_sum = loss + weight * smoothed, plain - row[label], weight_sum + weight
    sums = learner.loss_sums(batch)
    assert sums.loss.item() == pytest.approx(loss)
    assert sums.plain.item() == pytest.approx(plain)
    assert weight_sum == pytest.approx(len(TEXTS))  # so that the learning rate means the same
    assert sums.inputs == int(batch.lengths.sum())
