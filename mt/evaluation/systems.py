"""What is evaluated: test sets, and systems of one or more training runs."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mt.errors import MTError
from mt.evaluation.tables import count
from mt.lines import ending, line_counts_differ, read_lines, read_parallel
from mt.parallel import CHUNK, Engine, Job

_log = logging.getLogger("mt")


class SetFiles(NamedTuple):
    """A test set."""

    name: str
    source: Path
    references: list[Path]

    def read(self) -> list[list[str]]:
        """Return the lines of the source and of each reference.

        Raises:
            MTError: A file is missing, is not UTF-8 or is empty, or they differ in their number of
                lines.
        """
        texts = read_parallel([self.source, *self.references])
        if not texts[0]:
            raise MTError(
                f"{self.source}: the file is empty; give one with a sentence on each line"
            )
        return texts


class Run(NamedTuple):
    """One of a system's training runs, and what it makes of the test sets."""

    path: Path
    engine: Engine | None
    """What translates; None for files of translations."""
    hypotheses: list[list[str]]
    """Of each test set; none yet where an engine has to translate."""
    seconds: float = 0.0
    """Time that it took."""


class System(NamedTuple):
    """What is evaluated."""

    name: str
    runs: list[Run]
    """One or more, which differ in their seeds alone."""


def read_tests(
    source: Path | None, references: Sequence[Path], named: Sequence[str]
) -> list[SetFiles]:
    """Read the options that name test sets: `--source` and `--reference`, or `--test-set`.

    Args:
        source: File of source lines.
        references: Files of reference translations.
        named: Texts such as `test2016=test2016.en,test2016.de`.

    Raises:
        MTError: Something is missing, or given twice.
    """
    if named and (source or references):
        raise MTError("give either --source and --reference, or --test-set")
    if not named:
        if source is None or not references:
            raise MTError("give --source and --reference, or --test-set NAME=SOURCE,REFERENCE")
        return [SetFiles(source.name, source, list(references))]
    tests: list[SetFiles] = []
    for text in named:
        name, _, listed = text.partition("=")
        paths = [Path(path) for path in listed.split(",") if path]
        if not _is_name(name) or len(paths) < 2:
            raise MTError(f"--test-set {text}: write it as NAME=SOURCE,REFERENCE")
        if name in (test.name for test in tests):
            raise MTError(f"--test-set {text}: {name} is given twice")
        tests.append(SetFiles(name, paths[0], paths[1:]))
    return tests


def read_system(text: str) -> tuple[str | None, list[Path]]:
    """Read `PATH`, or `NAME=PATH,PATH…` for several training runs; the name may be left out.

    Raises:
        MTError: There is a name without a path.
    """
    if Path(text).exists():  # whatever signs are in its name
        return None, [Path(text)]
    name, equals, listed = text.partition("=")
    if not equals or not _is_name(name):
        name, listed = "", text
    paths = [Path(path) for path in listed.split(",") if path]
    if not paths:
        raise MTError(f"{text}: write a system as PATH, or as NAME=PATH,PATH for several runs")
    return name or None, paths


def _is_name(text: str) -> bool:
    return bool(text) and not re.search(r"[/\\\s]", text) and text not in (".", "..")


def _names_of(paths: Sequence[Path]) -> list[str]:
    """Name systems after their paths, each differently: a bundle after its run's folder."""
    names: list[str] = []
    for path in map(Path.absolute, paths):
        name = path.parent.name if path.name == "bundle" else path.name
        count = sum(
            re.fullmatch(re.escape(name) + r"( \d+)?", other) is not None for other in names
        )
        names.append(f"{name} {count + 1}" if count else name)
    return names


def open_systems(
    given: Sequence[str],
    tests: Sequence[SetFiles],
    texts: Sequence[list[list[str]]],
    make_engine: Callable[[Path], Engine],
) -> list[System]:
    """Load bundles, and read what files have translated.

    Args:
        given: Each as `read_system` takes it.
        tests: Test sets.
        texts: Their lines.
        make_engine: Loads a bundle.

    Raises:
        MTError: Two systems have one name, or something is missing or does not fit a test set.
    """
    return [
        System(name, [_open(path, tests, texts, make_engine) for path in paths])
        for name, paths in _named(given)
    ]


def translate(systems: Sequence[System], texts: Sequence[list[list[str]]]) -> list[System]:
    """Let bundles translate the sources of test sets."""
    return [
        System(system.name, [_translate(run, texts) for run in system.runs]) for system in systems
    ]


def _named(texts: Sequence[str]) -> list[tuple[str, list[Path]]]:
    read = [read_system(text) for text in texts]
    automatic = _names_of([paths[0] for _, paths in read])
    names = [name or other for (name, _), other in zip(read, automatic, strict=True)]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise MTError(f"{texts[number]}: there is another system of the name {name}")
    return [(name, paths) for name, (_, paths) in zip(names, read, strict=True)]


def _open(
    path: Path,
    tests: Sequence[SetFiles],
    texts: Sequence[list[list[str]]],
    make_engine: Callable[[Path], Engine],
) -> Run:
    """Load a bundle, or read what has been translated."""
    files = [Path(str(path).replace("{set}", test.name)) for test in tests]
    if files[0] == path and (not path.is_file()):
        return Run(path, make_engine(path), [])
    if len(set(files)) < len(tests):
        raise MTError(f"{path}: several test sets need a file each; write {{set}} for their names")
    hypotheses = [list(read_lines(file)) for file in files]
    for file, test, (sources, *_), lines in zip(files, tests, texts, hypotheses, strict=True):
        if len(lines) != len(sources):
            raise line_counts_differ(test.source, len(sources), file, len(lines))
    return Run(path, None, hypotheses)


def _translate(run: Run, texts: Sequence[list[list[str]]]) -> Run:
    """Let a bundle translate."""
    if run.engine is None:
        return run
    began = time.monotonic()
    hypotheses = []
    for sources, *_ in texts:
        _log.info("translate  %s: %s", run.path, count(len(sources), "line"))
        jobs = (
            Job(sources[start : start + CHUNK], None, start + 1)
            for start in range(0, len(sources), CHUNK)
        )
        hypotheses.append([best[0].text for done in run.engine.translate(jobs) for best in done])
    return run._replace(hypotheses=hypotheses, seconds=time.monotonic() - began)


def find_languages(
    systems: Sequence[System], test: SetFiles, target: str | None
) -> tuple[str, str]:
    """Tell source and target language: of the bundles, or by the endings of the files.

    Raises:
        MTError: The target language is unknown, or another than a bundle's.
    """
    known = [
        (run.path, run.engine.translator.languages)
        for system in systems
        for run in system.runs
        if run.engine is not None
    ]
    for path, languages in known:
        if target is None:
            target = languages[1]
        if languages[1] != target:
            raise MTError(
                f"{path} translates to {languages[1]}, not to {target}; compare like with like"
            )
    endings = map(ending, (test.source, test.references[0]))
    codes = [end if re.fullmatch("[a-z]{2}([-_][A-Za-z]+)?", end) else None for end in endings]
    target = target or codes[1]
    if target is None:
        raise MTError(
            f"{test.references[0]}: its language is unknown; say it with --target-language"
        )
    return known[0][1][0] if known else codes[0] or "und", target
