from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.errors import MTError
from mt.evaluation import plots, report
from mt.evaluation.analysis import analyse
from mt.evaluation.examples import Example
from mt.evaluation.markup import Markup, element, join
from mt.evaluation.report import ReportData
from mt.evaluation.scores import Score, SetScores, score_set, sentence_scores
from mt.evaluation.words import word_diff
from mt.translator import Alignment

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'text'"
VOID = {"meta", "input"}


class Page(HTMLParser):
    """The elements and attributes of a page; raises where tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def make_set(examples: list[Example], name: str = "test") -> report.TestSet:
    scored = [
        Score("bleu", 31.24, "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"),
        Score("ter", 50.0, "nrefs:1|…"),
    ]
    return report.TestSet(
        SetScores(name, len(examples), "ours", scored), examples, sentence_chrf(examples)
    )


def sentence_chrf(examples: list[Example]) -> dict[str, list[list[float]]]:
    columns = [[one.hypothesis for one in examples]]
    columns += [list(texts) for texts in zip(*(one.others for one in examples), strict=True)]
    references = [[one.reference for one in examples]]
    tables = [sentence_scores("chrf", c, references, target_language="de") for c in columns if c]
    return {"chrf": tables or [[]]}


def numbered(count: int) -> list[Example]:
    return [
        Example(
            f"source {index}", f"ein Satz {index} von vielen", f"ein Satz {index % 7} von allen"
        )
        for index in range(count)
    ]


def write_metrics(path: Path) -> Path:
    lines = ["step,epoch,seconds,loss,learning_rate,gradient_norm,valid_loss,valid_bleu"]
    for step in range(10, 5001, 10):
        lines.append(f"{step},0,{step},{9 - step / 1000},0.001,{30 if step < 50 else 1.0},,")
        if step % 500 == 0:
            lines.append(f"{step},0,{step},,,,{9.5 - step / 1000},{step / 200}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def full_data(tmp_path: Path, count: int = 40) -> ReportData:
    return ReportData(
        title="quickstart",
        sets=[make_set(numbered(count))],
        languages=("en", "de"),
        facts=[("Data", "12,000 pairs"), ("Seed", "1")],
        cleaning=[("exact duplicates", 29000), ("empty side", 3)],
        curves=write_metrics(tmp_path / "metrics.csv"),
        recipe_yaml="seed: 1\n",
        translations_per_second=142.3,
    )


def test_a_full_report_holds_every_part(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    report.write_report(folder, full_data(tmp_path))
    assert {path.name for path in folder.iterdir()} == {
        "report.html",
        "report.md",
        "scores.json",
        "sentences.tsv",
    }
    text = (folder / "report.html").read_text("utf-8")
    page = Page(text)
    for expected in ("31.2", "BLEU", "TER (lower is better)", "tok:13a", "142", "12,000 pairs"):
        assert expected in text
    assert "29,000" in text
    assert page.count("figure") == 5  # loss, BLEU, learning rate, gradient norm, chrF
    assert [title for title in page.texts if title in ("Worst", "Best", "Random")]
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = {attributes["href"] for name, attributes in page.elements if name == "a"}
    assert links == {"#training", "#cleaning", "#examples", "#recipe"}
    assert {link[1:] for link in links if link} <= ids


def test_a_report_of_scores_alone_leaves_the_other_parts_out() -> None:
    page = Page(report.report_html(ReportData("x", [make_set([])], ("en", "de"))))
    assert page.count("figure") == page.count("table") == page.count("details") == 0


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    text = report.report_html(full_data(tmp_path))
    page = Page(text)
    assert not re.search(r"https?://|url\(|@import", text)
    assert not any("src" in attributes for _, attributes in page.elements)
    assert page.count("link") == 0
    assert "default-src 'none'" in text


def test_the_policy_names_exactly_the_page_s_own_script(tmp_path: Path) -> None:
    from base64 import b64encode
    from hashlib import sha256

    text = report.report_html(full_data(tmp_path))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = b64encode(sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_text_from_data_is_never_markup(tmp_path: Path) -> None:
    examples = [Example(EVIL, EVIL, EVIL), Example("a", EVIL, "b"), Example("a", "b", EVIL)] * 10
    one = make_set(examples, name=EVIL)
    one = one._replace(scores=one.scores._replace(scores=[Score(EVIL, 1.0, EVIL)]))
    evil = ReportData(
        EVIL, [one], (EVIL, EVIL), [(EVIL, EVIL)], [(EVIL, 1)], tmp_path / "none.csv", EVIL
    )
    page = Page(report.report_html(evil))
    assert page.count("img") == 0
    assert page.count("script") == 2  # the page's own and its list of sentences
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert any(EVIL in text for text in page.texts)


def test_the_list_of_sentences_reads_back() -> None:
    examples = numbered(30)
    examples[4] = Example(EVIL, "a b", "a c")
    text = report.report_html(ReportData("x", [make_set(examples)], ("en", "de")))
    found = re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    rows = json.loads(found[1])
    assert [row[0] for row in rows] == list(range(1, 31))
    assert rows[4][2] == EVIL
    assert rows[4][3:] == [["a ", "b", ""], [["a ", "c", ""]], None, []]


def test_large_sets_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_BYTES", 2000)
    data = ReportData("x", [make_set(numbered(60)), make_set(numbered(60))], ("en", "de"))
    text = report.report_html(data)
    lists = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert sum(map(len, lists)) <= 2000 + 2 * len("[]")
    assert re.search(r"The first \d+ of 60 sentences", text)


def test_texts_name_their_language_and_leave_the_direction_to_themselves() -> None:
    data = ReportData("x", [make_set([Example("the cat", "القطة", "قطة")])], ("en", "ar"))
    texts = [attributes for name, attributes in Page(report.report_html(data)).elements]
    assert [text["lang"] for text in texts if text.get("dir") == "auto"] == ["en", "ar", "ar"]


def test_an_empty_translation_is_said_to_be_empty() -> None:
    data = ReportData("x", [make_set([Example("the cat", "die Katze", "")])], ("en", "de"))
    assert "(empty)" in report.report_html(data)


def test_placeholders_are_shown_where_there_are_any() -> None:
    kept = Example("Hi {name}", "Hallo {name}", "Hallo {name}")
    lost = Example("Hi {name}", "Hallo {name}", "Hallo")
    data = ReportData("x", [make_set([kept] * 1999 + [lost])], ("en", "de"))
    text = report.report_html(data)
    assert "99.9%" in text
    assert "placeholders kept: 1,999 of 2,000 sentences" in text
    assert "placeholders" not in report.report_html(
        ReportData("x", [make_set(numbered(3))], ("en", "de"))
    )


def test_what_a_single_sentence_cannot_tell_is_said() -> None:
    def scored(count: int) -> report.TestSet:
        examples = numbered(count)
        systems = {"ours": [[one.hypothesis for one in examples]], "theirs": [["ein Satz"] * count]}
        references = [[one.reference for one in examples]]
        scores = score_set("test", systems, references, ["bleu"], target_language="de")
        examples = [example._replace(others=["ein Satz"]) for example in examples]
        return report.TestSet(scores, examples, sentence_chrf(examples))

    for one, told in ((scored(1), True), (scored(2), False)):
        data = ReportData("x", [one], ("en", "de"))
        for text in (report.report_html(data), report.report_markdown(data)):
            assert ("A single sentence: it says nothing of others" in text) is told
            assert ("bootstrap" in text) is not told
            assert ("1 sentence" in text) is told


def test_equal_translations_give_an_equal_page(tmp_path: Path) -> None:
    assert report.report_html(full_data(tmp_path)) == report.report_html(full_data(tmp_path))


def test_a_report_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MTError):
        report.write_report(tmp_path / "file", ReportData("x", [], ("en", "de")))


def test_a_lone_surrogate_does_not_cost_the_report(tmp_path: Path) -> None:
    data = ReportData("x", [make_set([Example("a\ud800", "b", "c")] * 30)], ("en", "de"))
    report.write_report(tmp_path, data)
    assert "Worst" in (tmp_path / "report.html").read_text("utf-8")


def test_attention_is_packed_as_the_page_reads_it() -> None:
    """Places count in units of UTF-16, of which 𝒞 takes two, and after the spaces at the start."""
    weights = np.array([[1.0, 0.0], [0.04, 0.45]], np.float32)
    alignment = Alignment([(0, 1), (2, 5)], [(2, 3), (4, 6)], weights)
    example = Example("𝒞 ist", "  a is", "  a is", (), alignment)
    text = report.report_html(ReportData("x", [make_set([example])], ("en", "de")))
    [packed] = [a["data-attention"] for _, a in Page(text).elements if "data-attention" in a]
    assert json.loads(packed or "") == [[0, 2, 3, 6], [0, 1, 2, 4], ["90", "04"]]


# -- Several systems -------------------------------------------------------------------------------


def compared_set(count: int = 40) -> report.TestSet:
    """Sentence 7 is where the other system differs most: it alone has nothing there."""
    examples = [
        example._replace(others=["" if index == 7 else example.hypothesis, EVIL])
        for index, example in enumerate(numbered(count))
    ]
    systems = {
        "ours": [[example.hypothesis for example in examples]],
        "theirs": [[example.others[0] for example in examples]],
        EVIL: [[example.others[1] for example in examples]],
    }
    references = [[example.reference for example in examples]]
    scores = score_set("test", systems, references, ["bleu", "ter"], target_language="de")
    return report.TestSet(scores, examples, sentence_chrf(examples))


def test_other_systems_stand_beside_the_first() -> None:
    one = compared_set()
    columns = [[example.others[k] for example in one.examples] for k in (0, 1)]
    ours = [example.hypothesis for example in one.examples]
    sources = [example.source for example in one.examples]
    references = [example.reference for example in one.examples]
    training = [(sources[:9], references[:9])]
    systems = [ours, *columns]
    one = one._replace(analysis=analyse(sources, [references], systems, "bleu", "de", training))
    data = ReportData("x", [one], ("en", "de"))
    page = Page(report.report_html(data))
    text = "".join(page.texts)
    difference = one.scores.scores[0].score - one.scores.others[0].scores[0].score
    assert difference > 0.05
    assert f"{difference:.1f} BLEU above theirs (paired bootstrap p 0." in text
    assert page.count("table") == 2  # scores and checks
    assert page.count("figure") == 5  # four breakdowns and a histogram
    keys = [a.get("class") for name, a in page.elements if name == "span"]
    assert [key for key in keys if key and key.startswith("key")] == [
        f"key key-{style}" for style in "abc"
    ]
    changed = text[text.index("Changed most, against theirs") :]
    assert changed[: changed.index("Changed most, against <")].count("Sentence") == 1
    assert "Sentence 8 " in changed
    assert page.count("script") == 2
    rows = json.loads(re.findall(r'"application/json">(.*?)</script>', report.report_html(data))[0])
    assert "".join(rows[7][4][1]) == ""
    assert "".join(rows[7][4][2]) == EVIL
    markdown = report.report_markdown(data)
    assert "| ours | " in markdown
    assert "| theirs | " in markdown
    assert "| Word frequency in the training text | words | ours, F1 of words | " in markdown
    assert "| Empty, where the source is not | 0.0% (0 of 40) | 2.5% (1 of 40) | 0.0%" in markdown
    assert one.scores.scores[0].signature in markdown


# -- Diff ------------------------------------------------------------------------------------------


def test_word_diff_marks_words() -> None:
    reference, hypothesis = word_diff("Die Katze schläft tief.", "Die alte Katze schläft.")
    assert reference == ["Die Katze schläft ", "tief", "."]
    assert hypothesis == ["Die ", "alte", " Katze schläft."]


def test_word_diff_goes_by_character_in_chinese_and_japanese() -> None:
    assert word_diff("我喜欢猫。", "我爱猫。") == (["我", "喜欢", "猫。"], ["我", "爱", "猫。"])


def test_word_diff_keeps_indic_words_whole() -> None:
    assert word_diff("हिन्दी भाषा", "हिन्दू भाषा")[1] == ["", "हिन्दू", " भाषा"]


@settings(deadline=None)
@given(st.text(), st.text())
def test_word_diff_keeps_the_texts(one: str, other: str) -> None:
    left, right = word_diff(one, other)
    assert "".join(left) == one.strip()
    assert "".join(right) == other.strip()
    assert len(left) % 2 == len(right) % 2 == 1
    assert "".join("".join(left[::2]).split()) == "".join("".join(right[::2]).split())
    assert word_diff(one, one)[0] == [one.strip()]


# -- Markup ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text(), st.text())
def test_elements_escape_text_and_attributes(text: str, value: str) -> None:
    made = element("p", text, title=value, hidden=None)
    assert made.count("<") == made.count(">") == 2
    assert made.count('"') == 2


def test_markup_is_escaped_once_only() -> None:
    assert element("p", element("b", "<"), "&", None) == "<p><b>&lt;</b>&amp;</p>"
    assert isinstance(join(["<"]), Markup)
    # Python makes a plain string of a sum, so it is escaped rather than trusted.
    assert join([Markup("<b>") + "<i>"]) == "&lt;b&gt;&lt;i&gt;"


# -- Curves ----------------------------------------------------------------------------------------


def test_curves_of_a_run(tmp_path: Path) -> None:
    figures = plots.training_curves(write_metrics(tmp_path / "metrics.csv"))
    assert len(figures) == 4
    assert 'aria-label="Loss: training from 8.99 to 4; validation from 9 to 4.5"' in figures[0]
    assert "best 25.0 at update 5,000" in figures[1]
    assert "logarithmic" in figures[3]
    for figure in figures:
        Page(figure)
        assert len(figure) < 20_000


def test_curves_bear_what_is_missing_or_broken(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert plots.training_curves(path) == []
    path.write_text("", encoding="utf-8")
    assert plots.training_curves(path) == []
    path.write_text("step,loss\n1,2.0\n", encoding="utf-8")
    assert plots.training_curves(path) == []  # one point is no curve
    path.write_text(
        "step,loss,new\n1,5,x\n2,nan,\n3,inf,\n,4,\n4,word,1\n5,3,2,9,9\n5,2.5\n6", encoding="utf-8"
    )
    (figure,) = plots.training_curves(path)
    assert "training from 5 to 2.5" in figure


def test_a_level_curve_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    for value in ("0", "0.5", "-3"):
        path.write_text(f"step,loss,learning_rate\n0,{value},0\n1,{value},0\n", encoding="utf-8")
        figures = plots.training_curves(path)
        assert len(figures) == 2
        assert "nan" not in "".join(figures)


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=2, max_size=400),
    st.booleans(),
)
def test_any_line_is_drawn_inside_its_picture(values: list[float], zero: bool) -> None:
    points = [(float(index), abs(value)) for index, value in enumerate(values)]
    figure = plots.line_chart("t", "u", [plots.Series("s", points)], from_zero=zero)
    paths = re.findall(r'<path d="(.*?)" class="plot-line', figure)
    for pair in re.findall(r"(-?[\d.]+) (-?[\d.]+)", paths[0]):
        x, y = map(float, pair)
        assert 0 <= x <= plots.WIDTH
        assert 0 <= y <= plots.HEIGHT


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=14), st.booleans())
def test_labels_at_the_ends_of_lines_stand_apart(lasts: list[float], named: bool) -> None:
    lines = [plots.Series("s" * named, [(0.0, 0.0), (1.0, last)]) for last in lasts]
    figure = str(plots.line_chart("t", "u", lines, log=False))
    ys = [float(y) for y in re.findall(r'<text y="([\d.-]+)" class="plot-end', figure)]
    below = named and len(lasts) <= 7  # a line of their own for names
    assert len(ys) == len(lasts)
    assert all(low - high >= (28 if below else 14) - 0.2 for high, low in pairwise(ys))
    assert ys[0] >= 13.9
    # What stands below the axis begins at 200.
    assert ys[-1] + (18 if below else 4) <= 204.1


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1))
def test_a_histogram_counts_every_value(values: list[float]) -> None:
    figure = plots.histogram("chrF", values)
    counts = re.findall(r"<title>[\d.]+ to [\d.]+: ([\d,]+)</title>", figure)
    assert sum(int(count.replace(",", "")) for count in counts) == len(values)


@pytest.mark.parametrize("xs", [(3.0, 3.0), (0.7, 900.0), (1000.0, 5000.0)])
def test_points_stand_in_proportion_to_their_logarithms(xs: tuple[float, float]) -> None:
    middle = (xs[0] * xs[1]) ** 0.5
    line = plots.Series("one", [(x, 5.0) for x in (xs[0], middle, xs[1])])
    figure = str(plots.point_chart("t", "u", [line], x_name="words", log=True))
    left, between, right = (float(x) for x in re.findall(r'cx="([\d.]+)"', figure))
    assert between == pytest.approx((left + right) / 2, abs=0.2)
    assert 0 <= left <= right <= plots.WIDTH


def test_a_chart_can_stand_alone(tmp_path: Path) -> None:
    """As an image in a page, it has nobody's styles but its own."""
    lines = [plots.Series("<one>", [(0, 1), (2, 3)]), plots.Series("two", [(0, 2)], "b")]
    plots.write_svg(tmp_path / "chart.svg", plots.line_chart("t", "u", lines))
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "<one>" in " ".join(root.itertext())
    [style] = root.iter("{http://www.w3.org/2000/svg}style")
    used = {name for node in root.iter() for name in node.get("class", "").split()}
    assert {"plot-a", "plot-b", "plot-line"} <= used
    assert {"plot-a", "plot-b", "plot-line"} <= set(re.findall(r"\.(plot-\w+)", style.text or ""))
