"""The page that every report is: one file with no outside reference, and parts that all have.

It opens from disk, offline, on paper, in light and dark. All text from data is escaped (see
`mt.evaluation.markup`), and the page's own content security policy lets no other script run.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template

from mt.evaluation import plots
from mt.evaluation.markup import Markup, element, join


def page(title: str, subtitle: str, parts: Sequence[tuple[str, str | None, Markup | None]]) -> str:
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


def _asset(name: str) -> str:
    return files("mt.evaluation").joinpath(name).read_text("utf-8")


def facts(rows: Sequence[tuple[str, str]]) -> Markup | None:
    """Show labels and values."""
    if not rows:
        return None
    shown = (element("div", element("dt", label), element("dd", value)) for label, value in rows)
    return element("dl", *shown, class_="facts")


def tile(value: str, label: str, details: Sequence[str] = (), kind: str | None = None) -> Markup:
    """Show a figure large, with what it is below."""
    lines = (element("span", detail) for detail in details)
    return element("div", element("dt", label, *lines), element("dd", value), class_=kind)


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
    metrics: Path | None, flow: Sequence[tuple[int, float]] | None = None, **curves: str
) -> Markup | None:
    """Show the curves of a run's `metrics.csv` (see `plots.training_curves`), and its gradient
    flow."""
    figures = plots.training_curves(metrics, **curves) if metrics is not None else []
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
    return element("div", *figures, class_="charts") if figures else None


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
