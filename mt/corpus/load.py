"""From the sources of a recipe to one clean parallel corpus on disk, mixed and split."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import compress, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.corpus.cleaning import HeldOut, PairRules, RuleCount, near_key
from mt.corpus.formats import Pair
from mt.corpus.languages import LanguageRule
from mt.corpus.origins import Origin, Split, digest, read_tests, training_places
from mt.corpus.sources import open_sources
from mt.corpus.splits import cut, cut_size, deal
from mt.corpus.store import (
    BATCH,
    PairWriter,
    disk_full,
    hash_texts,
    locked,
    open_pairs,
    quiet,
    read_batches,
)
from mt.errors import MTError
from mt.files import cache_folder
from mt.recipe import Corpus

if TYPE_CHECKING:
    import datasets

_TRAIN = "train.arrow"
_FORMAT = 2  # of the cached corpus: raise it when the same input would give another result


class ParallelCorpus(NamedTuple):
    """Parallel text, Arrow-backed; every dataset has the string columns `source` and `target`."""

    source_language: str
    target_language: str
    train: datasets.Dataset
    """Cleaned, and mixed by weight."""
    valid: datasets.Dataset
    tests: dict[str, datasets.Dataset]
    """Test sets by name: `test`, or as they are called where they come from."""
    cleaning: list[RuleCount]
    """What each rule dropped from the training text, in order."""
    origin: list[str]
    """A line for each source: name, licence, languages and pairs."""
    folder: Path
    """Where it lies in the cache, under a hash of the text and of the options that made it."""
    turned: bool = False
    """Whether source and target have changed places since it was laid there."""

    @property
    def digest(self) -> str:
        """Hash of the text and of the options that made this corpus of it."""
        return self.folder.name

    def batches(self) -> Iterator[tuple[list[str], list[str]]]:
        """Read the training text through, a batch of sources and their targets at a time.

        The pages of a mapped file, which `train` is, stay in memory once they have been read.
        """
        for source, target in read_batches(self.folder / _TRAIN):
            yield (target, source) if self.turned else (source, target)

    def turn(self) -> ParallelCorpus:
        """Return the same text to translate in the other direction."""

        def columns(pairs: datasets.Dataset) -> datasets.Dataset:
            return pairs.rename_columns({"source": "target", "target": "source"})

        return self._replace(
            source_language=self.target_language,
            target_language=self.source_language,
            train=columns(self.train),
            valid=columns(self.valid),
            tests={name: columns(pairs) for name, pairs in self.tests.items()},
            turned=not self.turned,
        )


def load_corpus(corpus: Corpus) -> ParallelCorpus:
    """Read, clean, split and mix the parallel text of a recipe.

    The result is kept in the cache folder (see `mt.files`) under a hash of the text and the
    options: doing it again takes no time, and concurrent processes share it. Problems are reported
    in the order training, validation, test.

    Raises `MTError` for what a user can mend: text that is missing, malformed, empty, not to be
    reached, or ambiguously named; options that make no sense; a full disk.
    """
    try:
        PairRules(corpus.cleaning)  # a wrong option is told before anything is downloaded
        for name in ("valid_size", "test_size"):
            if getattr(corpus, name) < 1:
                raise MTError(f"corpus.{name} is {getattr(corpus, name)}; give at least 1")
        identifier = corpus.cleaning.language_identifier
        languages = None if identifier is None else LanguageRule(Path(identifier), corpus)
        origins = open_sources(corpus)
        folder = cache_folder("corpus")
        key = _key(corpus, origins, languages)
        with locked(folder / f"{key}.lock"):
            if not (folder / key).is_dir():
                _build(corpus, origins, languages, folder, key)
            return _open(corpus, folder / key)
    except OSError as error:
        if disk_full(error):
            raise MTError(
                f"the disk is full ({error.filename or 'the cache folder'}); free space, or set "
                "MT_CACHE to a folder on another disk"
            ) from None
        raise MTError(f"corpus: {error.filename or 'a file'}: {error.strerror or error}") from None


def cleaning_table(corpus: ParallelCorpus) -> str:
    """Lay out what each rule dropped as lines of text, for the terminal and the model card."""
    rows = [("training pairs", "dropped", "kept")]
    rows += [(count.rule, f"{count.dropped:,}", f"{count.kept:,}") for count in corpus.cleaning]
    rows[1] = (rows[1][0], "", rows[1][2])
    wide, middle, last = (max(len(row[column]) for row in rows) for column in range(3))
    lines = [f"{rule:<{wide}}  {dropped:>{middle}}  {kept:>{last}}" for rule, dropped, kept in rows]
    sizes = [f"train {len(corpus.train):,}", f"valid {len(corpus.valid):,}"]
    sizes += [f"{name} {len(test):,}" for name, test in corpus.tests.items()]
    return "\n".join([*lines, "pairs: " + " · ".join(sizes)])


def _key(corpus: Corpus, origins: list[Origin[Pair]], languages: LanguageRule | None) -> str:
    if languages is not None:  # what the bundle holds counts, and not where it lies
        cleaning = replace(corpus.cleaning, language_identifier=languages.digest)
        corpus = replace(corpus, cleaning=cleaning)
    descriptions = [origin.description for origin in origins]
    return digest([_FORMAT, asdict(corpus), descriptions], origins)


def _open(corpus: Corpus, folder: Path) -> ParallelCorpus:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    with quiet():
        return ParallelCorpus(
            corpus.source,
            corpus.target,
            open_pairs(folder / _TRAIN),
            open_pairs(folder / "valid.arrow"),
            {name: open_pairs(folder / f"{name}.arrow") for name in report["tests"]},
            [RuleCount(*row) for row in report["cleaning"]],
            report["origin"],
            folder,
        )


def _build(
    corpus: Corpus,
    origins: list[Origin[Pair]],
    languages: LanguageRule | None,
    folder: Path,
    key: str,
) -> None:
    """Make the corpus in a folder of its own, which gets its name when it is whole."""
    # A process that was killed left these; a folder that cannot be removed does no harm.
    for leftover in folder.glob(f"{key}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(dir=folder, prefix=f"{key}.", suffix=".partial"))
    try:
        _Builder(corpus, origins, languages, partial).build()
        try:
            os.replace(partial, folder / key)
        except OSError:
            if not (folder / key).is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # gone already where it got its name


class _Keys(NamedTuple):
    """What is kept in memory of every training pair: 25 bytes."""

    pair: NDArray[np.uint64]
    source: NDArray[np.uint64]  # of what makes two sources count as the same
    target: NDArray[np.uint64]
    origin: NDArray[np.uint8]  # index of its source in the recipe

    def take(self, chosen: NDArray[Any]) -> _Keys:
        return _Keys._make(column[chosen] for column in self)


class _Builder:
    def __init__(
        self,
        corpus: Corpus,
        origins: list[Origin[Pair]],
        languages: LanguageRule | None,
        folder: Path,
    ) -> None:
        self._corpus = corpus
        self._origins = origins
        self._languages = languages
        self._folder = folder
        self._rule = corpus.cleaning.held_out
        self._counts: list[RuleCount] = []
        self._read = [0] * len(origins)

    def build(self) -> None:
        keys = self._stage()
        valid, tests = self._held_out()
        rows = np.arange(len(keys.pair))  # of the staged pairs, those still in
        if self._corpus.cleaning.duplicates:
            rows = np.sort(np.unique(keys.pair, return_index=True)[1])
            self._count("exact duplicates", len(rows))
        if self._corpus.folds:
            valid = []
        rows, valid, tests = self._cut(keys, rows, valid, tests)
        if self._corpus.folds:
            rows, valid = self._hold_out(keys, rows)
        self._write(keys, rows, [*valid, *(pair for pairs in tests.values() for pair in pairs)])
        for name, pairs in {"valid": valid, **tests}.items():
            with PairWriter(self._folder / f"{name}.arrow") as writer:
                writer.write(*_sides(pairs))
        (self._folder / "staged.arrow").unlink()
        report = {"tests": list(tests), "cleaning": self._counts, "origin": self._origin_lines()}
        (self._folder / "report.json").write_text(json.dumps(report), encoding="utf-8")

    def _count(self, rule: str, kept: int) -> None:
        before = self._counts[-1].kept if self._counts else kept
        self._counts.append(RuleCount(rule, before - kept, kept))
        if not kept:
            if before == 0 or rule == "read":
                places = training_places(self._origins)
                raise MTError(f"the corpus is empty: no pair in {places}")
            dropped = ", ".join(f"{c.rule} {c.dropped:,}" for c in self._counts[1:] if c.dropped)
            raise MTError(
                f"cleaning left none of the {self._counts[0].kept:,} training pairs ({dropped}); "
                "loosen corpus.cleaning"
            )

    def _origin_lines(self) -> list[str]:
        languages = f"{self._corpus.source}-{self._corpus.target}"
        return [
            f"{origin.description}, {languages}, {pairs:,} pairs"
            for origin, pairs in zip(self._origins, self._read, strict=True)
        ]

    def _stage(self) -> _Keys:
        """Read the training text, apply the rules on one pair, and write what is left."""
        rules = PairRules(self._corpus.cleaning)
        broken: Counter[str | None] = Counter()
        columns: list[_Keys] = []
        with PairWriter(self._folder / "staged.arrow") as writer:
            for number, origin in enumerate(self._origins):
                pairs = map(_normal, origin.train.read()) if origin.train else iter(())
                while batch := list(islice(pairs, BATCH)):
                    self._read[number] += len(batch)
                    good = []
                    for source, target in batch:
                        pair = source.strip(), target.strip()
                        rule = rules.broken(*pair)
                        broken[rule] += 1
                        if rule is None:
                            good.append(pair)
                    if self._languages is not None:
                        right = self._languages.right(good)
                        broken[self._languages.name] += right.count(False)
                        good = list(compress(good, right))
                    writer.write(*_sides(good))
                    columns.append(self._keys(good, number))
        left = sum(self._read)
        self._count("read", left)
        for name in [*rules.names, *([self._languages.name] if self._languages else [])]:
            left -= broken[name]
            self._count(name, left)
        columns = columns or [self._keys([])]
        return _Keys._make(np.concatenate(column) for column in zip(*columns, strict=True))

    def _keys(self, pairs: list[Pair], origin: int = 0) -> _Keys:
        source, target = ([self._same(text) for text in side] for side in _sides(pairs))
        return _Keys(
            hash_texts(["\n".join(pair) for pair in pairs]),
            hash_texts(source),
            hash_texts(target),
            np.full(len(pairs), origin, dtype=np.uint8),
        )

    def _same(self, text: str) -> str:
        """Return what two sentences have in common that may not stand on both sides of a split."""
        return near_key(text) if self._rule == "near" else text.strip()

    def _held_out(self) -> tuple[list[Pair], dict[str, list[Pair]]]:
        """Read the validation and test text that the sources name."""
        valid = [pair for o in self._origins if o.valid for pair in _read_held_out(o.valid)]
        return valid, read_tests(self._origins, _read_held_out)

    def _cut(
        self,
        keys: _Keys,
        rows: NDArray[np.int64],
        valid: list[Pair],
        tests: dict[str, list[Pair]],
    ) -> tuple[NDArray[np.int64], list[Pair], dict[str, list[Pair]]]:
        """Cut from the training text what no source names."""
        wanted = {} if tests else {"test": self._corpus.test_size}
        wanted |= {} if valid or self._corpus.folds else {"valid": self._corpus.valid_size}
        if not wanted:
            return rows, valid, tests
        # Of identical pairs, which stay where the rule is off, one is cut and the others dropped.
        rows_by_pair = rows[np.unique(keys.pair[rows], return_index=True)[1]]
        distinct = keys.take(rows_by_pair)
        held_out = self._keys([*valid, *(pair for pairs in tests.values() for pair in pairs)])
        free = ~np.isin(distinct.source, held_out.source)
        free &= ~np.isin(distinct.target, held_out.target)
        sizes = [cut_size(len(rows_by_pair), size) for size in wanted.values()]
        cuts = cut(distinct.pair, distinct.source, distinct.target, free, sizes)
        for name, chosen in zip(wanted, cuts, strict=True):
            if not len(chosen) or sum(map(len, cuts)) == len(rows_by_pair):
                raise MTError(
                    f"corpus: {len(rows_by_pair):,} training pairs are too few, or too alike, "
                    f"to cut a {name} set from; give {name} text of its own"
                )
        texts = self._staged_pairs(rows_by_pair[np.concatenate(cuts)])
        for name, chosen in zip(wanted, cuts, strict=True):
            pairs = [texts[row] for row in rows_by_pair[chosen].tolist()]
            valid, tests = (pairs, tests) if name == "valid" else (valid, {name: pairs})
            rows = rows[~np.isin(keys.pair[rows], distinct.pair[chosen])]
            self._count(f"cut for {name}", len(rows))
        return rows, valid, tests

    def _hold_out(
        self, keys: _Keys, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[Pair]]:
        """Take one part of a cross-validation out of the training text."""
        chosen = keys.take(rows)
        part = deal(chosen.pair, chosen.source, chosen.target, self._corpus.folds)
        held_out = rows[part == self._corpus.fold - 1]
        # Where duplicates stay, one of each is validated on.
        held_out = np.sort(held_out[np.unique(keys.pair[held_out], return_index=True)[1]])
        if not len(held_out) or len(held_out) == len(rows):
            raise MTError(
                f"corpus.folds: {len(rows):,} training pairs are too few, or too alike, for "
                f"{self._corpus.folds} parts; choose fewer"
            )
        texts = self._staged_pairs(held_out)
        rows = rows[part != self._corpus.fold - 1]
        self._count(f"held out, part {self._corpus.fold} of {self._corpus.folds}", len(rows))
        return rows, [texts[row] for row in held_out.tolist()]

    def _staged(self) -> Iterator[tuple[int, list[str], list[str]]]:
        """Yield the staged batches, each with the row of its first pair."""
        first = 0
        for sources, targets in read_batches(self._folder / "staged.arrow"):
            yield first, sources, targets
            first += len(sources)

    def _staged_pairs(self, rows: NDArray[np.int64]) -> dict[int, Pair]:
        pairs: dict[int, Pair] = {}
        rows = np.sort(rows)
        for first, sources, targets in self._staged():
            start, stop = np.searchsorted(rows, [first, first + len(sources)])
            for row in rows[start:stop].tolist():
                pairs[row] = sources[row - first], targets[row - first]
        return pairs

    def _write(self, keys: _Keys, rows: NDArray[np.int64], held_out: list[Pair]) -> None:
        """Write the training pairs, mixed by weight, without those that stand in `held_out`."""
        keep = np.zeros(len(keys.pair), dtype=bool)
        keep[rows] = True
        if self._rule != "off":
            barred = self._keys(held_out)
            keep &= ~np.isin(keys.source, barred.source) & ~np.isin(keys.target, barred.target)
        # How many n-grams are shared is seen from the text alone.
        near = [HeldOut(side) for side in _sides(held_out)] if self._rule == "near" else []
        copies = _copies(keys, [origin.weight for origin in self._origins])
        kept = 0
        with PairWriter(self._folder / _TRAIN) as writer:
            for first, sources, targets in self._staged():
                pairs: list[Pair] = []
                for row in (np.flatnonzero(keep[first : first + len(sources)])).tolist():
                    pair = sources[row], targets[row]
                    if not any(side.near(text) for side, text in zip(near, pair, strict=False)):
                        kept += 1
                        pairs += [pair] * int(copies[first + row])
                writer.write(*_sides(pairs))
        if self._rule != "off":
            self._count("in validation or test" + ", nearly" * (self._rule == "near"), kept)


def _copies(keys: _Keys, weights: list[float]) -> NDArray[np.int64]:
    """Return how often each pair is seen: its weight, rounded down or up by its hash."""
    weight = np.array(weights)[keys.origin]
    # The low half of the hash is as random as the whole, and exact as a float.
    share = (keys.pair & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2**32
    copies: NDArray[np.int64] = (np.floor(weight) + (share < weight % 1)).astype(np.int64)
    return copies


def _read_held_out(split: Split[Pair]) -> list[Pair]:
    """Read validation or test text as it stands, but for pairs with a blank side."""
    pairs = [pair for pair in map(_normal, split.read()) if pair[0].strip() and pair[1].strip()]
    if not pairs:
        raise MTError(f"{split.place}: empty, or every pair has a blank side")
    return pairs


def _normal(pair: Pair) -> Pair:
    return unicodedata.normalize("NFC", pair[0]), unicodedata.normalize("NFC", pair[1])


def _sides(pairs: list[Pair]) -> tuple[list[str], list[str]]:
    return [source for source, _ in pairs], [target for _, target in pairs]
