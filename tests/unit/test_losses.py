"""The fused output layer and loss against PyTorch's own, in value and in every gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from mt.training import losses
from mt.training.losses import linear_cross_entropy, r_drop_cross_entropy


def problem(
    rows: int, size: int = 5, vocabulary: int = 9, seed: int = 0, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        numbers = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return numbers.requires_grad_()

    targets = torch.randint(vocabulary, (rows,), generator=generator)
    return leaf(rows, size), leaf(vocabulary, size), leaf(vocabulary), targets


def by_pytorch(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float
) -> Tensor:
    logits = features @ weight.T + bias
    return cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)


@settings(max_examples=60)
@given(
    rows=st.integers(1, 20),
    vocabulary=st.integers(1, 12),
    smoothing=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    chunk=st.sampled_from([1, 7, 30, 100, 1 << 20]),
    seed=st.integers(0, 999),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_value_and_gradients_equal_pytorch(
    rows: int, vocabulary: int, smoothing: float, chunk: int, seed: int, scale: float
) -> None:
    features, weight, bias, targets = problem(rows, 5, vocabulary, seed, scale)
    leaves = features, weight, bias
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "_CHUNK_ELEMENTS", chunk)
        loss = linear_cross_entropy(*leaves, targets, smoothing)
    expected = by_pytorch(*leaves, targets, smoothing)
    torch.testing.assert_close(loss.smoothed, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(loss.nll, by_pytorch(*leaves, targets, 0.0), rtol=1e-9, atol=1e-9)
    # Weighed by a factor, as the trainer divides by the tokens of an update.
    actual = torch.autograd.grad(loss.smoothed * 0.3, leaves)
    for one, other in zip(actual, torch.autograd.grad(expected * 0.3, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 20, 1 << 20])
def test_gradients_equal_finite_differences(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", chunk)
    *leaves, targets = problem(4)
    assert torch.autograd.gradcheck(
        lambda *x: linear_cross_entropy(*x, targets, 0.1).smoothed, tuple(leaves)
    )


def test_the_plain_loss_carries_no_gradient() -> None:
    loss = linear_cross_entropy(*problem(4), 0.1)
    assert loss.smoothed.requires_grad
    assert not loss.nll.requires_grad


def test_no_rows_give_zero_loss_and_zero_gradients() -> None:
    *leaves, targets = problem(0)
    loss = linear_cross_entropy(*leaves, targets, 0.1)
    assert loss.smoothed.item() == loss.nll.item() == 0
    loss.smoothed.backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.shape == leaf.shape
        assert not leaf.grad.any()


def test_without_gradients_the_value_is_the_same() -> None:
    *leaves, targets = problem(6)
    with torch.no_grad():
        plain = linear_cross_entropy(*leaves, targets, 0.1)
    assert plain.smoothed.equal(linear_cross_entropy(*leaves, targets, 0.1).smoothed.detach())


def test_only_the_wanted_inputs_get_gradients() -> None:
    features, weight, bias, targets = problem(6)
    frozen = features.detach()
    linear_cross_entropy(frozen, weight, bias, targets, 0.1).smoothed.backward()
    by_hand = torch.autograd.grad(by_pytorch(frozen, weight, bias, targets, 0.1), (weight, bias))
    assert frozen.grad is None
    torch.testing.assert_close(weight.grad, by_hand[0])
    torch.testing.assert_close(bias.grad, by_hand[1])


@pytest.mark.parametrize("logit", [1e3, 1e5])
def test_great_logits_neither_overflow_nor_vanish(logit: float) -> None:
    features = torch.tensor([[logit]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    loss = linear_cross_entropy(features, weight, torch.zeros(3), torch.tensor([1]), 0.0)
    assert loss.nll.item() == pytest.approx(2 * logit)
    loss.smoothed.backward()
    assert features.grad is not None
    assert features.grad.item() == pytest.approx(2)
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == pytest.approx([logit, -logit, 0])


@pytest.mark.parametrize("chunk", [1 << 20, 64 * 50])
@pytest.mark.parametrize("rows", [1, 64, 200])
def test_bfloat16_features_stay_close(
    rows: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", chunk)
    features, weight, bias, targets = (x.detach() for x in problem(rows, 32, 50))
    exact = [x.float().requires_grad_() for x in (features / 4, weight / 4, bias)]
    half = [exact[0].detach().bfloat16(), exact[1].detach(), exact[2].detach()]
    half = [x.requires_grad_() for x in half]
    loss, expected = linear_cross_entropy(*half, targets, 0.1), by_pytorch(*exact, targets, 0.1)
    assert loss.smoothed.dtype == torch.float32
    assert loss.smoothed.item() == pytest.approx(expected.item(), rel=2e-3)
    loss.smoothed.backward()
    expected.backward()
    for one, other in zip(half, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert one.grad.dtype == one.dtype  # parameters keep float32 gradients
        error = (one.grad.float() - other.grad).norm() / other.grad.norm()
        assert error < 0.01


def test_the_least_loss_is_the_entropy_of_the_smoothed_target() -> None:
    """Where the model says exactly q, the loss is the entropy of q and its gradient is zero."""
    vocabulary, smoothing = 6, 0.3
    q = torch.full((vocabulary,), smoothing / vocabulary, dtype=torch.float64)
    q[2] += 1 - smoothing
    bias = q.log().requires_grad_()
    weight = torch.zeros(vocabulary, 1, dtype=torch.float64)
    loss = linear_cross_entropy(
        torch.zeros(1, 1, dtype=torch.float64), weight, bias, torch.tensor([2]), smoothing
    )
    assert loss.smoothed.item() == pytest.approx(-(q * q.log()).sum().item())
    loss.smoothed.backward()
    assert bias.grad is not None
    assert bias.grad.abs().max() < 1e-12


def test_a_uniform_model_costs_log_of_the_vocabulary() -> None:
    zero = torch.zeros(3, 4), torch.zeros(10, 4), torch.zeros(10)
    loss = linear_cross_entropy(*zero, torch.tensor([0, 5, 9]), 0.1)
    assert loss.smoothed.item() == pytest.approx(3 * math.log(10))
    assert loss.nll.item() == pytest.approx(3 * math.log(10))


# R-Drop


def r_drop_by_pytorch(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float, alpha: float
) -> Tensor:
    one, other = ((part @ weight.T + bias).log_softmax(1) for part in features.chunk(2))
    apart = [
        kl_div(one, other, reduction="sum", log_target=True),
        kl_div(other, one, reduction="sum", log_target=True),
    ]
    ce = [
        cross_entropy(log, targets, reduction="sum", label_smoothing=smoothing)
        for log in (one, other)
    ]
    return sum(ce, torch.tensor(0.0)) / 2 + alpha / 4 * sum(apart, torch.tensor(0.0))


@settings(max_examples=60)
@given(
    rows=st.integers(1, 12),
    vocabulary=st.integers(1, 12),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    alpha=st.sampled_from([0.0, 1.0, 5.0]),
    chunk=st.sampled_from([1, 30, 100, 1 << 20]),
    seed=st.integers(0, 999),
)
def test_r_drop_equals_pytorch(
    rows: int, vocabulary: int, smoothing: float, alpha: float, chunk: int, seed: int
) -> None:
    features, weight, bias, targets = problem(2 * rows, 5, vocabulary, seed)
    targets, leaves = targets[:rows], (features, weight, bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "_CHUNK_ELEMENTS", chunk)
        loss = r_drop_cross_entropy(*leaves, targets, smoothing, alpha)
    expected = r_drop_by_pytorch(*leaves, targets, smoothing, alpha)
    torch.testing.assert_close(loss.smoothed, expected, rtol=1e-9, atol=1e-9)
    plain = r_drop_by_pytorch(*leaves, targets, 0.0, 0.0)
    torch.testing.assert_close(loss.nll, plain, rtol=1e-9, atol=1e-9)
    actual = torch.autograd.grad(loss.smoothed * 0.3, leaves)
    for one, other in zip(actual, torch.autograd.grad(expected * 0.3, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_r_drop_of_no_rows() -> None:
    features, weight, bias, targets = problem(0)
    loss = r_drop_cross_entropy(features, weight, bias, targets, 0.1, 5.0)
    loss.smoothed.backward()
    assert loss.smoothed.item() == loss.nll.item() == 0
    assert weight.grad is not None
    assert not weight.grad.any()
