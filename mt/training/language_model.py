"""A language model's run: text, tokenizer, training, perplexity, report."""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from mt.batches import Ints, Sentences, pad, plan_updates, share
from mt.bundle.files import load_tokenizer
from mt.bundle.language_model import (
    LanguageModelBundle,
    load_language_model,
    save_language_model,
)
from mt.corpus.text import Text, load_text
from mt.errors import MTError
from mt.evaluation.text import TextScores, score_text
from mt.evaluation.text_report import TextReport, text_card, write_text_report
from mt.language_model import LanguageModel
from mt.lines import duration
from mt.nn.language_model import LanguageNetwork, detach
from mt.nn.recurrent import StackState
from mt.recipe import LanguageModelRecipe, TextBatching
from mt.tokenizer import BOS, EOS, PAD, Tokenizer, train_tokenizer
from mt.training.datamodule import TrainingBatch, TrainingData
from mt.training.environment import environment
from mt.training.fit import Run, facts, fit, leads, parameters
from mt.training.folder import published
from mt.training.initial import freeze
from mt.training.losses import linear_cross_entropy
from mt.training.module import Budget, StepSums, TrainingModule
from mt.training.trainer import nothing_left_to_choose
from mt.training.validation import Measured, Moment, across_devices

_log = logging.getLogger("mt")
_ROWS = 32
"""Rows that running validation text is read in, side by side, while training goes on."""


class TextBatch(NamedTuple):
    """Rows of tokens, and what follows each."""

    inputs: Tensor
    """`(B, T)`."""
    outputs: Tensor
    """`(B, T)`; padding where nothing is to be predicted."""
    part: int
    """Which part of its update this is: the state of running text is carried on part by part."""
    begins: bool
    """Whether the rows begin here; otherwise they go on where the part's last batch ended."""

    def to(self, device: torch.device) -> TextBatch:
        """Move the tokens."""
        return self._replace(
            inputs=self.inputs.to(device, non_blocking=True),
            outputs=self.outputs.to(device, non_blocking=True),
        )


class Lines(TrainingData):
    """Lines that each stand by themselves.

    Args:
        encoded: Token ids of each line, without special tokens.
        vocabulary: Number of tokens.
        batching: Lines of more than its `max_length` tokens are left out.
    """

    def __init__(self, encoded: Iterable[Sequence[int]], vocabulary: int, batching: TextBatching):
        super().__init__(batching.tokens, batching.workers)
        self._lines = Sentences(vocabulary)
        self._lines.extend(encoded)
        self.kept = np.flatnonzero(self._lines.lengths <= batching.max_length)
        if len(self.kept) == 0:
            raise MTError("batches.max_length: every training line is longer; raise it")

    def plan(self, tokens: int, seed: int, epoch: int) -> list[Ints]:
        """Plan an epoch: the lines of each update."""
        lengths = self._lines.lengths[self.kept] + 1
        return [self.kept[update] for update in plan_updates(lengths, lengths, tokens, seed, epoch)]

    def batch(self, update: Ints, parts: int, part: int, seed: tuple[int, ...]) -> TrainingBatch:
        """Lay out one part of an update."""
        normalizer = int(self._lines.lengths[update].sum()) + len(update)
        rows = share(update, parts, part)
        lines = [self._lines[number] for number in (rows if len(rows) else update[:1])]
        inputs, _ = pad([[BOS, *line] for line in lines])
        outputs, _ = pad([[*line, EOS] for line in lines])
        if len(rows) == 0:  # every device runs every batch; this one has no loss
            outputs = torch.full_like(outputs, PAD)
        return TrainingBatch(TextBatch(inputs, outputs, part, True), normalizer)


