"""Which training pairs are dropped: rules on one pair, and nearness to held-out sentences."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import NamedTuple

from mt.errors import MTError
from mt.recipe import Cleaning, TextCleaning
from mt.scripts import SPACELESS

Gram = tuple[str, ...]


class RuleCount(NamedTuple):
    """What one step did to the training text; the first row, `read`, drops nothing."""

    rule: str
    dropped: int  # pairs
    kept: int  # pairs left after the rule


_BEYOND_LATIN = re.compile("[\u0300-\U0010ffff]")  # marks and spaceless scripts lie here
_LETTERS = re.compile(r"[^\W\d_]+")
_NO_LETTER = re.compile(r"[^\w\s]|[\d_]")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_PLACEHOLDER_START = re.compile("[{%<]")
_PLACEHOLDER = re.compile(
    r"""\$?\{+[^{}]*\}+                        # {name}  {{ name }}  ${name}
      | %\([^()]*\)[a-z]                       # %(name)s
      | %(?:\d+\$)?[-+0#]*\d*(?:\.\d+)?[a-z@]\b # %s  %-5.2f  %1$s
      | %\d+\b                                 # %1
      | </?[a-z][^<>]*>                        # <b>  </b>  <a href="...">
    """,
    re.VERBOSE | re.IGNORECASE,
)


def count_words(text: str) -> int:
    """Count the words of a text: runs between spaces, and two characters of a spaceless script."""
    if text.isascii():
        return len(text.split())
    spaced, characters = SPACELESS.subn(" ", text)
    return len(spaced.split()) + (characters + 1) // 2


def fold(text: str) -> list[str]:
    """Reduce a text to the lower-cased words that are left without placeholders, digits, signs."""
    return _words(_without_placeholders(text.lower()))


def _without_placeholders(text: str) -> str:
    return _PLACEHOLDER.sub(" ", text) if _PLACEHOLDER_START.search(text) else text


def _words(text: str) -> list[str]:
    if not _BEYOND_LATIN.search(text):
        return _LETTERS.findall(text)
    return _letters_and_marks().findall(SPACELESS.sub(r" \g<0> ", text))


def near_key(text: str) -> str:
    """Return a text's letters: two texts that differ in case, digits, signs and spaces share it.

    A text without letters is its own key.
    """
    return "".join(fold(text)) or text.strip()


@functools.cache
def _letters_and_marks() -> re.Pattern[str]:
    # Marks belong to words (Devanagari writes vowels with them), but not to `\w`.
    marks = "".join(
        re.escape(chr(code))
        for code in range(0x300, 0x1F000)
        if unicodedata.category(chr(code)).startswith("M")
    )
    return re.compile(rf"(?:[^\W\d_]+|[{marks}]+)+")


class PairRules:
    """The rules that look at one pair alone.

    Raises `MTError` for a script that Unicode does not know.
    """

    def __init__(self, cleaning: Cleaning) -> None:
        self._cleaning = cleaning
        self._scripts = tuple(
            _script_names(script, field) if script else None
            for script, field in (
                (cleaning.source_script, "source_script"),
                (cleaning.target_script, "target_script"),
            )
        )
        self.names = self._active()

    def _active(self) -> list[str]:
        """Name the rules that are on, in the order in which they are applied."""
        rules = self._cleaning
        on = {
            "empty side": True,
            f"fewer than {rules.min_words} words": rules.min_words > 1,
            f"more than {rules.max_words} words": rules.max_words > 0,
            f"length ratio over {rules.max_ratio:g}": rules.max_ratio > 0,
            "identical sides": rules.identical,
            "control characters": rules.control_characters,
            "wrong script": any(self._scripts),
        }
        self._short, self._long, self._ratio = list(on)[1:4]
        return [name for name, active in on.items() if active]

    def broken(self, source: str, target: str) -> str | None:
        """Name the first rule that a pair breaks; None for a good pair."""
        rules = self._cleaning
        if not source.strip() or not target.strip():
            return "empty side"
        few, many = sorted((count_words(source), count_words(target)))
        if few < rules.min_words:
            return self._short
        if rules.max_words > 0 and many > rules.max_words:
            return self._long
        if rules.max_ratio > 0 and many > 5 and many > rules.max_ratio * few:
            return self._ratio
        if rules.identical and source == target:
            return "identical sides"
        if rules.control_characters and (_CONTROL.search(source) or _CONTROL.search(target)):
            return "control characters"
        for text, scripts in zip((source, target), self._scripts, strict=True):
            if scripts is not None and not _mostly(text, scripts):
                return "wrong script"
        return None


class LineRules:
    """The rules that look at one line of text in one language.

    Raises `MTError` for a script that Unicode does not know.
    """

    def __init__(self, cleaning: TextCleaning) -> None:
        self._cleaning = cleaning
        self._script = _script_names(cleaning.script, "script") if cleaning.script else None
        on = {
            "empty line": True,
            f"fewer than {cleaning.min_words} words": cleaning.min_words > 1,
            f"more than {cleaning.max_words} words": cleaning.max_words > 0,
            "control characters": cleaning.control_characters,
            "wrong script": self._script is not None,
        }
        self._short, self._long = list(on)[1:3]
        self.names = [name for name, active in on.items() if active]
        """The rules that are on, in the order in which they are applied."""

    def broken(self, line: str) -> str | None:
        """Name the first rule that a line breaks; None for a good line."""
        rules, words = self._cleaning, count_words(line)
        if not line.strip():
            return "empty line"
        if rules.min_words > 1 and words < rules.min_words:
            return self._short
        if 0 < rules.max_words < words:
            return self._long
        if rules.control_characters and _CONTROL.search(line):
            return "control characters"
        if self._script is not None and not _mostly(line, self._script):
            return "wrong script"
        return None


def _mostly(text: str, scripts: frozenset[str]) -> bool:
    letters = [character for character in text if character.isalpha()]
    good = sum(_script(character) in scripts for character in letters)
    return 2 * good > len(letters) or not letters


@functools.lru_cache(maxsize=1 << 16)
def _script(character: str) -> str:
    # A character's name begins with its script: "CYRILLIC SMALL LETTER A".
    words = unicodedata.name(character, "").split()
    if words and words[0] in ("FULLWIDTH", "HALFWIDTH"):
        del words[0]
    return words[0] if words else ""


def _script_names(script: str, field: str) -> frozenset[str]:
    writing = {
        "HAN": {"CJK"},
        "JAPANESE": {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"},
        "KOREAN": {"CJK", "HANGUL"},
    }
    names = frozenset(writing.get(script.upper(), {script.upper()}))
    if not names & _known_scripts():
        raise MTError(
            f"corpus.cleaning.{field}: no script is called {script!r}; "
            "write for example Latin, Cyrillic, Greek, Arabic, Devanagari, Han, Japanese or Korean"
        )
    return names


@functools.cache
def _known_scripts() -> frozenset[str]:
    return frozenset(_script(chr(code)) for code in range(0x20000) if chr(code).isalpha())


class HeldOut:
    """The held-out sentences of one side, indexed by word 4-gram.

    What a word is stays a matter of taste ("re-try" is one or two, "{name}," is one or none):
    sentences are near when they are near for any of three ways to part them.
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        self._sizes: list[int] = []  # distinct 4-grams of each sentence, once for each parting
        self._index: dict[Gram, list[int]] = {}  # 4-gram -> sentences
        for grams in {frozenset(grams) for text in sentences for grams in _gram_sets(text)}:
            for gram in grams:
                self._index.setdefault(gram, []).append(len(self._sizes))
            self._sizes.append(len(grams))
        self._known = set(self._index)

    def near(self, text: str) -> bool:
        """Tell whether a text shares half of its 4-grams, or half of a held-out sentence's.

        Sentences of fewer than four words have none and are never near in this sense.
        """
        return any(map(self._shares_half, _gram_sets(text)))

    def _shares_half(self, grams: Set[Gram]) -> bool:
        if self._known.isdisjoint(grams):
            return False
        counts = Counter(number for gram in grams for number in self._index.get(gram, ()))
        return any(
            2 * count >= min(len(grams), self._sizes[sentence])
            for sentence, count in counts.items()
        )


def _gram_sets(text: str) -> Iterator[set[Gram]]:
    """Part a text into words: runs of letters; between spaces; and so, of letters alone."""
    lower = text.lower()
    bare = _without_placeholders(lower)
    letters = _NO_LETTER.sub("", bare)
    spaceless = not lower.isascii() and SPACELESS.search(lower) is not None
    for words in {tuple(_words(bare)), tuple(lower.split()), tuple(letters.split())}:
        yield _long_grams(words) if spaceless else _grams(words)


def _grams(words: Sequence[str]) -> set[Gram]:
    return set(zip(words, words[1:], words[2:], words[3:], strict=False))


def _long_grams(words: Sequence[str]) -> set[Gram]:
    """Four words, where a character of a spaceless script is half of one."""
    grams, start, halves = set(), 0, 0
    for end, word in enumerate(words, 1):
        halves += _halves(word)
        while halves >= 8:
            grams.add(tuple(words[start:end]))
            halves -= _halves(words[start])
            start += 1
    return grams


def _halves(word: str) -> int:
    return 1 if len(word) == 1 and SPACELESS.match(word) else 2
