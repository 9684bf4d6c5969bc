"""`mt evaluate` and `mt compare`: systems on a test set, scored, and what that shows."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mt.errors import MTError
from mt.evaluation.analysis import analyse
from mt.evaluation.behaviour import beam_curve, behaviour
from mt.evaluation.report import Example, ReportData, TestSet, write_report
from mt.evaluation.scores import SetScores, score_set
from mt.files import check_folder, write_atomically
from mt.lines import line_counts_differ, read_lines, read_parallel
from mt.parallel import CHUNK, Engine, Job
from mt.translator import Alignment, Translator

_log = logging.getLogger("mt")


class System(NamedTuple):
    """What one system made of a test set."""

    name: str
    path: Path
    hypotheses: list[str]
    engine: Engine | None
    """What translates; None for a file of translations."""
    seconds: float
    """Time that it took."""


def evaluate(
    systems: Sequence[Path],
    source: Path,
    references: Sequence[Path],
    metrics: Sequence[str],
    output: Path,
    make_engine: Callable[[Path], Engine],
    training_text: Sequence[Path] = (),
    beam_sizes: Sequence[int] = (),
    target_language: str | None = None,
) -> SetScores:
    """Evaluate one system on a test set, or compare several with the first.

    Args:
        systems: Folders of bundles, which translate now, or files of translations.
        source: File of source lines.
        references: Files of reference translations.
        metrics: Names out of `mt.evaluation.scores.METRICS`.
        output: Folder for scores.json, report.md, report.html, and the hypotheses of bundles.
        make_engine: Loads a bundle.
        training_text: Files of training sources and targets; without, the text that the first of
            the bundles was trained on, where it lies in its run's folder.
        beam_sizes: Of beams to compare, for the first system.
        target_language: Code such as `de`; without, that of a bundle, or the ending of a reference.

    Raises:
        MTError: A file is missing, is not UTF-8, is empty, or differs in its number of lines; the
            target language is unknown, or another than a bundle's.
    """
    check_folder(output, "--output")
    if len(training_text) not in (0, 2):
        raise MTError("--training-text: give two files, the sources and their targets")
    if any(size < 1 for size in beam_sizes):
        raise MTError("--beam-sizes: a beam holds at least 1 hypothesis")
    sources, *streams = read_parallel([source, *references])
    if not sources:
        raise MTError(f"{source}: the file is empty; give one with a sentence on each line")
    names = system_names(systems)
    opened = [  # so that a mistake is told before anything is translated
        _open(name, path, source, len(sources), make_engine)
        for name, path in zip(names, systems, strict=True)
    ]
    languages = _languages(opened, source, references, target_language)
    _log.info("systems    %s", ", ".join(names))
    found = [_run(system, sources) for system in opened]
    training = _training_text(found, training_text)
    if training is not None:
        _log.info("training   the text is read through")
    first = found[0]
    examined = examine(
        source.name,
        sources,
        streams,
        {system.name: system.hypotheses for system in found},
        metrics,
        languages[1],
        training,
        first.engine.translator if first.engine else None,
        beam_sizes,
    )
    for number, system in enumerate(found):
        if system.engine is not None:
            name = "hypotheses.txt" if number == 0 else f"hypotheses.{system.name}.txt"
            write_atomically(output / name, "".join(f"{text}\n" for text in system.hypotheses))
    write_report(
        output,
        ReportData(
            title=", ".join(names),
            sets=[examined],
            languages=languages,
            facts=[*_facts(found), ("References", ", ".join(map(str, references)))],
            translations_per_second=len(sources) / first.seconds if first.engine else None,
        ),
    )
    return examined.scores


def examine(
    name: str,
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    systems: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
    target_language: str,
    training: Iterable[tuple[Sequence[str], Sequence[str]]] | None,
    translator: Translator | None,
    beam_sizes: Sequence[int] = (),
) -> TestSet:
    """Gather all that a report tells of a test set.

    Args:
        name: Of the test set.
        sources: Its sentences.
        references: One or more streams.
        systems: Hypotheses by the name of the system.
        metrics: Names; the first is that of breakdowns.
        target_language: Code.
        training: Batches of the training text.
        translator: Of the first system.
        beam_sizes: Of beams for it to compare.
    """
    _log.info("scores     %s of %s", ", ".join(metrics), name)
    scores = score_set(name, systems, references, metrics, target_language=target_language)
    columns = list(systems.values())
    tokenizer = translator.tokenizers.target if translator else None
    metric = metrics[0]
    analysis = analyse(sources, references, columns, metric, target_language, training, tokenizer)
    seen: Sequence[Alignment | None] = [None] * len(sources)
    observed = None
    if translator is not None:
        if translator.model.architecture.attention != "none":
            seen = translator.align(sources, columns[0])
        observed = behaviour(translator, sources, references[0], columns[0], seen)
        if beam_sizes:
            _log.info("beams      %s", ", ".join(map(str, beam_sizes)))
            beams = beam_curve(translator, sources, references, metric, beam_sizes)
            observed = observed._replace(beams=beams)
    examples = [
        Example(source, reference, hypothesis, others, alignment)
        for source, reference, alignment, hypothesis, *others in zip(
            sources, references[0], seen, *columns, strict=True
        )
    ]
    return TestSet(scores, examples, analysis, observed)


def system_names(paths: Sequence[Path]) -> list[str]:
    """Name systems after their paths, each differently: a bundle after its run's folder."""
    names: list[str] = []
    for path in map(Path.absolute, paths):
        name = path.parent.name if path.name == "bundle" else path.name
        count = sum(
            re.fullmatch(re.escape(name) + r"( \d+)?", other) is not None for other in names
        )
        names.append(f"{name} {count + 1}" if count else name)
    return names


