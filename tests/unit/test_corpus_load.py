from __future__ import annotations

import errno
import gzip
import json
import os
import random
import string
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.corpus import ParallelCorpus, RuleCount, cleaning_table, load_corpus
from mt.corpus.cleaning import HeldOut, near_key
from mt.corpus.store import PairWriter
from mt.errors import MTError
from mt.recipe import Cleaning, Corpus, Source

Pairs = list[tuple[str, str]]
EXACT = Cleaning(held_out="exact")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MT_CACHE", str(folder))
    return folder


def sentences(count: int, seed: int = 0) -> Pairs:
    """Make pairs of which no two share a word."""
    draw = random.Random(seed)

    def word() -> str:
        return "".join(draw.choices(string.ascii_lowercase, k=12))

    return [(f"{word()} {word()}", f"{word()} {word()} {word()}") for _ in range(count)]


def write_pairs(folder: Path, stem: str, pairs: Sequence[tuple[str, str]]) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for language, side in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
        (folder / f"{stem}.{language}").write_bytes("".join(f"{one}\n" for one in side).encode())


def make(folder: Path, **splits: Sequence[tuple[str, str]]) -> Corpus:
    for stem, pairs in splits.items():
        write_pairs(folder, stem, pairs)
    return Corpus(files=str(folder), cleaning=EXACT)


def pairs_of(data: Any) -> Pairs:
    return list(zip(data["source"][:], data["target"][:], strict=True))


def splits_of(corpus: ParallelCorpus) -> dict[str, Pairs]:
    sets = {"train": corpus.train, "valid": corpus.valid, **corpus.tests}
    return {name: pairs_of(data) for name, data in sets.items()}


def error_of(corpus: Corpus) -> str:
    with pytest.raises(MTError) as caught:
        load_corpus(corpus)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is read


def test_a_folder_of_named_splits(tmp_path: Path) -> None:
    text = sentences(40)
    sets = {
        "train": text[:30],
        "dev": text[30:33],
        "test2016": text[33:36],
        "test_b-1": text[36:],
    }
    corpus = make(tmp_path, **sets)
    (tmp_path / "test2016.lc.norm.tok.de").write_text("no test set\n")
    (tmp_path / "train.fr").write_text("another language\n")
    loaded = load_corpus(corpus)
    expected = {"train": sets["train"], "valid": sets["dev"]}
    expected |= {"test2016": sets["test2016"], "test_b-1": sets["test_b-1"]}
    assert splits_of(loaded) == expected
    assert (loaded.source_language, loaded.target_language) == ("en", "de")
    assert loaded.origin == [f"{tmp_path.name} (local files), en-de, 30 pairs"]
    assert loaded.train.column_names == ["source", "target"]


def test_the_other_direction_and_mixed_forms(tmp_path: Path) -> None:
    text = sentences(12)
    write_pairs(tmp_path, "train", text[:10])
    (tmp_path / "train.de").rename(tmp_path / "plain.de")
    (tmp_path / "train.de.gz").write_bytes(gzip.compress((tmp_path / "plain.de").read_bytes()))
    (tmp_path / "valid.jsonl").write_text(
        json.dumps(dict(zip(("en", "de"), text[10], strict=True)))
    )
    (tmp_path / "test.tsv").write_text("de\ten\n" + "\t".join(reversed(text[11])) + "\n")
    loaded = load_corpus(Corpus(source="de", target="en", files=str(tmp_path), cleaning=EXACT))
    assert splits_of(loaded) == {
        "train": [(de, en) for en, de in text[:10]],
        "valid": [text[10][::-1]],
        "test": [text[11][::-1]],
    }


@pytest.mark.parametrize("name", ["words.v1", "words.v1.tsv"])
def test_a_stem_and_a_table_are_training_text(tmp_path: Path, name: str) -> None:
    text = sentences(30)
    write_pairs(tmp_path, "words.v1", text)
    (tmp_path / "words.v1.tsv").write_text("".join("\t".join(pair) + "\n" for pair in text))
    if not name.endswith("tsv"):
        (tmp_path / "words.v1.tsv").unlink()
    splits = splits_of(load_corpus(Corpus(files=str(tmp_path / name), cleaning=EXACT)))
    assert {name: len(pairs) for name, pairs in splits.items()} == {
        "train": 24,
        "valid": 3,
        "test": 3,
    }
    assert sorted(pair for pairs in splits.values() for pair in pairs) == sorted(text)


