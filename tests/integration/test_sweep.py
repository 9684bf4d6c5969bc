"""`mt sweep`: values of a recipe's options are tried, by validation alone."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Command, refusal

from mt.errors import MTError
from mt.options import parse_sweep, parse_train
from mt.training.sweep import sweep

LINES = [f"{a}{b}{c}" * 2 for a in "abcde" for b in "fghij" for c in "klmno"]

RECIPE: dict[str, Any] = {
    "task": "language-model",
    "corpus": {"language": "xx", "files": "text.txt", "cleaning": {"held_out": "exact"}},
    "tokenizer": {"kind": "char", "placeholders": False},
    "model": {"embedding_size": 8, "hidden_size": 12},
    "batches": {"tokens": 300},
    "training": {"learning_rate": 1e-2, "warmup_steps": 1},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("".join(f"{line}\n" for line in LINES))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/letters.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


Sweep = Callable[..., list[dict[str, str]]]


@pytest.fixture
def search(place: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Run a sweep in this process, and give the rows of trials.csv."""

    def run(*options: str, **spec: Any) -> list[dict[str, str]]:
        (place / "space.yaml").write_text(yaml.safe_dump(spec))
        files = [str(place / "recipes/letters.yaml"), str(place / "space.yaml")]
        sweep(parse_sweep([*files, "--output", str(place / "found"), *options]))
        with open(place / "found/trials.csv", newline="") as file:
            return list(csv.DictReader(file))

    return run


def validations(metrics: Path) -> list[float]:
    """The losses that the validations of a run measured."""
    with open(metrics, newline="") as file:
        return [float(row["valid_loss"]) for row in csv.DictReader(file) if row["valid_loss"]]


def test_a_grid_tries_every_combination_and_finds_the_best(search: Sweep, place: Path) -> None:
    rows = search(
        method="grid",
        prune=False,
        space={
            "training.learning_rate": [0.00001, 0.03],
            "model.hidden_size": {"low": 8, "high": 16, "step": 8},
        },
    )
    tried = {(float(r["training.learning_rate"]), float(r["model.hidden_size"])) for r in rows}
    assert tried == {(0.00001, 8), (0.00001, 16), (0.03, 8), (0.03, 16)}
    best = max(rows, key=lambda row: float(row["score"]))
    assert float(best["training.learning_rate"]) == 0.03  # the other learns nothing
    chosen = parse_train([str(place / "found/best.yaml")]).recipe
    assert chosen.training.learning_rate == 0.03
    assert chosen.model.hidden_size == int(best["model.hidden_size"])
    page = (place / "found/report.html").read_text()
    assert best["told"] in page
    assert "model.hidden_size" in page
    # Test text is never looked at, and no state to resume from is left.
    assert not list((place / "found").rglob("scores.json"))
    assert not list((place / "found").rglob("*.ckpt"))
    assert len(list((place / "found").glob("trial-*/bundle/config.json"))) == 4


def test_a_trial_is_the_training_with_its_values(search: Sweep, place: Path, mt: Command) -> None:
    [row] = search(trials=1, space={"model.hidden_size": [14]})
    mt.here("train", "recipes/letters.yaml", "--model.hidden_size", 14, cwd=place)
    losses = validations(place / "runs/letters/metrics.csv")
    assert float(row["score"]) == pytest.approx(-min(losses), rel=1e-5)


