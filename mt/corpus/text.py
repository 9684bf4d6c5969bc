"""Text in one language: read, cleaned and split, without ever being copied or held as a whole."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.corpus.cleaning import HeldOut, LineRules, RuleCount, near_key
from mt.corpus.formats import TABLES, Columns, Pair, one_line, read_cells, table_form
from mt.corpus.origins import (
    Origin,
    Split,
    digest,
    fingerprint,
    kind_of,
    open_files,
    open_hub,
    read_tests,
    training_places,
)
from mt.corpus.splits import cut, cut_size
from mt.corpus.store import BATCH, hash_text, hash_texts
from mt.errors import MTError
from mt.lines import read_lines
from mt.recipe import TextCorpus, TextSource


class Text(NamedTuple):
    """Text in one language, to be read as often as one likes."""

    language: str
    train: Callable[[], Iterator[list[str]]]
    """Reads the cleaned training text, a batch of lines at a time."""
    lines: int
    """Of the training text."""
    valid: list[str]
    tests: dict[str, list[str]]
    """Test sets by name."""
    cleaning: list[RuleCount]
    """What each rule dropped from the training text, in order; nothing of running text."""
    origin: list[str]
    """A line for each source."""
    digest: str
    """Hash of the text and of the options that chose from it."""

    def each(self) -> Iterator[str]:
        """Read the training text, line by line."""
        for batch in self.train():
            yield from batch


def load_text(corpus: TextCorpus) -> Text:
    """Open the text of a recipe, and choose what is trained on.

    Raises:
        MTError: Text is missing, malformed, empty or not to be reached, or an option makes no
            sense.
    """
    LineRules(corpus.cleaning)  # a wrong option is told before anything is downloaded
    origins = _open(corpus)

    def read_held_out(split: Split[str]) -> list[str]:
        return _held_out(split, corpus.running)

    valid = [line for o in origins if o.valid for line in read_held_out(o.valid)]
    tests = read_tests(origins, read_held_out)

    def everything() -> Iterator[str]:
        for origin in origins:
            if origin.train is not None:
                yield from (
                    origin.train.read() if corpus.running else map(normal, origin.train.read())
                )

    keep_rows = _keep_running if corpus.running else keep_lines
    keep, counts = keep_rows(corpus, everything, valid, tests, training_places(origins))
    descriptions = [f"{origin.description}, {corpus.language}" for origin in origins]
    train = partial(_batches, everything, keep)
    made_of = digest([asdict(corpus)], origins)
    return Text(
        corpus.language, train, int(keep.sum()), valid, tests, counts, descriptions, made_of
    )


def normal(line: str) -> str:
    """Return a line as it is trained on: its characters composed (NFC), no blanks around it."""
    return unicodedata.normalize("NFC", line).strip()


def _batches(
    everything: Callable[[], Iterator[str]], keep: NDArray[np.bool_]
) -> Iterator[list[str]]:
    batch: list[str] = []
    for line, kept in zip(everything(), keep.tolist(), strict=True):
        if kept:
            batch.append(line)
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _keep_running(
    corpus: TextCorpus,
    everything: Callable[[], Iterator[str]],
    valid: list[str],
    tests: dict[str, list[str]],
    places: str,
) -> tuple[NDArray[np.bool_], list[RuleCount]]:
    """Choose the lines of running text that are trained on: all but the end where none is named."""
    count = sum(1 for _ in everything())
    counts = [RuleCount("read", 0, count)]
    keep = np.ones(count, dtype=bool)
    wanted = {} if tests else {"test": corpus.test_size}
    wanted |= {} if valid else {"valid": corpus.valid_size}
    end = count
    for name, size in wanted.items():
        start = end - cut_size(count, size)
        keep[start:end] = False
        chosen = [line for n, line in enumerate(everything()) if start <= n < end]
        if name == "valid":
            valid += chosen
        else:
            tests[name] = chosen
        counts.append(RuleCount(f"cut for {name}", end - start, start))
        end = start
    if not keep.any():
        raise MTError(f"the corpus is empty, or too small to cut from: {places}")
    return keep, counts


def keep_lines(
    corpus: TextCorpus,
    everything: Callable[[], Iterator[str]],
    valid: list[str],
    tests: dict[str, list[str]],
    places: str,
) -> tuple[NDArray[np.bool_], list[RuleCount]]:
    """Choose the lines that are trained on, where each stands by itself.

    Args:
        corpus: Says how.
        everything: Reads all lines, `N` of them, always the same.
        valid: Validation lines; those that are cut from the training lines are added.
        tests: Test sets, likewise.
        places: What errors call the text.

    Returns:
        Which lines are kept, `(N,)`, and what each rule dropped.

    Raises:
        MTError: No line is left, or there are too few to cut from.
    """
    rules = LineRules(corpus.cleaning)
    broken: Counter[str | None] = Counter()
    rule = corpus.cleaning.held_out
    key_of = near_key if rule == "near" else str.strip
    good, hashes, keys = bytearray(), bytearray(), bytearray()
    for line in everything():
        fault = rules.broken(line)
        broken[fault] += 1
        good.append(fault is None)
        hashes += hash_text(line)
        keys += hash_text(key_of(line))
    keep = np.frombuffer(good, dtype=np.uint8).astype(bool)
    line_hash = np.frombuffer(hashes, dtype=">u8").astype(np.uint64)
    key = np.frombuffer(keys, dtype=">u8").astype(np.uint64)
    counts = [RuleCount("read", 0, len(keep))]
    for name in rules.names:
        counts.append(RuleCount(name, broken[name], counts[-1].kept - broken[name]))

    def count(name: str) -> None:
        left = int(keep.sum())
        counts.append(RuleCount(name, counts[-1].kept - left, left))
        if not left:
            dropped = ", ".join(f"{c.rule} {c.dropped:,}" for c in counts[1:] if c.dropped)
            raise MTError(
                f"{places}: cleaning left no training line ({dropped}); loosen corpus.cleaning"
            )

    if not len(keep):
        raise MTError(f"the corpus is empty: no line in {places}")
    distinct = np.flatnonzero(keep)
    distinct = distinct[np.sort(np.unique(line_hash[distinct], return_index=True)[1])]
    if corpus.cleaning.duplicates:
        keep[:] = False
        keep[distinct] = True
        count("exact duplicates")
    if corpus.folds:
        valid.clear()
    wanted = {} if tests else {"test": corpus.test_size}
    wanted |= {} if valid or corpus.folds else {"valid": corpus.valid_size}
    named = [*valid, *(line for lines in tests.values() for line in lines)]
    barred = hash_texts([key_of(line) for line in named])
    if wanted:
        free = ~np.isin(key[distinct], barred)
        sizes = [cut_size(len(distinct), size) for size in wanted.values()]
        cuts = cut(line_hash[distinct], key[distinct], key[distinct], free, sizes)
        if not all(map(len, cuts)) or sum(map(len, cuts)) == len(distinct):
            raise MTError(
                f"corpus: {len(distinct):,} training lines are too few, or too alike, to cut "
                "validation and test text from; give it text of its own"
            )
        rows = {int(row): name for name, c in zip(wanted, cuts, strict=True) for row in distinct[c]}
        found: dict[str, list[str]] = {name: [] for name in wanted}
        for number, line in enumerate(everything()):
            if number in rows:
                found[rows[number]].append(line)
        for name, lines in found.items():
            keep &= ~np.isin(line_hash, hash_texts(lines))
            count(f"cut for {name}")
        valid += found.get("valid", [])
        tests |= {"test": found["test"]} if "test" in found else {}
    if corpus.folds:
        part = keep & (key % np.uint64(corpus.folds) == np.uint64(corpus.fold - 1))
        if not part.any() or (part == keep).all():
            raise MTError(
                f"corpus.folds: {int(keep.sum()):,} training lines are too few, or too alike, for "
                f"{corpus.folds} parts; choose fewer"
            )
        numbers = set(np.flatnonzero(part).tolist())
        valid += [line for number, line in enumerate(everything()) if number in numbers]
        keep &= ~part
        count(f"held out, part {corpus.fold} of {corpus.folds}")
    if rule != "off":
        held_out = [*valid, *(line for lines in tests.values() for line in lines)]
        keep &= ~np.isin(key, hash_texts([key_of(line) for line in held_out]))
        if rule == "near":
            near = HeldOut(held_out)
            for number, line in enumerate(everything()):
                if keep[number] and near.near(line):
                    keep[number] = False
        count("in validation or test" + ", nearly" * (rule == "near"))
    return keep, counts


def _held_out(split: Split[str], running: bool) -> list[str]:
    """Read validation or test text as it stands, but for blank lines, which running text keeps."""
    lines = list(split.read())
    if not running:
        lines = [unicodedata.normalize("NFC", line) for line in lines if line.strip()]
    if not lines:
        raise MTError(f"{split.place}: empty")
    return lines


# -- Sources ---------------------------------------------------------------------------------------


def _open(corpus: TextCorpus) -> list[Origin[str]]:
    if corpus.files is not None:
        return [_open_files(TextSource(files=corpus.files, column=corpus.column), corpus)]
    if not corpus.sources:
        raise MTError("corpus.sources is empty; name a source, or text with --corpus.files PATH")
    origins = []
    for number, source in enumerate(corpus.sources):
        option = f"corpus.sources[{number}]"
        if kind_of(source, option, ("hub", "files")) == "files":
            origins.append(_open_files(source, corpus))
        else:
            lines = partial(_hub_lines, corpus.running)
            origins.append(open_hub(source, option, _columns(source, corpus), lines))
    return origins


def _columns(source: TextSource, corpus: TextCorpus) -> Columns:
    return Columns(
        corpus.language,
        corpus.language,
        source.column,
        source.column,
        ("text", "text"),
        ("column", "column"),
    )


def _open_files(source: TextSource, corpus: TextCorpus) -> Origin[str]:
    columns = _columns(source, corpus)

    def open_file(path: Path) -> Split[str]:
        def read() -> Iterator[str]:
            if table_form(path) is None:
                return read_lines(path)
            return _lines(corpus.running, read_cells(path, columns))

        return Split(str(path), read, fingerprint(path))

    kinds = (corpus.language, "txt", *TABLES)
    return open_files(source.files, kinds, open_file, "; set the language with --corpus.language")


def _lines(running: bool, cells: Iterator[Pair]) -> Iterator[str]:
    """A cell of a table is a line, or, of running text, as many as it holds."""
    for cell, _ in cells:
        if running:
            yield from cell.replace("\r\n", "\n").removesuffix("\n").split("\n")
        else:
            yield one_line(cell)


def _hub_lines(running: bool, cells: Iterator[Pair], _: object) -> Iterator[str]:
    return _lines(running, cells)
