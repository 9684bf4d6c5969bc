"""A whole run: corpus, tokenizer, training, evaluation, report."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger

from mt.bundle import Bundle, load_bundle, save_bundle
from mt.corpus import ParallelCorpus, cleaning_table, load_corpus
from mt.errors import MTError
from mt.evaluation.card import model_card
from mt.evaluation.report import Example, ReportData, TestSet, write_report
from mt.evaluation.scores import SetScores, corpus_score, placeholder_fidelity, write_scores
from mt.files import check_folder, write_atomically
from mt.nn.seq2seq import Seq2Seq
from mt.recipe import Recipe
from mt.tokenizer import Tokenizers, train_tokenizer
from mt.training.checkpoints import Checkpoints, newest_whole_checkpoint
from mt.training.datamodule import DataModule, ParallelText
from mt.training.environment import environment
from mt.training.module import Budget, TranslationModule
from mt.training.progress import Metrics, Progress, duration
from mt.training.sizing import choose_sizes
from mt.training.validation import Validation, ValidationSet, across_devices
from mt.translator import Translator

_log = logging.getLogger("mt")


class RunFolder(NamedTuple):
    """Where a run writes."""

    path: Path

    @property
    def bundle(self) -> Path:
        """The best weights so far, as a translator."""
        return self.path / "bundle"

    @property
    def checkpoints(self) -> Path:
        """States to resume from."""
        return self.path / "checkpoints"

    @property
    def scores(self) -> Path:
        """The scores; they are written last and mark a finished run."""
        return self.path / "scores.json"

    @property
    def recipe(self) -> Path:
        """The recipe, fully resolved."""
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """What the run runs on, and the hash of its text."""
        return self.path / "environment.json"

    def clear(self) -> None:
        """Remove what a run has written, and nothing else."""
        for folder in (self.bundle, self.checkpoints, self.path / "tensorboard"):
            if folder.exists():
                shutil.rmtree(folder)
        for name in (
            "scores.json",
            "report.html",
            "metrics.csv",
            "recipe.yaml",
            "environment.json",
        ):
            (self.path / name).unlink(missing_ok=True)


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
    # Whoever launches the processes (Lightning, torchrun, SLURM), the first has no other number.
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    leader = all(int(os.environ.get(name, "0")) == 0 for name in ranks)
    trainer = _make_trainer(recipe, run)  # a mistake is told before the corpus is fetched
    if leader:
        _check_folder(run, resume, overwrite)
    else:
        _log.setLevel(logging.WARNING)  # one process tells
    corpus = load_corpus(recipe.corpus)
    _log.info("corpus     %s\n%s", "; ".join(corpus.origin), cleaning_table(corpus))
    try:
        recipe, reasons = choose_sizes(recipe, len(corpus.train), lambda: _both_sides(corpus))
    except ValueError as error:  # what was chosen clashes with what was set
        raise MTError(str(error)) from error
    for reason in reasons:
        _log.info("chosen     %s", reason)
    budget_of = _budget(recipe)
    tokenizers = _tokenizers(recipe, corpus)
    _log.info("tokenizer  %s", " + ".join(f"{len(t):,} tokens" for t in dict.fromkeys(tokenizers)))
    text = ParallelText(
        corpus.train["source"],
        corpus.train["target"],
        tokenizers,
        recipe.tokenizer,
        recipe.batches,
    )
    if len(text.kept) == 0:
        raise MTError("batches.max_length: every training pair is longer; raise it")
    described = environment(recipe.seed, corpus.digest)
    torch.manual_seed(recipe.seed)
    model = Seq2Seq(recipe.model, len(tokenizers.source), len(tokenizers.target))
    if leader:  # now that nothing is wrong, a run that lies there may go
        _prepare_folder(run, recipe, described, resume, overwrite)
    languages = recipe.corpus.source, recipe.corpus.target
    bundle = Bundle(model, tokenizers, languages, recipe.search)
    facts = _facts(described, corpus, model)
    _log.info("model      %s parameters", f"{_parameters(model):,}")

    def keep(best: Bundle) -> None:
        card = model_card(best.languages, facts, [], _published(recipe))
        save_bundle(best._replace(card=card), run.bundle)

    seconds = _fit(trainer, recipe, run, text, corpus, bundle, keep, budget_of, resume)
    facts += [("Training time", duration(seconds))]
    _evaluate(recipe, run, corpus, trainer.strategy.root_device, facts)


def _check_folder(run: RunFolder, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise MTError("--resume and --overwrite exclude each other; give one of them")
    check_folder(run.path, "--output")
    if resume or overwrite:
        return
    if run.scores.exists():
        raise MTError(
            f"{run.path}: a finished run is there; --resume goes on with a larger budget, "
            "--overwrite starts again"
        )
    if run.checkpoints.exists() or run.bundle.exists():
        raise MTError(
            f"{run.path}: an unfinished run is there; --resume goes on, --overwrite starts again"
        )


def _prepare_folder(
    run: RunFolder, recipe: Recipe, described: dict[str, Any], resume: bool, overwrite: bool
) -> None:
    if overwrite:
        run.clear()
    if resume and run.recipe.exists():
        _check_same_run(run, recipe, described)
    try:
        run.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MTError(f"{run.path}: cannot make the run folder ({error.strerror})") from error
    write_atomically(run.environment, json.dumps(described, indent=2) + "\n")
    write_atomically(run.recipe, recipe_yaml(recipe))


def _check_same_run(run: RunFolder, recipe: Recipe, described: dict[str, Any]) -> None:
    """Refuse to resume where the weights or the data would not be the same."""
    try:
        before = _kept_on_resume(yaml.safe_load(run.recipe.read_text()))
        text = json.loads(run.environment.read_text())["corpus"]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise MTError(f"{run.path}: damaged; start again with --overwrite") from error
    for name, value in _kept_on_resume(yaml.safe_load(recipe_yaml(recipe))).items():
        if before.get(name) != value:
            raise MTError(
                f"{run.recipe}: `{name}` differs from the run that --resume would go on with; "
                "take the change back, or start again with --overwrite"
            )
    if text != described["corpus"]:
        raise MTError(
            f"{run.path}: the text is not that of the run that --resume would go on with; take "
            "the change back, or start again with --overwrite"
        )


def _kept_on_resume(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return, by dotted name, what decides the weights, the optimizer's state and the data."""
    sections = ("corpus", "tokenizer", "model", "batches")
    fields = {f"{s}.{name}": value for s in sections for name, value in recipe[s].items()}
    del fields["batches.workers"]
    training = recipe["training"]
    return {
        **fields,
        "training.optimizer": training["optimizer"],
        "training.ema": training["ema"] > 0,  # its decay may change, but not that there is one
        "seed": recipe["seed"],
    }


