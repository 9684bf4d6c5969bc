"""Labelled text: read, cleaned, split, and never on both sides of a split."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from mt.corpus.cleaning import near_key
from mt.corpus.labelled import Examples, Labelled, load_labelled
from mt.errors import MTError
from mt.recipe import LabelledCleaning, LabelledCorpus, LabelledSource

Rows = Sequence[tuple[str, str]]
WORDS = [f"{a}{b}{c}" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyz"]
ROWS = [(f"{word} is here", ("up", "down", "up")[number % 3]) for number, word in enumerate(WORDS)]


def write(path: Path, rows: Rows, header: str = "text\tlabel") -> None:
    path.write_text("".join(f"{line}\n" for line in [header, *map("\t".join, rows)]))


def load(path: Path, **options: Any) -> Labelled:
    sizes = {"valid_size": 5, "test_size": 7}
    return load_labelled(LabelledCorpus(files=str(path), **(sizes | options)))


def named(found: Labelled, examples: Examples) -> list[tuple[str, str]]:
    return [(text, found.classes[n]) for text, n in zip(*examples, strict=True)]


def test_a_folder_of_splits_is_read(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ROWS[:20])
    write(tmp_path / "dev.tsv", ROWS[20:30])
    (tmp_path / "test.csv").write_text('label,text\nup,"one, two"\n')
    write(tmp_path / "test-far.tsv", ROWS[33:35])
    found = load(tmp_path, cleaning=LabelledCleaning(held_out="off"))
    assert found.classes == ["down", "up"]
    assert named(found, found.train) == ROWS[:20]
    assert named(found, found.valid) == ROWS[20:30]
    assert named(found, found.tests["test"]) == [("one, two", "up")]
    assert named(found, found.tests["test-far"]) == ROWS[33:35]
    assert found.origin == [f"{tmp_path.name} (local files)"]


def test_one_file_in_any_form_is_read(tmp_path: Path) -> None:
    rows = [(text, "0" if label == "up" else "1") for text, label in ROWS[:40]]
    write(tmp_path / "a.tsv", rows)
    write(tmp_path / "bare.tsv", rows[1:], header="\t".join(rows[0]))  # no header
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("label,text\n" + "".join(f'{label},"{text}"\n' for text, label in rows))
    records = [{"text": text, "label": int(label)} for text, label in rows]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
    files = [path for path in sorted(tmp_path.iterdir()) if path.is_file()]
    assert len(files) == 5
    first = load(files[0])
    for file in files:
        found = load(file)
        assert found._replace(origin=[], digest="") == first._replace(origin=[], digest="")
    every = [*first.train.texts, *first.valid.texts, *first.tests["test"].texts]
    assert sorted(every) == sorted(text for text, _ in rows)


def test_columns_have_any_name(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", ROWS[:30], header="body\tmood")
    with pytest.raises(MTError, match="no column 'mod' but 'body', 'mood'; name it with label_col"):
        load(tmp_path / "a.tsv", text_column="body", label_column="mod")
    with pytest.raises(MTError, match=r"no column 'b' but .*; name it with text_column"):
        load(tmp_path / "a.tsv", text_column="b", label_column="mood")
    found = load(tmp_path / "a.tsv", text_column="body", label_column="mood")
    assert len(found.classes) == 2
    sources = [
        LabelledSource(files=str(tmp_path / "a.tsv"), text_column="body", label_column="mood")
    ]
    same = load_labelled(LabelledCorpus(sources=sources, valid_size=5, test_size=7))
    assert same.train == found.train


def test_text_with_several_labels_is_dropped_or_kept(tmp_path: Path) -> None:
    more = [(ROWS[0][0], "down"), (ROWS[0][0], "up"), ROWS[1], (f" {ROWS[3][0]}", "odd")]
    write(tmp_path / "train.tsv", [*ROWS[:30], *more])
    write(tmp_path / "valid.tsv", ROWS[30:33])
    write(tmp_path / "test.tsv", ROWS[33:36])
    found = load(tmp_path)
    texts = Counter(text.strip() for text in found.train.texts)
    assert ROWS[0][0] not in texts
    assert ROWS[3][0] not in texts
    assert texts[ROWS[1][0]] == 1
    assert found.classes == ["down", "up"]
    assert [(c.rule, c.dropped) for c in found.cleaning] == [
        ("read", 0),
        ("no text or no label", 0),
        ("several labels for one text", 5),
        ("exact duplicates", 1),
        ("in validation or test, nearly", 0),
    ]
    kept = load(tmp_path, cleaning=LabelledCleaning(conflicts="keep"))
    assert Counter(named(kept, kept.train))[(ROWS[0][0], "down")] == 1
    assert {label for text, label in named(kept, kept.train) if text == ROWS[0][0]} == {
        "up",
        "down",
    }
    every = load(tmp_path, cleaning=LabelledCleaning(conflicts="keep", duplicates=False))
    assert len(every.train.texts) == 34


def test_rows_without_text_or_label_are_dropped(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", [*ROWS[:30], ("  ", "up"), ("unlabelled", "")])
    write(tmp_path / "test.tsv", [*ROWS[33:36], ("unlabelled", " ")])
    found = load(tmp_path)
    assert found.cleaning[1][:2] == ("no text or no label", 2)
    assert named(found, found.tests["test"]) == ROWS[33:36]


@pytest.mark.parametrize("rule", ["off", "exact", "near"])
def test_nothing_of_validation_or_test_is_trained_on(tmp_path: Path, rule: Any) -> None:
    held_out = [("The cat sat on the mat", "up"), ("Is it 5 o'clock?", "down")]
    leaks = {
        "exact": [("The cat sat on the mat ", "down")],
        "near": [("is it 7 o'clock", "down"), ("the cat sat on the roof", "up")],
    }
    write(tmp_path / "train.tsv", [*ROWS[:30], *leaks["exact"], *leaks["near"]])
    write(tmp_path / "valid.tsv", held_out[:1])
    write(tmp_path / "test.tsv", held_out[1:])
    found = load(tmp_path, cleaning=LabelledCleaning(held_out=rule))
    left = {"off": 33, "exact": 32, "near": 30}[rule]
    assert len(found.train.texts) == left
    assert set(ROWS[:30]) <= set(named(found, found.train))


def test_what_is_cut_is_stratified_by_content_and_not_by_order(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", ROWS)
    write(tmp_path / "b.tsv", ROWS[::-1])
    sizes = {"valid_size": 30, "test_size": 45}
    found, turned = load(tmp_path / "a.tsv", **sizes), load(tmp_path / "b.tsv", **sizes)
    assert named(found, found.valid) == named(turned, turned.valid)
    assert found.tests == turned.tests
    for examples, size in ((found.valid, 30), (found.tests["test"], 45)):
        assert Counter(examples.labels) == {0: size // 3, 1: size * 2 // 3}
    parts = [found.train, found.valid, found.tests["test"]]
    every = [text for part in parts for text in part.texts]
    assert sorted(every) == sorted(text for text, _ in ROWS)


def test_texts_that_are_nearly_alike_are_on_one_side(tmp_path: Path) -> None:
    rows = [
        (f"{word}{end}", "up" if number % 2 else "down")
        for number, word in enumerate(WORDS[:200])
        for end in ("", "!", " 7")
    ]
    write(tmp_path / "a.tsv", rows)
    found = load(tmp_path / "a.tsv", valid_size=50, test_size=50)
    parts = [found.train.texts, found.valid.texts, found.tests["test"].texts]
    keys = [set(map(near_key, texts)) for texts in parts]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert len(parts[1]) >= 45


def test_rare_labels_are_left_out_everywhere(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", [*ROWS[:30], ("once", "rare"), ("twice", "rare")])
    write(tmp_path / "test.tsv", [*ROWS[30:33], ("thrice", "rare")])
    found = load(tmp_path, cleaning=LabelledCleaning(min_examples=3))
    assert found.classes == ["down", "up"]
    assert ("labels of fewer than 3 texts", 2) in [(c.rule, c.dropped) for c in found.cleaning]
    assert len(found.tests["test"].texts) == 3


def test_a_frequent_label_may_be_limited(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", ROWS)
    write(tmp_path / "b.tsv", ROWS[::-1])
    whole = load(tmp_path / "a.tsv")
    found, turned = (
        load(tmp_path / name, cleaning=LabelledCleaning(max_examples=210))
        for name in ("a.tsv", "b.tsv")
    )
    assert Counter(whole.train.labels) == {0: 196, 1: 392}
    assert Counter(found.train.labels) == {0: 196, 1: 210}
    assert set(found.train.texts) == set(turned.train.texts) < set(whole.train.texts)
    assert found.cleaning[-1] == ("beyond 210 texts of a label", 182, 406)
    assert (found.valid, found.tests) == (whole.valid, whole.tests)


def test_a_class_of_few_texts_stays_in_training(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", [*ROWS[:60], ("once", "rare"), ("twice", "rare")])
    found = load(tmp_path / "a.tsv")
    assert Counter(label for _, label in named(found, found.train))["rare"] == 2


def test_the_digest_knows_text_and_options(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", ROWS[:60])
    one = load(tmp_path / "a.tsv").digest
    assert load(tmp_path / "a.tsv").digest == one
    assert load(tmp_path / "a.tsv", valid_size=4).digest != one
    write(tmp_path / "a.tsv", ROWS[:61])
    assert load(tmp_path / "a.tsv").digest != one


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for file, rows, message in (
        (None, [], "holds none of train.tsv, train.csv, train.jsonl, train.parquet, but no file"),
        ("train.tsv", [], "the corpus is empty: no text in .*train.tsv"),
        ("train.tsv", [("a", ""), ("b", " ")], r"cleaning left no training text \(no text or no"),
        ("train.tsv", [(text, "up") for text, _ in ROWS[:40]], "have the label 'up'; it takes two"),
        ("train.tsv", ROWS[:3], "3 training texts are too few, or too alike, to cut a test set"),
        ("test.tsv", [("x", "sideways")], "test: the label 'sideways' stands in no training text"),
        ("test.csv", [], "is ambiguous: test.csv, test.tsv; keep one of them"),
    ):
        if file is not None:
            write(folder / file, rows)
        if file is not None and file.startswith("test"):
            write(folder / "train.tsv", ROWS[:40])
        with pytest.raises(MTError, match=message) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
    (tmp_path / "text.txt").write_text("x\n")
    for options, message in (
        ({"files": str(tmp_path / "text.txt")}, "is no table; it must end in tsv"),
        ({"files": str(tmp_path / "none")}, "none does not exist"),
        ({}, "corpus.sources is empty"),
        (
            {"sources": [LabelledSource()]},
            r"corpus.sources\[0\] sets nothing; set exactly one of hub, files",
        ),
    ):
        with pytest.raises(MTError, match=message):
            load_labelled(LabelledCorpus(**options))
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": [1]}\n')
    with pytest.raises(MTError, match="line 1: expected text, found list"):
        load(tmp_path / "a.jsonl")
    with pytest.raises(MTError, match=r"corpus\.cleaning\.min_examples: must be at least 1"):
        LabelledCleaning(min_examples=0)