class RunningText(TrainingData):
    """Text that is read as one.

    An epoch reads all of it, side by side in rows of equal length, window after window of `bptt`
    tokens. It begins at a place of its own, so that windows end elsewhere in every epoch; the text
    is taken for a ring.

    Args:
        encoded: Token ids of each line, without special tokens.
        vocabulary: Number of tokens.
        batching: Its `tokens` are those of a window in all rows.
    """

    def __init__(self, encoded: Iterable[Sequence[int]], vocabulary: int, batching: TextBatching):
        super().__init__(batching.tokens, batching.workers)
        flat = array("H" if vocabulary <= 1 << 16 else "i")
        for line in encoded:
            flat.extend((*line, EOS))
        self._flat = np.asarray(flat)
        self._window = min(batching.bptt, len(flat))

    def _shape(self, tokens: int) -> tuple[int, int]:
        """Rows of an update, and tokens of each row in an epoch."""
        rows = max(1, min(tokens, len(self._flat)) // self._window)
        return rows, len(self._flat) // rows

    def plan(self, tokens: int, seed: int, epoch: int) -> list[Ints]:
        """Plan an epoch: for each update the number of its window, then where each row starts."""
        rows, length = self._shape(tokens)
        first = int(np.random.default_rng((seed, epoch)).integers(len(self._flat)))
        starts = (first + length * np.arange(rows)) % len(self._flat)
        return [
            np.concatenate(([window], (starts + window * self._window) % len(self._flat)))
            for window in range(self.updates(tokens))
        ]

    def updates(self, tokens: int) -> int:
        """Count the updates of an epoch."""
        return max(1, self._shape(tokens)[1] // self._window)

    def batch(self, update: Ints, parts: int, part: int, seed: tuple[int, ...]) -> TrainingBatch:
        """Lay out one part of an update."""
        window, starts = int(update[0]), update[1:]
        rows = share(starts, parts, part)
        chosen = rows if len(rows) else starts[:1]
        places = (chosen[:, None] + np.arange(self._window + 1)) % len(self._flat)
        tokens = torch.from_numpy(self._flat[places].astype(np.int64))
        inputs, outputs = tokens[:, :-1], tokens[:, 1:]
        if len(rows) == 0:  # every device runs every batch; this one has no loss
            outputs = torch.full_like(outputs, PAD)
        batch = TextBatch(inputs, outputs, part, window == 0)
        return TrainingBatch(batch, len(starts) * self._window)


class LanguageModelModule(TrainingModule):
    """A language model with its loss: the cross-entropy of each next token.

    Back-propagation through time is truncated at the ends of batches, beyond which the state alone
    goes on.
    """

    model: LanguageNetwork

    def __init__(self, model: LanguageNetwork, recipe: LanguageModelRecipe, budget: Budget):
        super().__init__(model, recipe.training, recipe.seed, budget)
        self.running = recipe.corpus.running
        self.carried: dict[int, StackState] = {}
        """The state after the last batch of each part of an update, of running text."""

    def loss_sums(self, batch: TextBatch) -> StepSums:
        """Sum the loss over a batch's tokens."""
        state = None
        if not batch.begins:
            state = [
                tuple(tensor.to(batch.inputs.device) for tensor in layer)
                for layer in self.carried[batch.part]
            ]
        vectors, state = self.model(batch.inputs, state)
        if self.running:
            self.carried[batch.part] = detach(state)
        real, output = batch.outputs != PAD, self.model.output
        loss = linear_cross_entropy(
            vectors[real], output.weight, output.bias, batch.outputs[real], smoothing=0.0
        )
        return StepSums(*loss, int(real.sum()), int(real.sum()))

    def tell(self, plain: float, inputs: float, outputs: float) -> str:
        """See `TrainingModule.tell`."""
        return f"ppl {math.exp(min(plain, 20)):.1f} · {outputs:,.0f} tokens/s"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the states of all devices."""
        super().on_save_checkpoint(checkpoint)
        mine = {
            part: [tuple(tensor.cpu() for tensor in layer) for layer in state]
            for part, state in self.carried.items()
        }
        whole = mine
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered: list[dict[int, StackState]] = [{}] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, mine)
            whole = {part: state for one in gathered for part, state in one.items()}
        checkpoint["mt"]["carried"] = whole


class PerplexityMeasure:
    """Perplexity on validation text; see `mt.training.validation.Measure`.

    Args:
        lines: The text. Running text is read in some rows side by side, so that the first tokens of
            each but the first are predicted without what stands before them.
        bundle: All of a bundle but its weights.
    """

    def __init__(self, lines: list[str], bundle: LanguageModelBundle):
        self.bundle = bundle
        size = math.ceil(len(lines) / _ROWS)
        texts = [lines[start : start + size] for start in range(0, len(lines), size)]
        self.parts: list[Any] = texts if bundle.running else lines
        self.characters = sum(map(len, lines)) + len(lines)

    def __call__(self, model: LanguageNetwork, moment: Moment) -> Measured:
        """Measure a network."""
        reader = LanguageModel(self.bundle._replace(model=model), moment.device)
        read = reader.score_texts if reader.running else reader.score
        scored = across_devices(self.parts, read)
        nll = -sum(total for total, _ in scored)
        loss = nll / max(1, sum(tokens for _, tokens in scored))
        perplexity = math.exp(min(loss, 50))
        bits = nll / math.log(2) / self.characters
        row = {"valid_loss": loss, "valid_perplexity": perplexity}
        samples = reader.generate(["", "", ""], 60, seed=moment.step)
        return Measured(
            row,
            f"validation {bits:.3f} bits a character",
            -loss,
            f"perplexity {perplexity:.2f}",
            "\n".join(f"  {line}" for text in samples for line in text.split("\n")),
        )


def train_language_model(run: Run[LanguageModelRecipe]) -> None:
    """Go from raw text to an evaluated language model.

    Raises:
        MTError: A mistake in the recipe, the text or the run folder.
    """
    recipe, folder = run.recipe, run.folder
    nothing_left_to_choose(recipe)
    text = load_text(recipe.corpus)
    _log.info("corpus     %s, %s lines", "; ".join(text.origin), f"{text.lines:,}")
    tokenizer = _tokenizer(recipe, text)
    _log.info("tokenizer  %s tokens", f"{len(tokenizer):,}")
    kind = RunningText if recipe.corpus.running else Lines
    encoded = (row for batch in text.train() for row in tokenizer.encode_raw(batch))
    data = kind(encoded, len(tokenizer), recipe.batches)
    described = environment(recipe.seed, text.digest)
    torch.manual_seed(recipe.seed)
    model = LanguageNetwork(recipe.model, len(tokenizer))
    freeze(model, recipe.training.freeze)
    if leads():  # now that nothing is wrong, a run that lies there may go
        folder.prepare(recipe, described, run.resume, run.overwrite)
    told = facts(described, text.origin, ("Training lines", text.lines), model)
    bundle = LanguageModelBundle(model, tokenizer, text.language, recipe.corpus.running)
    _log.info("model      %s parameters", f"{parameters(model):,}")

    def keep(best: LanguageNetwork) -> None:
        card = text_card(text.language, told, [], published(recipe))
        save_language_model(bundle._replace(model=best, card=card), folder.bundle)

    seconds = fit(
        run,
        data,
        lambda limits: LanguageModelModule(model, recipe, limits),
        PerplexityMeasure(text.valid, bundle),
        ("valid_loss", "valid_perplexity"),
        keep,
    )
    told.append(("Training time", duration(seconds)))
    if leads() and run.observe is None:
        _evaluate(run, text, told)


def _tokenizer(recipe: LanguageModelRecipe, text: Text) -> Tokenizer:
    if recipe.tokenizer_from is not None:
        return load_tokenizer(Path(recipe.tokenizer_from))
    return train_tokenizer(recipe.tokenizer, text.each)


def _evaluate(run: Run[LanguageModelRecipe], text: Text, told: list[tuple[str, str]]) -> None:
    """Measure the best weights on the test sets, and write what they show."""
    bundle = load_language_model(run.folder.bundle)
    reader = LanguageModel(bundle, run.trainer.strategy.root_device)
    scores: list[TextScores] = []
    for name, lines in text.tests.items():
        found = score_text(name, lines, reader.score(lines))
        scores.append(found)
        _log.info("%-10s %s", name, found)
    recipe_yaml = published(run.recipe)
    card = text_card(bundle.language, told, scores, recipe_yaml)
    save_language_model(bundle._replace(card=card), run.folder.bundle)
    write_text_report(
        run.folder.path,
        TextReport(
            title=run.folder.path.name,
            language=bundle.language,
            scores=scores,
            facts=told,
            cleaning=[(one.rule, one.dropped) for one in text.cleaning[1:]],
            curves=run.folder.path / "metrics.csv",
            samples=reader.generate([""] * 5, 100, seed=run.recipe.seed),
            recipe_yaml=recipe_yaml,
        ),
    )
    _log.info("report     %s", run.folder.path / "report.html")
    _log.info("model      %s", run.folder.bundle)
