"""HTML elements from Python values, escaped by default: text from data cannot become markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Markup(str):
    """Text that is HTML already, and goes into an element as it is."""


def element(name: str, *children: str | None, **attributes: object) -> Markup:
    """Return `<name …>children</name>`.

    Children that are no `Markup` are escaped; None is left out. In attribute names `_` stands for
    `-`, and one at the end falls away (`class_`). An attribute of None is left out.
    """
    spelt = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{spelt}>{join(children)}</{name}>")


def join(children: Iterable[str | None]) -> Markup:
    """Return the children one after the other, escaping those that are no `Markup`."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(child)
            for child in children
            if child is not None
        )
    )
