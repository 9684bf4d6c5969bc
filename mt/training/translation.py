"""A translator's run: corpus, tokenizer, training, evaluation, report."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mt.batches import Batch
from mt.bundle import Bundle, load_bundle, save_bundle
from mt.corpus import ParallelCorpus, cleaning_table, load_corpus
from mt.errors import MTError
from mt.evaluation.card import model_card
from mt.evaluation.evaluate import examine
from mt.evaluation.gradients import gradient_flow
from mt.evaluation.report import ReportData, write_report
from mt.evaluation.scores import corpus_score, placeholder_fidelity
from mt.lines import duration, read_lines
from mt.nn.seq2seq import Seq2Seq
from mt.options import teacher_recipe
from mt.recipe import Training, TranslationRecipe
from mt.search.shortlist import Shortlist
from mt.tokenizer import PAD, Tokenizers, train_tokenizer
from mt.training.distillation import (
    TargetText,
    Teacher,
    back_translator,
    read_target_text,
    tagged,
    teachers,
    translate_corpus,
    translated,
)
from mt.training.environment import environment
from mt.training.fit import Run, facts, fit, leads, parameters
from mt.training.folder import RunFolder, published
from mt.training.initial import copy_weights, freeze, open_initial
from mt.training.losses import linear_cross_entropy, r_drop_cross_entropy
from mt.training.module import StepSums, TrainingModule
from mt.training.parallel_text import ParallelText
from mt.training.shortlist import coverage, learn_shortlist
from mt.training.sizing import choose_sizes
from mt.training.trainer import make_trainer
from mt.training.validation import Measured, Moment, across_devices
from mt.translator import Translator

_log = logging.getLogger("mt")
_FLOW_SENTENCES = 200
"""Validation pairs that the report's gradient flow is measured on."""


class TranslationModule(TrainingModule):
    """A translation network with its loss."""

    model: Seq2Seq
    training_options: Training

    def loss_sums(self, batch: Batch) -> StepSums:
        """Sum the loss over a batch's target tokens; padding never reaches the output layer."""
        options, output = self.training_options, self.model.output
        inputs = [batch.source, batch.source_lengths, batch.target_in]
        real = batch.target_out != PAD
        targets = batch.target_out[real]
        if options.r_drop and self.model.training:  # without dropout, both passes would be the same
            vectors = self.model(*(torch.cat((part, part)) for part in inputs))
            features = vectors[torch.cat((real, real))]
            loss = r_drop_cross_entropy(
                features,
                output.weight,
                output.bias,
                targets,
                options.label_smoothing,
                options.r_drop,
            )
        else:
            features = self.model(*inputs)[real]
            loss = linear_cross_entropy(
                features, output.weight, output.bias, targets, options.label_smoothing
            )
        return StepSums(*loss, int(batch.source_lengths.sum()), int(real.sum()))


