"""Validation and test text cut from training text, with no sentence on both sides of the cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


def cut_size(pairs: int, wanted: int) -> int:
    """Return how many of `pairs` to cut: as many as wanted, at most a tenth, at least one."""
    return max(1, min(wanted, pairs // 10))


def cut(
    pair: Hashes, source: Hashes, target: Hashes, free: NDArray[np.bool_], sizes: list[int]
) -> list[Indices]:
    """Choose held-out pairs by the hash of their content, so that line order plays no part.

    Pairs that share a source or a target, and pairs linked by a chain of such, form a group. Only
    whole groups are cut, so no cut sentence remains in the rest or stands in another cut. Groups
    over a twentieth of a cut's size are passed over: they would make it repeat itself.

    Args:
        pair: The hash of each pair, `(N,)`; no two alike.
        source: The hash of each pair's source, `(N,)`.
        target: The hash of each pair's target, `(N,)`.
        free: Whether a pair may be cut, `(N,)`; it bars its whole group where it may not.
        sizes: The greatest number of pairs of each cut.

    Returns:
        The indices of each cut's pairs, ordered by hash.
    """
    group = connected(source, target)
    members = np.bincount(group, minlength=len(group))
    # The least hash of a group stands for it. (`group` holds the index of a member.)
    rank = np.full(len(group), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(rank, group, pair)
    members[group[~free]] = 0
    roots = np.flatnonzero(members)
    roots = roots[np.argsort(rank[roots])]

    owner = np.full(len(group), -1)
    for number, size in enumerate(sizes):
        for largest in (max(1, size // 20), size):
            room = size
            # Few groups are passed over, so the head of the list is all that is looked at.
            for root in roots.tolist():
                if room == 0:
                    break
                if owner[root] < 0 and members[root] <= min(room, largest):
                    owner[root] = number
                    room -= int(members[root])
            if room < size:
                break
    chosen = owner[group]
    cuts = (np.flatnonzero(chosen == number) for number in range(len(sizes)))
    return [indices[np.argsort(pair[indices])] for indices in cuts]


def deal(pair: Hashes, source: Hashes, target: Hashes, folds: int) -> Indices:
    """Deal pairs out to `folds` parts by their content, linked ones to the same; see `cut`.

    Returns:
        The part of each pair, from 0, `(N,)`.
    """
    group = connected(source, target)
    rank = np.full(len(group), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(rank, group, pair)
    part: Indices = (rank[group] % np.uint64(folds)).astype(np.int64)
    return part


def connected(source: Hashes, target: Hashes) -> Indices:
    """Label each pair with the least index among the pairs it is linked to.

    Two pairs are linked when they have a source or a target in common, or through other pairs.
    """
    sides = [_runs(source), _runs(target)]
    label: Indices = np.arange(len(source))
    while True:
        least = label
        for order, starts, run in sides:
            least = np.minimum.reduceat(least[order], starts)[run] if len(order) else least
        # A label names a linked pair: what that one has learnt holds for all it labels (this
        # keeps the rounds few on long chains).
        root = label.copy()
        np.minimum.at(root, label, least)
        least = np.minimum(least, root[label])
        least = least[least]
        if np.array_equal(least, label):
            return label
        label = least


def _runs(keys: Hashes) -> tuple[Indices, Indices, Indices]:
    """Sort keys: the order, where each run of equal keys starts, and the run of each key."""
    order = np.argsort(keys, kind="stable")
    new = np.ones(len(keys), dtype=bool)
    new[1:] = np.diff(keys[order]) != 0
    run = np.empty(len(keys), dtype=np.int64)
    run[order] = np.cumsum(new) - 1
    return order, np.flatnonzero(new), run
