"""Teachers: who they are, and what they make of the training text."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import torch

from mt.bundle import Bundle, load_bundle
from mt.corpus import ParallelCorpus
from mt.corpus.store import hash_text
from mt.corpus.text import keep_lines, normal
from mt.errors import MTError
from mt.files import write_atomically
from mt.lines import duration, read_lines
from mt.options import teacher_recipe
from mt.recipe import Corpus, TextCleaning, TextCorpus, TranslationRecipe
from mt.training.folder import RunFolder
from mt.training.validation import across_devices
from mt.translator import Translator

_log = logging.getLogger("mt")
_BATCH = 10_000
"""Lines of target text in a file of translations."""
_SLICE = 1000
"""Sentences that are translated between two lines of progress."""


class Teacher(NamedTuple):
    """One who translates the training text."""

    run: RunFolder
    """Where it is trained; also holds `translations/`, a file for each batch of the corpus, a line
    for each sentence."""
    backward: bool
    """Whether it translates from target to source."""
    recipe: TranslationRecipe | None
    """How it is trained; None for one that came as a bundle."""
    given: Bundle | None
    """The bundle that it came as."""

    @property
    def name(self) -> str:
        """Such as `forward-1`."""
        return self.run.path.name

    @property
    def bundle(self) -> Bundle:
        """The translator, once it is trained."""
        return self.given or load_bundle(self.run.bundle)


def teachers(recipe: TranslationRecipe, run: RunFolder) -> list[Teacher]:
    """List the teachers of a recipe.

    Args:
        recipe: With its sizes chosen.
        run: The run that they teach in.

    Raises:
        MTError: A bundle cannot be read, or is of other languages than the corpus.
    """
    options, found = recipe.distillation, []
    base = teacher_recipe(recipe)
    for kind, count in (("forward", options.forward), ("backward", options.backward)):
        for number in range(1, count + 1):
            folder, backward = RunFolder(run.teachers / f"{kind}-{number}"), kind == "backward"
            own = replace(base, seed=(recipe.seed + number) % 2**32)
            if backward:
                own = replace(own, corpus=_turned(own.corpus))
            found.append(Teacher(folder, backward, own, None))
    languages = recipe.corpus.source, recipe.corpus.target
    for number, place in enumerate(options.teachers, 1):
        bundle = load_bundle(Path(place))
        if bundle.languages not in (languages, languages[::-1]):
            raise MTError(
                f"distillation.teachers: {place} translates from {' to '.join(bundle.languages)}; "
                f"name a bundle between {' and '.join(languages)}"
            )
        folder = RunFolder(run.teachers / f"bundle-{number}")
        found.append(Teacher(folder, bundle.languages != languages, None, bundle))
    return found


def _turned(corpus: Corpus) -> Corpus:
    """Return what describes the same text, to translate in the other direction."""
    rules = corpus.cleaning
    return replace(
        corpus,
        source=corpus.target,
        target=corpus.source,
        source_column=corpus.target_column,
        target_column=corpus.source_column,
        sources=[
            replace(one, source_column=one.target_column, target_column=one.source_column)
            for one in corpus.sources
        ],
        cleaning=replace(
            rules, source_script=rules.target_script, target_script=rules.source_script
        ),
    )


def back_translator(recipe: TranslationRecipe, run: RunFolder) -> Teacher:
    """Tell who translates text of the target language back.

    Arguments and errors are those of `teachers`.
    """
    folder, options = RunFolder(run.teachers / "back-translation"), recipe.back_translation
    if options.bundle is None:
        # As another backward teacher would be: the options of `distillation.teacher` hold for it.
        own = replace(teacher_recipe(recipe), seed=(recipe.seed - 1) % 2**32)
        return Teacher(folder, True, replace(own, corpus=_turned(own.corpus)), None)
    bundle, languages = (
        load_bundle(Path(options.bundle)),
        (recipe.corpus.target, recipe.corpus.source),
    )
    if bundle.languages != languages:
        raise MTError(
            f"back_translation.bundle: {options.bundle} translates from "
            f"{' to '.join(bundle.languages)}; name one from {' to '.join(languages)}"
        )
    return Teacher(folder, True, None, bundle)


class TargetText(NamedTuple):
    """Text in the target language alone, in the shape of a corpus that a backward teacher reads."""

    train: list[str]
    """Its lines."""

    @property
    def digest(self) -> str:
        """Hash of the lines."""
        return hash_text("\n".join(self.train)).hex()

    def batches(self) -> Iterator[tuple[list[str], list[str]]]:
        """Read it, a batch at a time; there are no sources."""
        for start in range(0, len(self.train), _BATCH):
            yield [], self.train[start : start + _BATCH]


def read_target_text(recipe: TranslationRecipe, corpus: ParallelCorpus) -> TargetText:
    """Read the text that is to be translated back, and clean it.

    Raises:
        MTError: The file cannot be read, or nothing in it is left.
    """
    rules, path = recipe.corpus.cleaning, Path(recipe.back_translation.files or "")
    alone = TextCorpus(
        language=corpus.target_language,
        cleaning=TextCleaning(
            min_words=rules.min_words,
            max_words=rules.max_words,
            control_characters=rules.control_characters,
            script=rules.target_script,
            duplicates=rules.duplicates,
            held_out=rules.held_out,
        ),
    )

    def everything() -> Iterator[str]:
        return map(normal, read_lines(path))

    valid, tests = list(corpus.valid["target"]), corpus.tests.items()
    held_out = {name: list(pairs["target"]) for name, pairs in tests}
    keep, _ = keep_lines(alone, everything, valid, held_out, f"back_translation.files: {path}")
    return TargetText(list(compress(everything(), keep)))


def tagged(
    pairs: Iterator[tuple[list[str], list[str]]], tag: str
) -> Iterator[tuple[list[str], list[str]]]:
    """Let every source begin with a tag."""
    for sources, targets in pairs:
        yield [f"{tag} {source}" if tag else source for source in sources], targets


def translate_corpus(
    teacher: Teacher, corpus: ParallelCorpus | TargetText, beam_size: int, device: torch.device
) -> None:
    """Let a teacher translate the training text into its folder.

    A batch that has been translated is not translated again. Each is shared out to all training
    processes, where they have been started.

    Args:
        teacher: Trained.
        corpus: The text.
        beam_size: Of its search.
        device: Where to compute.
    """
    translator = Translator(teacher.bundle, device)
    search = replace(translator.options, beam_size=beam_size, n_best=1)
    done, total, fresh, began = 0, len(corpus.train), 0, time.monotonic()
    for path, given in _files(teacher, corpus):
        if path.exists():
            done += len(given)
            continue
        lines: list[str] = []
        for start in range(0, len(given), _SLICE):
            part = given[start : start + _SLICE]
            lines += across_devices(part, lambda texts: translator.translate(texts, search))
            done, fresh = done + len(part), fresh + len(part)
            rate = fresh / (time.monotonic() - began)
            _log.info(
                "teacher    %s: %s of %s sentences translated · %.0f sentences/s · %s left",
                *(teacher.name, f"{done:,}", f"{total:,}", rate),
                duration((total - done) / rate),
            )
        write_atomically(path, "".join(line + "\n" for line in lines))


def translated(
    teacher: Teacher, corpus: ParallelCorpus | TargetText
) -> Iterator[tuple[list[str], list[str]]]:
    """Read the training text with one side in a teacher's words, batch by batch.

    Yields:
        Sources and their targets, in the corpus's direction; blank translations are left out.
    """
    for path, given in _files(teacher, corpus):
        pairs = zip(given, path.read_text(encoding="utf-8").split("\n"), strict=False)
        kept = [(text, line) for text, line in pairs if line.strip()]
        texts, lines = [text for text, _ in kept], [line for _, line in kept]
        yield (lines, texts) if teacher.backward else (texts, lines)


def _files(
    teacher: Teacher, corpus: ParallelCorpus | TargetText
) -> Iterator[tuple[Path, list[str]]]:
    """Yield the file of each batch's translations, and what they are translations of."""
    for number, (sources, targets) in enumerate(corpus.batches()):
        given = targets if teacher.backward else sources
        yield teacher.run.path / "translations" / f"{number:05}.txt", given
