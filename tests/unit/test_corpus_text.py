"""Text in one language: read, cleaned, split, and never on both sides of a split."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from mt.corpus.text import Text, load_text
from mt.errors import MTError
from mt.recipe import TextCleaning, TextCorpus, TextSource

LINES = [f"{a} {b} word{a}{b}" for a in "abcdefghijklmnopqrst" for b in "uvwxyzäöüß"]


def write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def load(path: Path, **options: Any) -> Text:
    options = {"language": "xx", "valid_size": 5, "test_size": 7} | options
    return load_text(TextCorpus(files=str(path), **options))


def test_a_folder_of_splits_is_read(tmp_path: Path) -> None:
    write(tmp_path / "train.xx", LINES[:20])
    write(tmp_path / "train.yy", ["no"] * 20)  # the other side of parallel text
    write(tmp_path / "dev.xx", LINES[20:30])
    write(tmp_path / "test.xx", LINES[30:33])
    write(tmp_path / "test-far.xx", LINES[33:35])
    text = load(tmp_path, cleaning=TextCleaning(held_out="off"))
    assert list(text.each()) == list(text.each()) == LINES[:20]
    assert text.lines == 20
    assert text.valid == LINES[20:30]
    assert text.tests == {"test": LINES[30:33], "test-far": LINES[33:35]}


def test_one_file_in_any_form_is_read(tmp_path: Path) -> None:
    lines = LINES[:50]
    write(tmp_path / "a.txt", lines)
    with gzip.open(tmp_path / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
    write(tmp_path / "a.tsv", ["id\tbody", *(f"{n}\t{line}" for n, line in enumerate(lines))])
    write(tmp_path / "b.tsv", lines)  # no header: the only column
    write(tmp_path / "a.jsonl", [json.dumps({"text": line}) for line in lines])
    table = pyarrow.table({"xx": lines, "label": [1] * len(lines)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    expected = load(tmp_path / "a.txt")
    assert len(expected.valid) == len(expected.tests["test"]) == 5
    for name in ("a.txt.gz", "b.tsv", "a.jsonl", "a.parquet"):
        text = load(tmp_path / name)
        assert list(text.each()) == list(expected.each()), name
        assert text.valid == expected.valid
    assert list(load(tmp_path / "a.tsv", column="body").each()) == list(expected.each())
    with pytest.raises(MTError, match=r"a\.tsv has no column 'nobody' .* name it with column"):
        load(tmp_path / "a.tsv", column="nobody")


def test_lines_are_composed_and_running_text_stays(tmp_path: Path) -> None:
    decomposed, composed = "ein Schlu\u0308ssel", "ein Schl\u00fcssel"
    write(tmp_path / "train.xx", [f"  {decomposed} ", composed, *LINES[:5]])
    write(tmp_path / "valid.xx", [f" {decomposed}"])
    write(tmp_path / "test.xx", ["another"])
    text = load(tmp_path, cleaning=TextCleaning(held_out="off"))
    assert list(text.each()) == [composed, *LINES[:5]]  # of two that are the same, one
    assert text.valid == [f" {composed}"]
    running = load(tmp_path, running=True)
    assert list(running.each())[:2] == [f"  {decomposed} ", composed]
    assert running.valid == [f" {decomposed}"]


def test_rules_drop_what_they_say(tmp_path: Path) -> None:
    bad = ["", "   ", "one two three four five", "bad\x07bell now", "только кириллица тут"]
    lines = [*bad, *LINES[:40], *LINES[:10]]
    write(tmp_path / "train.xx", lines)
    write(tmp_path / "valid.xx", [LINES[3].upper() + "!"])
    write(tmp_path / "test.xx", ["something else"])
    cleaning = TextCleaning(min_words=2, max_words=4, script="Latin")
    text = load(tmp_path, cleaning=cleaning)
    counts = {count.rule: count.dropped for count in text.cleaning}
    assert counts == {
        "read": 0,
        "empty line": 2,
        "fewer than 2 words": 0,
        "more than 4 words": 1,
        "control characters": 1,
        "wrong script": 1,
        "exact duplicates": 10,
        "in validation or test, nearly": 1,
    }
    assert list(text.each()) == [line for line in LINES[:40] if line != LINES[3]]
    every = load(tmp_path, cleaning=TextCleaning(duplicates=False, held_out="off", min_words=0))
    assert every.lines == len(lines) - 3  # blank lines, and the one that rings


def test_what_is_cut_stands_nowhere_else(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", [*LINES, *LINES[:50], *(line.upper() for line in LINES[50:90])])
    text = load(tmp_path / "a.txt")
    held_out = [*text.valid, *text.tests["test"]]
    assert (len(text.valid), len(text.tests["test"])) == (5, 7)
    assert len(set(held_out)) == 12
    folded = {line.lower() for line in text.each()}
    assert folded.isdisjoint(line.lower() for line in held_out)
    write(tmp_path / "b.txt", [*LINES[:50], *(line.upper() for line in LINES[50:90]), *LINES][::-1])
    assert {*load(tmp_path / "b.txt").valid} == {*text.valid}  # whatever the order of lines


def test_running_text_is_kept_whole_and_cut_at_its_end(tmp_path: Path) -> None:
    lines = ["  Indented.", "", "same", "same", *LINES[:36]]
    write(tmp_path / "a.txt", lines)
    text = load(tmp_path / "a.txt", running=True)
    assert [*text.each(), *text.valid, *text.tests["test"]] == lines
    assert (len(text.valid), len(text.tests["test"])) == (4, 4)  # at most a tenth
    book = "\n".join(lines) + "\n"
    pyarrow.parquet.write_table(pyarrow.table({"text": [book]}), tmp_path / "a.parquet")
    assert list(load(tmp_path / "a.parquet", running=True).each()) == list(text.each())


def test_each_part_of_a_cross_validation_is_held_out_once(tmp_path: Path) -> None:
    write(tmp_path / "train.xx", [*LINES[:60], *(line.upper() for line in LINES[:20])])
    write(tmp_path / "valid.xx", ["not used"])
    write(tmp_path / "test.xx", ["something else"])
    seen = []
    for fold in (1, 2, 3, 4):
        text = load(tmp_path, folds=4, fold=fold)
        train = {line.lower() for line in text.each()}
        assert train.isdisjoint(line.lower() for line in text.valid)
        assert text.lines + len(text.valid) == 80
        seen += text.valid
    assert sorted(seen) == sorted([*LINES[:60], *(line.upper() for line in LINES[:20])])


def test_the_digest_tells_text_and_options_apart(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", LINES)
    write(tmp_path / "b.txt", [*LINES, "more text"])
    first = load(tmp_path / "a.txt").digest
    assert first == load(tmp_path / "a.txt").digest
    others = {load(tmp_path / "b.txt").digest, load(tmp_path / "a.txt", valid_size=6).digest}
    assert len({first, *others}) == 3


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (TextCorpus(), "corpus.sources is empty"),
        (TextCorpus(sources=[TextSource()]), r"sources\[0\] sets nothing; set exactly one of hub"),
        (TextCorpus(files="FOLDER/none"), "FOLDER/none does not exist"),
        (TextCorpus(files="FOLDER"), "FOLDER holds none of train.en, .* but few.txt, odd.txt"),
        (TextCorpus(files="FOLDER/few.txt"), "are too few, or too alike, to cut"),
        (TextCorpus(files="FOLDER/odd.txt"), "odd.txt: line 2 is not valid UTF-8"),
        (
            TextCorpus(files="FOLDER/few.txt", cleaning=TextCleaning(min_words=9)),
            "cleaning left no training line .fewer than 9 words 2",
        ),
        (
            TextCorpus(files="FOLDER", cleaning=TextCleaning(script="Elvish")),
            "corpus.cleaning.script: no script is called 'Elvish'",
        ),
    ],
)
def test_mistakes_are_told(tmp_path: Path, corpus: TextCorpus, message: str) -> None:
    write(tmp_path / "few.txt", ["one line", "another"])
    (tmp_path / "odd.txt").write_bytes(b"good\n\xff\n")
    place = str(tmp_path)
    if corpus.files:
        corpus = TextCorpus(files=corpus.files.replace("FOLDER", place), cleaning=corpus.cleaning)
    with pytest.raises(MTError, match=message.replace("FOLDER", re.escape(place))):
        load_text(corpus)


def test_two_files_for_one_split_are_ambiguous(tmp_path: Path) -> None:
    write(tmp_path / "train.en", LINES)
    write(tmp_path / "train.txt", LINES)
    with pytest.raises(MTError, match=r"is ambiguous: train\.en, train\.txt"):
        load(tmp_path, language="en")
