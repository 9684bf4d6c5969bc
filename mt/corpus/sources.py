"""Where text comes from: local files, the Hugging Face Hub and package catalogues, made alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mt.corpus.catalogues import home_assistant, libreoffice_help
from mt.corpus.formats import (
    TABLES,
    Columns,
    Pair,
    column_names,
    one_line,
    pick_pair,
    read_line_pair,
    read_table,
    table_form,
)
from mt.corpus.store import BATCH, disk_full, first_line, hash_files, quiet
from mt.errors import MTError
from mt.lines import COMPRESSIONS
from mt.recipe import Corpus, LabelledSource, Source, TextSource

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Text:
    """The text of one split of one source, not read yet."""

    place: str
    """What errors call it: its files, or its name on the hub."""
    pairs: Callable[[], Iterator[Pair]]
    """Read it; raises `MTError` for bad data."""
    fingerprint: str = ""
    """Changes when the content does; empty where reading is bound to fail."""


@dataclass(frozen=True)
class Origin:
    """One source of a recipe, opened: what there is, before any sentence is read."""

    description: str
    """A line for the model card, without languages and counts."""
    weight: float = 1.0
    train: Text | None = None
    valid: Text | None = None
    tests: dict[str, Text] = field(default_factory=dict)


def open_sources(corpus: Corpus) -> list[Origin]:
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


def _open_source(source: Source, corpus: Corpus, option: str) -> Origin:
    kinds = [name for name in ("hub", "files", "catalogue") if getattr(source, name) is not None]
    if len(kinds) != 1:
        raise MTError(
            f"{option} sets {' and '.join(kinds) or 'nothing'}; "
            "set exactly one of hub, files and catalogue"
        )
    if not 0 < source.weight <= 1000:
        raise MTError(f"{option}.weight is {source.weight:g}; give a number above 0, up to 1,000")
    if source.files is not None:
        return _open_files(source, corpus, f"{option}.files")
    if source.hub is not None:
        return _open_hub(source, corpus, option)
    return _open_catalogue(source, corpus, option)


def _columns(source: Source, corpus: Corpus) -> Columns:
    return Columns(corpus.source, corpus.target, source.source_column, source.target_column)


# Local files


def _open_files(source: Source, corpus: Corpus, option: str) -> Origin:
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
        return Origin(description, source.weight, train, valid, tests)
    if path.is_file() and table_form(path):
        return Origin(description, source.weight, train=_table(path, columns))
    if not path.parent.is_dir():
        raise MTError(f"{option}: {path} does not exist")
    train = _Folder(path.parent, columns, re.escape(path.name)).text(path.name)
    if train is None:
        raise MTError(
            f"{option}: {path} is neither a folder, nor a table ({', '.join(TABLES)}), nor the "
            f"stem of {path.name}.{corpus.source} and {path.name}.{corpus.target}"
        )
    return Origin(description, source.weight, train=train)


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

    def text(self, *stems: str, required: bool = False) -> Text | None:
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
            return Text(str(self._path), _fail(error))

    def _resolve(self, wanted: str, found: list[tuple[str, str, Path]]) -> Text:
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
        there = ", ".join(sorted(file.name for file in self._path.iterdir())[:8]) or "no file"
        tables = ", ".join(f"{wanted}.{form}" for form in TABLES)
        raise MTError(
            f"{self._path} holds no {wanted}.{languages[0]} and {wanted}.{languages[1]} (nor "
            f"{tables}), but {there}; set the languages with --corpus.source and --corpus.target"
        )


def _fail(error: MTError) -> Callable[[], Iterator[Pair]]:
    def pairs() -> Iterator[Pair]:
        raise error

    return pairs


def _line_pair(source: Path, target: Path) -> Text:
    return Text(
        f"{source} and {target}",
        lambda: read_line_pair(source, target),
        _fingerprint(source, target),
    )


def _table(path: Path, columns: Columns) -> Text:
    return Text(str(path), lambda: read_table(path, columns), _fingerprint(path))


def _fingerprint(*paths: Path) -> str:
    try:
        return hash_files(paths)
    except OSError:  # reading will tell
        return ""


# Package catalogues


def _open_catalogue(source: Source, corpus: Corpus, option: str) -> Origin:
    catalogue = {"home-assistant": home_assistant, "libreoffice-help": libreoffice_help}.get(
        source.catalogue or ""
    )
    if catalogue is None:
        raise MTError(
            f"{option}.catalogue is {source.catalogue!r}; choose home-assistant or libreoffice-help"
        )
    description, files, pairs = catalogue(corpus.source, corpus.target)
    return Origin(description, source.weight, Text(description, pairs, _fingerprint(*files)))


# The Hugging Face Hub


def _open_hub(source: Source, corpus: Corpus, option: str) -> Origin:
    order = ["train", "valid", *sorted(set(source.splits) - {"train", "valid"})]
    ours = [name for name in order if name in source.splits]
    for name in ours[("train" in ours) + ("valid" in ours) :]:
        if not re.fullmatch(r"test[\w-]*", name):
            raise MTError(f"{option}.splits: {name!r} is no split; name train, valid or test...")
    datasets = download(source, [source.splits[name] for name in ours])
    columns = _columns(source, corpus)
    texts = {
        name: _hub_text(f"{source.hub}, split {source.splits[name]}", columns, data)
        for name, data in zip(ours, datasets, strict=True)
    }
    config = f", {source.config}" if source.config else ""
    return Origin(
        f"{source.hub} (Hugging Face Hub{config})",
        source.weight,
        texts.pop("train", None),
        texts.pop("valid", None),
        texts,
    )


def _hub_text(place: str, columns: Columns, data: datasets.Dataset) -> Text:
    def pairs() -> Iterator[Pair]:
        for left, right in hub_cells(place, columns, data):
            yield one_line(left), one_line(right)

    return Text(place, pairs, _fingerprint(*(Path(file["filename"]) for file in data.cache_files)))


def hub_cells(place: str, columns: Columns, data: datasets.Dataset) -> Iterator[Pair]:
    """Yield the pairs of a hub dataset as they stand; raises `MTError` for a missing column."""
    names = column_names(place, columns, data.column_names)
    for batch in data.select_columns(names).iter(batch_size=BATCH):
        for values in zip(*(batch[name] for name in names), strict=True):
            yield pick_pair(place, columns, dict(zip(names, values, strict=True)))


def download(
    source: Source | TextSource | LabelledSource, splits: list[str]
) -> list[datasets.Dataset]:
    """Fetch splits of a hub dataset, or take them from the hub's cache.

    Raises `MTError` where it is not there or cannot be reached, and for an unknown split.
    """
    import datasets
    import datasets.exceptions

    with quiet():
        try:
            found: list[datasets.Dataset] = datasets.load_dataset(
                source.hub, source.config, split=splits, revision=source.revision
            )
        except datasets.exceptions.DatasetNotFoundError as error:
            raise MTError(
                f"corpus: {source.hub} is not on the hub, or not open to you ({first_line(error)})"
            ) from None
        except ValueError as error:  # an unknown configuration or split; the text lists those there
            raise MTError(f"corpus: {source.hub}: {' '.join(str(error).split())}") from None
        except Exception as error:
            if full := disk_full(error):
                raise full from None
            # The hub's client and its transport raise errors of many families.
            raise _unreachable(source, error) from None
    return found


def _unreachable(source: Source | TextSource | LabelledSource, error: Exception) -> MTError:
    return MTError(
        f"corpus: cannot fetch {source.hub} from the hub ({first_line(error)}); try again, or "
        "work offline with a folder of text: --corpus.files DIR"
    )
