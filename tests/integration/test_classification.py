"""Classifiers from the command line: trained, resumed, asked, and as good as the task allows."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import PROJECT, Command, refusal

from mt.classifier import Classifier
from mt.errors import MTError
from mt.options import parse_train
from mt.training.train import train

RECIPE: dict[str, Any] = {
    "task": "classification",
    "corpus": {"files": "text.tsv", "text_column": "letters", "label_column": "most"},
    "tokenizer": {"kind": "char", "normalization": "identity", "byte_fallback": False},
    "model": {
        "embedding_size": 8,
        "hidden_size": 16,
        "ngrams": 2,
        "ngram_buckets": 64,
        "pooling": "attention",
        "embedding_dropout": 0.0,
        "output_dropout": 0.1,
    },
    "batches": {"tokens": 600, "max_length": 40},
    "training": {
        "learning_rate": 2e-2,
        "warmup_steps": 5,
        "ema": 0.9,
        "class_weights": "balanced",
        "metric": "macro-accuracy",
        "checkpoint_minutes": 0.001,
    },
    "evaluation": {"min_characters": 10},
    "trainer": {"max_steps": 120, "accelerator": "cpu", "val_check_interval": 40},
}


def most(text: str) -> str:
    return max("abc", key=text.count)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipes/most.yaml` and texts labelled by their most frequent letter."""
    folder = tmp_path_factory.mktemp("most")
    generator, rows = random.Random(1), ["letters\tmost"]
    while len(rows) < 3000:
        text = "".join(generator.choices("abc", (5, 4, 3), k=generator.randint(4, 16)))
        counts = sorted(map(text.count, "abc"))
        if counts[1] < counts[2]:
            rows.append(f"{text}\t{most(text)}")
    rows += ["abcabc\ta", "abcabc\tb"]  # no one knows
    (folder / "text.tsv").write_text("".join(f"{row}\n" for row in rows))
    (folder / "recipes").mkdir()
    (folder / "recipes/most.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.fixture(scope="module")
def run(mt: Command, place: Path) -> Path:
    done = mt("train", "recipes/most.yaml", cwd=place)
    assert done.status == 0, done.err
    assert "macro accuracy" in done.err
    return place / "runs/most"


def test_it_learns_to_count(run: Path) -> None:
    whole, long = json.loads((run / "scores.json").read_text())["tests"]
    assert whole["name"] == "test"
    assert long["name"] == "test, 10 characters or more"
    assert 0 < long["texts"] < whole["texts"]
    assert whole["accuracy"]["score"] > 93
    assert whole["macro_accuracy"]["score"] > 93
    low, high = whole["accuracy"]["interval"]
    assert low <= whole["accuracy"]["score"] <= high


def test_the_report_and_the_card_say_so(run: Path) -> None:
    whole = json.loads((run / "scores.json").read_text())["tests"][0]
    told = f"{whole['accuracy']['score']:.1f}"
    for name in ("report.html", "report.md", "bundle/README.md"):
        assert told in (run / name).read_text(), name
    html = (run / "report.html").read_text()
    for text in ("several labels for one text", "Validation accuracy", "Accuracy by length"):
        assert text in html
    with open(run / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["valid_accuracy"]]
    assert [int(row["step"]) for row in rows] == [40, 80, 120]
    assert max(float(row["valid_macro_accuracy"]) for row in rows) > 93
    assert json.loads((run / "bundle/config.json").read_text())["classes"] == ["a", "b", "c"]


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(place: Path, run: Path) -> None:
    words = [str(place / "recipes/most.yaml"), "--training.schedule", "constant"]
    states = {}
    for name, *arguments in (
        ("half", "--trainer.max_steps", "55"),
        ("half", "--trainer.max_steps", "90", "--resume"),
        ("whole", "--trainer.max_steps", "90"),
    ):
        folder = place / "runs" / name
        options = parse_train([*words, "--output", str(folder), *arguments])
        train(options.recipe, options.output, options.resume, options.overwrite)
    for name in ("half", "whole"):
        file = place / "runs" / name / "checkpoints/step-90.ckpt"
        states[name] = torch.load(file, weights_only=True)["state_dict"]
    assert states["half"].keys() == states["whole"].keys()
    assert any(name.startswith("average.") for name in states["half"])
    for name, weight in states["half"].items():
        assert weight.equal(states["whole"][name]), name


def test_lines_in_lines_out(mt: Command, place: Path, run: Path) -> None:
    generator = random.Random(2)
    lines = ["".join(generator.choices("abc", k=generator.randint(1, 16))) for _ in range(1300)]
    lines[3] = lines[1200] = ""
    lines[7] = "  "
    lines[8] = "a\u2028b\rc"
    lines[9] = "c" * 300
    text = "".join(f"{line}\n" for line in lines)
    (place / "lines.txt").write_text(text, newline="")
    bundle = run / "bundle"
    plain, top, objects, file = (
        mt.here("classify", bundle, *words, cwd=place, stdin=text)
        for words in (
            [],
            ["--top", 2, "--batch-tokens", 5, "--threads", 1],
            ["--format", "jsonl", "--top", 9],
            ["--input", "lines.txt", "--output", "classes.txt"],
        )
    )
    rows = plain.out.removesuffix("\n").split("\n")
    assert len(rows) == len(lines)
    assert file.out == ""
    assert (place / "classes.txt").read_text() == plain.out
    predictions = Classifier.load(bundle, "cpu").classify(lines, top=3)
    right = []
    for line, row, two, record, expected in zip(
        lines,
        rows,
        top.out.split("\n"),
        objects.out.split("\n"),
        predictions,
        strict=False,
    ):
        found = json.loads(record)
        assert found["text"] == line
        if not line.strip():
            assert (row, two, found["classes"]) == ("", "", [])
            continue
        label, probability = row.split("\t")
        assert label == expected[0].label
        assert float(probability) == pytest.approx(expected[0].probability, abs=2e-4)
        assert two.split("\t")[0::2] == [one.label for one in expected[:2]]
        assert [one["class"] for one in found["classes"]] == [one.label for one in expected]
        counts = sorted(map(line.count, "abc"))
        if 4 <= len(line) <= 16 and counts[1] < counts[2]:
            right.append(label == most(line))
    assert sum(right) > 0.93 * len(right) > 500


def test_any_bytes_are_lines(mt: Command, place: Path, run: Path) -> None:
    done = mt("classify", run / "bundle", cwd=place, stdin=b"aaab\n\xffccc\nbbbbc")
    assert [row.split("\t")[0] for row in done.out.splitlines()] == ["a", "c", "b"]
    assert "line 2 is not valid UTF-8" in done.err


def test_mistakes_are_told(place: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    bundle, recipe = run / "bundle", "recipes/most.yaml"
    with pytest.raises(MTError, match="nothing: no such bundle"):
        Classifier.load("nothing")
    cases = {
        "of task classification, not translation; use mt classify": ["translate", bundle],
        "--top must be at least 1": ["classify", bundle, "--top", 0],
        "auto: cannot choose `model.hidden_size`": [
            *("train", recipe, "--auto", "[model.hidden_size]", "--output", "x")
        ],
    }
    for message, arguments in cases.items():
        assert message in refusal(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "runs/most"], "a finished run is there"),
        (["--corpus.text_column", "text"], "has no column 'text'"),
        (["--model.hidden_size", "0"], "model.hidden_size: must be at least 1"),
        (["--training.label_smoothing", "1"], "training.label_smoothing: must be from 0 to 0.99"),
        (["--training.freeze", "[encoder.*]"], "no parameter is called encoder"),
        (["--batches.max_length", "0"], "batches.max_length: must be at least 1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_told(
    place: Path, run: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)

    def carry_out() -> None:
        options = parse_train(["recipes/most.yaml", "--output", "x", *arguments])
        train(options.recipe, options.output, options.resume, options.overwrite)

    with pytest.raises(MTError, match=message) as caught:
        carry_out()
    assert "\n" not in str(caught.value)
    assert not (place / "x/recipe.yaml").exists()


def test_a_recipe_names_a_trained_bundle_and_is_told_what_it_knows(place: Path, run: Path) -> None:
    """A translator's recipe names the bundle by a path from the project on."""
    recipe = {
        "corpus": {
            "source": "a",
            "target": "zz",
            "files": "pairs.tsv",
            "cleaning": {"language_identifier": "runs/most/bundle"},
        },
        "trainer": {"max_steps": 1},
    }
    (place / "recipes/clean.yaml").write_text(yaml.safe_dump(recipe))
    (place / "pairs.tsv").write_text("a\tzz\nx\ty\n")
    options = parse_train([str(place / "recipes/clean.yaml"), "--output", str(place / "y")])
    with pytest.raises(MTError, match="runs/most/bundle does not know 'zz' but a, b, c"):
        train(options.recipe, options.output)


def test_the_recipe_for_reviews_reads_local_files(tmp_path: Path) -> None:
    good, bad = ["fine", "lovely", "a joy"], ["dull", "dreadful", "a bore"]
    for split, size in (("train", 120), ("test", 40)):
        rows = [
            (f"Film {number} of {split} is {generator.choice(words)}. <br /><br />Really.", label)
            for number in range(size)
            for generator in [random.Random(f"{split}{number}")]
            for words, label in [(good, 1) if number % 2 else (bad, 0)]
        ]
        records = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{record}\n" for record in records))
    words = [str(PROJECT / "recipes/imdb.yaml"), "--corpus.files", str(tmp_path)]
    words += ["--output", str(tmp_path / "run"), "--tokenizer.vocab_size", "300"]
    words += ["--model.hidden_size", "16", "--trainer.max_epochs", "12"]
    words += ["--batches.tokens", "500", "--training.warmup_steps", "5"]
    options = parse_train([*words, "--training.learning_rate", "1e-2"])
    train(options.recipe, options.output)
    [test] = json.loads((tmp_path / "run/scores.json").read_text())["tests"]
    assert test["texts"] == 40
    assert [row["name"] for row in test["classes"]] == ["0", "1"]
    assert test["accuracy"]["score"] > 90
