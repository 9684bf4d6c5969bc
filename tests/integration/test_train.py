"""`mt train`: what a run leaves, what it refuses, and how its options combine."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Command, Run, refusal

from mt import Translator
from mt.training.progress import COLUMNS


@pytest.fixture
def own(project: Path, tmp_path: Path) -> Path:
    """A copy of the project without any run."""
    for name in ("recipes", "text"):
        shutil.copytree(project / name, tmp_path / name)
    return tmp_path


def scores(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    return content


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_run_learns_the_language(run: Run) -> None:
    sources = ["ba ce", "dio fa gul", "hem"]
    assert Translator.load(run.bundle).translate(sources) == ["mur tilo", "rada sep kan", "vi"]
    [test] = scores(run.folder)["sets"]
    assert test["scores"][0]["score"] > 80


def test_bfloat16_products_learn_the_language_too(mt: Command, own: Path) -> None:
    mt.here("train", "recipes/tiny.yaml", "--trainer.precision", "bf16-mixed", cwd=own)
    translator = Translator.load(own / "runs/tiny/bundle")
    assert translator.translate(["ba ce", "dio fa gul"]) == ["mur tilo", "rada sep kan"]
    assert {weight.dtype for weight in translator.model.parameters()} == {torch.float32}


def test_run_tells_what_it_does(run: Run) -> None:
    assert run.done.out == ""
    for words in (
        "pairs: train 800 · valid 41 · test 31\n",
        "exact duplicates",
        "best",
        "runs/tiny/",
    ):
        assert words in run.done.err


def test_scores_follow_their_schema(run: Run) -> None:
    content = scores(run.folder)
    assert list(content) == ["version", "sets"]
    assert content["version"] == 1
    [test] = content["sets"]
    assert list(test) == ["name", "sentences", "system", "scores", "others"]
    assert (test["system"], test["others"]) == (run.folder.name, [])
    assert (test["name"], test["sentences"]) == ("test", 31)
    assert [score["metric"] for score in test["scores"]] == ["bleu", "chrf"]
    for score in test["scores"]:
        assert list(score) == ["metric", "score", "signature", "interval"]
        low, high = score["interval"]
        assert low - 0.01 <= score["score"] <= high + 0.01
        assert score["signature"].startswith("nrefs:1|")


def test_environment_names_versions_commit_hardware_and_seed(run: Run) -> None:
    content = json.loads((run.folder / "environment.json").read_text())
    assert content["seed"] == 3
    assert content["packages"]["torch"] == torch.__version__
    assert content["packages"].keys() >= {"lightning", "sentencepiece", "sacrebleu", "datasets"}
    assert content.keys() >= {"mt", "commit", "python"}
    assert content["hardware"]["cores"] >= 1
    assert content["hardware"]["threads"] == 1


def test_metrics_hold_training_and_validation(run: Run) -> None:
    with open(run.folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    measured = ("valid_loss", "valid_perplexity", "valid_bleu")
    assert tuple(rows[0]) == (*COLUMNS, *measured)
    training = [row for row in rows if row["loss"]]
    validation = [row for row in rows if row["valid_bleu"]]
    last = int(rows[-1]["step"])
    assert [int(row["step"]) for row in training] == list(range(10, last + 1, 10))
    assert [float(row["epoch"]) for row in validation] == [6, 12, 18, 24]
    assert float(training[-1]["loss"]) < float(training[0]["loss"])
    assert float(validation[-1]["valid_perplexity"]) < 3
    assert all(float(row["seconds"]) > 0 for row in rows)


def test_other_outputs(run: Run) -> None:
    report = (run.folder / "report.html").read_text()
    assert "steps back" in report  # the gradient flow that the recipe asks for
    assert "</html>" in report
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", report)  # self-contained
    assert list((run.folder / "tensorboard").glob("events.*"))
    assert {path.name for path in run.bundle.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.model",
    }
    card = (run.bundle / "README.md").read_text()
    for words in ("800", "nrefs:1|", "Licence", "learning_rate: 0.01"):
        assert words in card
    steps = {path.name for path in (run.folder / "checkpoints").iterdir()}
    assert len(steps) == 2
    assert all(name.startswith("step-") for name in steps)


def test_resolved_recipe_is_a_recipe(mt: Command, run: Run, project: Path, tmp_path: Path) -> None:
    resolved = run.folder / "recipe.yaml"
    recipes = [resolved, project / "recipes/tiny.yaml"]
    again, printed = (mt.here("train", r, "--print_config", cwd=tmp_path) for r in recipes)
    assert again == printed
    assert printed.out == resolved.read_text()
    content = yaml.safe_load(printed.out)
    assert content["corpus"]["files"] == str(project / "text")
    assert content["training"]["label_smoothing"] == 0.1  # filled in
    assert content["trainer"]["max_epochs"] == 24


def test_options_override_the_recipe(mt: Command, project: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    printed = mt.here(
        "train",
        project / "recipes/tiny.yaml",
        "--print_config",
        "--seed",
        7,
        "--corpus.files",
        "here",
        "--model.hidden_size=20",
        "--training.betas",
        "[0.8, 0.9]",
        "--trainer.max_epochs",
        3,
        "--evaluation.metrics",
        "[ter]",
        cwd=tmp_path,
    )
    content = yaml.safe_load(printed.out)
    assert content["seed"] == 7
    assert content["corpus"]["files"] == str(tmp_path / "here")
    assert content["corpus"]["source"] == "xx"  # its neighbours stay
    assert content["model"]["hidden_size"] == 20
    assert content["training"]["betas"] == [0.8, 0.9]
    assert content["trainer"]["max_epochs"] == 3
    assert content["evaluation"]["metrics"] == ["ter"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]  # nothing was run


def test_finished_run_is_kept(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    before = files(run.folder)
    message = refusal("train", "recipes/tiny.yaml")
    assert all(words in message for words in ("runs/tiny", "--resume", "--overwrite"))
    assert files(run.folder) == before


def test_unfinished_run_is_kept_until_told_otherwise(
    mt: Command, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own)
    folder = own / "runs/tiny"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/step-7.ckpt").write_text("a state")
    (folder / "notes.txt").write_text("mine")
    alone = refusal("train", "recipes/tiny.yaml")
    assert all(words in alone for words in ("unfinished", "--resume", "--overwrite"))
    both = refusal("train", "recipes/tiny.yaml", "--resume", "--overwrite")
    assert "--resume and --overwrite exclude each other" in both
    assert (folder / "checkpoints/step-7.ckpt").read_text() == "a state"

    mt.here(
        "train",
        "recipes/tiny.yaml",
        "--overwrite",
        "--trainer.max_steps",
        3,
        "--search.beam_size",
        1,
        cwd=own,
    )
    assert (folder / "notes.txt").read_text() == "mine"
    # A slow machine may have saved one of its own before the last.
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert "step-3.ckpt" in names
    assert "step-7.ckpt" not in names
    assert scores(folder)["sets"]


def test_bad_text_leaves_the_run_untouched(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    bad = {
        ("short", "test.yy"): (b"one line\n", ["test.xx", "31", "test.yy", "1 "]),
        ("bytes", "train.yy"): (b"tilo \xff\n" * 800, ["train.yy", "line 1", "UTF-8"]),
    }
    folder = own / "runs/tiny"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "scores.json").write_text("old")
    for (text, name), (content, _) in bad.items():
        shutil.copytree(own / "text", own / text)
        (own / text / name).write_bytes(content)
    before = files(folder)
    command = ["train", "recipes/tiny.yaml", "--overwrite", "--corpus.files"]
    short, wrong, missing = (refusal(*command, text) for text in ("short", "bytes", "nowhere"))
    for message, (_, words) in zip((short, wrong), bad.values(), strict=True):
        assert all(word in message for word in words), message
    assert "nowhere" in missing
    assert files(folder) == before


def test_missing_text_makes_no_run_folder(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    shutil.rmtree(own / "text")
    assert str(own / "text") in refusal("train", "recipes/tiny.yaml")
    assert not (own / "runs").exists()


def test_run_of_unusual_parts(mt: Command, own: Path) -> None:
    """What no other run has: from the recipe over the bundle to a translation."""
    options = {
        "encoder_cell": "layer-norm-lstm",
        "decoder_cell": "ssru",
        "encoder_transition_depth": 2,
        "wiring": "conditional",
        "attention": "location-aware",
        "coverage": "true",
        "bridge": "mean",
        "locked_dropout": "true",
    }
    words = [f"--model.{name}={value}" for name, value in options.items()]
    words += ["--training.r_drop", "1", "--trainer.max_steps", "40"]
    mt.here("train", "recipes/tiny.yaml", *words, cwd=own)
    translator = Translator.load(own / "runs/tiny/bundle")
    architecture = vars(translator.model.architecture)
    assert {name: str(architecture[name]).lower() for name in options} == {
        name: str(value) for name, value in options.items()
    }
    together = translator.translate(["ba ce dio", "fa", "gul hem"])
    assert together == [translator.translate([text])[0] for text in ("ba ce dio", "fa", "gul hem")]