def recipe_yaml(recipe: Recipe) -> str:
    """Write a recipe as YAML that `mt train` reads back."""
    plain = json.loads(json.dumps(asdict(recipe)))  # tuples become lists
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def _published(recipe: Recipe) -> str:
    """Write a recipe for others to read: folders of this machine are none of their business."""

    def name(files: str | None) -> str | None:
        return None if files is None else Path(files).name

    corpus = recipe.corpus
    sources = [replace(source, files=name(source.files)) for source in corpus.sources]
    return recipe_yaml(
        replace(recipe, corpus=replace(corpus, files=name(corpus.files), sources=sources))
    )


def _both_sides(corpus: ParallelCorpus) -> Iterator[str]:
    return chain(_column(corpus, "source"), _column(corpus, "target"))


def _column(corpus: ParallelCorpus, name: str) -> Iterator[str]:
    for rows in corpus.train.select_columns([name]).iter(batch_size=10_000):
        yield from rows[name]


def _tokenizers(recipe: Recipe, corpus: ParallelCorpus) -> Tokenizers:
    spec = recipe.tokenizer
    if spec.joint:
        joint = train_tokenizer(spec, lambda: _both_sides(corpus))
        return Tokenizers(joint, joint)
    return Tokenizers(
        train_tokenizer(spec, lambda: _column(corpus, "source")),
        train_tokenizer(spec, lambda: _column(corpus, "target")),
    )


