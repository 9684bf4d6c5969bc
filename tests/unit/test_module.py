"""A training step against PyTorch's own pieces, and what guards it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from test_datamodule import ONE, parallel, stream
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from mt.errors import MTError
from mt.nn.architecture import Architecture
from mt.nn.seq2seq import Seq2Seq
from mt.recipe import Training, TranslationRecipe
from mt.tokenizer import PAD, Tokenizer
from mt.training.datamodule import DataModule
from mt.training.module import Budget
from mt.training.parallel_text import ParallelText
from mt.training.trainer import make_trainer, without_advice
from mt.training.translation import TranslationModule

UPDATES = 12
WARMUP = 3


@pytest.fixture
def text(tokenizer: Tokenizer, words: list[str]) -> ParallelText:
    return parallel(tokenizer, words)


def network(tokenizer: Tokenizer, output_dropout: float = 0.0) -> Seq2Seq:
    torch.manual_seed(4)
    architecture = Architecture(
        embedding_size=12, hidden_size=16, embedding_dropout=0.0, output_dropout=output_dropout
    )
    return Seq2Seq(architecture, len(tokenizer), len(tokenizer)).double()


Fit = Callable[..., None]


@pytest.fixture
def fit(text: ParallelText, tmp_path: Path) -> Fit:
    """Train a module as `mt train` does, in float64, with these options and callbacks."""

    def run(module: TranslationModule, *callbacks: L.Callback, **options: Any) -> None:
        given = {"max_steps": UPDATES, "accelerator": "cpu", "precision": "64-true", **options}
        trainer = make_trainer(TranslationRecipe(trainer=given), tmp_path)
        trainer.callbacks = [*trainer.callbacks, *callbacks]
        with without_advice():
            trainer.fit(module, datamodule=DataModule(text, 1, UPDATES))

    return run


def by_pytorch(
    model: Seq2Seq, text: ParallelText, training: Training, clip: float, rates: list[float]
) -> tuple[Seq2Seq, Seq2Seq]:
    """Train by hand; return the weights and their moving average."""
    kind: Any = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    options: dict[str, Any] = {"betas": training.betas, "eps": training.epsilon}
    if training.optimizer == "sgd":
        options = {"momentum": training.momentum}
    optimizer = kind[training.optimizer](
        model.parameters(), lr=1.0, weight_decay=training.weight_decay, **options
    )
    average = copy.deepcopy(model)
    for step, (batch, tokens) in enumerate(stream(text, ONE, 0, UPDATES)):
        for group in optimizer.param_groups:
            group["lr"] = rates[step]
        optimizer.zero_grad()
        logits = model.output(model(batch.source, batch.source_lengths, batch.target_in))
        loss = cross_entropy(
            logits.flatten(0, 1),
            batch.target_out.flatten(),
            ignore_index=PAD,
            reduction="sum",
            label_smoothing=training.label_smoothing,
        )
        (loss / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        decay = min(training.ema, (1 + step) / (10 + step)) if step else 0.0
        with torch.no_grad():
            for mean, now in zip(average.parameters(), model.parameters(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * now)
    return model, average


def assert_close(one: Seq2Seq, other: Seq2Seq) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9), name


@pytest.mark.parametrize(
    ("schedule", "shape"),
    [
        ("linear", lambda step: 1 - step / UPDATES),
        ("cosine", lambda step: (1 + math.cos(math.pi * step / UPDATES)) / 2),
        ("inverse-sqrt", lambda step: min(1.0, math.sqrt(WARMUP / (step + 1)))),
        ("constant", lambda step: 1.0),
    ],
)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_run_is_what_pytorch_computes(
    fit: Fit,
    text: ParallelText,
    tokenizer: Tokenizer,
    optimizer: Any,
    schedule: Any,
    shape: Any,
) -> None:
    """Loss, optimizer, clipping, schedule and moving average, over several updates."""
    training = Training(
        optimizer=optimizer,
        learning_rate=0.02,
        betas=(0.8, 0.95),
        epsilon=1e-6,
        momentum=0.7,
        weight_decay=0.1,
        label_smoothing=0.2,
        schedule=schedule,
        warmup_steps=WARMUP,
        ema=0.4,
    )
    clip = 0.5
    module = TranslationModule(network(tokenizer), training, 1, Budget(UPDATES, None))
    fit(module, gradient_clip_val=clip)
    rates = [0.02 * min(1.0, (step + 1) / WARMUP) * shape(step) for step in range(UPDATES)]
    weights, average = by_pytorch(network(tokenizer), text, training, clip, rates)
    assert_close(module.model, weights)
    assert_close(module.best, average)
    assert not torch.equal(module.best.output.weight, module.model.output.weight)


def spoil(module: TranslationModule, updates: set[int]) -> None:
    """Make one gradient infinite in these updates."""

    def hook(gradient: Tensor) -> Tensor:
        return gradient * math.inf if module.trainer.global_step in updates else gradient

    module.model.output.bias.register_hook(hook)


class Weights(L.Callback):
    """Keeps the weights, and their average, as they are after each batch."""

    def __init__(self) -> None:
        self.model: list[Tensor] = []
        self.best: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        for name in ("model", "best"):
            network = getattr(pl_module, name)
            weights = torch.cat([p.detach().flatten() for p in network.parameters()])
            getattr(self, name).append(weights)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_infinite_gradient_costs_one_update(
    fit: Fit, tokenizer: Tokenizer, accumulate: int
) -> None:
    module = TranslationModule(network(tokenizer), Training(ema=0.5), 1, Budget(UPDATES, None))
    spoil(module, {4, 5, 8})
    weights = Weights()
    fit(module, weights, accumulate_grad_batches=accumulate)
    for seen in (weights.model, weights.best):
        after = seen[accumulate - 1 :: accumulate]
        assert len(after) == UPDATES
        still = {n for n in range(1, UPDATES) if torch.equal(after[n], after[n - 1])}
        assert still == {4, 5, 8}
        assert after[-1].isfinite().all()
    assert (module.skipped, module.skipped_in_a_row) == (3, 0)


def test_many_infinite_gradients_end_the_run(fit: Fit, tokenizer: Tokenizer) -> None:
    module = TranslationModule(
        network(tokenizer), Training(max_skipped=3), 1, Budget(UPDATES, None)
    )
    spoil(module, set(range(2, UPDATES)))
    with pytest.raises(MTError, match=r"diverged: 4 updates in a row .*learning_rate"):
        fit(module)


def test_the_mean_of_the_last_validations(tokenizer: Tokenizer) -> None:
    module = TranslationModule(
        network(tokenizer), Training(average_validations=3), 1, Budget(1, None)
    )
    first = [p.detach().clone() for p in module.model.parameters()]
    for step in (10, 20, 20, 30, 40):  # the second at 20 takes the place of the first
        with torch.no_grad():
            for parameter in module.model.parameters():
                parameter += step
        module.take_snapshot(step)
    # Increases so far at 20, 30 and 40: 50, 80 and 120.
    for mean, begin in zip(module.best.parameters(), first, strict=True):
        torch.testing.assert_close(mean, begin + 250 / 3)
    assert module.best.output.weight is module.best.decoder.embedding.weight
    with torch.no_grad():
        module.model.output.bias.zero_()
    assert module.best.output.bias.all()


def test_r_drop_compares_two_passes_with_different_dropout(
    tokenizer: Tokenizer, text: ParallelText
) -> None:
    model = network(tokenizer, output_dropout=0.5)
    training = Training(r_drop=5.0, label_smoothing=0.1)
    module = TranslationModule(model, training, 1, Budget(1, None))
    plain = TranslationModule(model, replace(training, r_drop=0.0), 1, Budget(1, None))
    batch = text.batch(text.plan(120, 1, 0)[0], 1, 0, (1,)).batch
    model.train()
    torch.manual_seed(7)
    found = module.loss_sums(batch)
    torch.manual_seed(7)
    twice = (torch.cat((x, x)) for x in (batch.source, batch.source_lengths, batch.target_in))
    logits = model.output(model(*twice))
    one, other = (part[batch.target_out != PAD].log_softmax(1) for part in logits.chunk(2))
    targets = batch.target_out[batch.target_out != PAD]
    expected = divergence = torch.zeros((), dtype=torch.float64)
    for log, rest in ((one, other), (other, one)):
        loss = cross_entropy(log, targets, reduction="sum", label_smoothing=0.1)
        divergence = divergence + kl_div(rest, log, reduction="sum", log_target=True)
        expected = expected + loss / 2
    assert divergence > 1
    torch.testing.assert_close(found.loss, expected + 5 / 4 * divergence)
    assert found.outputs == len(targets)
    model.eval()  # then there is nothing to compare
    torch.testing.assert_close(module.loss_sums(batch), plain.loss_sums(batch))
