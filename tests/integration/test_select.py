"""`mt select`: the pairs that are best to train on, as trained models judge."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command, refusal

from mt.bundle import LanguageModelBundle, save_bundle, save_language_model
from mt.language_model import LanguageModel
from mt.nn.architecture import LanguageModelArchitecture
from mt.nn.language_model import LanguageNetwork
from mt.selection import best
from mt.tokenizer import Tokenizer
from mt.translator import Translator

SOURCES = ["abc de", "fghij abc", "a", "ba ce", "hij", "ddd e", "abc", "jig"]
TARGETS = ["de abc", "abc", "", "ce", "ij h", "e ddd", "bca", "gij"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_bundle: Any, letters: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("select")
    for seed, name in enumerate(("general", "wanted", "other")):
        torch.manual_seed(seed)
        model = LanguageNetwork(LanguageModelArchitecture(8, 12), len(letters))
        language = "zz" if name == "other" else "yy"
        save_language_model(LanguageModelBundle(model, letters, language, False), folder / name)
    forward, backward = make_bundle(seed=1), make_bundle(seed=2)
    save_bundle(forward, folder / "forward")
    save_bundle(backward._replace(languages=("yy", "xx")), folder / "backward")
    for name, lines in (("text.xx", SOURCES), ("text.yy", TARGETS)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder


def per_token(scored: list[tuple[float, int]]) -> list[float]:
    return [-total / tokens for total, tokens in scored]


def test_pairs_are_chosen_by_the_formulas(mt: Command, place: Path) -> None:
    words = ["select", "--source", "text.xx", "--target", "text.yy"]
    domain = ["--in-domain", "wanted", "--general", "general"]
    dual = ["--forward", "forward", "--backward", "backward"]
    done = mt(*words, *domain, "--output", "domain", "--keep", 0.5, cwd=place)
    assert (done.status, done.err) == (0, "4 of 8 pairs kept\n")
    mt.here(*words, *dual, "--output", "dual", "--keep", 0.3, cwd=place)
    mt.here(*words, *domain, *dual, "--output", "both", "--keep", 1, cwd=place)
    wanted, general = (
        per_token(LanguageModel.load(place / name, "cpu").score(TARGETS))
        for name in ("wanted", "general")
    )
    there = per_token(Translator.load(place / "forward", "cpu").score(SOURCES, TARGETS))
    back = per_token(Translator.load(place / "backward", "cpu").score(TARGETS, SOURCES))
    expected = {
        "domain": [math.exp(b - a) for a, b in zip(wanted, general, strict=True)],
        "dual": [math.exp(-(abs(a - b) + (a + b) / 2)) for a, b in zip(there, back, strict=True)],
    }
    expected["both"] = [min(1, a) * b for a, b in zip(*expected.values(), strict=True)]
    for (name, scores), kept in zip(expected.items(), (4, 3, 8), strict=True):
        told = [float(line) for line in (place / f"{name}.scores").read_text().splitlines()]
        assert told == pytest.approx(scores, rel=1e-4)
        order = sorted(range(8), key=lambda n: -told[n])[:kept]
        pairs = [(SOURCES[n], TARGETS[n]) for n in sorted(order)]
        sides = ((place / f"{name}.{side}").read_text().split("\n")[:-1] for side in ("xx", "yy"))
        assert list(zip(*sides, strict=True)) == pairs


def test_of_equals_the_first_are_kept() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.5, 0.1])
    assert best(scores, 0.5).tolist() == [True, True, True, False, False]
    assert best(scores, 0.01).tolist() == [False, True, False, False, False]


def test_mistakes_are_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = ["select", "--source", "text.xx", "--target", "text.yy", "--output", "none"]
    cases = {
        "nothing to judge by": words,
        "--in-domain and --general go together": [*words, "--in-domain", "wanted"],
        "--keep: must be above 0": [*words, "--keep", 0],
        "--in-domain knows yy and --general zz": [
            *(*words, "--in-domain", "wanted", "--general", "other")
        ],
        "--in-domain knows zz, and not one of text.xx and text.yy ends in .zz": [
            *(*words, "--in-domain", "other", "--general", "other")
        ],
        "--forward translates xx to yy and --backward xx to yy": [
            *(*words, "--forward", "forward", "--backward", "forward")
        ],
        "of task translation, not language-model": [
            *(*words, "--in-domain", "forward", "--general", "general")
        ],
    }
    for message, arguments in cases.items():
        assert message in refusal(*arguments)
    assert not list(place.glob("none*"))
