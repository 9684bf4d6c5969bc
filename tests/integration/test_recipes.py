"""Every recipe reads a local folder in place of its own sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PROJECT

from mt.corpus import load_corpus
from mt.corpus.labelled import load_labelled
from mt.corpus.series import load_series
from mt.corpus.text import load_text
from mt.options import parse_train
from mt.recipe import (
    ClassificationRecipe,
    ForecastingRecipe,
    LanguageModelRecipe,
    TranslationRecipe,
)

RECIPES = sorted(PROJECT.glob("recipes/*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_reads_a_local_folder(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    read = parse_train([str(recipe)]).recipe
    if isinstance(read, LanguageModelRecipe):
        for split in ("train", "valid", "test"):
            (tmp_path / f"{split}.{read.corpus.language}").write_text(f"{split} line\n")
        text = load_text(replace(read.corpus, sources=[], files=str(tmp_path)))
        assert list(text.each()) == ["train line"]
        assert (text.valid, text.tests) == (["valid line"], {"test": ["test line"]})
        return
    if isinstance(read, ForecastingRecipe):
        steps = read.series.valid_size + read.series.test_size + 500
        (tmp_path / "own.csv").write_text("x\n" + "".join(f"{n}\n" for n in range(steps)))
        series = replace(read.series, statsmodels=None, files=str(tmp_path / "own.csv"))
        split = load_series(replace(read, series=series))
        assert (split.valid, split.series.columns) == (500, ["x"])
        return
    if isinstance(read, ClassificationRecipe):
        for split in ("train", "valid", "test"):
            rows = "".join(f"{split} line {name}\t{name}\n" for name in ("one", "two"))
            (tmp_path / f"{split}.tsv").write_text(f"text\tlabel\n{rows}")
        cleaning = replace(read.corpus.cleaning, min_examples=1, held_out="exact")
        labelled = load_labelled(
            replace(read.corpus, sources=[], files=str(tmp_path), cleaning=cleaning)
        )
        assert labelled.classes == ["one", "two"]
        assert labelled.train.texts == ["train line one", "train line two"]
        assert labelled.tests["test"].labels == [0, 1]
        return
    assert isinstance(read, TranslationRecipe)
    languages = read.corpus
    sizes = {"train": 4, "valid": 2, "test": 3}
    for split, lines in sizes.items():
        for side, language in (("source", languages.source), ("target", languages.target)):
            # Letters only: no rule of any recipe may find two of these alike.
            texts = [f"{split} {side} {chr(97 + line) * 5}" for line in range(lines)]
            (tmp_path / f"{split}.{language}").write_text("".join(f"{text}\n" for text in texts))
    corpus = load_corpus(replace(languages, files=str(tmp_path)))
    assert (len(corpus.train), len(corpus.valid)) == (4, 2)
    assert {name: len(pairs) for name, pairs in corpus.tests.items()} == {"test": 3}
    assert sorted(corpus.train["source"])[0] == "train source aaaaa"
