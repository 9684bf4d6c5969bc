"""Text with labels: read, cleaned and split, held in memory as a whole."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.corpus.catalogues import home_assistant_languages
from mt.corpus.cleaning import HeldOut, RuleCount, near_key
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
from mt.corpus.splits import Indices, cut, cut_size
from mt.corpus.store import hash_texts
from mt.errors import MTError
from mt.recipe import LabelledCorpus, LabelledSource

if TYPE_CHECKING:
    import datasets


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


def load_labelled(corpus: LabelledCorpus) -> Labelled:
    """Read the text of a recipe, and choose what is trained on.

    Raises:
        MTError: Text is missing, malformed, empty or not to be reached, has no label or just one,
            or an option makes no sense.
    """
    origins = _open(corpus)
    train = [one for o in origins if o.train for one in map(_normal, o.train.read())]
    valid = [one for o in origins if o.valid for one in _held_out(o.valid)]
    tests = read_tests(origins, _held_out)
    if not train:
        raise MTError(f"the corpus is empty: no text in {training_places(origins)}")
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
        digest([asdict(corpus)], origins),
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
        self._text = hash_texts([one.text.strip() for one in examples])
        self._label = hash_texts([one.label for one in examples])
        self._pair = hash_texts([f"{one.label}\n{one.text}" for one in examples])
        self._key = hash_texts([self._same(one.text) for one in examples])

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
        free = ~np.isin(self._key[rows], hash_texts(named))
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
        group = hash_texts([name or one for name, one in zip(groups, map(str, rows), strict=True)])
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
        keep = ~np.isin(self._key[self.rows], hash_texts([self._same(text) for text in texts]))
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


def _held_out(split: Split[Example]) -> list[Example]:
    """Read validation or test text as it stands, but for blank texts and labels."""
    examples = [one for one in map(_normal, split.read()) if one.text.strip() and one.label]
    if not examples:
        raise MTError(f"{split.place}: empty, or no text has a label")
    return examples


# -- Sources ---------------------------------------------------------------------------------------


def _open(corpus: LabelledCorpus) -> list[Origin[Example]]:
    if corpus.files is not None:
        source = LabelledSource(
            files=corpus.files, text_column=corpus.text_column, label_column=corpus.label_column
        )
        return [_open_files(source)]
    if not corpus.sources:
        raise MTError("corpus.sources is empty; name a source, or text with --corpus.files PATH")
    origins = []
    for number, source in enumerate(corpus.sources):
        option = f"corpus.sources[{number}]"
        kind = kind_of(source, option, ("hub", "files", "catalogue"))
        if kind == "files":
            origins.append(_open_files(source))
        elif kind == "hub":
            read = partial(_hub_examples, source.label_column or "label")
            origins.append(open_hub(source, option, _columns(source), read))
        else:
            origins.append(_open_catalogue())
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


def _open_files(source: LabelledSource) -> Origin[Example]:
    columns = _columns(source)

    def open_file(path: Path) -> Split[Example]:
        if table_form(path) is None:
            raise MTError(f"corpus.files: {path} is no table; it must end in {', '.join(TABLES)}")

        def read() -> Iterator[Example]:
            return (Example(text, label) for text, label in read_cells(path, columns))

        return Split(str(path), read, fingerprint(path))

    return open_files(source.files, TABLES, open_file)


def _open_catalogue() -> Origin[Example]:
    description, files, texts = home_assistant_languages()

    def read() -> Iterator[Example]:
        return (Example(text, language, key) for text, language, key in texts())

    return Origin(f"{description}, all languages", Split(description, read, fingerprint(*files)))


def _hub_examples(
    label_column: str, cells: Iterator[Pair], data: datasets.Dataset
) -> Iterator[Example]:
    # The numbers of a `ClassLabel` stand for names, and one below zero for no label.
    names: list[str] | None = getattr(data.features.get(label_column), "names", None)
    for text, label in cells:
        if names is not None:
            label = names[int(label)] if int(label) >= 0 else ""
        yield Example(text, label)
