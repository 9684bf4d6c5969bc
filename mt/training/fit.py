"""A whole run: corpus, tokenizer, training, evaluation, report."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from mt.bundle import Bundle, load_bundle, save_bundle
from mt.corpus import ParallelCorpus, cleaning_table, load_corpus
from mt.errors import MTError
from mt.evaluation.card import model_card
from mt.evaluation.evaluate import examine
from mt.evaluation.gradients import gradient_flow
from mt.evaluation.report import ReportData, write_report
from mt.evaluation.scores import placeholder_fidelity
from mt.nn.seq2seq import Seq2Seq
from mt.options import teacher_recipe
from mt.recipe import Recipe
from mt.search.shortlist import Shortlist
from mt.tokenizer import Tokenizers, train_tokenizer
from mt.training.checkpoints import Checkpoints, newest_whole_checkpoint
from mt.training.datamodule import DataModule, ParallelText
from mt.training.distillation import Teacher, teachers, translate_corpus, translated
from mt.training.environment import environment
from mt.training.folder import RunFolder, published
from mt.training.initial import copy_weights, freeze, open_initial
from mt.training.module import TranslationModule
from mt.training.progress import Metrics, Progress, duration
from mt.training.shortlist import coverage, learn_shortlist
from mt.training.sizing import choose_sizes
from mt.training.trainer import (
    budget,
    choose_precision,
    make_trainer,
    validation_interval,
    without_advice,
)
from mt.training.validation import Validation, ValidationSet, across_devices
from mt.translator import Translator

_log = logging.getLogger("mt")
_FLOW_SENTENCES = 200
"""Validation pairs that the report's gradient flow is measured on."""


def train(recipe: Recipe, output: Path, resume: bool = False, overwrite: bool = False) -> None:
    """Run a recipe from raw text to an evaluated translator.

    Args:
        recipe: What to do.
        output: The run folder; see `RunFolder`.
        resume: Go on from the newest whole checkpoint in `output`, if there is one.
        overwrite: Replace a run in `output`.

    Raises:
        MTError: A mistake in the recipe, the corpus or the run folder.
    """
    run = RunFolder(output)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    recipe, chosen = choose_precision(recipe)
    trainer = make_trainer(recipe, run.path)  # a mistake is told before the corpus is fetched
    if recipe.distillation.forward or recipe.distillation.backward:
        try:
            make_trainer(teacher_recipe(recipe), run.teachers)
        except MTError as error:
            raise MTError(f"distillation.teacher: {error}") from error
    if _leads():
        run.check(resume, overwrite)
    else:
        _log.setLevel(logging.WARNING)  # one process tells
    recipe, initial, reasons = open_initial(recipe)
    corpus = load_corpus(recipe.corpus)
    _log.info("corpus     %s\n%s", "; ".join(corpus.origin), cleaning_table(corpus))
    try:
        recipe, more = choose_sizes(recipe, len(corpus.train), lambda: both_sides(corpus))
    except ValueError as error:  # what was chosen clashes with what was set
        raise MTError(str(error)) from error
    for reason in (*chosen, *reasons, *more):
        _log.info("chosen     %s", reason)
    if initial is None or recipe.new_tokenizer:
        tokenizers = make_tokenizers(recipe, corpus)
    else:
        tokenizers = initial.tokenizers
    _log.info("tokenizer  %s", " + ".join(f"{len(t):,} tokens" for t in dict.fromkeys(tokenizers)))
    _run(trainer, recipe, run, corpus, tokenizers, initial, resume, overwrite)