def _open(
    name: str, path: Path, source: Path, lines: int, make_engine: Callable[[Path], Engine]
) -> System:
    """Load a bundle, or read what has been translated."""
    if not path.is_file():
        return System(name, path, [], make_engine(path), 0.0)
    hypotheses = list(read_lines(path))
    if len(hypotheses) != lines:
        raise line_counts_differ(source, lines, path, len(hypotheses))
    return System(name, path, hypotheses, None, 0.0)


def _run(system: System, sources: list[str]) -> System:
    """Let a bundle translate."""
    if system.engine is None:
        return system
    _log.info("translate  %s: %s lines", system.path, f"{len(sources):,}")
    began = time.monotonic()
    jobs = (
        Job(sources[start : start + CHUNK], None, start + 1)
        for start in range(0, len(sources), CHUNK)
    )
    hypotheses = [best[0].text for done in system.engine.translate(jobs) for best in done]
    return system._replace(hypotheses=hypotheses, seconds=time.monotonic() - began)


def _training_text(
    systems: Sequence[System], given: Sequence[Path]
) -> Iterator[tuple[list[str], list[str]]] | None:
    """Open the training text, from files or that of a bundle's run, in batches."""
    if given:
        return _batches(*given)
    runs = [system.path.absolute().parent for system in systems if system.engine is not None]
    recipe = next((run / "recipe.yaml" for run in runs if (run / "recipe.yaml").exists()), None)
    if recipe is None:
        return None
    from mt.corpus import load_corpus
    from mt.options import parse_train

    try:
        return load_corpus(parse_train([str(recipe)]).recipe.corpus).batches()
    except MTError as error:
        _log.warning("training   the text of %s is not at hand: %s", recipe.parent, error)
        return None


def _batches(source: Path, target: Path) -> Iterator[tuple[list[str], list[str]]]:
    sides = read_lines(source), read_lines(target)
    while True:
        sources, targets = (list(islice(side, CHUNK)) for side in sides)
        if len(sources) != len(targets):
            raise MTError(
                f"--training-text: {source} and {target} differ in their number of lines; "
                "line N of one must translate line N of the other"
            )
        if not sources:
            return
        yield sources, targets


def _languages(
    systems: Sequence[System], source: Path, references: Sequence[Path], target: str | None
) -> tuple[str, str]:
    """Tell source and target language: of the bundles, or by the endings of the files."""
    known = [(s.path, s.engine.translator.languages) for s in systems if s.engine is not None]
    for path, languages in known:
        if target is None:
            target = languages[1]
        if languages[1] != target:
            raise MTError(
                f"{path} translates to {languages[1]}, not to {target}; compare like with like"
            )
    endings = [path.suffix.removeprefix(".") for path in (source, references[0])]
    codes = [end if re.fullmatch("[a-z]{2}([-_][A-Za-z]+)?", end) else None for end in endings]
    target = target or codes[1]
    if target is None:
        raise MTError(f"{references[0]}: its language is unknown; say it with --target-language")
    return known[0][1][0] if known else codes[0] or "und", target


def _facts(systems: Sequence[System]) -> list[tuple[str, str]]:
    facts = []
    for system in systems:
        told = str(system.path)
        if system.engine is not None:
            model = system.engine.translator.model
            told += f", {sum(p.numel() for p in model.parameters()):,} parameters"
        facts.append((system.name if len(systems) > 1 else "System", told))
    return facts
