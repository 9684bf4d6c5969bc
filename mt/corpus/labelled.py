"""Text with labels: read, cleaned and split, held in memory as a whole."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.corpus.catalogues import home_assistant_languages
from mt.corpus.cleaning import HeldOut, RuleCount, near_key
from mt.corpus.formats import TABLES, Columns, one_line, read_cells, table_form
from mt.corpus.sources import download, hub_cells
from mt.corpus.splits import Hashes, Indices, cut, cut_size
from mt.corpus.store import hash_files, hash_text
from mt.errors import MTError
from mt.lines import COMPRESSIONS
from mt.recipe import LabelledCorpus, LabelledSource

if TYPE_CHECKING:
    import datasets

_WORD64 = np.dtype(">u8")


class Example(NamedTuple):
    """A text as a source gives it."""

    text: str
    label: str
    """Empty where there is none."""
    group: str = ""
    """Texts of one group stay on one side of a cut; empty where the source knows no groups."""


class Examples(NamedTuple):
    """Texts with the numbers of their classes."""

    texts: list[str]
    labels: list[int]


class Labelled(NamedTuple):
    """Labelled text, cleaned and split."""

    classes: list[str]
    """The labels of the training text, in order."""
    train: Examples
    valid: Examples
    tests: dict[str, Examples]
    """Test sets by name."""
    cleaning: list[RuleCount]
    """What each rule dropped from the training text, in order."""
    origin: list[str]
    """A line for each source."""
    digest: str
    """Hash of the text and of the options that chose from it."""


@dataclass(frozen=True)
class _Split:
    """The text of one split of one source, not read yet."""

    place: str
    read: Callable[[], Iterator[Example]]
    fingerprint: str


@dataclass(frozen=True)
class _Origin:
    description: str
    train: _Split | None = None
    valid: _Split | None = None
    tests: dict[str, _Split] = field(default_factory=dict)


def load_labelled(corpus: LabelledCorpus) -> Labelled:
    """Read the text of a recipe, and choose what is trained on.

    Raises:
        MTError: Text is missing, malformed, empty or not to be reached, has no label or just one,
            or an option makes no sense.
    """
    origins = _open(corpus)
    train = [one for o in origins if o.train for one in map(_normal, o.train.read())]
    valid = [one for o in origins if o.valid for one in _held_out(o.valid)]
    tests: dict[str, list[Example]] = {}
    for origin in origins:
        for name, split in origin.tests.items():
            number, free = 1, name
            while free in tests:  # two sources' sets of one name stay two sets
                number, free = number + 1, f"{name}-{number + 1}"
            tests[free] = _held_out(split)
    if not train:
        places = ", ".join(o.train.place for o in origins if o.train) or "any source"
        raise MTError(f"the corpus is empty: no text in {places}")
    cleaner = _Cleaner(corpus, train)
    cleaner.clean()
    sets = cleaner.split(valid, tests)
    cleaner.drop_held_out([one for examples in sets.values() for one in examples])
    cleaner.limit()
    classes = cleaner.classes()
    kept = [train[row] for row in cleaner.rows.tolist()]
    valid = _of_classes(sets.pop("valid"), classes, cleaner.rare, "validation")
    return Labelled(
        list(classes),
        _numbered(kept, classes),
        _numbered(valid, classes),
        {
            name: _numbered(_of_classes(examples, classes, cleaner.rare, name), classes)
            for name, examples in sets.items()
        },
        cleaner.counts,
        [origin.description for origin in origins],
        _digest(corpus, origins),
    )


class _Cleaner:
    """Chooses the rows of the training text that are trained on."""

    def __init__(self, corpus: LabelledCorpus, examples: list[Example]):
        self._corpus, self._examples = corpus, examples
        self.rows: Indices = np.arange(len(examples))
        """Those that are still in."""
        self.counts = [RuleCount("read", 0, len(examples))]
        self.rare: set[str] = set()
        """Labels of too few texts."""
        self._text = _hashes([one.text.strip() for one in examples])
        self._label = _hashes([one.label for one in examples])
        self._pair = _hashes([f"{one.label}\n{one.text}" for one in examples])
        self._key = _hashes([self._same(one.text) for one in examples])

    def _same(self, text: str) -> str:
        """Return what two texts have in common that may not stand on both sides of a split."""
        return near_key(text) if self._corpus.cleaning.held_out == "near" else text.strip()

    def _keep(self, rule: str, keep: NDArray[np.bool_]) -> None:
        self.rows = self.rows[keep]
        self.counts.append(RuleCount(rule, self.counts[-1].kept - len(self.rows), len(self.rows)))
        if not len(self.rows):
            dropped = ", ".join(f"{c.rule} {c.dropped:,}" for c in self.counts[1:] if c.dropped)
            raise MTError(f"cleaning left no training text ({dropped}); loosen corpus.cleaning")

    def _labels(self) -> Counter[str]:
        return Counter(self._examples[row].label for row in self.rows.tolist())

    def clean(self) -> None:
        """Apply the rules that look at the training text alone."""
        rules = self._corpus.cleaning
        whole = (bool(one.text.strip()) and bool(one.label) for one in self._examples)
        self._keep("no text or no label", np.fromiter(whole, dtype=bool))
        if rules.conflicts == "drop":
            _, text = np.unique(self._text[self.rows], return_inverse=True)
            label = self._label[self.rows]
            first = np.empty(text.max() + 1, dtype=np.uint64)
            first[text] = label  # that of any one of its rows
            several = np.zeros(len(first), dtype=bool)
            several[text[label != first[text]]] = True
            self._keep("several labels for one text", ~several[text])
        if rules.duplicates:
            once = np.zeros(len(self.rows), dtype=bool)
            once[np.unique(self._pair[self.rows], return_index=True)[1]] = True
            self._keep("exact duplicates", once)
        if rules.min_examples > 1:
            self.rare = {
                label for label, count in self._labels().items() if count < rules.min_examples
            }
            known = (self._examples[row].label not in self.rare for row in self.rows.tolist())
            name = f"labels of fewer than {rules.min_examples:,} texts"
            self._keep(name, np.fromiter(known, dtype=bool))

    def split(
        self, valid: list[Example], tests: dict[str, list[Example]]
    ) -> dict[str, list[Example]]:
        """Give the validation set, as `valid`, and the test sets, cut where none is named."""
        wanted = {} if tests else {"test": self._corpus.test_size}
        wanted |= {} if valid else {"valid": self._corpus.valid_size}
        sets = {"valid": valid, **tests}
        if not wanted:
            return sets
        named = [self._same(one.text) for examples in sets.values() for one in examples]
        rows = np.sort(self.rows[np.unique(self._pair[self.rows], return_index=True)[1]])
        free = ~np.isin(self._key[rows], _hashes(named))
        cuts = self._cut(rows, free, list(wanted.values()))
        for (name, _), chosen in zip(wanted.items(), cuts, strict=True):
            if not len(chosen) or sum(map(len, cuts)) == len(rows):
                raise MTError(
                    f"corpus: {len(rows):,} training texts are too few, or too alike, to cut a "
                    f"{name} set from; give {name} text of its own"
                )
            sets[name] = [self._examples[row] for row in chosen.tolist()]
            self._keep(f"cut for {name}", ~np.isin(self._pair[self.rows], self._pair[chosen]))
        return sets

    def _cut(self, rows: Indices, free: NDArray[np.bool_], sizes: list[int]) -> list[Indices]:
        """Choose rows by the hash of their content: whole groups, where the source knows them,
        else of each label its share."""
        groups = [self._examples[row].group for row in rows.tolist()]
        if all(groups):
            strata = [np.arange(len(rows))]
        else:
            labels = self._label[rows]
            strata = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        group = _hashes([name or one for name, one in zip(groups, map(str, rows), strict=True)])
        found: list[list[Indices]] = [[] for _ in sizes]
        for places in strata:
            if len(places) <= len(sizes):  # which leave none to train on
                continue
            shares = [round(size * len(places) / len(rows)) for size in sizes]
            of_these = rows[places]
            cuts = cut(
                self._pair[of_these],
                self._key[of_these],
                group[places],
                free[places],
                [cut_size(len(places), share) for share in shares],
            )
            for mine, chosen in zip(found, cuts, strict=True):
                mine.append(of_these[chosen])
        return [np.concatenate([*mine, np.arange(0)]) for mine in found]

    def drop_held_out(self, held_out: list[Example]) -> None:
        """Drop what stands in validation or test."""
        rule = self._corpus.cleaning.held_out
        if rule == "off":
            return
        texts = [one.text for one in held_out]
        keep = ~np.isin(self._key[self.rows], _hashes([self._same(text) for text in texts]))
        if rule == "near":
            near = HeldOut(texts)
            for place in np.flatnonzero(keep).tolist():
                keep[place] = not near.near(self._examples[self.rows[place]].text)
        self._keep("in validation or test" + ", nearly" * (rule == "near"), keep)

    def limit(self) -> None:
        """Drop what is beyond the most texts of a label."""
        most = self._corpus.cleaning.max_examples
        if most == 0:
            return
        order = np.lexsort((self._pair[self.rows], self._label[self.rows]))
        labels = self._label[self.rows][order]
        _, first, label = np.unique(labels, return_index=True, return_inverse=True)
        keep = np.empty(len(order), dtype=bool)
        keep[order] = np.arange(len(order)) - first[label] < most
        self._keep(f"beyond {most:,} texts of a label", keep)

    def classes(self) -> dict[str, int]:
        """Number the labels that are trained on, in their order.

        Raises:
            MTError: There is just one.
        """
        labels = sorted(self._labels())
        if len(labels) < 2:
            raise MTError(
                f"corpus: all training texts have the label {labels[0]!r}; it takes two or more"
            )
        return {label: number for number, label in enumerate(labels)}


def _of_classes(
    examples: list[Example], classes: dict[str, int], rare: set[str], name: str
) -> list[Example]:
    """Leave out the texts of rare labels; no other may be unknown."""
    examples = [one for one in examples if one.label not in rare]
    for one in examples:
        if one.label not in classes:
            raise MTError(f"{name}: the label {one.label!r} stands in no training text")
    if not examples:
        raise MTError(f"{name}: no text has a label that is trained on")
    return examples


def _numbered(examples: Sequence[Example], classes: dict[str, int]) -> Examples:
    return Examples([one.text for one in examples], [classes[one.label] for one in examples])


def _normal(one: Example) -> Example:
    text = unicodedata.normalize("NFC", one_line(one.text))
    return Example(text, " ".join(unicodedata.normalize("NFC", one.label).split()), one.group)


def _held_out(split: _Split) -> list[Example]:
    """Read validation or test text as it stands, but for blank texts and labels."""
    examples = [one for one in map(_normal, split.read()) if one.text.strip() and one.label]
    if not examples:
        raise MTError(f"{split.place}: empty, or no text has a label")
    return examples


def _hashes(texts: list[str]) -> Hashes:
    return np.frombuffer(b"".join(map(hash_text, texts)), dtype=_WORD64).astype(np.uint64)


def _digest(corpus: LabelledCorpus, origins: list[_Origin]) -> str:
    prints = [
        [split and split.fingerprint for split in (origin.train, origin.valid)]
        + [(name, split.fingerprint) for name, split in sorted(origin.tests.items())]
        for origin in origins
    ]
    content = json.dumps([asdict(corpus), prints], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


# -- Sources ---------------------------------------------------------------------------------------


def _open(corpus: LabelledCorpus) -> list[_Origin]:
    if corpus.files is not None:
        source = LabelledSource(
            files=corpus.files, text_column=corpus.text_column, label_column=corpus.label_column
        )
        return [_open_files(source)]
    if not corpus.sources:
        raise MTError("corpus.sources is empty; name a source, or text with --corpus.files PATH")
    openers = {"hub": _open_hub, "files": _open_files, "catalogue": _open_catalogue}
    origins = []
    for number, source in enumerate(corpus.sources):
        kinds = [name for name in openers if getattr(source, name) is not None]
        if len(kinds) != 1:
            raise MTError(f"corpus.sources[{number}]: set exactly one of {', '.join(openers)}")
        origins.append(openers[kinds[0]](source))
    return origins


def _columns(source: LabelledSource) -> Columns:
    return Columns(
        "text",
        "label",
        source.text_column,
        source.label_column,
        ("text", "label"),
        ("text_column", "label_column"),
        label=True,
    )


def _open_files(source: LabelledSource) -> _Origin:
    path = Path(source.files or "").expanduser()
    description = f"{path.name or path} (local files)"
    if path.is_file():
        if table_form(path) is None:
            raise MTError(f"corpus.files: {path} is no table; it must end in {', '.join(TABLES)}")
        return _Origin(description, _table(path, source))
    if not path.is_dir():
        raise MTError(f"corpus.files: {path} does not exist")
    packed = "|".join(map(re.escape, COMPRESSIONS))
    pattern = re.compile(rf"(train|valid|dev|test[\w-]*)\.(?:{'|'.join(TABLES)})(?:{packed})?")
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
        tables = ", ".join(f"train.{form}" for form in TABLES)
        raise MTError(f"corpus.files: {path} holds none of {tables}, but {there}")
    splits = {name: _table(file, source) for name, file in found.items()}
    return _Origin(description, splits.pop("train"), splits.pop("valid", None), splits)


def _table(path: Path, source: LabelledSource) -> _Split:
    def read() -> Iterator[Example]:
        for text, label in read_cells(path, _columns(source)):
            yield Example(text, label)

    return _Split(str(path), read, hash_files([path]))


def _open_catalogue(source: LabelledSource) -> _Origin:
    description, files, texts = home_assistant_languages()

    def read() -> Iterator[Example]:
        for text, language, key in texts():
            yield Example(text, language, key)

    return _Origin(f"{description}, all languages", _Split(description, read, hash_files(files)))


def _open_hub(source: LabelledSource) -> _Origin:
    ours = list(source.splits)
    for name in ours:
        if not re.fullmatch(r"train|valid|test[\w-]*", name):
            raise MTError(f"corpus.sources.splits: {name!r} is no split; name train, valid or test")
    datasets = download(source, [source.splits[name] for name in ours])
    splits = {}
    for name, data in zip(ours, datasets, strict=True):
        place = f"{source.hub}, split {source.splits[name]}"
        files = [Path(file["filename"]) for file in data.cache_files]
        splits[name] = _Split(place, partial(_read_hub, place, source, data), hash_files(files))
    config = f", {source.config}" if source.config else ""
    return _Origin(
        f"{source.hub} (Hugging Face Hub{config})",
        splits.pop("train", None),
        splits.pop("valid", None),
        splits,
    )


def _read_hub(place: str, source: LabelledSource, data: datasets.Dataset) -> Iterator[Example]:
    # The numbers of a `ClassLabel` stand for names, and one below zero for no label.
    feature = data.features.get(source.label_column or "label")
    names: list[str] | None = getattr(feature, "names", None)
    for text, label in hub_cells(place, _columns(source), data):
        if names is not None:
            label = names[int(label)] if int(label) >= 0 else ""
        yield Example(text, label)
