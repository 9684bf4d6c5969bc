"""How good is it so far: sharded decoding, selection of the best weights, early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import lightning as L
import numpy as np
import torch.distributed
from numpy.typing import NDArray

from mt.bundle import Bundle
from mt.evaluation.scores import corpus_score
from mt.recipe import Training
from mt.search.options import SearchOptions
from mt.training.checkpoints import Checkpoints
from mt.training.module import TranslationModule, UpdateCallback
from mt.training.progress import Metrics, Progress, duration
from mt.translator import Translator

_Item = TypeVar("_Item")


def across_devices(items: Sequence[_Item], work: Callable[[list[_Item]], list[Any]]) -> list[Any]:
    """Share items out to all training processes, work on them, and gather the results in order.

    Every item is worked on exactly once, and every process gets all results.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return work(list(items))
    devices, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    gathered: list[list[Any]] = [[] for _ in range(devices)]
    torch.distributed.all_gather_object(gathered, work(list(items[rank::devices])))
    results: list[Any] = [None] * len(items)
    for device, part in enumerate(gathered):
        results[device::devices] = part
    return results


class ValidationSet(NamedTuple):
    """Raw text to validate on."""

    sources: list[str]
    references: list[str]


class Validation(UpdateCallback):
    """Validates every so many updates, on the weights that would be kept.

    Args:
        text: The validation set.
        every: Updates between two validations.
        training: The recipe's options of selection and stopping.
        search: Decoding options.
        scores: Names of metrics, which go to TensorBoard beside the BLEU that selects.
        bundle: All of a bundle but its weights, for decoding.
        keep: Called with the best weights so far, on the first process.
        metrics: Where the figures go.
        progress: Told of the best BLEU and of time to leave out.
        checkpoints: Asked for a checkpoint after each validation.
    """

    def __init__(
        self,
        text: ValidationSet,
        every: int,
        training: Training,
        search: SearchOptions,
        scores: Sequence[str],
        bundle: Bundle,
        keep: Callable[[Bundle], None],
        metrics: Metrics,
        progress: Progress,
        checkpoints: Checkpoints,
    ):
        self.text, self.every, self.training, self.bundle = text, every, training, bundle
        self.search = replace(search, beam_size=training.validation_beam_size, n_best=1)
        self.scores, self.keep, self.metrics = scores, keep, metrics
        self.progress, self.checkpoints = progress, checkpoints
        self.best, self.since_best = -1.0, 0
        self.last_step = -1
        """Step of the last validation that had a BLEU."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": self.best, "since_best": self.since_best, "last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best = state_dict["best"]
        self.since_best, self.last_step = state_dict["since_best"], state_dict["last_step"]
        if self.best >= 0:
            self.progress.best_bleu = self.best

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave a run as it is that is resumed after its end."""
        assert isinstance(pl_module, TranslationModule)
        trainer.should_stop = pl_module.progress >= 1 or self._stalled

    def on_update_end(self, trainer: L.Trainer, module: TranslationModule) -> None:
        """Validate where it is time."""
        if trainer.global_step % self.every == 0:
            self._validate(trainer, module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the end of the run."""
        if trainer.global_step != self.last_step:
            self._validate(trainer, pl_module)

    @property
    def _stalled(self) -> bool:
        return 0 < self.training.patience <= self.since_best

    def _validate(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, TranslationModule)
        began = time.monotonic()
        module.take_snapshot(trainer.global_step)
        model = module.best
        translator = Translator(self.bundle._replace(model=model), module.device)
        pairs = list(zip(*self.text, strict=True))
        scored = across_devices(pairs, lambda part: translator.score(*_columns(part)))
        nll = -sum(log_probability for log_probability, _ in scored)
        loss = nll / max(1, sum(tokens for _, tokens in scored))
        row = {
            "epoch": trainer.global_step / self.progress.updates_per_epoch,
            "valid_loss": loss,
            "valid_perplexity": math.exp(min(loss, 50)),
        }
        message = (
            f"step {trainer.global_step:,} · validation perplexity {math.exp(min(loss, 50)):.2f}"
        )
        last = trainer.should_stop or module.progress >= 1
        if last or trainer.global_step >= self.training.validation_start:
            self.last_step = trainer.global_step
            count = self.training.validation_sentences or len(pairs)
            sources, references = (column[:count] for column in self.text)
            hypotheses = across_devices(
                sources, lambda part: translator.translate(part, self.search)
            )
            bleu = self._score("bleu", hypotheses, references)
            row["valid_bleu"] = bleu
            better = bleu > self.best
            message += f" · BLEU {bleu:.2f}{' (best)' if better else ''}"
            self._select(trainer, module, bleu)
            chosen = sorted({0, len(sources) // 3, 2 * len(sources) // 3})
            samples = "\n".join(
                f"  source     {sources[n]}\n  reference  {references[n]}\n"
                f"  output     {hypotheses[n]}"
                for n in chosen
            )
            message += "\n" + samples
            if self.metrics.tensorboard is not None and trainer.is_global_zero:
                board, step = self.metrics.tensorboard.experiment, trainer.global_step
                board.add_text("translations", f"```\n{samples}\n```", step)
                for metric in self.scores:
                    if metric != "bleu":
                        value = self._score(metric, hypotheses, references)
                        board.add_scalar(f"valid_{metric}", value, step)
                if model.architecture.attention != "none":
                    seen = translator.align(
                        [sources[n] for n in chosen], [hypotheses[n] for n in chosen]
                    )
                    for number, one in enumerate(seen, 1):
                        if one.weights.size:
                            image = _picture(one.weights)
                            board.add_image(f"attention/{number}", image, step, dataformats="HW")
        model.train()
        self.progress.tick(trainer, module)
        trainer.should_stop = trainer.should_stop or module.progress >= 1
        row["seconds"] = module.seconds
        self.metrics.add(trainer.global_step, row)
        elapsed = time.monotonic() - began
        self.progress.pause(elapsed)
        if trainer.is_global_zero:
            first, _, rest = message.partition("\n")
            self.progress.say(f"{first} · took {duration(elapsed)}" + ("\n" + rest if rest else ""))
        self.checkpoints.due = True

    def _score(self, metric: str, hypotheses: list[str], references: list[str]) -> float:
        language = self.bundle.languages[1]
        return corpus_score(metric, hypotheses, [references], target_language=language).score

    def _select(self, trainer: L.Trainer, module: TranslationModule, bleu: float) -> None:
        if bleu > self.best:
            self.best, self.since_best = bleu, 0
            self.progress.best_bleu = bleu
            if trainer.is_global_zero:
                self.keep(self.bundle._replace(model=module.best))
            return
        self.since_best += 1
        options = self.training
        if options.schedule == "plateau" and self.since_best % (options.plateau_patience + 1) == 0:
            module.plateau *= options.plateau_factor
        if self._stalled:
            self.progress.say(
                f"stopping: no better BLEU in {self.since_best} validations (training.patience)"
            )
            trainer.should_stop = True


def _picture(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Paint attention, translated words downwards and source words across, black for all of it."""
    side = np.ones((16, 16), np.float32)  # pixels
    return 1 - np.kron(weights.clip(0, 1), side)


def _columns(pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [source for source, _ in pairs], [target for _, target in pairs]
