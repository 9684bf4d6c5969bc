"""Charts of the report as pictures that stand alone, for the pages of this folder."""

from __future__ import annotations

import re
from pathlib import Path

from mt.evaluation.markup import Markup

_SIZE, _VIEW = 'width="690" height="345"', 'viewBox="-14 0 490 245"'  # room for long names
_STYLE = """<style>
svg { --ink: #1d1f24; --muted: #5d626d; --line: #e3e0d8; --a: #0b5f7a; --b: #b4530a; --c: #6a4c93;
  --d: #3d7a35; font: 11.5px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { --muted: #a0a5b0; --line: #30343d; --a: #6cc5e0;
  --b: #f0a35e; --c: #c3a6ee; --d: #9ad08f } }
text { fill: var(--muted) } .plot-value { font-weight: 650 } .plot-grid { stroke: var(--line) }
.plot-line { fill: none; stroke-width: 1.9 } .plot-band { display: none }
.plot-a { stroke: var(--a) } .plot-b { stroke: var(--b) } .plot-c { stroke: var(--c) }
.plot-d { stroke: var(--d) } text.plot-end { stroke: none }
text.plot-a { fill: var(--a) } text.plot-b { fill: var(--b) } text.plot-c { fill: var(--c) }
text.plot-d { fill: var(--d) }
</style>"""


def save_figure(path: Path, figure: Markup) -> None:
    """Write a chart's picture with the colours of the report, light and dark, of its own."""
    svg = re.search("<svg.*</svg>", str(figure), re.DOTALL)
    assert svg is not None
    text = re.sub('viewBox="[^"]*"', _VIEW, svg[0], count=1)
    text = text.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" {_SIZE} ', 1)
    body = text.index(">") + 1
    path.write_text(f"{text[:body]}{_STYLE}{text[body:]}\n")