def _leads() -> bool:
    """Tell whether this is the first of the training processes, whoever launches them."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name, "0")) == 0 for name in ranks)


def _run(
    trainer: L.Trainer,
    recipe: Recipe,
    run: RunFolder,
    corpus: ParallelCorpus,
    tokenizers: Tokenizers,
    initial: Bundle | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Train on a corpus, with its teachers first, and evaluate."""
    text = ParallelText(corpus.batches(), tokenizers, recipe.batches)
    if len(text.kept) == 0:
        raise MTError("batches.max_length: every training pair is longer; raise it")
    described = environment(recipe.seed, corpus.digest)
    torch.manual_seed(recipe.seed)
    model = Seq2Seq(recipe.model, len(tokenizers.source), len(tokenizers.target))
    if initial is not None:
        copied = copy_weights(model, tokenizers, initial)
        _log.info("weights    from %s, %s known", recipe.init_from, copied)
    freeze(model, recipe.training.freeze)
    taught_by = teachers(recipe, corpus, run)
    if _leads():  # now that nothing is wrong, a run that lies there may go
        run.prepare(recipe, described, resume, overwrite)
    facts = _facts(described, corpus, model)
    if taught_by:
        _teach(taught_by, recipe, corpus, tokenizers, trainer.strategy.root_device)
        if not recipe.distillation.original:
            text = ParallelText((), tokenizers, recipe.batches)
        counts = []
        for teacher in taught_by:
            before = len(text.sources)
            text.extend(translated(teacher, corpus))
            counts.append(f"{len(text.sources) - before:,} ({teacher.name})")
        facts.append(("Pairs by teachers", ", ".join(counts)))
    languages = recipe.corpus.source, recipe.corpus.target
    bundle = Bundle(model, tokenizers, languages, recipe.search)
    _log.info("model      %s parameters", f"{_parameters(model):,}")

    def keep(best: Bundle) -> None:
        card = model_card(best.languages, facts, [], published(recipe))
        save_bundle(best._replace(card=card), run.bundle)

    seconds = _fit(trainer, recipe, run, text, corpus, bundle, keep, resume)
    facts += [("Training time", duration(seconds) + ", after the teachers'" * bool(taught_by))]
    _evaluate(recipe, run, corpus, trainer.strategy.root_device, facts)


def _teach(
    taught_by: list[Teacher],
    recipe: Recipe,
    corpus: ParallelCorpus,
    tokenizers: Tokenizers,
    device: torch.device,
) -> None:
    """Train the teachers, and let them translate the training text."""
    for teacher in taught_by:
        if teacher.recipe is not None and not teacher.run.scores.exists():
            _log.info("teacher    %s is trained first", teacher.name)
            trainer = make_trainer(teacher.recipe, teacher.run.path)
            _run(
                trainer,
                teacher.recipe,
                teacher.run,
                corpus.turn() if teacher.backward else corpus,
                Tokenizers(*tokenizers[::-1]) if teacher.backward else tokenizers,
                initial=None,
                resume=teacher.run.recipe.exists(),
                overwrite=False,
            )
            trainer.strategy.barrier()  # the first process saves the bundle last
        translate_corpus(teacher, corpus, recipe.distillation.beam_size, device)


def both_sides(corpus: ParallelCorpus) -> Iterator[str]:
    """Yield the training text, source side first."""
    return chain(_side(corpus, 0), _side(corpus, 1))


def _side(corpus: ParallelCorpus, side: int) -> Iterator[str]:
    for batch in corpus.batches():
        yield from batch[side]


def make_tokenizers(recipe: Recipe, corpus: ParallelCorpus) -> Tokenizers:
    """Train the tokenizers of both sides on a corpus; a joint one is both."""
    spec = recipe.tokenizer
    if spec.joint:
        joint = train_tokenizer(spec, lambda: both_sides(corpus))
        return Tokenizers(joint, joint)
    return Tokenizers(
        train_tokenizer(spec, lambda: _side(corpus, 0)),
        train_tokenizer(spec, lambda: _side(corpus, 1)),
    )


def _fit(
    trainer: L.Trainer,
    recipe: Recipe,
    run: RunFolder,
    text: ParallelText,
    corpus: ParallelCorpus,
    bundle: Bundle,
    keep: Callable[[Bundle], None],
    resume: bool,
) -> float:
    """Train, and return the seconds that it took, over all resumptions."""
    parts = trainer.world_size * trainer.accumulate_grad_batches
    per_epoch = text.updates(recipe.batches.tokens * parts)
    limits = budget(recipe, per_epoch)
    module = TranslationModule(bundle.model, recipe.training, recipe.seed, limits)
    assert isinstance(trainer.logger, TensorBoardLogger)
    metrics = Metrics(run.path / "metrics.csv", trainer.logger, trainer.is_global_zero)
    progress = Progress(metrics, per_epoch, recipe.trainer.get("log_every_n_steps", 50))
    checkpoints = Checkpoints(run.checkpoints, recipe.training.checkpoint_minutes)
    validation = Validation(
        ValidationSet(list(corpus.valid["source"]), list(corpus.valid["target"])),
        validation_interval(recipe, per_epoch),
        recipe.training,
        recipe.search,
        recipe.evaluation.metrics,
        bundle,
        keep,
        metrics,
        progress,
        checkpoints,
    )
    # The clock runs first, and what is saved last holds what the others have done. They need the
    # trainer's number of devices, so they come after it; its stubs do not show the attribute.
    trainer.callbacks += [progress, validation, checkpoints]  # type: ignore[attr-defined]
    checkpoint = newest_whole_checkpoint(run.checkpoints) if resume else None
    if resume:
        _log.info("resuming   %s", checkpoint or "nothing to resume: starting afresh")
    try:
        with without_advice():
            trainer.fit(
                module,
                datamodule=DataModule(text, recipe.seed, limits.updates or 1 << 60),
                ckpt_path=None if checkpoint is None else str(checkpoint),
                weights_only=True,
            )
    except SystemExit as error:
        if error.code == 1:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
        raise
    trainer.strategy.barrier()
    return module.seconds


