"""The page that every report is: one file with no outside reference, and parts that all have.

It opens from disk, offline, on paper, in light and dark. All text from data is escaped (see
`mt.evaluation.markup`), and the page's own content security policy lets no other script run.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template

from mt.evaluation import plots
from mt.evaluation.markup import Markup, element, join
from mt.evaluation.tables import markdown
from mt.files import write_atomically


def html(title: str, subtitle: str, parts: Sequence[tuple[str, str | None, Markup | None]]) -> str:
    """Lay a report out as a page of its own.

    Args:
        title: Its headline.
        subtitle: What stands beside it.
        parts: Of each its name in links, its headline (None for the first, which has none), and its
            content; None where there is nothing to show.
    """
    shown = [(name, title, content) for name, title, content in parts if content is not None]
    links = [element("li", element("a", head, href=f"#{name}")) for name, head, _ in shown if head]
    script = _asset("report.js")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return Template(_asset("report.html.template")).substitute(
        title=join([title]),
        pair=join([subtitle]),
        navigation=element("nav", element("ul", *links), aria_label="Parts of the report"),
        body=join(
            element("section", element("h2", head), content, id=name, class_=name)
            if head
            else element("section", content, id=name)
            for name, head, content in shown
        ),
        style=_asset("report.css"),
        script=script,
        script_hash=f"sha256-{digest}",
    )


def brief(title: str, lines: Sequence[str], rows: Sequence[tuple[str, str]] = ()) -> str:
    """Say a report in Markdown: a headline, lines, and facts by their labels, if there are any."""
    told = ["## Facts", "", markdown([("", ""), *rows])] if rows else []
    return "\n".join([f"# {title}", "", *lines, *told])


def write(folder: Path, contents: Mapping[str, str]) -> None:
    """Write the files of a report by their names, each whole or not at all.

    Raises `MTError` where they cannot be written.
    """
    for name, text in contents.items():
        # A lone surrogate has no UTF-8 form; one must not cost the whole report.
        write_atomically(folder / name, text.encode("utf-8", "replace"))


def _asset(name: str) -> str:
    return files("mt.evaluation").joinpath(name).read_text("utf-8")


def facts(rows: Sequence[tuple[str, str]]) -> Markup | None:
    """Show labels and values."""
    if not rows:
        return None
    shown = (element("div", element("dt", label), element("dd", value)) for label, value in rows)
    return element("dl", *shown, class_="facts")


def verdict(name: str, counted: str, tiles: Sequence[Markup], *more: Markup | None) -> Markup:
    """Show what matters most of a test set: its name, its size, figures (see `tile`), and more."""
    head = element("h2", name, element("span", f" {counted}"))
    figures = element("dl", *tiles, class_="tiles")
    return element("article", head, figures, *more, class_="verdict card")


def tile(value: str, label: str, details: Sequence[str] = (), kind: str | None = None) -> Markup:
    """Show a figure large, with what it is below."""
    lines = (element("span", detail) for detail in details)
    return element("div", element("dt", label, *lines), element("dd", value), class_=kind)


def between(interval: tuple[float, float] | None, digits: int = 1) -> list[str]:
    """Say where a figure lies, as a detail of its tile; nothing where that is unknown."""
    if interval is None:
        return []
    low, high = interval
    return [f"95% between {low:.{digits}f} and {high:.{digits}f}"]


def by_set(names: Sequence[str], contents: Iterable[Markup | None]) -> Markup | None:
    """Show what there is of each test set, under its name where there are several."""
    parts = []
    for name, content in zip(names, contents, strict=True):
        if content is not None:
            parts += [element("h3", f"Test set {name}") if len(names) > 1 else None, content]
    return join(parts) if parts else None


def charts(figures: Sequence[Markup]) -> Markup | None:
    """Show figures side by side."""
    kind = "charts" if len(figures) > 1 else "charts one"
    return element("div", *figures, class_=kind) if figures else None


def wide(content: Markup, kind: str = "") -> Markup:
    """Let what may be wider than the page scroll by itself, from the keyboard too."""
    return element("div", content, class_=f"wide {kind}".rstrip(), tabindex="0")


def table(rows: Sequence[Sequence[str]]) -> Markup:
    """Show rows as a table, the first as its head."""
    head, *others = rows
    return element(
        "table",
        element("thead", element("tr", *(element("th", cell, scope="col") for cell in head))),
        element(
            "tbody",
            *(
                element(
                    "tr",
                    element("th", name, scope="row"),
                    *(element("td", cell) for cell in cells),
                )
                for name, *cells in others
            ),
        ),
    )


def training(
    metrics: Path | None,
    unit: str = "nats per token",
    flow: Sequence[tuple[int, float]] | None = None,
) -> Markup | None:
    """Show the curves of a run's `metrics.csv`, its loss in `unit`, and its gradient flow."""
    figures = plots.training_curves(metrics, unit) if metrics is not None else []
    points = [(float(distance), norm) for distance, norm in flow or () if norm > 0]
    if points:
        figures.append(
            plots.line_chart(
                "Gradient flow",
                "norm by the decoder's state, back from the last token",
                [plots.Series("", points)],
                x_name="steps back",
                log=True,
            )
        )
    return charts(figures)


def cleaning(rules: Sequence[tuple[str, int]] | None, what: str) -> Markup | None:
    """Show how many of `what`, such as pairs, each rule has dropped."""
    if not rules:
        return None
    head = ["Rule", f"{what.capitalize()} dropped"]
    return table([head, *([rule, f"{dropped:,}"] for rule, dropped in rules)])


def recipe(text: str | None) -> Markup | None:
    """Show a resolved recipe, folded."""
    if not text:
        return None
    return element(
        "details",
        element("summary", "Everything that decided this run"),
        # Scrolls where a line is long, so the keyboard must be able to reach it.
        element("pre", text, class_="card", tabindex="0"),
    )
