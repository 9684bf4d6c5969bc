"""Language models from the command line: trained, resumed, asked, and as good as text allows."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Command, refusal
from safetensors.torch import load_file

from mt.bundle import save_bundle

NEXT = {"a": "ab", "b": "cd", "c": "aaad", "d": "abcd"}
"""Each letter's successors, all as likely as they stand there often: text with a known entropy."""

RECIPE: dict[str, Any] = {
    "task": "language-model",
    "corpus": {"language": "xx", "files": "text.txt", "running": True, "valid_size": 60},
    "tokenizer": {"kind": "char", "normalization": "identity", "placeholders": False},
    "model": {
        "embedding_size": 8,
        "hidden_size": 24,
        "embedding_dropout": 0.0,
        "output_dropout": 0.0,
        "weight_drop": 0.1,
    },
    "batches": {"tokens": 400, "bptt": 20},
    "training": {"learning_rate": 2e-2, "warmup_steps": 5, "checkpoint_minutes": 0.001},
    "trainer": {"max_steps": 160, "accelerator": "cpu", "val_check_interval": 40},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipes/letters.yaml` and its text: one walk over letters, cut into lines."""
    folder = tmp_path_factory.mktemp("letters")
    generator, letters = random.Random(1), ["a"]
    for _ in range(24_000):
        letters.append(generator.choice(NEXT[letters[-1]]))
    walk = "".join(letters)
    lines = [walk[start : start + 40] for start in range(0, len(walk), 40)]
    (folder / "text.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "recipes").mkdir()
    (folder / "recipes/letters.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.fixture(scope="module")
def run(mt: Command, place: Path) -> Path:
    done = mt("train", "recipes/letters.yaml", cwd=place)
    assert done.status == 0, done.err
    assert "bits a character" in done.err
    return place / "runs/letters"


def entropy() -> float:
    """Of a letter after the one before, in nats, in the long run."""
    share = dict.fromkeys(NEXT, 0.25)
    for _ in range(100):
        after = dict.fromkeys(NEXT, 0.0)
        for letter, weight in share.items():
            for successor in NEXT[letter]:
                after[successor] += weight / len(NEXT[letter])
        share = after
    return -sum(
        weight
        * NEXT[letter].count(s)
        / len(NEXT[letter])
        * math.log(NEXT[letter].count(s) / len(NEXT[letter]))
        for letter, weight in share.items()
        for s in set(NEXT[letter])
    )


def test_it_learns_what_there_is_to_know(run: Path) -> None:
    [test] = json.loads((run / "scores.json").read_text())["tests"]
    # The ends of lines are certain, once 40 letters have been counted, or cost a little.
    least = entropy() * 40 / 41
    found = -test["log_probability"] / test["tokens"]
    assert least * 0.97 < found < least + 0.15
    low, high = test["interval"]
    assert low < test["perplexity"] < high
    assert test["perplexity"] == pytest.approx(math.exp(found))
    assert test["bits_per_character"] == pytest.approx(found / math.log(2))


def test_the_report_and_the_card_say_so(run: Path) -> None:
    [test] = json.loads((run / "scores.json").read_text())["tests"]
    told = f"{test['perplexity']:.2f}"
    for name in ("report.html", "report.md", "bundle/README.md"):
        assert told in (run / name).read_text(), name
    with open(run / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["valid_perplexity"]]
    assert [int(row["step"]) for row in rows] == [40, 80, 120, 160]
    assert float(rows[-1]["valid_perplexity"]) < float(rows[0]["valid_perplexity"])


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(
    mt: Command, place: Path, run: Path
) -> None:
    half = place / "runs/half"
    for arguments in (
        # The schedule looks at the end of the budget: its end is the same, the clock stops it.
        ("--trainer.max_steps", 70, "--training.schedule", "constant"),
        ("--trainer.max_steps", 110, "--training.schedule", "constant", "--resume"),
    ):
        mt.here("train", "recipes/letters.yaml", "--output", half, *arguments, cwd=place)
    whole = place / "runs/whole"
    mt.here(
        *("train", "recipes/letters.yaml", "--output", whole, "--trainer.max_steps", 110),
        *("--training.schedule", "constant"),
        cwd=place,
    )
    states = []
    for folder in (half, whole):
        file = folder / "checkpoints/step-110.ckpt"
        states.append(torch.load(file, weights_only=True)["state_dict"])
    for name, weight in states[0].items():
        assert weight.equal(states[1][name]), name


def test_it_writes_and_scores(mt: Command, place: Path, run: Path) -> None:
    bundle = run / "bundle"
    words = ["generate", bundle, "--prompt", "ab", "--length", 60, "--seed"]
    one, same, other, sure, several, lines, short = (
        command(*words, cwd=place)
        for command, words in (
            (mt.here, [*words, 1]),
            (mt, [*words, 1]),
            (mt.here, [*words, 2]),
            (mt.here, [*words, 1, "--temperature", 0]),
            (mt.here, [*words, 1, "--number", 3, "--top-k", 2, "--top-p", 0.9]),
            (mt, ["score", bundle, "--target", "text.txt"]),
            (mt.here, ["score", bundle, "--target", "text.txt", "--batch-tokens", 7]),
        )
    )
    assert one.out == same.out != other.out
    assert one.out.startswith("ab")
    assert len(one.out) >= 60
    pairs = zip(one.out[1:], one.out[2:], strict=False)
    wrong = sum(second not in NEXT[first] for first, second in pairs if "\n" not in first + second)
    assert wrong < 6
    assert set(sure.out.rstrip("\n")) <= set("abcd\n")
    assert several.out.count("\n\n") >= 2
    scored = [line.split("\t") for line in lines.out.splitlines()]
    assert len(scored) == len((place / "text.txt").read_text().splitlines())
    assert all(float(total) < 0 and int(tokens) in (2, 41) for total, tokens in scored)
    assert short.out == lines.out
    total, tokens = (sum(float(row[place]) for row in scored) for place in (0, 1))
    assert f"perplexity {math.exp(-total / tokens):.2f}" in lines.err


def test_mistakes_are_told(place: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    bundle, recipe = run / "bundle", "recipes/letters.yaml"
    cases = {
        "of task language-model, not translation; use mt generate": ["translate", bundle],
        "--source: a language model scores text by itself": [
            *("score", bundle, "--source", "text.txt", "--target", "text.txt")
        ],
        "--top-p: must be above 0": ["generate", bundle, "--top-p", 0],
        "--length must be at least 1": ["generate", bundle, "--length", 0],
        "auto: cannot choose `model.hidden_size`": [
            *("train", recipe, "--auto", "[model.hidden_size]", "--output", "x")
        ],
        "model.weight_drop: 0.1 acts within": [
            *("train", recipe, "--model.cell", "ssru", "--output", "x")
        ],
        "a finished run is there": ["train", recipe],
        "batches.bptt: must be at least 1": ["train", recipe, "--batches.bptt", 0],
        "training.freeze: no parameter is called decoder.*": [
            *("train", recipe, "--training.freeze", "[decoder.*]", "--output", "x")
        ],
    }
    for message, arguments in cases.items():
        assert message in refusal(*arguments)


def test_each_line_by_itself_with_the_tokenizer_of_a_translator(
    mt: Command, project: Path, make_bundle: Any
) -> None:
    translator = project / "translator"
    save_bundle(make_bundle(), translator)
    recipe = {
        "task": "language-model",
        "corpus": {"language": "yy", "files": "text", "cleaning": {"held_out": "exact"}},
        "tokenizer_from": str(translator),
        "model": {"embedding_size": 16, "hidden_size": 24},
        "training": {"ema": 0.9, "patience": 1},
        "batches": {"tokens": 400},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    }
    (project / "recipes/lines.yaml").write_text(yaml.safe_dump(recipe))
    mt.here("train", "recipes/lines.yaml", "--output", "runs/lines", cwd=project)
    bundle = project / "runs/lines/bundle"
    model = (bundle / "tokenizer.model").read_bytes()
    assert model == (translator / "tokenizer.model").read_bytes()
    assert load_file(bundle / "model.safetensors")["embedding.weight"].shape[1] == 16
    text = (project / "text/test.xx").read_text()
    words = ["translate", translator, "--threads", 1]
    written, plain, silent, fused, ordered = (
        mt.here(*words, cwd=project, stdin=text)
        for words in (
            ["generate", bundle, "--number", 4],
            words,
            [*words, "--lm", bundle, "--lm-weight", 0],
            [*words, "--lm", bundle, "--lm-weight", 2],
            [*words, "--lm", bundle, "--lm-weight", 2, "--lm-use", "rerank"],
        )
    )
    assert written.out.count("\n") == 4
    assert silent.out == plain.out
    for done in (fused, ordered):
        assert done.out != plain.out
        assert done.out.count("\n") == plain.out.count("\n")
    heavy = refusal(*words, "--lm", bundle, "--lm-weight", -1)
    assert "--lm-weight: must be at least 0" in heavy
    assert "of task translation, not language-model" in refusal(*words, "--lm", translator)
