"""A classifier's run: labelled text, tokenizer, training, accuracy, report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mt.batches import Ints, Sentences, pad, plan_updates, share
from mt.bundle.classifier import ClassifierBundle, load_classifier, save_classifier
from mt.classifier import Classifier, encode_texts
from mt.corpus.labelled import Examples, Labelled, load_labelled
from mt.evaluation.classes import confusion, macro_accuracy, marginals, score_classes
from mt.evaluation.classes_report import ClassReport, TestTexts, class_card, write_class_report
from mt.lines import duration
from mt.nn.classifier import ClassifierNetwork
from mt.recipe import ClassificationBatching, ClassificationRecipe
from mt.tokenizer import Tokenizer, train_tokenizer
from mt.training.datamodule import TrainingBatch, TrainingData
from mt.training.environment import environment
from mt.training.fit import Run, facts, fit, leads, parameters
from mt.training.folder import published
from mt.training.initial import freeze
from mt.training.module import Budget, StepSums, TrainingModule
from mt.training.trainer import nothing_left_to_choose
from mt.training.validation import Measured, Moment, across_devices

_log = logging.getLogger("mt")
_NO_CLASS = -1
"""In place of a class, where a row has no part in the loss."""
_ENCODED = 10_000
"""Texts that are made tokens at a time."""


class LabelledBatch(NamedTuple):
    """Texts and their classes."""

    tokens: Tensor
    """`(B, T)`, padded at the end."""
    lengths: Tensor
    """`(B,)`, on the CPU, where packing wants them."""
    labels: Tensor
    """`(B,)` numbers of classes."""

    def to(self, device: torch.device) -> LabelledBatch:
        """Move all but the lengths."""
        return self._replace(
            tokens=self.tokens.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


class LabelledTexts(TrainingData):
    """Texts to train on.

    Args:
        examples: Texts and their classes.
        tokenizer: Makes them tokens.
        batching: Its `max_length` tokens of each are read.
    """

    def __init__(self, examples: Examples, tokenizer: Tokenizer, batching: ClassificationBatching):
        super().__init__(batching.tokens, batching.workers)
        self._texts = Sentences(len(tokenizer))
        for start in range(0, len(examples.texts), _ENCODED):
            texts = examples.texts[start : start + _ENCODED]
            self._texts.extend(encode_texts(tokenizer, texts, batching.max_length))
        self._labels = np.array(examples.labels)

    def plan(self, tokens: int, seed: int, epoch: int) -> list[Ints]:
        """Plan an epoch: the texts of each update."""
        lengths = self._texts.lengths
        return plan_updates(lengths, lengths, tokens, seed, epoch)

    def batch(self, update: Ints, parts: int, part: int, seed: tuple[int, ...]) -> TrainingBatch:
        """Lay out one part of an update."""
        rows = share(update, parts, part)
        chosen = rows if len(rows) else update[:1]
        tokens, lengths = pad([self._texts[number] for number in chosen])
        labels = torch.from_numpy(self._labels[chosen])
        if len(rows) == 0:  # every device runs every batch; this one has no loss
            labels = torch.full_like(labels, _NO_CLASS)
        return TrainingBatch(LabelledBatch(tokens, lengths, labels), len(update))


class ClassifierModule(TrainingModule):
    """A classifier with its loss: the label-smoothed, weighted cross-entropy of each text's class.

    Args:
        model: The network.
        recipe: Its options.
        counts: Training texts of each class.
        budget: How long the run may be.
    """

    model: ClassifierNetwork
    weights: Tensor

    def __init__(
        self,
        model: ClassifierNetwork,
        recipe: ClassificationRecipe,
        counts: Ints,
        budget: Budget,
    ):
        super().__init__(model, recipe.training, recipe.seed, budget)
        self.smoothing = recipe.training.label_smoothing
        weights = np.ones(len(counts))
        if recipe.training.class_weights == "balanced":
            weights = counts.sum() / (len(counts) * counts)
        self.register_buffer("weights", torch.tensor(weights).float(), persistent=False)

    def loss_sums(self, batch: LabelledBatch) -> StepSums:
        """Sum the loss over a batch's texts."""
        logits = self.model(batch.tokens, batch.lengths)
        labels, real = batch.labels, batch.labels != _NO_CLASS
        losses = cross_entropy(
            logits,
            labels,
            ignore_index=_NO_CLASS,
            reduction="none",
            label_smoothing=self.smoothing,
        )
        with torch.no_grad():
            plain = cross_entropy(logits, labels, ignore_index=_NO_CLASS, reduction="sum")
        loss = (losses * self.weights[labels]).sum()
        return StepSums(loss, plain, int(batch.lengths.sum()), int(real.sum()))

    def tell(self, plain: float, inputs: float, outputs: float) -> str:
        """See `TrainingModule.tell`."""
        return f"nll {plain:.3f} · {inputs:,.0f} tokens/s · {outputs:,.0f} texts/s"


