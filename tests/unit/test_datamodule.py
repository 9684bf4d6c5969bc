"""The stream of training batches: the same updates however they are shared out or resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mt.batches import Batch
from mt.recipe import Batching
from mt.tokenizer import EOS, PAD, Tokenizer, Tokenizers
from mt.training.datamodule import BatchStream, Share, TrainingBatch
from mt.training.parallel_text import ParallelText

ONE = Share(devices=1, rank=0, accumulate=1)


def parallel(
    tokenizer: Tokenizer, words: list[str], count: int = 150, **batching: Any
) -> ParallelText:
    options: dict[str, Any] = {"tokens": 120, **batching}
    return ParallelText(
        [(words[:count], [text[::-1] for text in words[:count]])],
        Tokenizers(tokenizer, tokenizer),
        Batching(**options),
    )


def stream(
    text: ParallelText, share: Share = ONE, start: int = 0, stop: int = 40
) -> list[TrainingBatch]:
    return list(BatchStream(text, 1, share, start, stop))


def same(one: TrainingBatch, other: TrainingBatch) -> bool:
    return one.normalizer == other.normalizer and all(
        a.equal(b) for a, b in zip(one.batch, other.batch, strict=True)
    )


def all_same(ones: Sequence[TrainingBatch], others: Sequence[TrainingBatch]) -> bool:
    return len(ones) == len(others) and all(map(same, ones, others))


def has_loss(batch: Batch) -> bool:
    return bool(batch.target_out.ne(PAD).any())


def trained_on(batches: Sequence[TrainingBatch]) -> list[int]:
    """Sentences of an update that the loss sees."""
    return sorted(n for b in batches if has_loss(b.batch) for n in b.batch.ids.tolist())


@pytest.fixture(params=[0.0, 0.2], ids=["best", "sampled"])
def text(request: pytest.FixtureRequest, tokenizer: Tokenizer, words: list[str]) -> ParallelText:
    return parallel(tokenizer, words, subword_sampling=request.param)


def test_an_epoch_holds_every_sentence_once_and_its_own_text(
    text: ParallelText, tokenizer: Tokenizer, words: list[str]
) -> None:
    updates = text.updates(120)
    batches = stream(text, stop=2 * updates)
    for epoch in (batches[:updates], batches[updates:]):
        assert trained_on(epoch) == list(range(150))
        for batch in (part.batch for part in epoch):
            for row, number in enumerate(batch.ids.tolist()):
                ids = [batch.source[row].tolist(), batch.target_out[row].tolist()]
                assert tokenizer.decode(ids) == [words[number], words[number][::-1]]
    assert [b.batch.ids.tolist() for b in batches[:updates]] != [
        b.batch.ids.tolist() for b in batches[updates:]
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, 2), (2, 1)), ((1, 4), (2, 2)), ((1, 4), (4, 1))],
    ids=lambda sizes: "{} devices x {} batches".format(*sizes),
)
def test_devices_and_accumulation_see_the_same_updates(
    text: ParallelText, one: tuple[int, int], other: tuple[int, int]
) -> None:
    def by_update(devices: int, accumulate: int) -> list[list[TrainingBatch]]:
        ranks = [stream(text, Share(devices, rank, accumulate)) for rank in range(devices)]
        assert {len(rank) for rank in ranks} == {40 * accumulate}  # or processes would hang
        return [
            [batch for rank in ranks for batch in rank[k * accumulate : (k + 1) * accumulate]]
            for k in range(40)
        ]

    def key(part: TrainingBatch) -> list[int]:
        return [not has_loss(part.batch), *part.batch.ids.tolist()]

    for ones, others in zip(by_update(*one), by_update(*other), strict=True):
        assert all_same(sorted(ones, key=key), sorted(others, key=key))
        assert len({part.normalizer for part in ones}) == 1


def test_twice_the_budget_is_the_same_update_in_one_part(
    tokenizer: Tokenizer, words: list[str]
) -> None:
    narrow, wide = (parallel(tokenizer, words, tokens=tokens) for tokens in (120, 240))
    halves = stream(narrow, Share(1, 0, 2), stop=20)
    for number, whole in enumerate(stream(wide, stop=20)):
        parts = halves[2 * number : 2 * number + 2]
        assert trained_on(parts) == trained_on([whole])
        assert {part.normalizer for part in parts} == {whole.normalizer}


@pytest.mark.parametrize("start", [1, 7, "epoch", 35])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_starting_later_is_skipping(text: ParallelText, start: Any, accumulate: int) -> None:
    share = Share(1, 0, accumulate)
    if start == "epoch":
        start = text.updates(120 * accumulate)
    assert all_same(stream(text, share, start), stream(text, share)[start * accumulate :])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_loader_processes_change_nothing(text: ParallelText, accumulate: int) -> None:
    """Three updates of which the last turn is not full, from the middle of an epoch on."""
    data = BatchStream(text, 1, Share(1, 0, accumulate), 3, 10)
    alone, together = (
        list(DataLoader(data, batch_size=None, num_workers=workers)) for workers in (0, 2)
    )
    assert len(alone) == 7 * accumulate
    assert all_same(alone, together)


def test_sampling_is_new_in_each_epoch_and_each_part(
    tokenizer: Tokenizer, words: list[str]
) -> None:
    text = parallel(tokenizer, words, count=1, subword_sampling=0.5)
    spellings = Counter(tuple(b.batch.source[0].tolist()) for b in stream(text, stop=30))
    assert len(spellings) > 10


def test_the_two_sides_are_sampled_apart(tokenizer: Tokenizer, words: list[str]) -> None:
    """Else the network could learn to tell one segmentation from the other."""
    same = [words[0]]
    text = ParallelText(
        [(same, same)],
        Tokenizers(tokenizer, tokenizer),
        Batching(tokens=120, subword_sampling=0.5),
    )
    batches = [found.batch for found in stream(text, stop=20)]
    assert any(not torch.equal(batch.source[0], batch.target_out[0]) for batch in batches)


def test_the_seed_decides_the_order(tokenizer: Tokenizer, words: list[str]) -> None:
    text = parallel(tokenizer, words)
    ones, others = (
        [found.batch.ids.tolist() for found in BatchStream(text, seed, ONE, 0, 10)]
        for seed in (1, 2)
    )
    assert ones != others


def test_update_tokens_count_the_target_of_all_parts(
    tokenizer: Tokenizer, words: list[str]
) -> None:
    text = parallel(tokenizer, words)
    parts = stream(text, Share(1, 0, 3), stop=20)
    for number in range(20):
        update = parts[3 * number : 3 * number + 3]
        real = sum(int(part.batch.target_out.ne(PAD).sum()) for part in update)
        assert [part.normalizer for part in update] == [real] * 3
    ends = sum(int((part.batch.target_out == EOS).sum()) for part in parts)
    assert ends == len(trained_on(parts))


def test_parts_without_sentences_carry_no_loss(tokenizer: Tokenizer, words: list[str]) -> None:
    text = parallel(tokenizer, words, count=3)
    parts = [stream(text, Share(5, rank, 1), stop=1)[0] for rank in range(5)]
    assert [has_loss(part.batch) for part in parts] == [True] * 3 + [False] * 2
    assert trained_on(parts) == [0, 1, 2]
    for part in parts[3:]:
        assert part.batch.source.shape[0] == 1
        assert part.batch.target_in.shape == part.batch.target_out.shape
        assert part.normalizer == parts[0].normalizer


def test_long_pairs_are_left_out(tokenizer: Tokenizer, words: list[str]) -> None:
    text = parallel(tokenizer, words, max_length=12)
    lengths = [max(map(len, tokenizer.encode([w, w[::-1]]))) for w in words[:150]]
    kept = [number for number, length in enumerate(lengths) if length <= 12]
    assert 0 < len(kept) < 150
    assert text.kept.tolist() == kept
    assert trained_on(stream(text, stop=text.updates(120))) == kept


def test_the_budget_counts_special_tokens(tokenizer: Tokenizer, words: list[str]) -> None:
    for part in stream(parallel(tokenizer, words)):
        batch = part.batch
        width = max(batch.source.shape[1], batch.target_out.shape[1])
        assert len(batch.ids) * width <= 120 or len(batch.ids) == 1


def test_the_number_of_updates_is_that_of_every_epoch(
    tokenizer: Tokenizer, words: list[str]
) -> None:
    text = parallel(tokenizer, words)
    counts = {len(text.plan(120, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert counts == {text.updates(120)}
    assert np.concatenate(text.plan(120, 1, 1)).size == 150
