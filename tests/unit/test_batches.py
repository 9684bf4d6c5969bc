"""Batch planning as properties, and the layout of batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.batches import Sentences, collate, pad, plan_decoding, plan_updates, share
from mt.tokenizer import BOS, EOS, PAD

lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=120)
seeds = st.integers(0, 1000)


def plan(pairs: list[tuple[int, int]], tokens: int, seed: int, epoch: int) -> list[list[int]]:
    source, target = np.array(pairs, np.int32).reshape(-1, 2).T
    return [update.tolist() for update in plan_updates(source, target, tokens, seed, epoch)]


@settings(max_examples=200)
@given(pairs=lengths, tokens=st.integers(1, 400), seed=seeds, epoch=st.integers(0, 5))
def test_every_sentence_is_planned_once_and_the_budget_holds(
    pairs: list[tuple[int, int]], tokens: int, seed: int, epoch: int
) -> None:
    updates = plan(pairs, tokens, seed, epoch)
    assert sorted(number for update in updates for number in update) == list(range(len(pairs)))
    for update in updates:
        area = len(update) * max(max(pairs[number]) for number in update)
        assert area <= tokens or len(update) == 1


@given(pairs=lengths, tokens=st.integers(1, 400), seed=seeds, epoch=st.integers(0, 50))
def test_the_plan_is_a_pure_function_with_a_fixed_number_of_updates(
    pairs: list[tuple[int, int]], tokens: int, seed: int, epoch: int
) -> None:
    updates = plan(pairs, tokens, seed, epoch)
    assert updates == plan(pairs, tokens, seed, epoch)
    assert len(updates) == len(plan(pairs, tokens, 0, 0))


def corpus(count: int) -> list[tuple[int, int]]:
    random = np.random.default_rng(0)
    target = random.integers(1, 50, count)
    source = np.maximum(1, target + random.integers(-3, 4, count))
    return list(zip(source.tolist(), target.tolist(), strict=True))


def test_epochs_and_seeds_differ_in_neighbours_and_in_order() -> None:
    pairs = corpus(2000)
    plans = [plan(pairs, 300, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    for one in range(3):
        for other in range(one):
            together = [{frozenset(update) for update in plans[n]} for n in (one, other)]
            assert len(together[0] & together[1]) < len(plans[0]) / 4
    widths = [[max(pairs[n][1] for n in update) for update in p] for p in plans]
    assert widths[0] != widths[1]
    assert widths[0] != sorted(widths[0])


def test_little_padding() -> None:
    pairs = corpus(5000)
    updates = plan(pairs, 1000, 1, 0)
    area = sum(len(u) * max(max(pairs[n]) for n in u) for u in updates)
    real = sum(max(pair) for pair in pairs)
    assert real / area > 0.85
    assert area / len(updates) > 0.85 * 1000  # and updates are nearly full


@given(rows=st.integers(0, 50), parts=st.integers(1, 9))
def test_shares_partition_an_update_evenly(rows: int, parts: int) -> None:
    update = np.arange(100, 100 + rows)
    shares = [share(update, parts, part).tolist() for part in range(parts)]
    assert sorted(number for rows in shares for number in rows) == update.tolist()
    sizes = [len(s) for s in shares]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=30)
@given(
    rows=st.lists(st.lists(st.integers(0, 65535), max_size=6), max_size=30),
    vocabulary=st.sampled_from([65536, 65537, 200_000]),
)
def test_sentences_give_back_what_they_were_given(rows: list[list[int]], vocabulary: int) -> None:
    sentences = Sentences(vocabulary)
    sentences.extend(iter(rows[:10]))
    sentences.extend(rows[10:])
    assert len(sentences) == len(rows)
    assert [list(sentences[number]) for number in range(len(rows))] == rows
    assert sentences.lengths.tolist() == [len(row) for row in rows]


def test_sentences_are_held_in_the_smallest_type() -> None:
    for vocabulary, size in ((1 << 16, 2), ((1 << 16) + 1, 4)):
        sentences = Sentences(vocabulary)
        sentences.extend([[vocabulary - 1]])
        assert memoryview(sentences[0]).itemsize == size
        assert list(sentences[0]) == [vocabulary - 1]


def test_a_batch_is_laid_out_with_its_special_tokens() -> None:
    batch = collate([[5, 6], [7]], [[8], [9, 10, 11]], [40, 2])
    assert batch.source.tolist() == [[5, 6, EOS], [7, EOS, PAD]]
    assert batch.source_lengths.tolist() == [3, 2]
    assert batch.target_in.tolist() == [[BOS, 8, PAD, PAD], [BOS, 9, 10, 11]]
    assert batch.target_out.tolist() == [[8, EOS, PAD, PAD], [9, 10, 11, EOS]]
    assert batch.ids.tolist() == [40, 2]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_compact_rows_and_lists_make_the_same_batch(dtype: type) -> None:
    rows = [[5, 60_000], []]
    compact = [np.array(row, dtype) for row in rows]
    for one, other in zip(
        collate(rows, rows, [0, 1]), collate(compact, compact, [0, 1]), strict=True
    ):
        assert one.equal(other)
        assert other.dtype == torch.int64


def test_moving_a_batch_leaves_its_lengths_on_the_cpu() -> None:
    moved = collate([[5]], [[6]], [0]).to(torch.device("meta"))
    assert moved.source.is_meta
    assert moved.target_in.is_meta
    assert moved.target_out.is_meta
    assert moved.source_lengths.device.type == "cpu"


@given(st.lists(st.lists(st.integers(1, 99), max_size=8), min_size=1, max_size=8))
def test_padding_stands_at_the_end_only(rows: list[list[int]]) -> None:
    ids, sizes = pad(rows)
    assert [row[:n] for row, n in zip(ids.tolist(), sizes.tolist(), strict=True)] == rows
    assert ids.ne(PAD).sum().item() == sum(map(len, rows))
    assert ids.shape == (len(rows), max(map(len, rows)))


@given(counts=st.lists(st.integers(0, 60), max_size=80), tokens=st.integers(1, 200))
def test_decoding_takes_each_sentence_once_within_the_budget(
    counts: list[int], tokens: int
) -> None:
    batches = plan_decoding(counts, tokens)
    assert sorted(number for batch in batches for number in batch) == list(range(len(counts)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(counts[n] for n in batch) <= tokens
    in_order = [counts[n] for batch in batches for n in batch]
    assert in_order == sorted(counts, reverse=True)  # a shortage of memory shows at once
