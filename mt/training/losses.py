"""The output layer and its label-smoothed cross-entropy, as one fused operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mt.nn.linear import ROWS, compiles, pad_rows

_CHUNK_ELEMENTS = 1 << 22
"""Logits that exist at a time on a CPU: few enough for its caches, of rows enough for its products
(see benchmarks/losses.py)."""
_CHUNK_ELEMENTS_GPU = 1 << 26
"""Logits that exist at a time on a GPU: enough to keep it busy."""


class Loss(NamedTuple):
    """Sums over tokens, in nats."""

    smoothed: Tensor
    """Label-smoothed cross-entropy, to be minimised."""
    nll: Tensor
    """Negative log-likelihood without smoothing, for the perplexity; has no gradient."""


def linear_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float
) -> Loss:
    r"""Compute sum_n -Σ_v q_nv log softmax(W f_n + b)_v with q = (1 - ε) onehot + ε / V.

    That is Szegedy et al.'s label smoothing (arXiv:1512.00567). Neither the logits nor their
    gradient ever exist for all tokens at once: each chunk of tokens yields its loss and its share
    of the gradients while it is in the cache. Writing p for the softmax, the gradient of the logits
    is p - (1 - ε) onehot - ε / V; of its three terms only p needs a dense product.

    Args:
        features: `(N, E)`; N may be 0.
        weight: `(V, E)`.
        bias: `(V,)`.
        targets: `(N,)` token ids, no padding among them.
        smoothing: ε, from 0 to 1.
    """
    apply: Callable[..., tuple[Tensor, Tensor]] = _LinearCrossEntropy.apply
    return Loss(*apply(features, weight, bias, targets, smoothing))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        rows, vocabulary = len(features), len(weight)
        exact = torch.promote_types(features.dtype, torch.float32)  # of sums and exponentials
        compute = features.dtype  # of the products: bfloat16 under autocast
        w, b = weight.to(compute), bias.to(exact)
        with_gradient = any(ctx.needs_input_grad)
        smoothed, nll, d_features, d_weight, d_bias = _sums(features, weight, bias)
        w_sum, b_sum = weight.to(exact).sum(0), b.sum()
        per_token = smoothing / vocabulary
        elements = _CHUNK_ELEMENTS_GPU if features.is_cuda else _CHUNK_ELEMENTS
        size = math.ceil(rows / max(1, math.ceil(rows * vocabulary / elements))) or 1
        padded = features  # rows of zeros add nothing to any gradient
        if compiles(features):
            size, padded = math.ceil(size / ROWS) * ROWS, pad_rows(features)
        for start in range(0, rows, size):
            f, t = padded[start : start + size], targets[start : start + size]
            real = len(t)
            logits = torch.mm(f, w.t()).to(exact).add_(b)
            highest = logits.amax(1, keepdim=True)
            chosen = logits[:real].gather(1, t[:, None])
            exponentials = logits.sub_(highest).exp_()
            partition = exponentials.sum(1, keepdim=True)
            log_partition = (partition.log() + highest)[:real]
            chunk_nll = (log_partition - chosen).sum()
            # The mean of the logits over the vocabulary, without another pass over them.
            logit_sum = f[:real].to(exact) @ w_sum + b_sum
            uniform = (log_partition[:, 0] - logit_sum / vocabulary).sum()
            nll += chunk_nll
            smoothed += (1 - smoothing) * chunk_nll + smoothing * uniform
            if not with_gradient:
                continue
            scaled = f.to(exact) / partition
            p = exponentials.to(compute)
            d_f = ((p @ w).to(exact) / partition)[:real]
            d_f -= per_token * w_sum
            d_f.sub_(weight[t].to(exact), alpha=1 - smoothing)
            d_features[start : start + size] = d_f
            if compute == exact:
                d_weight.addmm_(p.t(), scaled)
            else:
                d_weight += p.t() @ scaled.to(compute)
            d_weight -= per_token * f.to(exact).sum(0)
            d_weight.index_add_(0, t, f[:real].to(exact), alpha=smoothing - 1)
            d_bias += (1 / partition[:real, 0]) @ exponentials[:real] - per_token * real
            d_bias.index_add_(0, t, torch.full_like(chosen[:, 0], smoothing - 1))
        ctx.save_for_backward(d_features, d_weight.to(weight.dtype), d_bias.to(bias.dtype))
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_features, d_weight, d_bias = ctx.saved_tensors
        scale = grads[0]
        return (
            d_features * scale.to(d_features.dtype),
            d_weight * scale.to(d_weight.dtype),
            d_bias * scale.to(d_bias.dtype),
            None,
            None,
        )


class _Sums(NamedTuple):
    """What grows chunk by chunk: a loss without and with smoothing, and its gradients."""

    smoothed: Tensor
    nll: Tensor
    d_features: Tensor
    d_weight: Tensor
    d_bias: Tensor


def _sums(features: Tensor, weight: Tensor, bias: Tensor) -> _Sums:
    """Begin at zero, in float32 at least."""
    exact = torch.promote_types(features.dtype, torch.float32)
    return _Sums(
        features.new_zeros((), dtype=exact),
        features.new_zeros((), dtype=exact),
        torch.empty_like(features),  # each row is written once
        torch.zeros_like(weight, dtype=exact),
        torch.zeros_like(bias, dtype=exact),
    )


def r_drop_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    smoothing: float,
    strength: float,
) -> Loss:
    r"""Compute the loss of R-Drop (Liang et al., arXiv:2106.14448): two passes that must agree.

    With p and q what two passes with different dropout predict for a token, it is
    ½ (H(p) + H(q)) + α/4 (KL(p‖q) + KL(q‖p)), half of the paper's, where H is the label-smoothed
    cross-entropy of `linear_cross_entropy`. Logits exist for a chunk of tokens at a time, in both
    passes; the gradient of KL(p‖q) is p * (log p - log q - KL(p‖q)) with respect to p's logits and
    q - p with respect to q's.

    Args:
        features: `(2N, E)`: those of one pass, then those of the other.
        weight: `(V, E)`.
        bias: `(V,)`.
        targets: `(N,)` token ids, no padding among them.
        smoothing: ε, from 0 to 1.
        strength: α, at least 0.

    Returns:
        Sums over the N tokens; `nll` is the mean of both passes.
    """
    apply: Callable[..., tuple[Tensor, Tensor]] = _RDropCrossEntropy.apply
    return Loss(*apply(features, weight, bias, targets, smoothing, strength))


class _RDropCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        strength: float,
    ) -> tuple[Tensor, Tensor]:
        rows, vocabulary, compute = len(targets), len(weight), features.dtype
        exact = torch.promote_types(compute, torch.float32)
        w, b = weight.to(compute), bias.to(exact)
        smoothed, nll, d_features, d_weight, d_bias = _sums(features, weight, bias)
        elements = _CHUNK_ELEMENTS_GPU if features.is_cuda else _CHUNK_ELEMENTS
        size = max(1, elements // (2 * vocabulary))
        passes = features[:rows], features[rows:]
        for start in range(0, rows, size):
            t = targets[start : start + size]
            f = [one[start : start + size] for one in passes]
            logs = [torch.mm(one, w.t()).to(exact).add_(b).log_softmax(1) for one in f]
            probabilities = [log.exp() for log in logs]
            difference = logs[0] - logs[1]
            for which, sign in ((0, 1), (1, -1)):
                log, p, q = logs[which], probabilities[which], probabilities[1 - which]
                apart = sign * difference
                divergence = (p * apart).sum(1, keepdim=True)
                chosen = log.gather(1, t[:, None]).sum()
                nll -= chosen / 2
                smoothed -= (1 - smoothing) / 2 * chosen + smoothing / (2 * vocabulary) * log.sum()
                smoothed += strength / 4 * divergence.sum()
                d_logits = p * (apart - divergence + 1) - q
                d_logits.mul_(strength / 4).add_(p, alpha=0.5).sub_(smoothing / (2 * vocabulary))
                at_target = torch.full_like(t, (smoothing - 1) / 2, dtype=exact)
                d_logits.scatter_add_(1, t[:, None], at_target[:, None])
                narrow = d_logits.to(compute)
                place = which * rows + start
                d_features[place : place + len(t)] = narrow @ w
                d_weight += narrow.t() @ f[which]
                d_bias += d_logits.sum(0)
        ctx.save_for_backward(d_features, d_weight.to(weight.dtype), d_bias.to(bias.dtype))
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*_LinearCrossEntropy.backward(ctx, *grads), None)
