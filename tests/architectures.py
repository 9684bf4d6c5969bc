"""Every option of the network, and a set of architectures that has every two of them together."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args, get_type_hints

from mt.nn.architecture import Architecture

_CHOICES = get_type_hints(Architecture)
OPTIONS: dict[str, Sequence[Any]] = {
    **{name: get_args(kind) for name, kind in _CHOICES.items() if get_args(kind)},
    **{name: (False, True) for name, kind in _CHOICES.items() if kind is bool},
    "encoder_layers": (1, 2),
    "decoder_layers": (1, 2),
    "encoder_transition_depth": (1, 2),
    "decoder_transition_depth": (1, 2),
    "residual_from": (0, 2),
}
"""The values of each option that is no plain number, and two of those that count."""

Chosen = dict[str, Any]
_Pair = tuple[tuple[str, Any], tuple[str, Any]]


def pairs_of(chosen: Mapping[str, Any]) -> set[_Pair]:
    return set(itertools.combinations(sorted(chosen.items()), 2))


def allowed(chosen: Mapping[str, Any]) -> bool:
    try:
        Architecture(hidden_size=4, **chosen)
    except ValueError:
        return False
    return True


@cache
def pairwise() -> tuple[Chosen, ...]:
    """Allowed combinations in which every two values that may meet do meet; always the same."""
    generator = random.Random(1)

    def draw(**fixed: Any) -> Chosen:
        return {name: generator.choice(values) for name, values in OPTIONS.items()} | fixed

    left = set()
    for (one, ones), (other, others) in itertools.combinations(sorted(OPTIONS.items()), 2):
        left |= {((one, a), (other, b)) for a, b in itertools.product(ones, others)}
    found: list[Chosen] = []
    while left:
        wanted = min(left, key=repr)
        candidates = [c for c in (draw(**dict(wanted)) for _ in range(300)) if allowed(c)]
        if not candidates:  # these two clash
            left.discard(wanted)
            continue
        best = max(candidates, key=lambda chosen: len(left & pairs_of(chosen)))
        left -= pairs_of(best)
        found.append(best)
    return tuple(found)


def name_of(chosen: Chosen) -> str:
    """Name a combination by what is not the default."""
    default = Architecture()
    other = (f"{k}={v}" for k, v in chosen.items() if v != getattr(default, k))
    return ",".join(other) or "default"