def _budget(recipe: Recipe) -> Callable[[int], Budget]:
    """Read the budget from the trainer's options; it still needs the updates of an epoch."""
    epochs, steps = (_limit(recipe, name) for name in ("max_epochs", "max_steps"))
    seconds = _seconds(recipe.trainer.get("max_time"))

    def budget(updates_per_epoch: int) -> Budget:
        updates = [n for n in (epochs and epochs * updates_per_epoch, steps) if n]
        return Budget(min(updates) if updates else None, seconds)

    return budget


def _limit(recipe: Recipe, name: str) -> int | None:
    limit: int | None = recipe.trainer.get(name)
    if limit in (None, -1):  # Lightning's ways to say: no limit
        return None
    if limit < 1:
        raise MTError(f"trainer.{name}: must be at least 1, or -1 for no limit, not {limit}")
    return limit


def _seconds(max_time: Any) -> float | None:
    """Read Lightning's `max_time`: `DD:HH:MM:SS` or a mapping of timedelta's arguments."""
    if max_time is None:
        return None
    try:
        if isinstance(max_time, str):
            days, hours, minutes, seconds = (int(part) for part in max_time.split(":"))
            max_time = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        length = max_time if isinstance(max_time, timedelta) else timedelta(**max_time)
    except (TypeError, ValueError) as error:
        raise MTError(
            f"trainer.max_time: {max_time!r} is no duration; write DD:HH:MM:SS, such as 00:01:30:00"
        ) from error
    if length <= timedelta(0):
        raise MTError(f"trainer.max_time: must be longer than {max_time!r}")
    return length.total_seconds()


def _validation_interval(recipe: Recipe, updates_per_epoch: int) -> int:
    """Read Lightning's two options: updates (an integer) or epochs (a fraction) between checks."""
    interval = recipe.trainer.get("val_check_interval") or 1.0
    epochs = recipe.trainer.get("check_val_every_n_epoch") or 1
    if isinstance(interval, int):
        return interval
    return max(1, round(float(interval) * epochs * updates_per_epoch))


_OURS = (
    "max_epochs",
    "max_steps",
    "max_time",
    "val_check_interval",
    "check_val_every_n_epoch",
    "log_every_n_steps",
)
"""Trainer options that are carried out here, because Lightning sees a run as one long epoch."""


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence Lightning's advice on loader processes, progress bars and GPUs that are not used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # the recipe decides these
        yield


