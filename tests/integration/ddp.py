"""Trains for some updates on one or more processes, and records what they did.

    python ddp.py FOLDER BUNDLE TEXT RECIPE [--dotted.override value …]

Each process writes FOLDER/RANK.pt: the gradient of the first update (process 0 alone), the loss
sums and sentence numbers of every batch, and its translations of the lines of TEXT by BUNDLE, which
all processes share.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch

from mt import Translator
from mt.corpus import load_corpus
from mt.lines import read_lines
from mt.nn.seq2seq import Seq2Seq
from mt.options import parse_train
from mt.tokenizer import PAD, Tokenizers, train_tokenizer
from mt.training.datamodule import DataModule
from mt.training.module import Budget
from mt.training.parallel_text import ParallelText
from mt.training.trainer import make_trainer, without_advice
from mt.training.translation import TranslationModule
from mt.training.validation import across_devices


class Recorder(L.Callback):
    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}
        self.batches: list[tuple[int, float, int, list[int]]] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        if not self.gradients:
            self.gradients = {
                name: parameter.grad.clone()
                for name, parameter in pl_module.named_parameters()
                if parameter.grad is not None
            }

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        update = batch_idx // trainer.accumulate_grad_batches
        real = batch.batch.target_out.ne(PAD).any(1)
        numbers = batch.batch.ids[real].tolist()
        loss = float(outputs["sums"].loss)
        self.batches.append((update, loss, batch.normalizer, numbers))


def main(arguments: list[str]) -> None:
    folder, bundle, lines = map(Path, arguments[:3])
    recipe = parse_train(arguments[3:]).recipe
    corpus = load_corpus(recipe.corpus)
    tokenizer = train_tokenizer(
        recipe.tokenizer, lambda: [*corpus.train["source"], *corpus.train["target"]]
    )
    tokenizers = Tokenizers(tokenizer, tokenizer)
    text = ParallelText(corpus.batches(), tokenizers, recipe.batches)
    torch.manual_seed(recipe.seed)
    model = Seq2Seq(recipe.model, len(tokenizer), len(tokenizer))
    updates = recipe.trainer["max_steps"]
    module = TranslationModule(model, recipe.training, recipe.seed, Budget(updates, None))
    recorder = Recorder()
    trainer = make_trainer(recipe, folder)
    trainer.callbacks = [*trainer.callbacks, recorder]
    with without_advice():
        trainer.fit(module, datamodule=DataModule(text, recipe.seed, updates))
    translator = Translator.load(bundle)
    translations = across_devices(list(read_lines(lines)), translator.translate)
    record = {
        "world_size": trainer.world_size,
        "gradients": recorder.gradients if trainer.is_global_zero else {},
        "batches": recorder.batches,
        "translations": translations,
    }
    torch.save(record, folder / f"{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1:])