def _evaluate(
    recipe: Recipe,
    run: RunFolder,
    corpus: ParallelCorpus,
    device: torch.device,
    facts: list[tuple[str, str]],
) -> None:
    """Translate the test sets with the best weights, on all devices, and write what they show."""
    bundle = load_bundle(run.bundle)
    translator = Translator(bundle, device)
    if recipe.shortlist.size:
        shortlist, described = _shortlist(recipe, translator, corpus)
        facts = [*facts, ("Shortlist", described)]
        bundle = bundle._replace(shortlist=shortlist)
        translator = Translator(bundle, device)
    began = time.monotonic()
    translated = {
        name: across_devices(list(pairs["source"]), translator.translate)
        for name, pairs in corpus.tests.items()
    }
    seconds = time.monotonic() - began
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return
    sets, fidelity = [], []
    for name, pairs in corpus.tests.items():
        sources, references, hypotheses = [*pairs["source"]], [*pairs["target"]], translated[name]
        examined = examine(
            name,
            sources,
            [references],
            {run.path.name: [hypotheses]},
            recipe.evaluation.metrics,
            recipe.corpus.target,
            corpus.batches(),
            translator,
        )
        sets.append(examined)
        for score in examined.scores.scores:
            _log.info("%-10s %s %.2f  %s", name, score.metric, score.score, score.signature)
        kept, total = placeholder_fidelity(sources, hypotheses)
        if total:
            share = f"{kept} of {total} sentences ({100 * kept / total:.1f}%)"
            fidelity.append((f"Placeholders kept, {name}", share))
            _log.info("%-10s placeholders kept in %s", name, share)
    all_scores = [one.scores for one in sets]
    recipe_yaml = published(recipe)
    card = model_card(bundle.languages, [*facts, *fidelity], all_scores, recipe_yaml)
    save_bundle(bundle._replace(card=card), run.bundle)
    flow = None
    if recipe.evaluation.gradient_flow:
        pairs = corpus.valid[:_FLOW_SENTENCES]
        flow = gradient_flow(translator, pairs["source"], pairs["target"])
    write_report(
        run.path,
        ReportData(
            title=run.path.name,
            sets=sets,
            languages=bundle.languages,
            facts=facts,
            cleaning=[(rule.rule, rule.dropped) for rule in corpus.cleaning if rule.rule != "read"],
            curves=run.path / "metrics.csv",
            gradient_flow=flow,
            recipe_yaml=recipe_yaml,
            translations_per_second=sum(map(len, translated.values())) / max(seconds, 1e-9),
        ),
    )
    _log.info("report     %s", run.path / "report.html")
    _log.info("translator %s", run.bundle)


def _shortlist(
    recipe: Recipe, translator: Translator, corpus: ParallelCorpus
) -> tuple[Shortlist, str]:
    """Learn a lexical shortlist, and say in words how much it holds."""
    pairs = len(corpus.train)
    shortlist = learn_shortlist(translator, corpus.batches(), pairs, recipe.shortlist)
    sources, targets = (list(corpus.valid[side]) for side in ("source", "target"))
    share, size = coverage(shortlist, translator, sources, targets)
    described = f"{size:,.0f} tokens a sentence, {100 * share:.1f}% of the validation text's"
    _log.info("shortlist  %s", described)
    return shortlist, described


def _facts(
    described: dict[str, Any], corpus: ParallelCorpus, model: Seq2Seq
) -> list[tuple[str, str]]:
    """Say in words what the model was made from; `described` is its environment."""
    hardware = described["hardware"]
    threads = f"{hardware['threads']} thread{'s' * (hardware['threads'] > 1)}"
    machine = ", ".join(hardware["gpus"]) or f"{hardware['cpu']}, {threads}"
    return [
        ("Data", "; ".join(corpus.origin)),
        ("Training pairs", f"{len(corpus.train):,}"),
        ("Parameters", f"{_parameters(model):,}"),
        ("Hardware", machine),
        ("Seed", str(described["seed"])),
        ("Version", f"mt {described['mt']}, commit {described['commit'] or 'unknown'}"),
    ]


def _parameters(model: Seq2Seq) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
