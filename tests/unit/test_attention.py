"""Attention of every kind against its equation, one query and one sentence at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mt.nn import attention as module
from mt.nn.architecture import Architecture
from mt.nn.attention import (
    ATTENTIONS,
    AdditiveAttention,
    Attention,
    GeneralAttention,
    LocationAwareAttention,
    MultiHeadAdditiveAttention,
    MultiHeadAttention,
    NormalizedAdditiveAttention,
    ScaledDotAttention,
    additive_scores,
    make_attention,
)

KINDS = [kind for kind in ATTENTIONS if kind != "none"]
LOOKING_BACK = "additive", "location-aware", "dot", "multi-head"
B, T, S, H, HEADS = 3, 5, 7, 8, 2


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Queries, memory, and padding of sources of 7, 4 and 1 tokens."""
    torch.manual_seed(0)
    source_pad = torch.arange(S) >= torch.tensor([7, 4, 1])[:, None]
    return torch.randn(B, T, H).double(), torch.randn(B, S, H).double(), source_pad


def build(kind: str, coverage: bool = False) -> Attention:
    torch.manual_seed(1)
    options = Architecture(
        hidden_size=H,
        attention=kind,
        attention_heads=HEADS,
        coverage=coverage,
        wiring="parallel" if kind == "none" else "input-feeding",
    )
    attention = make_attention(options).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return attention


def score_by_hand(attention: Attention, query: Tensor, memory: Tensor) -> Tensor:
    if isinstance(attention, AdditiveAttention):
        hidden = attention.query.weight @ query + attention.key(memory)
        energy = attention.energy.weight[0]
        if isinstance(attention, NormalizedAdditiveAttention):
            energy = attention.gain * energy / (energy @ energy).sqrt()
        return energy @ torch.tanh(hidden)
    if isinstance(attention, GeneralAttention):
        return query @ attention.project.weight @ memory
    return query @ memory / (H**0.5 if isinstance(attention, ScaledDotAttention) else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_sum_to_one_and_are_zero_at_padding(
    kind: str, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    query, memory, source_pad = inputs
    attention = build(kind)
    context, weights = attention(query, attention.keys(memory), memory, source_pad)
    assert weights is not None
    assert context.shape == (B, T, H)
    assert weights.shape == (B, T, S)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T).double())
    assert (weights.transpose(1, 2)[source_pad] == 0).all()
    assert (weights.transpose(1, 2)[~source_pad] > 0).all()


