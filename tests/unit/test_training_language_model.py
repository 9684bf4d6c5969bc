"""Batches of text and the loss on them: every token once, state carried on, devices alike."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mt.nn.architecture import LanguageModelArchitecture
from mt.nn.language_model import LanguageNetwork
from mt.recipe import LanguageModelRecipe, TextBatching, TextCorpus
from mt.tokenizer import BOS, EOS, PAD
from mt.training.language_model import LanguageModelModule, Lines, RunningText, TextBatch
from mt.training.module import Budget

VOCABULARY = 300
RANDOM = np.random.default_rng(1)
ENCODED = [RANDOM.integers(4, VOCABULARY, RANDOM.integers(0, 9)).tolist() for _ in range(200)]
TOKENS = sum(map(len, ENCODED)) + len(ENCODED)


def rows(batch: Any) -> list[tuple[int, int]]:
    """What is predicted after what."""
    assert isinstance(batch, TextBatch)
    real = batch.outputs != PAD
    return list(zip(batch.inputs[real].tolist(), batch.outputs[real].tolist(), strict=True))


def test_every_token_of_every_line_is_predicted_once_an_epoch() -> None:
    lines = Lines(ENCODED, VOCABULARY, TextBatching(tokens=50))
    expected = Counter(
        pair for line in ENCODED for pair in zip([BOS, *line], [*line, EOS], strict=True)
    )
    for epoch in (0, 1):
        plan = lines.plan(50, seed=1, epoch=epoch)
        assert len(plan) == lines.updates(50)
        batches = [lines.batch(update, 1, 0, (1,)) for update in plan]
        assert Counter(pair for one in batches for pair in rows(one.batch)) == expected
        assert sum(one.normalizer for one in batches) == TOKENS
        assert all(one.batch.inputs.numel() <= 50 for one in batches)


def test_long_lines_are_left_out() -> None:
    lines = Lines(ENCODED, VOCABULARY, TextBatching(tokens=50, max_length=3))
    numbers = np.concatenate(lines.plan(50, 1, 0)).tolist()
    assert sorted(numbers) == [n for n, line in enumerate(ENCODED) if len(line) <= 3]


@pytest.mark.parametrize("kind", [Lines, RunningText])
@pytest.mark.parametrize("parts", [2, 3, 40])
def test_parts_share_an_update_out(kind: Any, parts: int) -> None:
    data = kind(ENCODED, VOCABULARY, TextBatching(tokens=50, bptt=5))
    for update in data.plan(50, 1, 0)[:6]:
        whole = data.batch(update, 1, 0, (1,))
        shares = [data.batch(update, parts, part, (1,)) for part in range(parts)]
        assert {one.normalizer for one in shares} == {whole.normalizer}
        together = Counter(pair for one in shares for pair in rows(one.batch))
        assert together == Counter(rows(whole.batch))
        assert [one.batch.part for one in shares] == list(range(parts))


def test_windows_of_running_text_follow_upon_each_other() -> None:
    text = RunningText(ENCODED, VOCABULARY, TextBatching(tokens=60, bptt=7))
    ring = [token for line in ENCODED for token in (*line, EOS)]
    beginnings = set()
    for epoch in range(3):
        plan = text.plan(60, 1, epoch)
        assert len(plan) == text.updates(60) == len(ring) // 8 // 7
        batches = [text.batch(update, 1, 0, (1,)).batch for update in plan]
        assert [batch.begins for batch in batches] == [True] + [False] * (len(plan) - 1)
        inputs = torch.cat([batch.inputs for batch in batches], dim=1)
        outputs = torch.cat([batch.outputs for batch in batches], dim=1)
        assert inputs.shape[0] == 60 // 7
        assert torch.equal(inputs[:, 1:], outputs[:, :-1])
        starts = []
        for row in inputs.tolist():
            found = [n for n in range(len(ring)) if (ring[n:] + ring)[: len(row)] == row]
            assert len(found) == 1  # a stretch of the text
            starts += found
        steps = np.diff([*starts, starts[0] + len(ring)]) % len(ring)
        assert set(steps[:-1].tolist()) == {len(ring) // 8}  # and the rows share it out
        beginnings.add(starts[0])
    assert len(beginnings) == 3  # windows end elsewhere in every epoch


def test_a_text_shorter_than_a_window_is_a_window() -> None:
    text = RunningText([[5, 6]], VOCABULARY, TextBatching(tokens=60, bptt=7))
    [update] = text.plan(60, 1, 0)
    batch = text.batch(update, 1, 0, (1,)).batch
    assert sorted(batch.inputs[0].tolist()) == [EOS, 5, 6]


def module(running: bool, **options: Any) -> LanguageModelModule:
    torch.manual_seed(0)
    architecture = LanguageModelArchitecture(embedding_size=6, hidden_size=8, **options)
    model = LanguageNetwork(architecture, VOCABULARY).double()
    recipe = LanguageModelRecipe(corpus=TextCorpus(running=running))
    return LanguageModelModule(model, recipe, Budget(9, None))


NONE = {"embedding_dropout": 0.0, "output_dropout": 0.0, "layer_dropout": 0.0}


def test_the_state_goes_on_and_the_gradient_does_not() -> None:
    learner = module(running=True, **NONE)
    text = RunningText(ENCODED, VOCABULARY, TextBatching(tokens=60, bptt=7))
    batches = [text.batch(update, 1, 0, (1,)).batch for update in text.plan(60, 1, 0)[:4]]
    sums = [learner.loss_sums(batch) for batch in batches]
    inputs, outputs = (torch.cat([batch[side] for batch in batches], dim=1) for side in (0, 1))
    logits = learner.model.output(learner.model(inputs)[0])
    expected = nn.functional.cross_entropy(
        logits.flatten(0, 1), outputs.flatten(), reduction="none"
    ).view(outputs.shape)
    found = torch.stack([one.loss for one in sums])
    by_window = torch.stack([part.sum() for part in expected.split(7, dim=1)])
    torch.testing.assert_close(found, by_window, rtol=0, atol=1e-9)
    assert sums[0].outputs == batches[0].outputs.numel()
    # Truncated: the last window's loss knows nothing of the tokens of the windows before.
    sums[3].loss.backward()
    gradient = learner.model.embedding.weight.grad
    assert gradient is not None
    learner.zero_grad()
    first = [tuple(t.detach() for t in layer) for layer in learner.model(inputs[:, :21])[1]]
    vectors, _ = learner.model(batches[3].inputs, first)
    loss = nn.functional.cross_entropy(
        learner.model.output(vectors).flatten(0, 1), batches[3].outputs.flatten(), reduction="sum"
    )
    [alone] = torch.autograd.grad(loss, [learner.model.embedding.weight])
    torch.testing.assert_close(gradient, alone, rtol=0, atol=1e-9)


def test_an_epoch_and_each_part_begin_with_an_empty_state() -> None:
    learner = module(running=True, **NONE)
    text = RunningText(ENCODED, VOCABULARY, TextBatching(tokens=60, bptt=7))
    plan = text.plan(60, 1, 0)
    whole = [learner.loss_sums(text.batch(u, 1, 0, (1,)).batch).loss.item() for u in plan[:3]]
    parts = [
        sum(learner.loss_sums(text.batch(u, 2, part, (1,)).batch).loss.item() for part in (0, 1))
        for u in plan[:3]
    ]
    assert parts == pytest.approx(whole)
    again = learner.loss_sums(text.batch(plan[0], 1, 0, (1,)).batch).loss.item()
    assert again == pytest.approx(whole[0])


def test_padding_has_no_part_in_the_loss() -> None:
    learner = module(running=False, **NONE)
    lines = Lines(ENCODED, VOCABULARY, TextBatching(tokens=200))
    batch = lines.batch(np.arange(12), 1, 0, (1,)).batch
    whole = learner.loss_sums(batch)
    alone = sum(
        learner.loss_sums(lines.batch(np.array([n]), 1, 0, (1,)).batch).loss.item()
        for n in range(12)
    )
    assert whole.loss.item() == pytest.approx(alone)
    assert whole.outputs == sum(len(line) + 1 for line in ENCODED[:12])
    assert not learner.carried
