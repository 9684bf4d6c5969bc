"""Scores of classifiers, by hand and by brute force, and the report that shows them."""

from __future__ import annotations

import json
import math
import random
import re
from html import escape
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.evaluation.classes import (
    ClassScores,
    confusion,
    macro_accuracy,
    macro_f1,
    marginals,
    most_confused,
    score_classes,
)
from mt.evaluation.classes_report import (
    ClassReport,
    TestTexts,
    class_card,
    write_class_report,
)

NAMES = ["cold", "mild", "warm", "hot"]


def logs_of(rows: list[list[float]]) -> np.ndarray:
    return np.log(np.array(rows, dtype=np.float64))


def scores(name: str = "test", texts: int = 200, seed: int = 1) -> tuple[ClassScores, TestTexts]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=texts).tolist()
    shares = generator.dirichlet(np.ones(4), size=texts)
    shares[np.arange(texts), labels] += 0.3
    logs = np.log(shares / shares.sum(1, keepdims=True))
    lines = ["x" * int(length) for length in generator.integers(1, 1500, texts)]
    found = score_classes(name, lines, labels, logs, NAMES)
    return found, TestTexts(found, lines, labels, logs)


def test_a_small_set_by_hand() -> None:
    labels = [0, 0, 0, 1, 1, 2]
    logs = logs_of(
        [
            [0.7, 0.1, 0.1, 0.1],
            [0.6, 0.2, 0.1, 0.1],
            [0.2, 0.5, 0.2, 0.1],  # cold, taken for mild
            [0.1, 0.8, 0.05, 0.05],
            [0.1, 0.2, 0.3, 0.4],  # mild, taken for hot
            [0.1, 0.1, 0.7, 0.1],
        ]
    )
    found = score_classes("t", ["a" * 9, "a" * 10, "", "a", "b", "c" * 2000], labels, logs, NAMES)
    assert found.accuracy.score == pytest.approx(400 / 6)
    assert found.macro_accuracy.score == pytest.approx(100 * (2 / 3 + 1 / 2 + 1) / 3)
    f1 = [4 / 5, 2 / 4, 1, 0]
    assert found.macro_f1.score == pytest.approx(100 * sum(f1) / 4)
    assert found.loss == pytest.approx(
        -sum(map(math.log, (0.7, 0.6, 0.2, 0.8, 0.2, 0.7))) / len(labels)
    )
    assert found.confusion == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert [tuple(row)[:3] for row in found.classes] == [
        ("cold", 3, 2),
        ("mild", 2, 2),
        ("warm", 1, 1),
        ("hot", 0, 1),
    ]
    for row, expected in zip(
        found.classes, [(1, 2 / 3), (1 / 2, 1 / 2), (1, 1), (0, 0)], strict=True
    ):
        assert (row.precision, row.recall) == pytest.approx(expected)
    assert [row.f1 for row in found.classes] == pytest.approx(f1)
    lengths = [(row.label, row.texts, row.accuracy.score) for row in found.lengths]
    assert lengths == [("0–9", 4, 50.0), ("10–19", 1, 100.0), ("1,000+", 1, 100.0)]
    # Bins of a tenth: 0.4 (wrong), 0.5 (wrong), 0.6, 0.7 twice, 0.8.
    off = abs(0.4 - 0) + abs(0.5 - 0) + abs(0.6 - 1) + 2 * abs(0.7 - 1) + abs(0.8 - 1)
    assert found.calibration_error == pytest.approx(100 * off / 6)
    assert [bin.tokens for bin in found.calibration] == [1, 1, 1, 2, 1]
    assert most_confused(found, 9) == [("mild", "cold", 0, 1), ("hot", "mild", 0, 1)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_averages_over_classes_by_brute_force(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = zip(*pairs, strict=True)
    sums = marginals(confusion(labels, predicted, 5))
    recalls, f1s = [], []
    for one in set(labels) | set(predicted):
        right = sum(a == b == one for a, b in pairs)
        if one in labels:
            recalls.append(right / labels.count(one))
        f1s.append(2 * right / (labels.count(one) + predicted.count(one)))
    assert macro_accuracy(sums) == pytest.approx(sum(recalls) / len(recalls))
    assert macro_f1(sums) == pytest.approx(sum(f1s) / len(f1s))


def test_intervals_are_those_of_drawing_texts_anew() -> None:
    found, test = scores()
    predicted = test.logs.argmax(1)
    generator = random.Random(1)
    drawn = []
    for _ in range(1000):
        chosen = generator.choices(range(200), k=200)
        drawn.append(
            confusion([test.labels[n] for n in chosen], [int(predicted[n]) for n in chosen], 4)
        )
    for value, measure in (
        (found.accuracy, lambda sums: sums.right.sum() / sums.texts.sum()),
        (found.macro_accuracy, macro_accuracy),
        (found.macro_f1, macro_f1),
    ):
        expected = np.quantile([100 * measure(marginals(one)) for one in drawn], (0.025, 0.975))
        assert value.interval == pytest.approx(tuple(expected), abs=1.0)
        assert value.interval is not None
        assert value.interval[0] < value.score < value.interval[1]
    one = score_classes("t", ["a"], [0], test.logs[:1], NAMES)
    assert one.accuracy.interval is None


def write(tmp_path: Path, tests: list[TestTexts], names: list[str] = NAMES) -> dict[str, str]:
    report = ClassReport(
        title="A run",
        classes=names,
        tests=tests,
        facts=[("Seed", "1")],
        cleaning=[("exact duplicates", 12)],
        recipe_yaml="task: classification\n",
    )
    write_class_report(tmp_path, report)
    return {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_the_report_shows_the_scores(tmp_path: Path) -> None:
    (found, test), (far, other) = scores(), scores("far", seed=2)
    files = write(tmp_path, [test, other])
    [one, two] = json.loads(files["scores.json"])["tests"]
    assert one["accuracy"]["score"] == pytest.approx(found.accuracy.score)
    assert one["accuracy"]["interval"] == pytest.approx(found.accuracy.interval)
    assert two["macro_f1"]["score"] == pytest.approx(far.macro_f1.score)
    assert sum(cell["texts"] for cell in one["confusion"]) == 200
    table = {(cell["class"], cell["taken_for"]): cell["texts"] for cell in one["confusion"]}
    assert table["cold", "cold"] == found.confusion[0][0]
    assert one["classes"][0]["precision"] == pytest.approx(found.classes[0].precision)
    for name in ("report.html", "report.md"):
        for each in (found, far):
            assert f"{each.accuracy.score:.1f}" in files[name]
            assert f"{each.macro_accuracy.score:.1f}" in files[name]
        assert "mild" in files[name]
    html = files["report.html"]
    assert "exact duplicates" in html
    assert f"cold taken for mild: {found.confusion[0][1]} of {sum(found.confusion[0])}" in html
    assert "http" not in re.sub(r"http-equiv", "", html)
    # The surest mistake comes first, with what it was taken for.
    predicted = test.logs.argmax(1)
    wrong = [n for n in range(200) if predicted[n] != test.labels[n]]
    surest = max(wrong, key=lambda n: test.logs[n].max())
    share = 100 * math.exp(test.logs[surest].max())
    first = html.index("taken for</dt>")
    assert f"<dd>{NAMES[predicted[surest]]} {share:.1f}%" in html[first : first + 60]


def test_text_of_the_data_is_escaped(tmp_path: Path) -> None:
    names = ["<i>cold</i>", "mild & dry", '"warm"', "hot"]
    logs = logs_of([[0.6, 0.2, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]])
    texts = ["<script>alert(1)</script>", "</dd><b>x", "&amp;"]
    labels = [0, 0, 1]
    found = score_classes("<u>set", texts, labels, logs, names)
    html = write(tmp_path, [TestTexts(found, texts, labels, logs)], names)["report.html"]
    for text in ("<i>cold", "</dd><b>x", "<u>set"):
        assert text not in html
        assert escape(text) in html
    assert escape("&amp;") in html
    assert "<script>alert(1)" not in html


def test_many_classes_are_a_picture_and_the_most_confused_pairs(tmp_path: Path) -> None:
    names = [f"class-{number:02}" for number in range(40)]
    generator = np.random.default_rng(3)
    labels = generator.integers(40, size=600).tolist()
    shares = generator.dirichlet(np.full(40, 0.1), size=600)
    shares[np.arange(600), labels] += 0.5
    logs = np.log((shares + 1e-9) / (shares + 1e-9).sum(1, keepdims=True))
    found = score_classes("test", ["x"] * 600, labels, logs, names)
    files = write(tmp_path, [TestTexts(found, ["x"] * 600, labels, logs)], names)
    html = files["report.html"]
    shown = sum(map(bool, np.array(found.confusion).ravel().tolist()))
    assert html.count("plot-cell") - html.count(".plot-cell") == shown
    first, second, there, back = most_confused(found, 1)[0]
    assert there + back == max(
        found.confusion[a][b] + found.confusion[b][a] for a in range(40) for b in range(a)
    )
    assert files["report.md"].index(f"| {first} | {second} |") > 0


def test_no_mistake_and_one_text(tmp_path: Path) -> None:
    logs = logs_of([[0.97, 0.01, 0.01, 0.01]])
    found = score_classes("test", ["x"], [0], logs, NAMES)
    html = write(tmp_path, [TestTexts(found, ["x"], [0], logs)])["report.html"]
    assert "<p>None.</p>" in html
    assert "100.0" in html


def test_the_card_names_the_classes() -> None:
    found, _ = scores()
    card = class_card(NAMES, [("Seed", "1")], [found], "task: classification\n")
    assert "cold, mild, warm, hot" in card
    assert f"{found.accuracy.score:.1f}" in card
    assert "mt classify" in card
