"""Text in one language: read, cleaned and split, without ever being copied or held as a whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.corpus.cleaning import HeldOut, LineRules, RuleCount, near_key
from mt.corpus.formats import TABLES, Columns, one_line, read_cells, table_form
from mt.corpus.sources import download, hub_cells
from mt.corpus.splits import cut, cut_size
from mt.corpus.store import BATCH, hash_files, hash_text
from mt.errors import MTError
from mt.lines import COMPRESSIONS, read_lines
from mt.recipe import TextCorpus, TextSource

_WORD64 = np.dtype(">u8")


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


@dataclass(frozen=True)
class _Split:
    """The text of one split of one source, not read yet."""

    place: str
    read: Callable[[], Iterator[str]]
    fingerprint: str


@dataclass(frozen=True)
class _Origin:
    description: str
    train: _Split | None = None
    valid: _Split | None = None
    tests: dict[str, _Split] = field(default_factory=dict)


def load_text(corpus: TextCorpus) -> Text:
    """Open the text of a recipe, and choose what is trained on.

    Raises:
        MTError: Text is missing, malformed, empty or not to be reached, or an option makes no
            sense.
    """
    rules = LineRules(corpus.cleaning)  # a wrong option is told before anything is downloaded
    origins = _open(corpus)
    digest = _digest(corpus, origins)
    valid = [line for o in origins if o.valid for line in _held_out(o.valid, corpus.running)]
    tests: dict[str, list[str]] = {}
    for origin in origins:
        for name, split in origin.tests.items():
            number, free = 1, name
            while free in tests:  # two sources' sets of one name stay two sets
                number, free = number + 1, f"{name}-{number + 1}"
            tests[free] = list(_held_out(split, corpus.running))

    def everything() -> Iterator[str]:
        for origin in origins:
            if origin.train is not None:
                yield from origin.train.read()

    places = ", ".join(o.train.place for o in origins if o.train) or "any source"
    if corpus.running:
        keep, counts = _keep_running(corpus, everything, valid, tests, places)
    else:
        keep, counts = _keep_lines(corpus, rules, everything, valid, tests, places)
    descriptions = [f"{origin.description}, {corpus.language}" for origin in origins]
    train = partial(_batches, everything, keep)
    return Text(corpus.language, train, int(keep.sum()), valid, tests, counts, descriptions, digest)


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


def _keep_lines(
    corpus: TextCorpus,
    rules: LineRules,
    everything: Callable[[], Iterator[str]],
    valid: list[str],
    tests: dict[str, list[str]],
    places: str,
) -> tuple[NDArray[np.bool_], list[RuleCount]]:
    """Choose the lines that are trained on, where each stands by itself."""
    broken: Counter[str | None] = Counter()
    rule = corpus.cleaning.held_out
    good, hashes, keys = bytearray(), bytearray(), bytearray()
    for line in everything():
        fault = rules.broken(line)
        broken[fault] += 1
        good.append(fault is None)
        hashes += hash_text(line)
        keys += hash_text(near_key(line)) if rule == "near" else hash_text(line.strip())
    keep = np.frombuffer(good, dtype=np.uint8).astype(bool)
    line_hash = np.frombuffer(hashes, dtype=_WORD64).astype(np.uint64)
    key = np.frombuffer(keys, dtype=_WORD64).astype(np.uint64)
    counts = [RuleCount("read", 0, len(keep))]
    for name in rules.names:
        counts.append(RuleCount(name, broken[name], counts[-1].kept - broken[name]))

    def count(name: str) -> None:
        left = int(keep.sum())
        counts.append(RuleCount(name, counts[-1].kept - left, left))
        if not left:
            dropped = ", ".join(f"{c.rule} {c.dropped:,}" for c in counts[1:] if c.dropped)
            raise MTError(f"cleaning left no training line ({dropped}); loosen corpus.cleaning")

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
    key_of = near_key if rule == "near" else str.strip
    barred = _hashes([key_of(line) for line in named])
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
            keep &= ~np.isin(line_hash, _hashes(lines))
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
        keep &= ~np.isin(key, _hashes([key_of(line) for line in held_out]))
        if rule == "near":
            near = HeldOut(held_out)
            for number, line in enumerate(everything()):
                if keep[number] and near.near(line):
                    keep[number] = False
        count("in validation or test" + ", nearly" * (rule == "near"))
    return keep, counts


def _hashes(texts: list[str]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(map(hash_text, texts)), dtype=_WORD64).astype(np.uint64)


def _held_out(split: _Split, running: bool) -> Iterator[str]:
    lines = (line for line in split.read() if running or line.strip())
    first = next(lines, None)
    if first is None:
        raise MTError(f"{split.place}: empty")
    yield first
    yield from lines


def _digest(corpus: TextCorpus, origins: list[_Origin]) -> str:
    prints = [
        [split and split.fingerprint for split in (origin.train, origin.valid)]
        + [(name, split.fingerprint) for name, split in sorted(origin.tests.items())]
        for origin in origins
    ]
    content = json.dumps([asdict(corpus), prints], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


# -- Sources ---------------------------------------------------------------------------------------


def _open(corpus: TextCorpus) -> list[_Origin]:
    if corpus.files is not None:
        return [_open_files(TextSource(files=corpus.files, column=corpus.column), corpus)]
    if not corpus.sources:
        raise MTError("corpus.sources is empty; name a source, or text with --corpus.files PATH")
    origins = []
    for number, source in enumerate(corpus.sources):
        if (source.hub is None) == (source.files is None):
            raise MTError(f"corpus.sources[{number}]: set exactly one of hub and files")
        open_source = _open_files if source.hub is None else _open_hub
        origins.append(open_source(source, corpus))
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


def _open_files(source: TextSource, corpus: TextCorpus) -> _Origin:
    path = Path(source.files or "").expanduser()
    description = f"{path.name or path} (local files)"
    if path.is_file():
        return _Origin(description, _file(path, source, corpus))
    if not path.is_dir():
        raise MTError(f"corpus.files: {path} does not exist")
    kinds = "|".join(map(re.escape, (corpus.language, "txt", *TABLES)))
    packed = "|".join(map(re.escape, COMPRESSIONS))
    pattern = re.compile(rf"(train|valid|dev|test[\w-]*)\.(?:{kinds})(?:{packed})?")
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if (match := pattern.fullmatch(file.name)) and file.is_file():
            name = "valid" if match[1] == "dev" else match[1]
            if name in found:
                raise MTError(
                    f"{path} is ambiguous: {found[name].name}, {file.name}; keep one of them"
                )
            found[name] = file
    if "train" not in found:
        there = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "no file"
        raise MTError(
            f"{path} holds no train.{corpus.language} (nor train.txt, "
            f"{', '.join(f'train.{form}' for form in TABLES)}), but {there}; set the language with "
            "--corpus.language"
        )
    splits = {name: _file(file, source, corpus) for name, file in found.items()}
    return _Origin(description, splits.pop("train"), splits.pop("valid", None), splits)


def _file(path: Path, source: TextSource, corpus: TextCorpus) -> _Split:
    try:
        fingerprint = hash_files([path])
    except OSError:  # reading will tell
        fingerprint = ""
    if table_form(path) is None:
        return _Split(str(path), lambda: read_lines(path), fingerprint)
    columns = _columns(source, corpus)

    def read() -> Iterator[str]:
        return _lines((cell for cell, _ in read_cells(path, columns)), corpus.running)

    return _Split(str(path), read, fingerprint)


def _lines(cells: Iterator[str], running: bool) -> Iterator[str]:
    """A cell of a table is a line, or, of running text, as many as it holds."""
    for cell in cells:
        if running:
            yield from cell.replace("\r\n", "\n").removesuffix("\n").split("\n")
        else:
            yield one_line(cell)


def _open_hub(source: TextSource, corpus: TextCorpus) -> _Origin:
    ours = list(source.splits)
    datasets = download(source, [source.splits[name] for name in ours])
    columns = _columns(source, corpus)
    splits = {}
    for name, data in zip(ours, datasets, strict=True):
        place = f"{source.hub}, split {source.splits[name]}"
        cells = partial(hub_cells, place, columns, data)

        def read(cells: Callable[[], Iterator[tuple[str, str]]] = cells) -> Iterator[str]:
            return _lines((cell for cell, _ in cells()), corpus.running)

        files = [Path(file["filename"]) for file in data.cache_files]
        splits[name] = _Split(place, read, hash_files(files))
    config = f", {source.config}" if source.config else ""
    return _Origin(
        f"{source.hub} (Hugging Face Hub{config})",
        splits.pop("train", None),
        splits.pop("valid", None),
        splits,
    )
