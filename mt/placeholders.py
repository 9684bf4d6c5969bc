"""Placeholders such as `{name}` and `%s`: one symbol each for the network, copied word for word.

A network that spells placeholders out of subwords will sooner or later translate `{hours}`, and it
cannot know one that it never saw. Masked, every placeholder is one of a few symbols that stand for
"the first", "the second" of its sentence; what they stood for is put back after translation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PLACEHOLDER = re.compile(
    r"""
    \$?\{\{?[^{}\s]*\}?\}                            # {name} {0} {} {{name}} ${name}
    | (?<![%\d])%(?:
        \(\w+\)[a-zA-Z]                              # %(name)s
        | \d+(?:\$[a-zA-Z@])?                        # %1 %1$s
        | [-+\#]?(?:\d*\.\d+)?(?:hh?|ll?)?[sdiufgxXc@](?!\w)   # %s %d %.2f %ld
        | [A-Z][A-Z_]+                               # %PRODUCTNAME
    )
    """,
    re.VERBOSE,
)
"""What counts as a placeholder."""
SYMBOLS = tuple(f"⟦{number}⟧" for number in range(1, 10))
"""What placeholders are masked by, in the order of their first appearance."""

_SYMBOL = re.compile("⟦[1-9]⟧")
_MASKED = re.compile(rf"{_SYMBOL.pattern}|{PLACEHOLDER.pattern}", re.VERBOSE)


def mask(text: str, symbols: Sequence[str], held: Sequence[str] | None = None) -> str:
    """Replace placeholders by symbols.

    Args:
        text: Raw text.
        symbols: As many of `SYMBOLS`, from the first, as the vocabulary has.
        held: The placeholders that may be replaced, by symbol; by default those of `text` itself.
            A translation is masked by those of its source.
    """
    if held is None:
        held = find(text, symbols)
    if not held:
        return text
    known = dict(zip(held, symbols, strict=False))
    return _MASKED.sub(lambda match: known.get(match[0], match[0]), text)


def find(text: str, symbols: Sequence[str] = SYMBOLS) -> list[str]:
    """Return the distinct placeholders of a text in the order of their symbols.

    A symbol that stands in the text itself is one of them, and comes first: left as it is, it would
    be taken for a mask.
    """
    if "{" not in text and "%" not in text and "⟦" not in text:
        return []
    parts = dict.fromkeys(_MASKED.findall(text))
    own = [part for part in parts if part in symbols]
    others = [part for part in parts if part not in SYMBOLS]
    return [*own, *others][: len(symbols)]


def unmask(text: str, symbols: Sequence[str], held: Sequence[str]) -> str:
    """Put placeholders back; a symbol that stands for none of them disappears."""
    known = dict.fromkeys(symbols, "") | dict(zip(symbols, held, strict=False))
    return _SYMBOL.sub(lambda match: known.get(match[0], match[0]), text)
