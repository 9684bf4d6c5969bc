"""Links of the documentation: to files that exist, and to the very lines that they quote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])
LINK = re.compile(r"\[([^\[\]]*(?:\[[^\]]*\][^\[\]]*)*)\]\(([^()\s]+)\)")


def links(page: Path) -> list[tuple[str, str]]:
    return [
        (text, target)
        for text, target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("#")
    ]


def test_there_are_pages_with_links() -> None:
    assert {"README.md", "recurrent-networks.md"} <= {page.name for page in PAGES}
    assert len(links(ROOT / "docs/recurrent-networks.md")) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_they_name(page: Path) -> None:
    for text, target in links(page):
        name, _, line = target.partition("#L")
        file = page.parent / name.partition("#")[0]
        assert file.exists(), f"{page.name}: {target}"
        if line:
            quoted = file.read_text(encoding="utf-8").split("\n")[int(line) - 1]
            assert text.strip("`") in quoted, f"{page.name}: {target}; run python docs/lines.py"
            if text.startswith("`test_"):
                assert quoted.startswith("def "), f"{page.name}: {target}"
