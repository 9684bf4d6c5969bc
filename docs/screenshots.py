"""Pictures of a report for these pages.

python docs/screenshots.py RUN   (with `pip install --group browser` and a Chromium)

RUN is a run folder of the quickstart. Writes docs/report.png, report-breakdown.png and
report-attention.png.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
LEAST_WORDS = 6


def attention(page: Page) -> None:
    """Show where attention was at a word of a longer sentence, and the best translations."""
    cards = page.locator(".example[data-attention]")
    words = [cards.nth(n).locator("dd").nth(2).locator(".word") for n in range(cards.count())]
    card, found = next(
        (cards.nth(n), found)
        for n, found in reversed([*enumerate(words)])
        if found.count() >= LEAST_WORDS
    )
    for summary in card.locator("summary").all():
        summary.click()
    found.nth(1).hover()
    card.screenshot(path=HERE / "report-attention.png")


def main() -> None:
    """Take the pictures."""
    with sync_playwright() as started:
        path = shutil.which("chromium") or shutil.which("chrome")
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 780})
        page.goto(Path(sys.argv[1], "report.html").resolve().as_uri())
        page.screenshot(path=HERE / "report.png")
        page.locator("#breakdown").screenshot(path=HERE / "report-breakdown.png")
        attention(page)
        browser.close()


if __name__ == "__main__":
    main()
