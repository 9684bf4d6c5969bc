"""Reports as people use them, in a real browser; each test leaves screenshots in its folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, Run

from mt.evaluation import report
from mt.evaluation.classes import score_classes
from mt.evaluation.classes_report import ClassReport, TestTexts, write_class_report
from mt.evaluation.examples import Example
from mt.evaluation.forecast_report import ForecastReport, write_forecast_report
from mt.evaluation.forecasts import ForecastScores, RollingOrigin
from mt.evaluation.report import ReportData, write_report
from mt.evaluation.scores import score_set, sentence_scores
from mt.evaluation.text import score_text
from mt.evaluation.text_report import TextReport, write_text_report
from mt.forecaster import Forecast
from mt.translator import Alignment

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'text'"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
# Neither is needed to use mt, so where one is missing these tests are skipped, and say so.
playwright = pytest.importorskip("playwright.sync_api", reason="needs pip's --group browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Any, path: Path, **options: Any):
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(20_000)
        self.errors: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._asked)
        self.page.goto(path.as_uri())

    def _asked(self, request: Any) -> None:
        if not request.url.startswith("file:"):
            self.errors.append(request.url)

    def close(self) -> None:
        """Let nothing have gone wrong."""
        assert self.errors == []
        self.page.close()


def write(folder: Path, examples: list[Example], languages: tuple[str, str] = ("en", "de")) -> Path:
    texts = [example.hypothesis for example in examples]
    references = [[example.reference for example in examples]]
    scores = score_set("test", {"ours": [texts]}, references, ["chrf"], target_language="de")
    chrf = {"chrf": [sentence_scores("chrf", texts, references, target_language="de")]}
    write_report(folder, ReportData("x", [report.TestSet(scores, examples, chrf)], languages))
    return folder / "report.html"


def numbered(count: int) -> list[Example]:
    return [Example(f"word{n} two", f"Satz {n % 5}", f"Satz {n}") for n in range(count)]


def test_the_report_of_a_run_shows_where_attention_was(
    browser: Any, mt: Command, run: Run, project: Path, tmp_path: Path
) -> None:
    common = ["--source", project / "text/test.xx", "--reference", project / "text/test.yy"]
    done = mt("evaluate", run.bundle, *common, "--output", tmp_path / "out", cwd=tmp_path)
    assert done.status == 0, done.err
    opened = Opened(browser, tmp_path / "out/report.html")
    page = opened.page
    card = page.locator("[data-attention]").first
    source, _, translation = (card.locator("dd").nth(place) for place in range(3))
    shown = translation.inner_text()
    words = translation.locator(".word")
    assert "".join(words.all_inner_texts()) == shown.replace(" ", "")
    words.nth(0).hover()
    playwright.expect(card.locator(".told")).to_contain_text(" ← ")
    told = card.locator(".told").inner_text().strip()
    assert told.startswith(f"· {words.nth(0).inner_text()} ← ")
    weight = "element => Number(getComputedStyle(element).getPropertyValue('--weight'))"
    lit = [float(word.evaluate(weight)) for word in source.locator(".word").all()]
    best = source.locator(".word").nth(int(np.argmax(lit))).inner_text()
    assert max(lit) > 0.3
    assert told.split(" ← ")[1].startswith(f"{best} ")
    card.screenshot(path=tmp_path / "hover.png")

    # The same from the keyboard, and as a table.
    page.mouse.move(0, 0)
    playwright.expect(card.locator(".told")).to_have_text("")
    translation.focus()
    page.keyboard.press("ArrowRight")
    playwright.expect(card.locator(".told")).to_have_text(told)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    best_texts = card.locator("details dd")
    best_texts.first.wait_for()  # the browser tells that it has opened a little later
    assert best_texts.first.inner_text() == shown
    assert len(set(best_texts.all_inner_texts())) == best_texts.count() > 1
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    cells = card.locator(".heat td[title]")
    cells.first.wait_for()
    assert cells.count() == card.locator(".heat tbody tr").count() * len(lit)
    first = [float(cell.evaluate(weight)) for cell in cells.all()[: len(lit)]]
    assert first == lit
    card.screenshot(path=tmp_path / "heat.png")
    opened.close()


def test_all_sentences_are_searched_and_ordered(browser: Any, tmp_path: Path) -> None:
    evil = Example(EVIL, "b", EVIL, (), Alignment([(0, 5)], [(2, 9)], np.ones((1, 1), np.float32)))
    opened = Opened(browser, write(tmp_path, [*numbered(60), evil]))
    page = opened.page
    assert page.locator(".list article").count() == 0
    page.get_by_text("All 61 sentences").click()
    playwright.expect(page.locator("output")).to_have_text("61 of 61")
    assert page.locator(".list article").count() == 40
    page.get_by_text("Show more").click()
    assert page.locator(".list article").count() == 61
    page.locator("select").select_option("longest")
    assert EVIL in page.locator(".list article").first.inner_text()
    page.locator("input[type=search]").fill("two word37")
    playwright.expect(page.locator("output")).to_have_text("1 of 61")
    assert "word37 two" in page.locator(".list article").inner_text()
    assert page.locator("img").count() == 0
    page.screenshot(path=tmp_path / "list.png")
    opened.close()


@pytest.mark.parametrize("task", ["text", "classes", "forecast"])
def test_other_tasks_fit_a_small_screen(browser: Any, tmp_path: Path, task: str) -> None:
    if task == "text":
        scores = score_text("test", ["a", "b"], [(-1.0, 2), (-2.0, 3)])
        write_text_report(
            tmp_path, TextReport("x", "en", [scores], samples=["word " * 30, "b" * 99])
        )
    elif task == "classes":
        names, labels = [f"class {number}" for number in range(30)], list(range(30))
        logs = np.log(np.full((30, 30), 1 / 30))
        found = score_classes("test", ["text"] * 30, labels, logs, names)
        tests = [TestTexts(found, ["text"] * 30, labels, logs)]
        write_class_report(tmp_path, ClassReport("x", names, tests))
    else:
        values = np.arange(40.0)[:, None]
        methods = [
            ForecastScores(name, "column", 1e5, 2e5, 3.0, [1e5, 2e5], 0.9, 1e5)
            for name in ("network", "naive", "seasonal naive", "exponential smoothing")
        ]
        forecast = Forecast(values[:2], values[:2] - 1, values[:2] + 1)
        rolled = RollingOrigin(2, 9, 1, 0.9, methods, ["A note."])
        write_forecast_report(
            tmp_path, ForecastReport("x", ["column"], rolled, values, (20, 30), [(30, forecast)])
        )
    opened = Opened(browser, tmp_path / "report.html", viewport={"width": 390, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.page.emulate_media(media="print")
    for frame in opened.page.locator(".wide").all():  # paper does not scroll
        assert frame.evaluate("element => getComputedStyle(element).overflowX") == "visible"
    opened.page.screenshot(path=tmp_path / "print.png", full_page=True)
    opened.close()


@pytest.mark.parametrize("width", [360, 1200])
def test_light_dark_and_paper(browser: Any, run: Run, tmp_path: Path, width: int) -> None:
    opened = Opened(browser, run.folder / "report.html", viewport={"width": width, "height": 800})
    page = opened.page
    papers = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        # Nothing is wider than the window but what scrolls in a frame of its own.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert papers[0] != papers[1]
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    opened.close()


def test_right_to_left_text_stands_so(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, write(tmp_path, [Example("the cat", "القطة", "قطة")], ("en", "ar")))
    direction = "element => getComputedStyle(element).direction"
    found = [cell.evaluate(direction) for cell in opened.page.locator(".example dd").all()]
    assert found == ["ltr", "rtl", "rtl"]
    opened.close()


def test_a_large_report_stays_small_and_opens(browser: Any, tmp_path: Path) -> None:
    spans = [(3 * place, 3 * place + 2) for place in range(30)]
    text = "ab " * 30
    alignment = Alignment(spans, spans, np.eye(30, dtype=np.float32))
    examples = [Example(f"{text}{n}", text, f"{text}{n % 7}", (), alignment) for n in range(5000)]
    path = write(tmp_path, examples)
    assert path.stat().st_size < 15_000_000
    opened = Opened(browser, path)
    opened.page.get_by_text("5,000 sentences").last.click()
    playwright.expect(opened.page.locator(".list article")).to_have_count(40)
    opened.close()