class TranslationMeasure:
    """Perplexity and BLEU on validation text; see `Measure`.

    Args:
        pairs: Its sources and references.
        recipe: Says how to search, and what TensorBoard shows beside the BLEU that selects.
        bundle: All of a bundle but its weights, for decoding.
    """

    def __init__(
        self, pairs: tuple[list[str], list[str]], recipe: TranslationRecipe, bundle: Bundle
    ):
        self.pairs, self.training, self.bundle = pairs, recipe.training, bundle
        beam_size = recipe.training.validation_beam_size
        self.search = replace(recipe.search, beam_size=beam_size, n_best=1)
        self.metrics = recipe.evaluation.metrics

    def __call__(self, model: Seq2Seq, moment: Moment) -> Measured:
        """Measure a network."""
        translator = Translator(self.bundle._replace(model=model), moment.device)
        pairs = list(zip(*self.pairs, strict=True))
        scored = across_devices(pairs, lambda part: translator.score(*_columns(part)))
        nll = -sum(log_probability for log_probability, _ in scored)
        loss = nll / max(1, sum(tokens for _, tokens in scored))
        perplexity = math.exp(min(loss, 50))
        row = {"valid_loss": loss, "valid_perplexity": perplexity}
        told = f"validation perplexity {perplexity:.2f}"
        if not moment.last and moment.step < self.training.validation_start:
            return Measured(row, told)
        count = self.training.validation_sentences or len(pairs)
        sources, references = (column[:count] for column in self.pairs)
        hypotheses = across_devices(sources, lambda part: translator.translate(part, self.search))
        bleu = self._score("bleu", hypotheses, references)
        chosen = sorted({0, len(sources) // 3, 2 * len(sources) // 3})
        samples = "\n".join(
            f"  source     {sources[n]}\n  reference  {references[n]}\n  output     {hypotheses[n]}"
            for n in chosen
        )
        if moment.board is not None:
            for metric in self.metrics:
                if metric != "bleu":
                    value = self._score(metric, hypotheses, references)
                    moment.board.add_scalar(f"valid_{metric}", value, moment.step)
            if model.architecture.attention != "none":
                seen = translator.align(
                    [sources[n] for n in chosen], [hypotheses[n] for n in chosen]
                )
                for number, one in enumerate(seen, 1):
                    if one.weights.size:
                        moment.board.add_image(
                            f"attention/{number}",
                            _picture(one.weights),
                            moment.step,
                            dataformats="HW",
                        )
        return Measured({**row, "valid_bleu": bleu}, told, bleu, f"BLEU {bleu:.2f}", samples)

    def _score(self, metric: str, hypotheses: list[str], references: list[str]) -> float:
        language = self.bundle.languages[1]
        return corpus_score(metric, hypotheses, [references], target_language=language).score


def _picture(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Paint attention, translated words downwards and source words across, black for all of it."""
    side = np.ones((16, 16), np.float32)  # pixels
    return 1 - np.kron(weights.clip(0, 1), side)


def _columns(pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [source for source, _ in pairs], [target for _, target in pairs]


def _check_teachers(recipe: TranslationRecipe, folder: RunFolder) -> None:
    """Refuse teachers that could not be trained or read, before any text is fetched."""
    teachers(recipe, folder)
    alone = recipe.back_translation
    if alone.files is not None:
        back_translator(recipe, folder)
        next(read_lines(Path(alone.files)), "")
    back = alone.files is not None and alone.bundle is None
    if recipe.distillation.forward or recipe.distillation.backward or back:
        try:
            make_trainer(teacher_recipe(recipe), folder.teachers)
        except MTError as error:
            raise MTError(f"distillation.teacher: {error}") from error


def train_translator(run: Run[TranslationRecipe]) -> None:
    """Go from raw text to an evaluated translator.

    Raises:
        MTError: A mistake in the recipe, the corpus or the run folder.
    """
    _check_teachers(run.recipe, run.folder)
    recipe, initial, reasons = open_initial(run.recipe)
    corpus = load_corpus(recipe.corpus)
    _log.info("corpus     %s\n%s", "; ".join(corpus.origin), cleaning_table(corpus))
    try:
        recipe, more = choose_sizes(recipe, len(corpus.train), lambda: both_sides(corpus))
    except ValueError as error:  # what was chosen clashes with what was set
        raise MTError(str(error)) from error
    for reason in (*reasons, *more):
        _log.info("chosen     %s", reason)
    if initial is None or recipe.new_tokenizer:
        tokenizers = make_tokenizers(recipe, corpus)
    else:
        tokenizers = initial.tokenizers
    _log.info("tokenizer  %s", " + ".join(f"{len(t):,} tokens" for t in dict.fromkeys(tokenizers)))
    _train(run._replace(recipe=recipe), corpus, tokenizers, initial)


def _train(
    run: Run[TranslationRecipe],
    corpus: ParallelCorpus,
    tokenizers: Tokenizers,
    initial: Bundle | None,
) -> None:
    """Train on a corpus, with its teachers first, and evaluate."""
    recipe, folder, device = run.recipe, run.folder, run.trainer.strategy.root_device
    text = ParallelText(corpus.batches(), tokenizers, recipe.batches)
    if len(text.kept) == 0:
        raise MTError("batches.max_length: every training pair is longer; raise it")
    back = alone = None
    if recipe.back_translation.files is not None:
        back = back_translator(recipe, folder)
        alone = read_target_text(recipe, corpus)
        _log.info("alone      %s lines in the target language", f"{len(alone.train):,}")
    digest = corpus.digest if alone is None else f"{corpus.digest}+{alone.digest}"
    described = environment(recipe.seed, digest)
    torch.manual_seed(recipe.seed)
    model = Seq2Seq(recipe.model, len(tokenizers.source), len(tokenizers.target))
    if initial is not None:
        copied = copy_weights(model, tokenizers, initial)
        _log.info("weights    from %s, %s known", recipe.init_from, copied)
    freeze(model, recipe.training.freeze)
    taught_by = teachers(recipe, folder)
    if leads():  # now that nothing is wrong, a run that lies there may go
        folder.prepare(recipe, described, run.resume, run.overwrite)
    told = facts(described, corpus.origin, ("Training pairs", len(corpus.train)), model)
    counts = []
    if taught_by:
        _teach(run, taught_by, corpus, tokenizers)
        if not recipe.distillation.original:
            text = ParallelText((), tokenizers, recipe.batches)
        for teacher in taught_by:
            before = len(text.sources)
            text.extend(translated(teacher, corpus))
            counts.append(f"{len(text.sources) - before:,} ({teacher.name})")
    if back is not None and alone is not None:
        _teach(run, [back], corpus, tokenizers, alone)
        before = len(text.sources)
        text.extend(tagged(translated(back, alone), recipe.back_translation.tag))
        counts.append(f"{len(text.sources) - before:,} ({back.name})")
    if counts:
        told.append(("Pairs by teachers", ", ".join(counts)))
    languages = recipe.corpus.source, recipe.corpus.target
    bundle = Bundle(model, tokenizers, languages, recipe.search)
    _log.info("model      %s parameters", f"{parameters(model):,}")

    def keep(best: Seq2Seq) -> None:
        card = model_card(languages, told, [], published(recipe))
        save_bundle(bundle._replace(model=best, card=card), folder.bundle)

    pairs = list(corpus.valid["source"]), list(corpus.valid["target"])
    seconds = fit(
        run,
        text,
        lambda limits: TranslationModule(model, recipe.training, recipe.seed, limits),
        TranslationMeasure(pairs, recipe, bundle),
        ("valid_loss", "valid_perplexity", "valid_bleu"),
        keep,
    )
    if run.observe is not None:
        return
    told += [("Training time", duration(seconds) + ", after the teachers'" * bool(counts))]
    _evaluate(recipe, folder, corpus, device, told)


def _teach(
    run: Run[TranslationRecipe],
    taught_by: list[Teacher],
    corpus: ParallelCorpus,
    tokenizers: Tokenizers,
    text: TargetText | None = None,
) -> None:
    """Train the teachers, and let them translate `text`, by default the training text."""
    recipe = run.recipe
    # Those of a trial are not measured on test text either; nothing ends their training early.
    observe = None if run.observe is None else lambda step, measured: False
    for teacher in taught_by:
        if teacher.recipe is not None and not teacher.run.scores.exists():
            _log.info("teacher    %s is trained first", teacher.name)
            trainer = make_trainer(teacher.recipe, teacher.run.path)
            resume = teacher.run.recipe.exists()
            _train(
                Run(trainer, teacher.recipe, teacher.run, resume, False, observe),
                corpus.turn() if teacher.backward else corpus,
                Tokenizers(*tokenizers[::-1]) if teacher.backward else tokenizers,
                initial=None,
            )
            trainer.strategy.barrier()  # the first process saves the bundle last
        beam_size = recipe.distillation.beam_size
        if text is not None:
            beam_size = recipe.back_translation.beam_size
        device = run.trainer.strategy.root_device
        translate_corpus(teacher, corpus if text is None else text, beam_size, device)


def both_sides(corpus: ParallelCorpus) -> Iterator[str]:
    """Yield the training text, source side first."""
    return chain(_side(corpus, 0), _side(corpus, 1))


def _side(corpus: ParallelCorpus, side: int) -> Iterator[str]:
    for batch in corpus.batches():
        yield from batch[side]


def make_tokenizers(recipe: TranslationRecipe, corpus: ParallelCorpus) -> Tokenizers:
    """Train the tokenizers of both sides on a corpus; a joint one is both."""
    spec, back = recipe.tokenizer, recipe.back_translation
    if back.files is not None and back.tag and back.tag not in spec.user_symbols:
        spec = replace(spec, user_symbols=[*spec.user_symbols, back.tag])
    if spec.joint:
        joint = train_tokenizer(spec, lambda: both_sides(corpus))
        return Tokenizers(joint, joint)
    return Tokenizers(
        train_tokenizer(spec, lambda: _side(corpus, 0)),
        train_tokenizer(spec, lambda: _side(corpus, 1)),
    )


def _evaluate(
    recipe: TranslationRecipe,
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
    recipe: TranslationRecipe, translator: Translator, corpus: ParallelCorpus
) -> tuple[Shortlist, str]:
    """Learn a lexical shortlist, and say in words how much it holds."""
    pairs = len(corpus.train)
    shortlist = learn_shortlist(translator, corpus.batches(), pairs, recipe.shortlist)
    sources, targets = (list(corpus.valid[side]) for side in ("source", "target"))
    share, size = coverage(shortlist, translator, sources, targets)
    described = f"{size:,.0f} tokens a sentence, {100 * share:.1f}% of the validation text's"
    _log.info("shortlist  %s", described)
    return shortlist, described