class AccuracyMeasure:
    """Accuracy on validation text; see `mt.training.validation.Measure`.

    Args:
        examples: The text.
        bundle: All of a bundle but its weights.
        metric: Which accuracy is the score.
    """

    def __init__(self, examples: Examples, bundle: ClassifierBundle, metric: str):
        self.examples, self.bundle, self.metric = examples, bundle, metric

    def __call__(self, model: ClassifierNetwork, moment: Moment) -> Measured:
        """Measure a network."""
        classifier = Classifier(self.bundle._replace(model=model), moment.device)

        def work(items: list[tuple[str, int]]) -> list[tuple[float, int]]:
            if not items:
                return []
            logs = classifier.log_probabilities([text for text, _ in items])
            labels = torch.tensor([label for _, label in items])
            own = logs.gather(1, labels[:, None])[:, 0]
            return list(zip(own.tolist(), logs.argmax(1).tolist(), strict=True))

        found = across_devices(list(zip(*self.examples, strict=True)), work)
        loss = -sum(own for own, _ in found) / len(found)
        predicted = [place for _, place in found]
        table = confusion(self.examples.labels, predicted, len(self.bundle.classes))
        accuracies = {
            "accuracy": float(table.trace() / table.sum()),
            "macro-accuracy": float(macro_accuracy(marginals(table))),
        }
        row = {"valid_loss": loss}
        row |= {f"valid_{name.replace('-', '_')}": 100 * v for name, v in accuracies.items()}
        score = accuracies[self.metric]
        told = f"{self.metric.replace('-', ' ')} {100 * score:.2f}"
        return Measured(row, f"validation loss {loss:.3f}", score, told)


def train_classifier(run: Run[ClassificationRecipe]) -> None:
    """Go from labelled text to an evaluated classifier.

    Raises:
        MTError: A mistake in the recipe, the text or the run folder.
    """
    recipe, folder = run.recipe, run.folder
    nothing_left_to_choose(recipe)
    text = load_labelled(recipe.corpus)
    _log.info(
        "corpus     %s, %s texts, %d classes",
        "; ".join(text.origin),
        f"{len(text.train.texts):,}",
        len(text.classes),
    )
    tokenizer = train_tokenizer(recipe.tokenizer, lambda: text.train.texts)
    _log.info("tokenizer  %s tokens", f"{len(tokenizer):,}")
    data = LabelledTexts(text.train, tokenizer, recipe.batches)
    counts = np.bincount(text.train.labels, minlength=len(text.classes))
    described = environment(recipe.seed, text.digest)
    torch.manual_seed(recipe.seed)
    model = ClassifierNetwork(recipe.model, len(tokenizer), len(text.classes))
    freeze(model, recipe.training.freeze)
    if leads():  # now that nothing is wrong, a run that lies there may go
        folder.prepare(recipe, described, run.resume, run.overwrite)
    told = facts(described, text.origin, ("Training texts", len(text.train.texts)), model)
    bundle = ClassifierBundle(model, tokenizer, tuple(text.classes), recipe.batches.max_length)
    _log.info("model      %s parameters", f"{parameters(model):,}")

    def keep(best: ClassifierNetwork) -> None:
        card = class_card(text.classes, told, [], published(recipe))
        save_classifier(bundle._replace(model=best, card=card), folder.bundle)

    seconds = fit(
        run,
        data,
        lambda limits: ClassifierModule(model, recipe, counts, limits),
        AccuracyMeasure(text.valid, bundle, recipe.training.metric),
        ("valid_loss", "valid_accuracy", "valid_macro_accuracy"),
        keep,
    )
    told.append(("Training time", duration(seconds)))
    if leads() and run.observe is None:
        _evaluate(run, text, told)


def _evaluate(run: Run[ClassificationRecipe], text: Labelled, told: list[tuple[str, str]]) -> None:
    """Measure the best weights on the test sets, and write what they show."""
    recipe = run.recipe
    bundle = load_classifier(run.folder.bundle)
    classifier = Classifier(bundle, run.trainer.strategy.root_device)
    tests: list[TestTexts] = []
    for name, examples in _test_sets(text, recipe.evaluation.min_characters):
        logs = classifier.log_probabilities(examples.texts).numpy()
        scores = score_classes(name, examples.texts, examples.labels, logs, text.classes)
        tests.append(TestTexts(scores, examples.texts, examples.labels, logs))
        _log.info("%-10s %s", name, scores)
    recipe_yaml = published(recipe)
    card = class_card(text.classes, told, [test.scores for test in tests], recipe_yaml)
    save_classifier(bundle._replace(card=card), run.folder.bundle)
    write_class_report(
        run.folder.path,
        ClassReport(
            title=run.folder.path.name,
            classes=text.classes,
            tests=tests,
            facts=told,
            cleaning=[(one.rule, one.dropped) for one in text.cleaning[1:]],
            curves=run.folder.path / "metrics.csv",
            recipe_yaml=recipe_yaml,
        ),
    )
    _log.info("report     %s", run.folder.path / "report.html")
    _log.info("model      %s", run.folder.bundle)


def _test_sets(text: Labelled, least: int) -> Iterator[tuple[str, Examples]]:
    """Give each test set, and where it has any and not only such, its texts that are not short."""
    for name, examples in text.tests.items():
        yield name, examples
        long = [pair for pair in zip(*examples, strict=True) if len(pair[0]) >= least]
        if 0 < len(long) < len(examples.texts):
            texts, labels = zip(*long, strict=True)
            yield f"{name}, {least} characters or more", Examples(list(texts), list(labels))