def _make_trainer(recipe: Recipe, run: RunFolder) -> L.Trainer:
    """Check the trainer's options and make it, without callbacks yet."""
    given = recipe.trainer
    updates = [_limit(recipe, name) for name in ("max_epochs", "max_steps")]
    seconds = _seconds(given.get("max_time"))
    if not any([*updates, seconds]) and "trainer.max_epochs" not in recipe.auto:
        raise MTError(
            "the run has no end; set trainer.max_epochs, trainer.max_steps or trainer.max_time"
        )
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps"):
        if (value := given.get(name)) is not None and value < 1:
            raise MTError(f"trainer.{name}: must be at least 1, not {value}")
    if (given.get("gradient_clip_val") or 0) < 0:
        raise MTError("trainer.gradient_clip_val: must be above 0, or 0 for no clipping")
    interval = given.get("val_check_interval")
    if interval is not None and not (isinstance(interval, (int, float)) and interval > 0):
        raise MTError(
            f"trainer.val_check_interval: {interval!r} is neither a number of updates, such as "
            "500, nor a share of an epoch, such as 0.5"
        )
    precision = str(given.get("precision", "32-true"))
    if "16" in precision and not precision.startswith("bf16"):
        raise MTError(
            f"trainer.precision: {precision} overflows without loss scaling, which is not "
            "supported; use bf16-mixed"
        )
    options = {name: value for name, value in given.items() if name not in _OURS}
    try:
        with _without_advice():
            return L.Trainer(
                **options,
                max_epochs=1,
                logger=TensorBoardLogger(run.path, name="tensorboard", version=""),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                limit_val_batches=0,
                num_sanity_val_steps=0,
            )
    except (MisconfigurationException, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise MTError(f"trainer: {reason}; see `mt train --help`") from error


def _fit(
    trainer: L.Trainer,
    recipe: Recipe,
    run: RunFolder,
    text: ParallelText,
    corpus: ParallelCorpus,
    bundle: Bundle,
    keep: Callable[[Bundle], None],
    budget_of: Callable[[int], Budget],
    resume: bool,
) -> float:
    """Train, and return the seconds that it took, over all resumptions."""
    parts = trainer.world_size * trainer.accumulate_grad_batches
    per_epoch = text.updates(recipe.batches.tokens * parts)
    budget = budget_of(per_epoch)
    module = TranslationModule(bundle.model, recipe.training, recipe.seed, budget)
    assert isinstance(trainer.logger, TensorBoardLogger)
    metrics = Metrics(run.path / "metrics.csv", trainer.logger, trainer.is_global_zero)
    progress = Progress(metrics, per_epoch, recipe.trainer.get("log_every_n_steps", 50))
    checkpoints = Checkpoints(run.checkpoints, recipe.training.checkpoint_minutes)
    validation = Validation(
        ValidationSet(list(corpus.valid["source"]), list(corpus.valid["target"])),
        _validation_interval(recipe, per_epoch),
        recipe.training,
        recipe.search,
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
        with _without_advice():
            trainer.fit(
                module,
                datamodule=DataModule(text, recipe.seed, budget.updates or 1 << 60),
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
    language = recipe.corpus.target
    sets, fidelity, seconds, sentences = [], [], 0.0, 0
    for name, pairs in corpus.tests.items():
        sources, references = list(pairs["source"]), list(pairs["target"])
        began = time.monotonic()
        hypotheses = across_devices(sources, translator.translate)
        seconds += time.monotonic() - began
        sentences += len(sources)
        scores = SetScores(
            name,
            len(sources),
            [
                corpus_score(metric, hypotheses, [references], target_language=language)
                for metric in recipe.evaluation.metrics
            ],
        )
        examples = [Example(*row) for row in zip(sources, references, hypotheses, strict=True)]
        sets.append(TestSet(scores, examples))
        for score in scores.scores:
            _log.info("%-10s %s %.2f  %s", name, score.metric, score.score, score.signature)
        kept, total = placeholder_fidelity(sources, hypotheses)
        if total:
            share = f"{kept} of {total} sentences ({100 * kept / total:.1f}%)"
            fidelity.append((f"Placeholders kept, {name}", share))
            _log.info("%-10s placeholders kept in %s", name, share)
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return
    all_scores = [one.scores for one in sets]
    described = _published(recipe)
    card = model_card(bundle.languages, [*facts, *fidelity], all_scores, described)
    save_bundle(bundle._replace(card=card), run.bundle)
    write_report(
        run.path / "report.html",
        ReportData(
            title=run.path.name,
            sets=sets,
            languages=bundle.languages,
            facts=facts,
            cleaning=[(rule.rule, rule.dropped) for rule in corpus.cleaning],
            curves=run.path / "metrics.csv",
            recipe_yaml=described,
            translations_per_second=sentences / seconds if seconds else None,
        ),
    )
    write_scores(run.scores, all_scores)
    _log.info("report     %s", run.path / "report.html")
    _log.info("translator %s", run.bundle)


def _facts(
    described: dict[str, Any], corpus: ParallelCorpus, model: Seq2Seq
) -> list[tuple[str, str]]:
    """Say in words what the model was made from; `described` is its environment."""
    hardware = described["hardware"]
    machine = ", ".join(hardware["gpus"]) or f"{hardware['cpu']}, {hardware['threads']} threads"
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


def with_seed(recipe: Recipe, seed: int | None) -> Recipe:
    """Replace a recipe's seed, where one is given."""
    return recipe if seed is None else replace(recipe, seed=seed)