@pytest.mark.parametrize(
    "kind", ["dot", "scaled-dot", "general", "additive", "normalized-additive"]
)
def test_context_equals_the_equation(kind: str, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    query, memory, source_pad = inputs
    attention = build(kind)
    context, weights = attention(query, attention.keys(memory), memory, source_pad)
    for b in range(B):
        real = memory[b][~source_pad[b]]
        for t in range(T):
            scores = torch.stack([score_by_hand(attention, query[b, t], m) for m in real])
            expected = scores.exp() / scores.exp().sum()
            torch.testing.assert_close(weights[b, t, : len(real)], expected)
            torch.testing.assert_close(context[b, t], expected @ real)


def test_multi_head_context_equals_pytorch(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    query, memory, source_pad = inputs
    attention = build("multi-head")
    assert isinstance(attention, MultiHeadAttention)
    reference = torch.nn.MultiheadAttention(H, HEADS, batch_first=True, dtype=torch.float64)
    parts = attention.query, attention.key, attention.value
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        reference.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        reference.out_proj.load_state_dict(attention.output.state_dict())
    expected, expected_weights = reference(query, memory, memory, key_padding_mask=source_pad)
    context, weights = attention(query, attention.keys(memory), memory, source_pad)
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(weights, expected_weights)


def test_additive_heads_equal_their_equation(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    query, memory, source_pad = inputs
    attention = build("multi-head-additive")
    assert isinstance(attention, MultiHeadAdditiveAttention)
    context, weights = attention(query, attention.keys(memory), memory, source_pad)
    for b in range(B):
        real = memory[b][~source_pad[b]]
        for t in range(T):
            shares, means = [], []
            for head in range(HEADS):
                units = slice(head * H // HEADS, (head + 1) * H // HEADS)
                sums = attention.query(query[b, t])[units] + attention.key(real)[:, units]
                share = (torch.tanh(sums) @ attention.energy[head, 0]).softmax(0)
                shares.append(share)
                means.append(share @ attention.value(real)[:, units])
            expected = attention.output(torch.cat(means))
            torch.testing.assert_close(context[b, t], expected)
            torch.testing.assert_close(weights[b, t, : len(real)], torch.stack(shares).mean(0))


def test_no_attention_gives_an_empty_context(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    query, memory, source_pad = inputs
    attention = build("none")
    context, weights = attention(query, attention.keys(memory), memory, source_pad)
    assert attention.context_size == 0
    assert context.shape == (B, T, 0)
    assert weights is None


# Attention that looks back at its own past


@pytest.mark.parametrize("kind", LOOKING_BACK)
def test_the_past_is_the_sum_of_the_weights_and_the_last_ones(kind: str) -> None:
    torch.manual_seed(0)
    steps = torch.rand(3, 2, S).double()
    for coverage in (False, True):
        attention = build(kind, coverage)
        located = isinstance(attention, LocationAwareAttention)
        assert attention.past_size == coverage + located
        past = torch.zeros(2, S, attention.past_size).double()
        for weights in steps:
            past = attention.remember(past, weights)
        expected = [steps.sum(0)] * coverage + [steps[-1]] * located
        for channel, wanted in zip(past.unbind(2), expected, strict=True):
            torch.testing.assert_close(channel, wanted)


@pytest.mark.parametrize("kind", LOOKING_BACK)
def test_the_past_joins_the_keys_as_the_equations_say(kind: str) -> None:
    torch.manual_seed(0)
    attention = build(kind, coverage=True)
    assert attention.coverage is not None
    memory = torch.randn(2, S, H).double()
    keys, past = attention.keys(memory), torch.rand(2, S, attention.past_size).double()
    found = attention.recall(keys, past)[..., :H]
    for n in range(2):
        for s in range(S):
            expected = keys[n, s, :H] + attention.coverage.weight[:, 0] * past[n, s, 0]
            if isinstance(attention, LocationAwareAttention):
                half = attention.WIDTH // 2
                places = range(max(0, s - half), min(S, s + half + 1))
                near = sum(
                    attention.filters.weight[:, 0, place - s + half] * past[n, place, 1]
                    for place in places
                )
                expected = expected + attention.location.weight @ near
            torch.testing.assert_close(found[n, s], expected)
    assert attention.recall(keys, past)[..., H:].equal(keys[..., H:])  # the values of heads


class Watch(TorchFunctionMode):
    """Remembers the most elements that a tanh is taken of."""

    widest = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if "tanh" in getattr(func, "__name__", ""):
            self.widest = max(self.widest, args[0].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["additive", "normalized-additive", "multi-head-additive"])
@pytest.mark.parametrize("elements", [1, 2 * S * H + 5, T * S * H, 2 * T * S * H, 1 << 40])
def test_additive_attention_is_the_same_in_any_chunks(
    kind: str,
    elements: int,
    inputs: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query, memory, source_pad = inputs
    attention = build(kind)

    def answers() -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in (query, memory)]
        context, weights = attention(leaves[0], attention.keys(leaves[1]), leaves[1], source_pad)
        weighted = context * torch.arange(1.0, context.numel() + 1).view_as(context)
        gradients = torch.autograd.grad(weighted.sum(), [*leaves, *attention.parameters()])
        return [context, weights, *gradients]

    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 1 << 40)
    whole = answers()
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", elements)
    with Watch() as watch:
        chunked = answers()
        with torch.no_grad():
            unlearning = attention(query, attention.keys(memory), memory, source_pad)
    assert 0 < watch.widest <= max(elements, S * H)  # the memory bound that chunks are for
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
    for one, other in zip(whole, unlearning, strict=False):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_additive_scores_keep_float32_under_autocast() -> None:
    torch.manual_seed(2)
    query, keys, energy = torch.randn(2, 3, 8), torch.randn(2, 4, 8), torch.randn(8)
    expected = additive_scores(query.double(), keys.double(), energy.double())
    leaf = query.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        scores = additive_scores(leaf, keys, energy)
        scores.sum().backward()
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-5)
    exact = query.double().requires_grad_()
    additive_scores(exact, keys.double(), energy.double()).sum().backward()
    assert leaf.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    query, memory, source_pad = (x[:2, :3] for x in inputs)
    source_pad = torch.tensor([[False, False, False], [False, False, True]])
    attention = build(kind)

    def context(query: Tensor, memory: Tensor) -> Tensor:
        result: Tensor = attention(query, attention.keys(memory), memory, source_pad)[0]
        return result

    function: Callable[..., Tensor] = context
    leaves = query.clone().requires_grad_(), memory.clone().requires_grad_()
    assert torch.autograd.gradcheck(function, leaves)
