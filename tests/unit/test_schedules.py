"""Learning rate schedules."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.recipe import Training
from mt.training.schedules import learning_rate

SCHEDULES = "constant", "linear", "cosine", "inverse-sqrt", "plateau"
PEAK = 0.01


def rate(
    schedule: Any, step: int, progress: float, plateau: float = 1.0, warmup: int = 10
) -> float:
    training = Training(learning_rate=PEAK, schedule=schedule, warmup_steps=warmup)
    return learning_rate(training, step, progress, plateau)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_linear_and_reaches_the_peak(schedule: str) -> None:
    rates = [rate(schedule, step, 0.0) for step in range(10)]
    assert rates == pytest.approx([PEAK * (step + 1) / 10 for step in range(10)])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_warm_up_starts_at_the_peak(schedule: str) -> None:
    assert rate(schedule, 0, 0.0, warmup=0) == pytest.approx(PEAK)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_decay_over_the_budget(schedule: str) -> None:
    shares = [rate(schedule, 100, tenth / 10) for tenth in range(11)]
    assert shares[0] == PEAK
    assert shares[5] == pytest.approx(PEAK / 2)
    assert shares[10] == pytest.approx(0, abs=1e-12)
    assert shares == sorted(shares, reverse=True)


def test_cosine_falls_slowly_at_first() -> None:
    assert rate("cosine", 100, 0.1) > rate("linear", 100, 0.1)
    assert rate("cosine", 100, 1 / 3) == pytest.approx(PEAK * (1 + math.cos(math.pi / 3)) / 2)


def test_inverse_square_root() -> None:
    assert rate("inverse-sqrt", 9, 0.5) == pytest.approx(PEAK)
    assert rate("inverse-sqrt", 39, 0.5) == pytest.approx(PEAK / 2)
    assert rate("inverse-sqrt", 999, 0.9) == pytest.approx(PEAK / 10)


def test_plateau_falls_by_its_factor_alone() -> None:
    assert rate("plateau", 500, 0.9, plateau=0.25) == pytest.approx(PEAK / 4)
    assert rate("constant", 500, 0.9) == PEAK


@given(
    schedule=st.sampled_from(SCHEDULES),
    step=st.integers(0, 10**6),
    progress=st.floats(0, 1),
    warmup=st.integers(0, 10**4),
)
def test_the_rate_never_leaves_its_range(
    schedule: str, step: int, progress: float, warmup: int
) -> None:
    assert -1e-12 <= rate(schedule, step, progress, warmup=warmup) <= PEAK * (1 + 1e-12)