def test_a_sweep_goes_on_where_it_was(search: Sweep, place: Path) -> None:
    space = {"training.learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    first = search(method="random", trials=2, space=space)
    more = search(method="random", trials=4, space=space)
    for before, after in zip(first, more, strict=False):
        assert before == after
    assert len({row["training.learning_rate"] for row in more}) == 4
    assert all(0.001 <= float(row["training.learning_rate"]) <= 0.1 for row in more)
    with pytest.raises(MTError, match="holds a sweep of another recipe or space"):
        search(method="tpe", trials=5, space=space)


def test_an_interrupted_trial_is_done_again(
    search: Sweep, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec: dict[str, Any] = {"method": "grid", "space": {"training.learning_rate": [0.01]}}

    def interrupted(recipe: Any, run: Path, **_: Any) -> None:
        (run / "checkpoints").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mt.training.sweep.train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(**spec)
    rows = search(**spec)
    assert [(row["state"], row["training.learning_rate"]) for row in rows] == [
        ("fail", "0.01"),
        ("complete", "0.01"),
    ]
    assert rows[0]["told"] == "interrupted"
    assert not (place / "found/trial-000/checkpoints").exists()


def test_hopeless_trials_end_early_and_impossible_ones_fail(search: Sweep, place: Path) -> None:
    rows = search(
        "--trainer.max_epochs",
        "3",
        method="grid",
        seed=3,
        space={
            "training.learning_rate": [0.03, 0.029, 0.028, 0.027, 0.0000001],
            "model.cell": ["lstm", "ssru"],
            "model.weight_drop": [0.1],
        },
    )
    found = {(float(r["training.learning_rate"]), r["model.cell"]): r for r in rows}
    hopeless = found.pop((0.0000001, "lstm"))
    assert hopeless["state"] == "pruned"
    metrics = place / f"found/trial-{int(hopeless['trial']):03}/metrics.csv"
    assert len(validations(metrics)) == 1
    for (_, cell), row in found.items():
        assert row["state"] == ("complete" if cell == "lstm" else "fail")
        if cell == "ssru":
            assert "model.weight_drop: 0.1 acts within" in row["told"]


def test_a_value_that_cannot_be_trained_with_is_a_failed_trial(search: Sweep, place: Path) -> None:
    with pytest.raises(MTError, match="choose a larger vocabulary"):  # nothing has worked yet
        search(method="grid", space={"tokenizer.vocab_size": [100, 4000]})
    shutil.rmtree(place / "found")
    rows = search(method="grid", space={"tokenizer.vocab_size": [4000, 100, 3000]})
    assert [row["state"] for row in rows] == ["complete", "fail", "complete"]
    assert "choose a larger vocabulary" in rows[1]["told"]


def test_cross_validation_takes_each_part_in_turn(search: Sweep, place: Path) -> None:
    [row] = search(trials=1, folds=3, space={"model.hidden_size": [12]})
    assert row["told"].count("perplexity") == 3
    losses = [
        min(validations(place / f"found/trial-000/fold-{fold}/metrics.csv")) for fold in (1, 2, 3)
    ]
    assert float(row["score"]) == pytest.approx(-sum(losses) / 3, rel=1e-5)
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"space": {}}, "space.yaml: space: empty"),
        ({"space": 3}, "space.yaml: `space` must be a mapping"),
        ({"space": {"model.depth": [1]}}, "model.depth"),
        ({"space": {"model.hidden_size": 3}}, "space: model.hidden_size: 3 is neither a list"),
        ({"space": {"model.hidden_size": {"low": 3}}}, "is neither a list of values nor"),
        ({"space": {"model.hidden_size": {"low": 3, "high": 1}}}, "low 3 is above high 1"),
        ({"space": {"model.hidden_size": {"low": 1, "high": 3, "by": 1}}}, "must hold numbers"),
        ({"space": {"model.hidden_size": {"low": 0, "high": 9}}}, "model.hidden_size: must be at"),
        ({"method": "grid", "space": {"seed": {"low": 1, "high": 3}}}, "a grid needs a list"),
        ({"trials": 0, "space": {"seed": [1]}}, "space.yaml: trials: must be at least 1"),
        ({"folds": 1, "space": {"seed": [1]}}, "space.yaml: folds: must be at least 2"),
        ({"method": "luck", "space": {"seed": [1]}}, "space.yaml: .*luck"),
        ({"folds": 2, "space": {"corpus.running": [True]}}, "corpus.folds: running text"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    search: Sweep, place: Path, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(MTError, match=message):
        search(**spec)
    assert not (place / "found").exists()


def test_the_command_explains_itself(
    mt: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    told = mt("sweep", "--help", cwd=place)
    assert told.status == 0, told.err
    assert "low: …, high: …" in told.out
    assert "required: RECIPE, SPACE.yaml; see `mt sweep --help`" in refusal("sweep")
    assert "none.yaml: cannot read" in refusal("sweep", "recipes/letters.yaml", "none.yaml")
    words = ("sweep", "recipes/letters.yaml", "space.yaml", "--trainer.max_epochs", "1")
    assert "space.yaml: cannot read" in refusal(*words)
