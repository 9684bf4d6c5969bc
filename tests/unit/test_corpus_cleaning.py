from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.corpus.cleaning import HeldOut, PairRules, count_words, fold, near_key
from mt.errors import MTError
from mt.recipe import Cleaning

LONG = "one two three four five six seven eight nine ten eleven twelve"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("a  b\tc", 3),
        ("\u4e2d", 1),
        ("\u4e2d\u6587\u5b57", 2),
        ("ab \u3042\u3044 c", 3),
        ("\ud55c\uad6d \uc5b4", 2),
    ],
)
def test_a_word_is_two_characters_where_a_script_writes_no_spaces(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("cleaning", "source", "target", "rule"),
    [
        (Cleaning(), "a house", "ein Haus", None),
        (Cleaning(), " \u00a0", "ein Haus", "empty side"),
        (Cleaning(), "a house", "", "empty side"),
        (Cleaning(min_words=2), "a house", "Haus", "fewer than 2 words"),
        (Cleaning(max_words=3), "a b c d", "a b", "more than 3 words"),
        (Cleaning(max_words=0, max_ratio=0), LONG * 40, "kurz", None),
        (Cleaning(), LONG, "eins zwei", "length ratio over 4"),
        (Cleaning(), LONG, "eins zwei drei", None),
        (Cleaning(), "a b c d e", "a", None),
        (Cleaning(max_ratio=0), LONG, "eins", None),
        (Cleaning(), "same", "same", "identical sides"),
        (Cleaning(identical=False), "same", "same", None),
        (Cleaning(), "a\x00b", "c", "control characters"),
        (Cleaning(), "a\tb", "c\x85d", "control characters"),
        (Cleaning(), "a\tb", "c\u2028d", None),
        (Cleaning(control_characters=False), "a\x00b", "c", None),
        (Cleaning(source_script="Latin"), "\u0434, ok", "ja", None),
        (Cleaning(source_script="Latin"), "\u0434\u0430\u0434\u0430, ok", "ja", "wrong script"),
        (Cleaning(source_script="latin"), "12:30", "12.30", None),
        (Cleaning(target_script="Cyrillic"), "yes", "ja", "wrong script"),
        (Cleaning(target_script="Cyrillic"), "yes", "\u0434\u0430", None),
        (Cleaning(target_script="Japanese"), "yes", "\u306f\u3044\u6f22", None),
        (Cleaning(target_script="Han"), "yes", "\uff21\uff22", "wrong script"),
    ],
)
def test_rules(cleaning: Cleaning, source: str, target: str, rule: str | None) -> None:
    rules = PairRules(cleaning)
    assert rules.broken(source, target) == rule
    assert rule is None or rule in rules.names


def test_unknown_script() -> None:
    with pytest.raises(MTError, match=r"cleaning\.target_script: no script is called 'Latn'"):
        PairRules(Cleaning(target_script="Latn"))


def test_rules_that_are_off_are_not_named() -> None:
    off = Cleaning(max_words=0, max_ratio=0, identical=False, control_characters=False)
    assert PairRules(off).names == ["empty side"]


@pytest.mark.parametrize(
    "other",
    [
        "open the FILE",
        "Open 3 the file!",
        "Open the {name} file",
        "Open the <b>file</b>.",
        "%s: open the %1$s file %(key)s ${x} {{ y }} %1",
    ],
)
def test_near_key_ignores_case_digits_signs_and_placeholders(other: str) -> None:
    assert near_key(other) == near_key("Open the file")


def test_texts_without_letters_are_their_own_key() -> None:
    assert near_key(" 08:00 ") == "08:00" != near_key("09:00")


def test_marks_belong_to_words() -> None:
    assert fold("\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902") == [
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u092e\u0947\u0902",
    ]
    assert fold("\u0e04\u0e19") == ["\u0e04", "\u0e19"]


def test_half_of_either_sentence_is_near() -> None:
    held_out = HeldOut(["a b c d e f g"])  # four 4-grams
    assert held_out.near("x x x a b c d e y y y y y y y y")  # two of the held-out four
    assert held_out.near("a b c d x")  # one of its own two
    assert not held_out.near("x x x a b c d y y y y y y y")  # one of four
    assert not held_out.near("a b c")  # too short for a 4-gram


def test_nearness_without_spaces() -> None:
    held_out = HeldOut(
        ["\u8a2d\u5b9a\u3092\u5909\u66f4\u3057\u3066\u304f\u3060\u3055\u3044"]
    )  # 11 characters: 4 grams
    assert held_out.near(
        "\u8a2d\u5b9a\u3092\u5909\u66f4\u3057\u3066\u304f\u3060\u3055\u308b\u3068\u304b"
    )  # three of its six
    assert held_out.near("\u518d\u8a2d\u5b9a\u3092\u5909\u66f4\u3057\u3066\u304f")  # one of its two
    # Four characters in common are but two words.
    assert not held_out.near("\u8a2d\u5b9a\u3092\u5909\u3048\u308b\u306e\u306f\u3053\u3053")
    assert not held_out.near("\u8a2d\u5b9a\u3092")


def test_near_however_words_are_parted() -> None:
    assert HeldOut(["{name} is not detecting smoke"]).near("{name} is not detecting gas")
    assert HeldOut(["no re-try of it now"]).near("please no retry of it now")
    assert HeldOut(["no re-try of it"]).near("no re try of it at all, never ever")


WORDS = st.lists(st.sampled_from("abcde"), max_size=12)


@given(WORDS, WORDS)
def test_nearness_is_half_of_the_shared_4_grams(text: list[str], held_out: list[str]) -> None:
    one, two = (
        {tuple(words[i : i + 4]) for i in range(len(words) - 3)} for words in (text, held_out)
    )
    expected = bool(one & two) and 2 * len(one & two) >= min(len(one), len(two))
    assert HeldOut([" ".join(held_out)]).near(" ".join(text)) == expected
    assert HeldOut([" ".join(text)]).near(" ".join(held_out)) == expected
