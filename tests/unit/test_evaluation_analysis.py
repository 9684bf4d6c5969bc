from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.evaluation.analysis import (
    analyse,
    by_frequency,
    checks,
    familiarity,
)
from mt.evaluation.scores import corpus_score
from mt.evaluation.words import words
from mt.recipe import TokenizerSpec
from mt.tokenizer import train_tokenizer

lines = st.lists(st.text("ab ", max_size=6), min_size=1, max_size=4)


def trigrams(text: str) -> list[str]:
    padded = ["", *words(text), ""]
    found = [repr(padded[start : start + 3]) for start in range(len(padded) - 2)]
    return found or [repr(["", "", ""])]


@given(lines, lines, st.lists(st.tuples(lines, lines), max_size=3))
def test_familiarity_is_what_a_search_of_the_whole_text_finds(
    sources: list[str], targets: list[str], training: list[tuple[list[str], list[str]]]
) -> None:
    found = familiarity(iter(training), sources, targets)
    seen = [text for batch, _ in training for text in batch]
    counts = Counter(word for _, batch in training for text in batch for word in words(text))
    for target in targets:
        for word in words(target):
            assert found.counts[word] == counts[word]
    for source, share, unknown in zip(sources, found.known, found.unknown, strict=True):
        own = trigrams(source)
        known = {gram for text in seen for gram in trigrams(text)}
        assert share == sum(gram in known for gram in own) / len(own)
        known_words = {word for text in seen for word in words(text)}
        assert unknown == sum(word not in known_words for word in words(source))


def test_words_are_scored_by_how_often_they_were_trained_on() -> None:
    counts = {"the": 2000, "cat": 50, "cats": 1}
    reference = ["The cat the cat", "cats the dog"]
    better, worse = ["the cat cat", "cats the dog dog"], ["a a", "the the"]
    one = by_frequency(counts, [better, worse], reference)
    assert [(b.label, b.size) for b in one.buckets] == [
        ("0", 1),  # dog
        ("1", 1),  # cats
        ("10–99", 2),  # cat, cat
        ("1,000+", 3),  # the, the, the
    ]
    scores = [[value.score for value in bucket.values] for bucket in one.buckets]
    # Twice what is found over what is there and what was said: dog 2·1/(1+2), the 2·2/(3+2).
    assert scores[0] == pytest.approx([200 / 3, 0])
    assert scores[1] == pytest.approx([100, 0])
    assert scores[2] == pytest.approx([100, 0])
    assert scores[3] == pytest.approx([80, 200 * 1 / 5])
    low, high = one.buckets[3].values[0].interval or (0, 0)
    assert 0 <= low < 80 < high <= 100


def example(count: int) -> tuple[list[str], list[str], list[str]]:
    """Sources of one to seven words, their reversed words, and all but the first of these."""
    sources = [" ".join(f"w{k}" for k in range(1 + n % 7)) for n in range(count)]
    references = [" ".join(text.split()[::-1]) for text in sources]
    return sources, references, [" ".join(text.split()[1:]) for text in references]


def test_buckets_are_scored_as_test_sets_of_their_own() -> None:
    sources, references, hypotheses = example(40)
    training = [(sources[:3], references[:3])]
    one = analyse(sources, [references], [hypotheses, references], "chrf", "de", training)
    titles = [part.title for part in one.breakdowns]
    assert [title.split()[0] for title in titles] == ["Words", "Word", "Source", "Source"]
    for part in one.breakdowns[:1] + one.breakdowns[2:]:
        assert part.unit == "chrF2"
        assert sum(bucket.size for bucket in part.buckets) == 40
        assert all(bucket.values[1].score == pytest.approx(100) for bucket in part.buckets)
    short, long = one.breakdowns[0].buckets
    assert (short.label, long.label) == ("1–5", "6–10")
    members = [n for n, text in enumerate(sources) if len(text.split()) <= 5]
    wanted = corpus_score(
        "chrf",
        [hypotheses[n] for n in members],
        [[references[n] for n in members]],
        target_language="de",
    )
    assert short.size == len(members)
    assert short.values[0].score == pytest.approx(wanted.score)
    low, high = short.values[0].interval or (0, 0)
    assert low < wanted.score < high
    # Sentences of one to three words were trained on; two trigrams of all others begin like these.
    sizes = [[(b.label, b.size) for b in part.buckets] for part in one.breakdowns[2:]]
    assert sizes[0] == [("25–50%", 22), ("100%", 18)]
    assert sizes[1] == [("none", 18), ("1", 6), ("2+", 16)]