def test_odd_characters_do_not_shift_lines(tmp_path: Path) -> None:
    text = [("a\u2028b", "c\x85d"), ("e\rf", "g\x0ch"), ("\ufeffi", "j\x1ek"), *sentences(3)]
    (tmp_path / "train.en").write_bytes("\r\n".join(en for en, _ in text).encode("utf-8-sig"))
    (tmp_path / "train.de").write_bytes("\n".join(de for _, de in text).encode("utf-8-sig"))
    write_pairs(tmp_path, "valid", sentences(1, seed=1))
    write_pairs(tmp_path, "test", sentences(1, seed=2))
    rules = Cleaning(control_characters=False, held_out="off")
    loaded = load_corpus(Corpus(files=str(tmp_path), cleaning=rules))
    assert pairs_of(loaded.train) == text


def test_text_is_nfc_and_held_out_text_is_not_cleaned(tmp_path: Path) -> None:
    held_out = [(" Cafe\u0301 ", "same"), ("same", "same"), ("", "blank"), ("blank", " ")]
    corpus = make(
        tmp_path, train=[(" e\u0301 ", "a\u0308 b"), *sentences(5)], valid=held_out, test=held_out
    )
    splits = splits_of(load_corpus(corpus))
    assert splits["train"][0] == ("\u00e9", "\u00e4 b")
    assert splits["valid"] == splits["test"] == [(" Caf\u00e9 ", "same"), ("same", "same")]


# Cleaning


def test_each_rule_counts_what_it_drops(tmp_path: Path) -> None:
    valid, test = [("keep the Valid one out", "Gilt 1.")], [("a b c d e f", "t")]
    bad = [
        ("", "leer"),
        ("one", "a b"),
        ("a b c d e f g h i j k", "a b"),
        ("x y z x y z", "w q"),
        ("same same", "same same"),
        ("a \x00", "b c"),
        ("\u0434\u0430 \u043d\u0435\u0442", "ja nein"),
        ("keep: the VALID one out", "x y"),
        ("a b c d e q q q q", "y z y z"),
        ("y z", "GILT (2)!  "),
    ]
    good = [("good one", "gut so"), ("good one", "gut ja")]
    rules = Cleaning(min_words=1, max_words=10, max_ratio=2.5, source_script="Latin")
    corpus = make(tmp_path, train=[*good, *bad, good[0]], valid=valid, test=test)
    loaded = load_corpus(replace(corpus, cleaning=replace(rules, min_words=2)))
    assert pairs_of(loaded.train) == good
    assert loaded.cleaning == [
        RuleCount("read", 0, 13),
        RuleCount("empty side", 1, 12),
        RuleCount("fewer than 2 words", 1, 11),
        RuleCount("more than 10 words", 1, 10),
        RuleCount("length ratio over 2.5", 1, 9),
        RuleCount("identical sides", 1, 8),
        RuleCount("control characters", 1, 7),
        RuleCount("wrong script", 1, 6),
        RuleCount("exact duplicates", 1, 5),
        RuleCount("in validation or test, nearly", 3, 2),
    ]
    table = cleaning_table(loaded).split("\n")
    assert table[0].split() == ["training", "pairs", "dropped", "kept"]
    assert table[1].split() == ["read", "13"]
    assert table[-1] == "pairs: train 2 · valid 1 · test 1"


@pytest.mark.parametrize(("held_out", "left"), [("off", 5), ("exact", 4), ("near", 1)])
def test_held_out_levels(tmp_path: Path, held_out: Any, left: int) -> None:
    train = [
        ("The exact line", "eins"),
        ("the EXACT line!", "zwei"),
        ("drei", "Genau 3 {n} Zeilen"),
        ("press a b c d now", "vier"),
        ("something else", "etwas anderes"),
    ]
    valid = [("The exact line", "Genau Zeilen"), ("press a b c d then go on", "los")]
    corpus = make(tmp_path, train=train, valid=valid, test=valid)
    loaded = load_corpus(replace(corpus, cleaning=Cleaning(held_out=held_out, max_ratio=0)))
    assert len(loaded.train) == left


