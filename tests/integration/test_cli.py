"""What all commands share: help, version, and mistakes told in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from conftest import PROJECT, Command, refusal
from docstring_parser import parse_from_object

import mt as package
from mt.bundle import Bundle, save_bundle
from mt.options import (
    ClassifyOptions,
    CompareOptions,
    Decoding,
    EvaluateOptions,
    ScoreOptions,
    TokenizerOptions,
    TranslateOptions,
)
from mt.recipe import RECIPES


@pytest.mark.parametrize(
    ("command", "positional", "kinds"),
    [
        ("translate", "BUNDLE", [TranslateOptions, Decoding]),
        ("evaluate", "BUNDLE", [EvaluateOptions, Decoding]),
        ("compare", "SYSTEM", [CompareOptions, Decoding]),
        ("score", "BUNDLE", [ScoreOptions]),
        ("classify", "BUNDLE", [ClassifyOptions]),
        ("tokenizer", "SPEC", [TokenizerOptions]),
    ],
)
def test_help_explains_every_option(
    mt: Command, tmp_path: Path, command: str, positional: str, kinds: list[type]
) -> None:
    done = mt.here(command, "--help", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.split())
    packed = "".join(text.split())  # lines may end after a hyphen
    assert f" {positional} " in text
    for kind in kinds:
        helps = {p.arg_name: p.description or "" for p in parse_from_object(kind).params}
        for option in fields(kind):
            flag = "--" + option.name.replace("_", "-")
            assert helps[option.name]
            assert "".join(helps[option.name].split()) in packed, flag
            required = option.default is MISSING and option.default_factory is MISSING
            usage = text.partition("options:")[0]
            assert (f"[{flag}" in usage) != required, flag
            entry = text.partition("options:")[2].partition(f" {flag} ")[2].partition(" --")[0]
            assert required or option.name == "json" or "(default: " in entry, flag


def leaves(kind: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the help of each field of a recipe but the trainer's."""
    hints = get_type_hints(kind)
    classes = [one for one in reversed(kind.__mro__) if is_dataclass(one)]
    helps = {
        p.arg_name: p.description or "" for one in classes for p in parse_from_object(one).params
    }
    for field in fields(kind):
        if field.name == "trainer":
            continue
        if is_dataclass(hints[field.name]):
            yield from leaves(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, helps[field.name]


@pytest.mark.parametrize("task", RECIPES)
def test_help_of_train_explains_the_recipe(mt: Command, tmp_path: Path, task: str) -> None:
    (tmp_path / "own.yaml").write_text(f"task: {task}\n")
    recipe = [] if task == "translation" else ["own.yaml"]
    done = mt.here("train", *recipe, "--help", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    entries = {
        match[1]: "".join(match[0].split())
        for match in re.finditer(r"^  --([\w.]+) .*(?:\n {4,}.*)*", done.out, re.MULTILINE)
    }
    for name, about in leaves(RECIPES[task]):
        assert about
        assert "".join(about.split()) in entries[name], name
        assert "default:" in entries[name], name
    for flag in ("--output", "--resume", "--overwrite", "--trainer.max_epochs"):
        assert len(entries[flag.removeprefix("--")]) > 40
    assert "--print_config" in done.out


def test_version_and_usage(mt: Command, tmp_path: Path) -> None:
    assert mt("--version", cwd=tmp_path) == (0, f"mt {package.__version__}\n", "")
    done = mt("--help", cwd=tmp_path)
    assert done.status == 0
    for command in ("train", "tokenizer", "translate", "evaluate", "score", "classify"):
        assert f"  {command} " in done.out
    assert "--help" in done.out
    assert "--version" in done.out


RECIPE = PROJECT / "recipes/quickstart.yaml"
MISTAKES: list[tuple[list[object], list[str]]] = [
    (["translate"], ["BUNDLE"]),
    (["translate", "nowhere"], ["nowhere", "bundle"]),
    (["translate", "b", "more"], ["more"]),
    (["translate", "b", "--beam-size", "wide"], ["--beam-size", "int", "wide"]),
    (["translate", "b", "--beam-size"], ["--beam-size"]),
    (["translate", "b", "--format", "xml"], ["--format", "jsonl", "xml"]),
    (["translate", "b", "--n-best", "2"], ["--n-best 2", "--format jsonl"]),
    (["evaluate", "b"], ["--source", "--reference"]),
    (["evaluate", "b", "--source", "s", "--reference", "r", "--metric", "x"], ["--metric", "chrf"]),
    (["score", "b", "--source", "s"], ["--target"]),
    (["tokenizer", "nowhere.yaml"], ["nowhere.yaml: cannot read"]),
    (["tokenizer", "list.yaml"], ["list.yaml"]),
    (["tokenizer", "wrong.yaml"], ["wrong.yaml", "vocab_size", "many"]),
    (["train"], ["recipe"]),
    (["train", "broken.yaml"], ["broken.yaml", "YAML"]),
    (["train", "unknown.yaml"], ["unknown.yaml", "hiden_size"]),
    (["train", RECIPE, "--trainer.flying", "1"], ["--trainer.flying"]),
    (["train", RECIPE, "--model.attention", "full"], ["model.attention", "multi-head", "full"]),
    (["train", "local.yaml", "--trainer.max_time", "soon"], ["trainer.max_time", "soon"]),
    (["train", "local.yaml"], ["nowhere"]),
]


def test_mistakes_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "wrong.yaml").write_text("vocab_size: many\n")
    (tmp_path / "broken.yaml").write_text("corpus: {\n")
    (tmp_path / "unknown.yaml").write_text("model: {hiden_size: 3}\n")
    (tmp_path / "local.yaml").write_text("corpus: {files: nowhere}\ntrainer: {max_epochs: 1}\n")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for arguments, words in MISTAKES:
        said = refusal(*arguments)
        assert all(word in said for word in words), said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fly"], ["`fly`", "translate"]),
        (["--fly"], ["`--fly`"]),
        (["translate", "b", "--fly", "1"], ["--fly"]),
        (["train", "nowhere.yaml"], ["error: nowhere.yaml: cannot read"]),
    ],
)
def test_a_mistake_ends_the_command(
    mt: Command, tmp_path: Path, arguments: list[str], told: list[str]
) -> None:
    done = mt(*arguments, cwd=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("mt: error: ")
    assert done.err.count("\n") == 1, done.err
    assert all(word in done.err for word in told), done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--beam_size", "0"], ["--beam-size", "0"]),
        (["--beam-size", "2", "--n-best", "3", "--format", "jsonl"], ["--n-best 3", "--beam-size"]),
        (["--device", "abacus"], ["--device abacus"]),
        (["--devices", "0"], ["--devices"]),
        (["--input", "nowhere"], ["nowhere"]),
        (["--prefixes", "nowhere"], ["nowhere"]),
    ],
)
def test_wrong_search_options_are_told(
    make_bundle: Callable[..., Bundle], tmp_path: Path, arguments: list[str], told: list[str]
) -> None:
    save_bundle(make_bundle(), tmp_path / "bundle")
    said = refusal("translate", tmp_path / "bundle", *arguments)
    assert all(word in said for word in told), said
