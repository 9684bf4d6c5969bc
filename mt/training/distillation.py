"""Teachers: who they are, and what they make of the training text."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from mt.bundle import Bundle, load_bundle
from mt.corpus import ParallelCorpus
from mt.errors import MTError
from mt.files import write_atomically
from mt.lines import duration
from mt.options import teacher_recipe
from mt.recipe import Corpus, TranslationRecipe
from mt.training.folder import RunFolder
from mt.training.validation import across_devices
from mt.translator import Translator

_log = logging.getLogger("mt")
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


def teachers(recipe: TranslationRecipe, corpus: ParallelCorpus, run: RunFolder) -> list[Teacher]:
    """List the teachers of a recipe.

    Args:
        recipe: With its sizes chosen.
        corpus: Its text.
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
    languages = corpus.source_language, corpus.target_language
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


def translate_corpus(
    teacher: Teacher, corpus: ParallelCorpus, beam_size: int, device: torch.device
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


def translated(teacher: Teacher, corpus: ParallelCorpus) -> Iterator[tuple[list[str], list[str]]]:
    """Read the training text with one side in a teacher's words, batch by batch.

    Yields:
        Sources and their targets, in the corpus's direction; blank translations are left out.
    """
    for path, given in _files(teacher, corpus):
        pairs = zip(given, path.read_text(encoding="utf-8").split("\n"), strict=False)
        kept = [(text, line) for text, line in pairs if line.strip()]
        texts, lines = [text for text, _ in kept], [line for _, line in kept]
        yield (lines, texts) if teacher.backward else (texts, lines)


def _files(teacher: Teacher, corpus: ParallelCorpus) -> Iterator[tuple[Path, list[str]]]:
    """Yield the file of each batch's translations, and what they are translations of."""
    for number, (sources, targets) in enumerate(corpus.batches()):
        given = targets if teacher.backward else sources
        yield teacher.run.path / "translations" / f"{number:05}.txt", given