def test_duplicates_can_stay(tmp_path: Path) -> None:
    text = sentences(30)
    corpus = make(tmp_path, train=text + text)
    kept = splits_of(load_corpus(replace(corpus, cleaning=Cleaning(duplicates=False))))
    # Of sixty pairs six are cut for each set; the twins of those leave the training text too.
    assert (len(kept["train"]), len(kept["valid"]), len(kept["test"])) == (48, 3, 3)
    assert not set(kept["train"]) & {*kept["valid"], *kept["test"]}


# Splits


@given(st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_cut_sets_share_no_sentence_and_ignore_line_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    draw = random.Random(seed)
    words = [f"{one}{two}" for one in "abcdef" for two in "uvwxyz"] + ["{name}", "12", "A"]
    text = [
        (" ".join(draw.choices(words, k=draw.randint(2, 7))), " ".join(draw.choices(words, k=3)))
        for _ in range(120)
    ]
    folder = tmp_path_factory.mktemp("shuffled")
    first = splits_of(load_corpus(replace(make(folder, train=text), cleaning=Cleaning())))
    draw.shuffle(text)
    second = splits_of(load_corpus(replace(make(folder, train=text), cleaning=Cleaning())))
    assert first["valid"] == second["valid"]
    assert first["test"] == second["test"]
    assert sorted(first["train"]) == sorted(second["train"])
    for side in (0, 1):
        keys = [{near_key(pair[side]) for pair in pairs} for pairs in first.values()]
        assert len(set().union(*keys)) == sum(map(len, keys))
        held_out = HeldOut(pair[side] for name in ("valid", "test") for pair in first[name])
        assert not any(held_out.near(pair[side]) for pair in first["train"])


def test_only_what_is_missing_is_cut(tmp_path: Path) -> None:
    text = sentences(50)
    valid = [("VALID!", text[0][1].upper()), ("x", "y")]
    corpus = replace(make(tmp_path, train=text, valid=valid), cleaning=Cleaning(), test_size=3)
    splits = splits_of(load_corpus(corpus))
    assert splits["valid"] == valid
    assert len(splits["test"]) == 3
    assert text[0] not in splits["train"] + splits["test"]


# Several sources


def test_each_part_of_a_cross_validation_is_held_out_once(tmp_path: Path) -> None:
    pairs = sentences(90)
    corpus = make(tmp_path, train=pairs, valid=sentences(5, seed=7), test=sentences(4, seed=8))
    seen: list[tuple[str, str]] = []
    for fold in (1, 2, 3):
        loaded = load_corpus(replace(corpus, folds=3, fold=fold))
        train, valid = pairs_of(loaded.train), pairs_of(loaded.valid)
        assert sorted([*train, *valid]) == sorted(pairs)
        assert not {side for pair in train for side in pair} & {s for pair in valid for s in pair}
        assert loaded.cleaning[-1].dropped + len(valid) + len(train) >= len(pairs)
        seen += valid
        assert pairs_of(loaded.tests["test"]) == sentences(4, seed=8)
    assert sorted(seen) == sorted(pairs)
    with pytest.raises(MTError, match=r"corpus\.fold: must be from 1 to corpus\.folds, 3, not 4"):
        replace(corpus, folds=3, fold=4)
    few = make(tmp_path / "few", train=pairs[:1], valid=pairs[1:2], test=pairs[2:3])
    with pytest.raises(MTError, match="1 training pairs are too few, or too alike, for 2 parts"):
        load_corpus(replace(few, folds=2))


def test_sources_are_mixed_by_weight(tmp_path: Path) -> None:
    sets = {name: sentences(400, seed) for seed, name in enumerate(("one", "half", "more"))}
    held_out = sentences(4, seed=9)
    for name, pairs in sets.items():
        write_pairs(tmp_path / name, "train", pairs)
    write_pairs(tmp_path / "one", "valid", held_out[:1])
    write_pairs(tmp_path / "half", "valid", held_out[1:2])
    write_pairs(tmp_path / "one", "test", held_out[2:3])
    write_pairs(tmp_path / "half", "test", held_out[3:])
    weights = {"one": 1.0, "half": 0.5, "more": 2.5}
    sources = [Source(files=str(tmp_path / name), weight=w) for name, w in weights.items()]
    loaded = load_corpus(Corpus(sources=sources, cleaning=EXACT))
    splits = splits_of(loaded)
    seen = {name: [splits["train"].count(pair) for pair in pairs] for name, pairs in sets.items()}
    assert set(seen["one"]) == {1}
    assert set(seen["half"]) == {0, 1}
    assert 150 < sum(seen["half"]) < 250
    assert set(seen["more"]) == {2, 3}
    assert 950 < sum(seen["more"]) < 1050
    assert splits["valid"] == held_out[:2]
    assert (splits["test"], splits["test-2"]) == ([held_out[2]], [held_out[3]])
    assert [line.split(" (")[0] for line in loaded.origin] == ["one", "half", "more"]


def test_one_of_several_sources_may_bring_held_out_text_alone(tmp_path: Path) -> None:
    text = sentences(30)
    write_pairs(tmp_path / "text", "train", text[:28])
    write_pairs(tmp_path / "news", "test2016", text[28:])
    both = [Source(files=str(tmp_path / name)) for name in ("news", "text")]
    splits = splits_of(load_corpus(Corpus(sources=both, cleaning=EXACT)))
    assert {name: len(pairs) for name, pairs in splits.items()} == {
        "train": 26,
        "valid": 2,
        "test2016": 2,
    }
    assert "news holds no train.en and train.de" in error_of(Corpus(sources=both[:1]))


def test_files_stand_in_for_sources(tmp_path: Path) -> None:
    corpus = make(tmp_path, train=sentences(20))
    loaded = load_corpus(replace(corpus, sources=[Source(hub="no/where")]))
    assert len(loaded.origin) == 1


# The cache


def test_a_second_run_reads_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = sentences(50)
    corpus = make(tmp_path, train=text)
    first = load_corpus(corpus)
    monkeypatch.setattr("mt.corpus.load._build", lambda *_: pytest.fail("built again"))
    second = load_corpus(corpus)
    assert splits_of(second) == splits_of(first)
    assert second[5:] == first[5:]
    monkeypatch.undo()
    monkeypatch.setenv("MT_CACHE", str(cache))
    write_pairs(tmp_path, "train", [*text[:-1], ("another", "andere")])
    third = splits_of(load_corpus(corpus))
    assert ("another", "andere") in [pair for pairs in third.values() for pair in pairs]
    assert len([entry for entry in (cache / "corpus").iterdir() if entry.is_dir()]) == 2


def test_concurrent_processes_agree(tmp_path: Path, cache: Path) -> None:
    make(tmp_path, train=sentences(500))
    script = (
        "import sys; from mt.corpus import *; from mt.recipe import *;"
        f"c = load_corpus(Corpus(files={str(tmp_path)!r}));"
        "print(c.valid[:], c.cleaning, len(c.train), c.train[7])"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(2)
    ]
    outputs = {process.communicate(timeout=100)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(outputs) == 1
    assert not [*(cache / "corpus").glob("*.partial")]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PairWriter, "write", write)
    message = error_of(make(tmp_path, train=sentences(20)))
    assert "disk is full" in message
    assert "MT_CACHE" in message
    assert not [entry for entry in (cache / "corpus").iterdir() if entry.is_dir()]


def test_what_a_killed_process_left_is_removed(tmp_path: Path, cache: Path) -> None:
    corpus = make(tmp_path, train=sentences(20))
    load_corpus(corpus)
    (whole,) = [entry for entry in (cache / "corpus").iterdir() if entry.is_dir()]
    whole.rename(whole.with_name(f"{whole.name}.1234.partial"))
    load_corpus(corpus)
    assert [entry for entry in (cache / "corpus").iterdir() if entry.is_dir()] == [whole]


# Mistakes


def test_mistakes_in_options(tmp_path: Path) -> None:
    write_pairs(tmp_path / "good", "train", sentences(20))
    good, source = Source(files=str(tmp_path / "good")), Source(files=str(tmp_path))
    cases = {
        "corpus.sources is empty; name a source, or a folder with --corpus.files DIR": Corpus(),
        "give two different language codes": Corpus(source="de", sources=[source]),
        "sources[1] sets nothing; set exactly one": Corpus(sources=[good, Source()]),
        "sources[0] sets hub and files; set exactly one": Corpus(
            sources=[replace(source, hub="a/b")]
        ),
        "sources[0].weight is 0; give a number above 0": Corpus(
            sources=[replace(source, weight=0.0)]
        ),
        "corpus.valid_size is 0; give at least 1": Corpus(valid_size=0, sources=[source]),
        "no script is called 'Klingon'": Corpus(
            sources=[source], cleaning=Cleaning(source_script="Klingon")
        ),
        "sources[0].splits: 'dev' is no split": Corpus(
            sources=[Source(hub="a/b", splits={"train": "train", "dev": "dev"})]
        ),
    }
    for words, corpus in cases.items():
        assert words in error_of(corpus)


def test_missing_and_ambiguous_files(tmp_path: Path) -> None:
    corpus = Corpus(files=str(tmp_path / "none" / "x"))
    assert "corpus.files: " in error_of(corpus)
    assert "does not exist" in error_of(corpus)
    corpus = Corpus(files=str(tmp_path / "x"))
    assert "nor the stem of x.en and x.de" in error_of(corpus)

    folder = tmp_path / "text"
    folder.mkdir()
    corpus = Corpus(files=str(folder))
    assert f"{folder} holds no train.en and train.de" in error_of(corpus)
    (folder / "train.fr").write_text("x\n")
    message = error_of(corpus)
    assert "but train.fr; set the languages with --corpus.source and --corpus.target" in message
    (folder / "train.en").write_text("x\n")
    assert "train.en has no counterpart train.de in" in error_of(corpus)
    (folder / "train.de").write_text("y\n")
    (folder / "train.tsv").write_text("x\ty\n")
    assert "is ambiguous: train.de, train.en, train.tsv; keep one" in error_of(corpus)
    (folder / "train.tsv").unlink()
    (folder / "train.en.gz").write_bytes(b"")
    assert "is ambiguous: train.de, train.en, train.en.gz" in error_of(corpus)
    (folder / "train.en.gz").unlink()
    for name in ("valid.en", "dev.de"):
        (folder / name).write_text("x\n")
    assert "is ambiguous: valid.en, dev.de" in error_of(corpus)


def test_problems_come_up_in_the_order_train_valid_test(tmp_path: Path) -> None:
    corpus = make(tmp_path, train=sentences(20))
    (tmp_path / "test.en").write_text("lonely\n")
    (tmp_path / "valid.en").write_bytes(b"a\n\xff\n")
    (tmp_path / "valid.de").write_bytes(b"a\nb\n")
    (tmp_path / "train.de").write_text("only one\n")
    assert "train.de has 1" in error_of(corpus)
    write_pairs(tmp_path, "train", sentences(20))
    assert "valid.en: line 2 is not valid UTF-8" in error_of(corpus)
    (tmp_path / "valid.en").write_bytes(b"\n \n")
    assert "every pair has a blank side" in error_of(corpus)
    (tmp_path / "valid.en").write_bytes(b"a\nb\n")
    assert "test.en has no counterpart test.de" in error_of(corpus)


def test_empty_text(tmp_path: Path) -> None:
    corpus = make(tmp_path, train=sentences(3))
    (tmp_path / "train.en").write_text("")
    (tmp_path / "train.de").write_text("")
    assert "the corpus is empty: no pair in" in error_of(corpus)
    write_pairs(tmp_path, "train", [("same", "same"), ("", "x")])
    message = error_of(corpus)
    assert "left none of the 2 training pairs (empty side 1, identical sides 1)" in message
    assert "loosen corpus.cleaning" in message
    write_pairs(tmp_path, "train", [("same", "eins"), ("same", "zwei")])
    assert "2 training pairs are too few, or too alike" in error_of(corpus)
    write_pairs(tmp_path, "train", sentences(2))
    assert "2 training pairs are too few, or too alike" in error_of(corpus)
    (tmp_path / "train.en").chmod(0o000)
    if not os.access(tmp_path / "train.en", os.R_OK):
        assert "cannot read" in error_of(corpus)
