from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.corpus.splits import Hashes, connected, cut, cut_size, deal

EDGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=30)


def keys(values: list[int]) -> Hashes:
    return np.array(values, dtype=np.uint64)


def walk(pairs: list[tuple[int, int]], start: int) -> set[int]:
    """Visit the pairs linked to one, naively."""
    seen, waiting = {start}, [start]
    while waiting:
        source, target = pairs[waiting.pop()]
        for index, other in enumerate(pairs):
            if index not in seen and (other[0] == source or other[1] == target):
                seen.add(index)
                waiting.append(index)
    return seen


@given(EDGES)
def test_groups_are_what_a_walk_finds(pairs: list[tuple[int, int]]) -> None:
    label = connected(keys([s for s, _ in pairs]), keys([t for _, t in pairs]))
    assert label.tolist() == [min(walk(pairs, index)) for index in range(len(pairs))]


def test_long_chains_are_one_group() -> None:
    order = np.random.default_rng(0).permutation(100_000)
    chain = np.arange(100_000, dtype=np.uint64)[order]  # linked at both ends in turn
    label = connected(chain // np.uint64(2), (chain + np.uint64(1)) // np.uint64(2))
    assert not label.any()


@given(EDGES.map(lambda pairs: sorted(set(pairs))), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_cuts_share_no_sentence_and_ignore_line_order(
    pairs: list[tuple[int, int]], random: object
) -> None:
    hashes = {pair: (hash(pair) * 2654435761) % 2**61 for pair in pairs}  # hashes of ints are fixed

    def run(order: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        cuts = cut(
            keys([hashes[pair] for pair in order]),
            keys([source for source, _ in order]),
            keys([target for _, target in order]),
            np.array([source != 0 for source, _ in order], dtype=bool),
            [4, 3],
        )
        return [[order[index] for index in chosen] for chosen in cuts]

    first = run(pairs)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert run(shuffled) == first
    test, valid = first
    assert len(test) <= 4
    assert len(valid) <= 3
    rest = [pair for pair in pairs if pair not in test + valid]
    for one, other in ((test, valid), (test, rest), (valid, rest)):
        for side in (0, 1):
            assert not {pair[side] for pair in one} & {pair[side] for pair in other}
    assert all(source != 0 for source, _ in test + valid)


def test_large_groups_are_passed_over() -> None:
    source = [0] * 30 + list(range(1, 171))
    every = np.ones(200, dtype=bool)
    pair = keys(list(range(200)))
    (chosen,) = cut(pair, keys(source), keys(list(range(200))), every, [40])
    assert chosen.tolist() == list(range(30, 70))


@pytest.mark.parametrize(("pairs", "wanted", "size"), [(1, 5, 1), (100, 5, 5), (100, 50, 10)])
def test_cut_size(pairs: int, wanted: int, size: int) -> None:
    assert cut_size(pairs, wanted) == size


@given(EDGES, st.integers(2, 5), st.randoms(use_true_random=False))
def test_linked_pairs_are_dealt_to_the_same_part_whatever_their_order(
    pairs: list[tuple[int, int]], folds: int, random: object
) -> None:
    hashes = {pair: (hash(pair) * 2654435761) % 2**61 for pair in pairs}

    def run(order: list[tuple[int, int]]) -> list[int]:
        columns = [hashes[p] for p in order], [s for s, _ in order], [t for _, t in order]
        return deal(*map(keys, columns), folds).tolist()

    parts = run(pairs)
    assert set(parts) <= set(range(folds))
    for index in range(len(pairs)):
        assert {parts[other] for other in walk(pairs, index)} == {parts[index]}
    shuffled = list(range(len(pairs)))
    random.shuffle(shuffled)
    assert run([pairs[n] for n in shuffled]) == [parts[n] for n in shuffled]
