"""Recipes, the Makefile and the commands of the README."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT

from mt.options import (
    Decoding,
    EvaluateOptions,
    ScoreOptions,
    TokenizerOptions,
    TranslateOptions,
    parse_train,
    read_spec,
)
from mt.training.folder import recipe_yaml

RECIPES = sorted((PROJECT / "recipes").glob("*.yaml"))
README = PROJECT / "README.md"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_parses_and_its_resolved_form_is_the_same(recipe: Path, tmp_path: Path) -> None:
    options = parse_train([str(recipe)])
    assert options.output == Path("runs") / recipe.stem
    trainer = options.recipe.trainer
    assert any(trainer.get(name, -1) != -1 for name in ("max_epochs", "max_steps", "max_time"))
    resolved = tmp_path / "recipe.yaml"
    resolved.write_text(recipe_yaml(options.recipe))
    assert parse_train([str(resolved)]).recipe == options.recipe


@pytest.mark.parametrize(
    "spec", sorted((PROJECT / "tokenizers").glob("*.yaml")), ids=lambda path: path.stem
)
def test_tokenizer_spec_is_what_recipes_get(spec: Path, tmp_path: Path) -> None:
    read, inputs = read_spec(spec)
    assert inputs == []
    for folder in ("recipes", "tokenizers"):
        (tmp_path / folder).mkdir()
    shutil.copy(spec, tmp_path / "tokenizers")
    recipe = tmp_path / "recipes/any.yaml"
    recipe.write_text(yaml.safe_dump({"tokenizer": f"tokenizers/{spec.name}"}))
    assert parse_train([str(recipe)]).recipe.tokenizer == read


class Tree:
    """A copy of the Makefile whose `mt` writes down how it was called, and a run's files."""

    MT = """#!/bin/sh
echo "$@" >> calls
[ "$1" = train ] || exit 0
while [ $# -gt 0 ]; do [ "$1" = --output ] && folder=$2; shift; done
sleep 0.05
rm -f "$folder/scores.json"
touch "$folder/recipe.yaml"
[ -e kill ] && exit 1
sleep 0.05
mkdir -p "$folder/bundle"
touch "$folder/scores.json"
"""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("recipes", "tokenizers", "my-data", ".venv/bin"):
            (folder / name).mkdir(parents=True)
        shutil.copy(PROJECT / "Makefile", folder)
        for recipe in RECIPES:
            shutil.copy(recipe, folder / "recipes")
        for spec in (PROJECT / "tokenizers").glob("*.yaml"):
            shutil.copy(spec, folder / "tokenizers")
        for name in ("pyproject.toml", "constraints.txt", ".venv/.ready", "my-data/train.en"):
            self.change(name)
        (folder / ".venv/bin/mt").write_text(self.MT)
        (folder / ".venv/bin/mt").chmod(0o755)

    def change(self, name: str) -> None:
        """Give a file a time later than all others."""
        time.sleep(0.05)
        (self.folder / name).touch()

    def make(self, *arguments: str, status: int = 0) -> list[str]:
        """Run make; return the calls of `mt`."""
        time.sleep(0.05)
        keep = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "RECIPE", "ARGS")}
        done = subprocess.run(
            ["make", "PYTHON=false", *arguments],  # there is nothing to set up
            cwd=self.folder,
            env=keep,
            input="",
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return lines


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


TRAIN = "train recipes/quickstart.yaml --output runs/quickstart"


def test_make_trains_what_is_stale_alone(tree: Tree) -> None:
    assert tree.make("train") == [f"{TRAIN} --overwrite"]
    assert tree.make("train") == []
    tree.change("recipes/quickstart.yaml")
    assert tree.make("train") == [f"{TRAIN} --overwrite"]
    assert tree.make("train") == []
    tree.change("tokenizers/joint-bpe-2k.yaml")
    assert tree.make("train") == [f"{TRAIN} --overwrite"]
    tree.change("recipes/own-text.yaml")
    tree.change("my-data/train.en")
    assert tree.make("train") == []


def test_other_arguments_make_a_run_stale(tree: Tree) -> None:
    arguments = "ARGS=--trainer.max_time '00:00:01:00' --seed 2"
    assert tree.make("train") == [f"{TRAIN} --overwrite"]
    wanted = [f"{TRAIN} --trainer.max_time 00:00:01:00 --seed 2 --overwrite"]
    assert tree.make("train", arguments) == wanted
    assert tree.make("train", arguments) == []
    assert tree.make("train") == [f"{TRAIN} --overwrite"]


def test_mistaken_arguments_leave_a_run_as_it_is(tree: Tree) -> None:
    """`mt` refuses them, or prints its help, before it touches the folder."""
    tree.make("train")
    real = tree.folder / ".venv/bin/mt"
    for status in (0, 2):
        real.write_text(f"#!/bin/sh\nexit {status}\n")
        real.chmod(0o755)
        tree.make("train", "ARGS=--typo 3", status=status)
        real.write_text(tree.MT)
        assert tree.make("train") == []
    (tree.folder / "kill").touch()
    tree.make("train", "ARGS=--seed 2", status=2)
    (tree.folder / "kill").unlink()
    real.write_text("#!/bin/sh\nexit 2\n")
    tree.make("train", "ARGS=--typo 3", status=2)
    real.write_text(tree.MT)
    assert tree.make("train", "ARGS=--seed 2") == [f"{TRAIN} --seed 2 --resume"]


def test_each_recipe_has_its_run_and_its_text(tree: Tree) -> None:
    arguments = ("RECIPE=recipes/own-text.yaml", "ARGS=--corpus.files my-data --corpus.target ja")
    wanted = [
        "train recipes/own-text.yaml --output runs/own-text --corpus.files my-data "
        "--corpus.target ja --overwrite"
    ]
    assert tree.make("train", *arguments) == wanted
    assert tree.make("train", *arguments) == []
    tree.change("my-data/train.en")
    assert tree.make("train", *arguments) == wanted
    assert not (tree.folder / "runs/quickstart").exists()


def test_interrupted_run_goes_on_unless_something_changed(tree: Tree) -> None:
    (tree.folder / "kill").touch()
    assert tree.make("train", status=2) == [f"{TRAIN} --overwrite"]
    assert tree.make("train", status=2) == [f"{TRAIN} --resume"]
    (tree.folder / "kill").unlink()
    assert tree.make("train") == [f"{TRAIN} --resume"]
    assert tree.make("train") == []

    for change in ("recipes/quickstart.yaml", "tokenizers/joint-bpe-2k.yaml"):
        (tree.folder / "kill").touch()
        tree.change("recipes/quickstart.yaml")
        tree.make("train", status=2)
        (tree.folder / "kill").unlink()
        tree.change(change)
        assert tree.make("train") == [f"{TRAIN} --overwrite"], change

    (tree.folder / "kill").touch()
    tree.make("train", "ARGS=--seed 2", status=2)
    (tree.folder / "kill").unlink()
    assert tree.make("train", "ARGS=--seed 3") == [f"{TRAIN} --seed 3 --overwrite"]


def test_how_to_go_on_can_be_said(tree: Tree) -> None:
    tree.make("train")
    for word in ("--resume", "--overwrite"):
        assert tree.make("train", f"ARGS={word}") == [f"{TRAIN} {word}"]
        assert tree.make("train", f"ARGS={word}") == [f"{TRAIN} {word}"]  # it was asked for
        assert tree.make("train") == []  # and is no property of the run


def test_translating_never_trains(tree: Tree) -> None:
    assert tree.make("translate", status=2) == []
    tree.make("train", "ARGS=--seed 2")
    calls = tree.make("translate", "ARGS=--beam-size 1")
    assert calls == ["translate runs/quickstart/bundle --beam-size 1"]
    assert tree.make("train", "ARGS=--seed 2") == []


def commands() -> list[str]:
    """The shell commands in the README's fenced blocks."""
    if not README.exists():
        return []
    blocks = re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", README.read_text(), re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(make|echo|cat|mt|\.venv/bin/mt)\b", line)]


OPTIONS = {
    "translate": [TranslateOptions, Decoding],
    "evaluate": [EvaluateOptions, Decoding],
    "score": [ScoreOptions],
    "tokenizer": [TokenizerOptions],
}


@pytest.mark.parametrize("command", commands())
def test_readme_command_is_valid(command: str, tree: Tree) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.M)
        assert words[1] in targets
        settings = dict(word.split("=", 1) for word in words[2:])
        assert settings.keys() <= {"RECIPE", "ARGS", "PYTHON"}
        if words[1] == "train":
            recipe = settings.get("RECIPE", "recipes/quickstart.yaml")
            parse_train([str(PROJECT / recipe), *settings.get("ARGS", "").split()])
            assert len(tree.make(*words[1:])) == 1
        return
    program = next(n for n, word in enumerate(words) if re.fullmatch(r"(.venv/bin/)?mt", word))
    name, *arguments = words[program + 1 :]
    if name == "train":
        parse_train([str(PROJECT / arguments[0]), *arguments[1:]])
        return
    known = {
        "--" + field.name.replace("_", "-") for kind in OPTIONS[name] for field in fields(kind)
    }
    assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= known
