"""Attention of every kind against its equation, one query and one sentence at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mt.nn import attention as module
from mt.nn.architecture import Architecture
from mt.nn.attention import (
    AdditiveAttention,
    Attention,
    GeneralAttention,
    MultiHeadAttention,
    make_attention,
)

KINDS = "dot", "general", "additive", "multi-head"
B, T, S, H, HEADS = 3, 5, 7, 8, 2


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Queries, memory, and padding of sources of 7, 4 and 1 tokens."""
    torch.manual_seed(0)
    source_pad = torch.arange(S) >= torch.tensor([7, 4, 1])[:, None]
    return torch.randn(B, T, H).double(), torch.randn(B, S, H).double(), source_pad


def build(kind: str) -> Attention:
    torch.manual_seed(1)
    options = Architecture(hidden_size=H, attention=kind, attention_heads=HEADS)
    return make_attention(options).double()


def score_by_hand(attention: Attention, query: Tensor, memory: Tensor) -> Tensor:
    if isinstance(attention, AdditiveAttention):
        hidden = attention.query.weight @ query + attention.key(memory)
        return attention.energy.weight[0] @ torch.tanh(hidden)
    if isinstance(attention, GeneralAttention):
        return query @ attention.project.weight @ memory
    return query @ memory


@pytest.mark.parametrize("kind", KINDS)
def test_weights_sum_to_one_and_are_zero_at_padding(
    kind: str, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    query, memory, source_pad = inputs
    attention = build(kind)
    context, weights = attention(query, attention.keys(memory), memory, source_pad)
    assert context.shape == (B, T, H)
    assert weights.shape == (B, T, S)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T).double())
    assert (weights.transpose(1, 2)[source_pad] == 0).all()
    assert (weights.transpose(1, 2)[~source_pad] > 0).all()


@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
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


@pytest.mark.parametrize("elements", [1, B * S * H, 2 * B * S * H + 5, math.inf])
def test_additive_attention_is_the_same_in_any_chunks(
    elements: float, inputs: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    query, memory, source_pad = inputs
    attention = build("additive")
    whole = attention(query, attention.keys(memory), memory, source_pad)
    widest = [0]
    energy = attention.energy.register_forward_hook(
        lambda _, arguments, __: widest.append(arguments[0].numel())
    )
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", int(min(elements, 1 << 40)))
    chunked = attention(query, attention.keys(memory), memory, source_pad)
    energy.remove()
    assert max(widest) <= max(elements, B * S * H)  # the memory bound that chunks are for
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


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
