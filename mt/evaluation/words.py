"""Words of a text, for showing and for counting; scores have tokenizers of their own."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

# Punctuation stands alone, and so does each Chinese or Japanese character; all else between
# spaces is one word (vowel signs of Indic scripts are no `\w`, so words are not told by that).
_SINGLE = (
    r"!-/:-@\[-`{-~¡-¿‐-⁞、-〟！-／：-＠"
    r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"([{_SINGLE}]|[^\s{_SINGLE}]+)(\s*)")


def words(text: str) -> list[str]:
    """Return the words and signs of a text, lower-cased."""
    return [word for word, _ in _WORD.findall(text.lower())]


def word_diff(reference: str, hypothesis: str) -> tuple[list[str], list[str]]:
    """Compare two texts word by word.

    Returns the pieces of each: the first, third … stand in both texts, the second, fourth …
    in this one alone. Joined, they give the text, without space at its ends.
    """
    found = [_WORD.findall(reference.strip()), _WORD.findall(hypothesis.strip())]
    matcher = SequenceMatcher(
        None, [word for word, _ in found[0]], [word for word, _ in found[1]], autojunk=False
    )
    pieces: tuple[list[str], list[str]] = ([""], [""])
    for operation, *bounds in matcher.get_opcodes():
        for side, start, end in ((0, *bounds[:2]), (1, *bounds[2:])):
            part = "".join(word + space for word, space in found[side][start:end])
            if operation == "equal":
                pieces[side][-1] += part
            elif part:
                # The mark ends with the word, not with the space behind it.
                marked = part.rstrip()
                pieces[side].extend([marked, part[len(marked) :]])
    return pieces