def test_one_sentence_is_analysed_without_intervals() -> None:
    one = analyse(["a b"], [["b a"]], [["b"]], "bleu", "de", [(["a b"], ["b a"])])
    for part in one.breakdowns:
        for bucket in part.buckets:
            assert [value.interval for value in bucket.values] == [None]
    assert [len(part.buckets) for part in one.breakdowns] == [1, 1, 1, 1]


def test_without_training_text_nothing_is_said_of_it() -> None:
    sources, references, hypotheses = example(10)
    [only] = analyse(sources, [references], [hypotheses], "bleu", "de").breakdowns
    assert only.title == "Words of the source"


def test_checks_count_what_is_wrong() -> None:
    rows = [
        # source, reference, translation
        ("A cat", "Eine Katze", ""),  # empty
        ("", "", ""),  # rightly so
        ("A dog", "Ein Hund", "Ein Hund " + "und eine Katze " * 3),  # long, and repeats itself
        ("A big cat", "Eine große Katze", "A big cat"),  # copied
        ("Berlin", "Berlin", "berlin"),  # rightly so
        ("very very good", "sehr sehr gut", "sehr sehr gut"),  # as the source
        ("no", "nein", "nein nein"),
        ("so", "so", "so ..."),  # signs alone
        ("In 1,000 years 2.5 m", "In 1.000 Jahren 2,5 m", "In 1.000 Jahren 2,5 m"),
        ("7 of 7", "7 von 7", "7 von sieben"),
        ("Hi {name}", "Hallo {name}", "Hallo"),
    ]
    sources, reference, hypotheses = (list(column) for column in zip(*rows, strict=True))
    found = checks(sources, reference, [reference, hypotheses])
    table = {one.name: one.values for one in found}
    total = sum(len(words(text)) for text in reference)
    length = table.pop("Words, of the reference's")
    assert length[0] == f"{total} of {total}, 100.0%"
    assert length[1].startswith(f"{sum(len(words(text)) for text in hypotheses)} of {total}, ")
    assert table == {
        "Empty, where the source is not": ["0.0% (0 of 11)", "9.1% (1 of 11)"],
        "More than twice as long as the reference, and five words": [
            "0.0% (0 of 11)",
            "9.1% (1 of 11)",
        ],
        "The source as it is, where the reference is not": ["0.0% (0 of 11)", "9.1% (1 of 11)"],
        "Something said twice in a row, not in source or reference": [
            "0.0% (0 of 11)",
            "18.2% (2 of 11)",
        ],
        "All numbers of the source kept": ["100.0% (2 of 2)", "50.0% (1 of 2)"],
        "All placeholders of the source kept": ["100.0% (1 of 1)", "0.0% (0 of 1)"],
    }


def test_shares_never_round_to_none_or_all() -> None:
    sources, reference = ["a"] * 4000, ["b"] * 4000
    hypotheses = [["", *["b"] * 3999], [*[""] * 3999, "b"]]
    empty = next(one for one in checks(sources, reference, hypotheses) if "Empty" in one.name)
    assert empty.values == ["<0.1% (1 of 4,000)", ">99.9% (3,999 of 4,000)"]


def test_characters_without_a_token_are_counted() -> None:
    text = ["ab ba aab", "bab abba"] * 20
    spec = TokenizerSpec(vocab_size=270, byte_fallback=True, placeholders=False)
    tokenizer = train_tokenizer(spec, lambda: text)
    [spelt] = [
        one
        for one in checks(["a", "a"], ["a", "a"], [["ab", "é"]], tokenizer)
        if one.name == "Tokens spelt byte by byte"
    ]
    count, total = spelt.values[0].partition("(")[2].rstrip(")").split(" of ")
    assert count == "2"  # bytes of é in UTF-8
    assert 2 < int(total) < 6
