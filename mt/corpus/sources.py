"""Where parallel text comes from: local files, the hub and package catalogues, made alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from mt.corpus.catalogues import home_assistant, libreoffice_help
from mt.corpus.formats import (
    TABLES,
    Columns,
    Pair,
    one_line,
    read_line_pair,
    read_table,
    table_form,
)
from mt.corpus.origins import Origin, Split, fingerprint, kind_of, open_hub, there
from mt.errors import MTError
from mt.lines import COMPRESSIONS
from mt.recipe import Corpus, Source


def open_sources(corpus: Corpus) -> list[Origin[Pair]]:
    """Open the sources of a recipe, or the files that stand in for them.

    A problem with validation or test text raises `MTError` only once that text is read, so that
    problems come up in the order training, validation, test.
    """
    if not corpus.source or not corpus.target or corpus.source == corpus.target:
        raise MTError(
            f"corpus.source is {corpus.source!r} and corpus.target {corpus.target!r}: "
            "give two different language codes"
        )
    if corpus.files is not None:
        source = Source(
            files=corpus.files,
            source_column=corpus.source_column,
            target_column=corpus.target_column,
        )
        return [_open_files(source, corpus, "corpus.files")]
    if not corpus.sources:
        raise MTError("corpus.sources is empty; name a source, or a folder with --corpus.files DIR")
    return [
        _open_source(source, corpus, f"corpus.sources[{number}]")
        for number, source in enumerate(corpus.sources)
    ]


def _open_source(source: Source, corpus: Corpus, option: str) -> Origin[Pair]:
    kind = kind_of(source, option, ("hub", "files", "catalogue"))
    if not 0 < source.weight <= 1000:
        raise MTError(f"{option}.weight is {source.weight:g}; give a number above 0, up to 1,000")
    if kind == "files":
        return _open_files(source, corpus, f"{option}.files")
    if kind == "hub":
        origin = open_hub(source, option, _columns(source, corpus), _hub_pairs)
        return replace(origin, weight=source.weight)
    return _open_catalogue(source, corpus, option)


def _columns(source: Source, corpus: Corpus) -> Columns:
    return Columns(corpus.source, corpus.target, source.source_column, source.target_column)


# Local files


def _open_files(source: Source, corpus: Corpus, option: str) -> Origin[Pair]:
    path = Path(source.files or "").expanduser()
    description = f"{path.name or path} (local files)"
    columns = _columns(source, corpus)
    if path.is_dir():
        folder = _Folder(path, columns)
        valid = folder.text("valid", "dev")
        tests = {name: text for name in folder.tests if (text := folder.text(name))}
        # One source of several may bring held-out text alone.
        alone = corpus.files is not None or len(corpus.sources) == 1 or not (valid or tests)
        train = folder.text("train", required=alone)
        return Origin(description, train, valid, tests, source.weight)
    if path.is_file() and table_form(path):
        return Origin(description, _table(path, columns), weight=source.weight)
    if not path.parent.is_dir():
        raise MTError(f"{option}: {path} does not exist")
    train = _Folder(path.parent, columns, re.escape(path.name)).text(path.name)
    if train is None:
        raise MTError(
            f"{option}: {path} is neither a folder, nor a table ({', '.join(TABLES)}), nor the "
            f"stem of {path.name}.{corpus.source} and {path.name}.{corpus.target}"
        )
    return Origin(description, train, weight=source.weight)


class _Folder:
    """A folder of splits, each a pair of line files or one table."""

    def __init__(
        self, path: Path, columns: Columns, stem: str = r"train|valid|dev|test[\w-]*"
    ) -> None:
        self._path = path
        self._columns = columns
        self._languages = (columns.source_language, columns.target_language)
        self._files: dict[str, list[tuple[str, Path]]] = {}  # stem -> (language or form, file)
        kind = "|".join(map(re.escape, (*self._languages, *TABLES)))
        packed = "|".join(map(re.escape, COMPRESSIONS))
        pattern = re.compile(rf"({stem})\.({kind})(?:{packed})?")
        for file in sorted(path.iterdir()):
            if (match := pattern.fullmatch(file.name)) and file.is_file():
                self._files.setdefault(match[1], []).append((match[2], file))
        self.tests = [stem for stem in self._files if stem.startswith("test")]

    def text(self, *stems: str, required: bool = False) -> Split[Pair] | None:
        """Find the files of one split, which goes by any of `stems`.

        Problems raise `MTError` at once where the text is required, else when it is read.
        """
        found = [(stem, *file) for stem in stems for file in self._files.get(stem, [])]
        if not found and not required:
            return None
        try:
            return self._resolve(stems[0], found)
        except MTError as error:
            if required:
                raise
            return Split(str(self._path), _fail(error))

    def _resolve(self, wanted: str, found: list[tuple[str, str, Path]]) -> Split[Pair]:
        languages = self._languages
        files = {kind: file for _, kind, file in found}
        if len(found) == 2 and found[0][0] == found[1][0] and set(files) == set(languages):
            return _line_pair(files[languages[0]], files[languages[1]])
        if len(found) > 1:
            names = ", ".join(file.name for _, _, file in found)
            raise MTError(
                f"{self._path} is ambiguous: {names}; keep one pair of files or one table"
            )
        for stem, kind, file in found:
            if kind in TABLES:
                return _table(file, self._columns)
            other = languages[kind == languages[0]]
            raise MTError(f"{file} has no counterpart {stem}.{other} in {self._path}")
        tables = ", ".join(f"{wanted}.{form}" for form in TABLES)
        raise MTError(
            f"{self._path} holds no {wanted}.{languages[0]} and {wanted}.{languages[1]} (nor "
            f"{tables}), but {there(self._path)}; set the languages with --corpus.source and "
            "--corpus.target"
        )


def _fail(error: MTError) -> Callable[[], Iterator[Pair]]:
    def pairs() -> Iterator[Pair]:
        raise error

    return pairs


def _line_pair(source: Path, target: Path) -> Split[Pair]:
    return Split(
        f"{source} and {target}",
        lambda: read_line_pair(source, target),
        fingerprint(source, target),
    )


def _table(path: Path, columns: Columns) -> Split[Pair]:
    return Split(str(path), lambda: read_table(path, columns), fingerprint(path))


# Package catalogues


def _open_catalogue(source: Source, corpus: Corpus, option: str) -> Origin[Pair]:
    catalogue = {"home-assistant": home_assistant, "libreoffice-help": libreoffice_help}.get(
        source.catalogue or ""
    )
    if catalogue is None:
        raise MTError(
            f"{option}.catalogue is {source.catalogue!r}; choose home-assistant or libreoffice-help"
        )
    description, files, pairs = catalogue(corpus.source, corpus.target)
    return Origin(description, Split(description, pairs, fingerprint(*files)), weight=source.weight)


# The Hugging Face Hub


def _hub_pairs(cells: Iterator[Pair], _: object) -> Iterator[Pair]:
    for left, right in cells:
        yield one_line(left), one_line(right)
