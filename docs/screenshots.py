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


def attention(page: Page) -> None:
    """Show where attention was at a word of some whole sentence."""
    page.locator(".browser > summary").click()
    page.locator(".browser input").fill("the that")
    page.wait_for_timeout(500)
    cards = page.locator(".browser .example").all()
    card = min(cards, key=lambda card: abs(len(card.locator("dd").nth(1).inner_text()) - 70))
    for summary in card.locator("summary").all():
        summary.click()
    card.scroll_into_view_if_needed()  # else the pointer would leave the word for the picture
    card.locator("dd").nth(2).locator(".word").nth(1).hover()
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
