"""Sizes chosen from the corpus."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from mt.errors import MTError
from mt.recipe import TokenizerSpec, TranslationRecipe
from mt.training.sizing import _FIELDS, SIZES, choose_sizes
from mt.training.trainer import choose_precision

LATIN = ["The quick brown fox jumps over the lazy dog."]


def test_nothing_is_chosen_unasked() -> None:
    recipe = TranslationRecipe()
    assert choose_sizes(recipe, 10**6, lambda: LATIN) == (recipe, [])


def test_every_field_can_be_chosen_and_gives_its_reason() -> None:
    recipe, reasons = choose_sizes(
        replace(TranslationRecipe(), auto=list(_FIELDS)), 5_000, lambda: LATIN
    )
    assert recipe.auto == []
    assert len(reasons) == len(_FIELDS)
    for name, reason in zip(_FIELDS, reasons, strict=True):
        section, field = name.split(".")
        value = (
            recipe.trainer[field] if section == "trainer" else vars(getattr(recipe, section))[field]
        )
        assert reason.startswith(f"{name} = {value} (5,000 training pairs")


def test_the_documented_sizes_are_those_in_use() -> None:
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if len(row) == len(SIZES[0])]
    wanted = [
        [f"{size.pairs:,.0f}" if size is not SIZES[-1] else "more", *(f"{n:,}" for n in size[1:])]
        for size in SIZES
    ]
    assert rows[1:] == wanted


def test_fields_that_are_not_named_stay() -> None:
    start = replace(TranslationRecipe(), auto=["model.hidden_size"], trainer={"max_steps": 7})
    recipe, _ = choose_sizes(start, 1_000, lambda: LATIN)
    assert recipe.model == replace(start.model, hidden_size=recipe.model.hidden_size)
    assert recipe.trainer == {"max_steps": 7}
    assert recipe.tokenizer == start.tokenizer


def test_larger_corpora_get_larger_models_less_dropout_and_fewer_epochs() -> None:
    chosen = []
    for pairs in (100, 1_000, 10_000, 100_000, 1_000_000, 100_000_000):
        recipe, _ = choose_sizes(
            replace(TranslationRecipe(), auto=list(_FIELDS)), pairs, lambda: LATIN
        )
        chosen.append(recipe)
    for small, large in pairwise(chosen):
        assert small.tokenizer.vocab_size <= large.tokenizer.vocab_size
        assert small.model.hidden_size <= large.model.hidden_size
        assert small.model.encoder_layers <= large.model.encoder_layers
        assert small.model.layer_dropout >= large.model.layer_dropout
        assert small.trainer["max_epochs"] >= large.trainer["max_epochs"]
    assert chosen[0].model.hidden_size < chosen[-1].model.hidden_size


def test_limits_belong_to_the_smaller_size() -> None:
    for size, above in pairwise(SIZES):
        start = replace(TranslationRecipe(), auto=["trainer.max_epochs"])
        at, _ = choose_sizes(start, int(size.pairs), lambda: LATIN)
        over, _ = choose_sizes(start, int(size.pairs) + 1, lambda: LATIN)
        assert at.trainer["max_epochs"] == size.max_epochs
        assert over.trainer["max_epochs"] == above.max_epochs


def test_a_large_alphabet_gets_a_larger_vocabulary() -> None:
    chinese = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    start = replace(TranslationRecipe(), auto=["tokenizer.vocab_size"])
    recipe, (reason,) = choose_sizes(start, 1_000, lambda: [chinese])
    assert recipe.tokenizer.vocab_size > 3000 * recipe.tokenizer.character_coverage
    assert "different characters" in reason
    latin, _ = choose_sizes(start, 1_000, lambda: LATIN)
    assert latin.tokenizer.vocab_size == SIZES[0].vocab_size


@pytest.mark.parametrize(("kind", "sampled"), [("bpe", 0.1), ("char", 0), ("byte", 0)])
def test_only_subwords_are_sampled(kind: Any, sampled: float) -> None:
    start = TranslationRecipe(tokenizer=TokenizerSpec(kind=kind), auto=["batches.subword_sampling"])
    recipe, _ = choose_sizes(start, 1_000, lambda: LATIN)
    assert recipe.batches.subword_sampling == sampled


def test_rare_characters_beyond_the_coverage_need_no_token() -> None:
    start = replace(TranslationRecipe(), auto=["tokenizer.vocab_size"])
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    recipe, _ = choose_sizes(start, 1_000, lambda: ["a" * 10_000_000, rare])
    assert recipe.tokenizer.vocab_size == SIZES[0].vocab_size


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(MTError, match=r"auto: cannot choose `model\.depth`.*model\.hidden_size"):
        choose_sizes(replace(TranslationRecipe(), auto=["model.depth"]), 10, lambda: LATIN)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx2": True, "avx512_bf16": False}, "32-true"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    trainer = {"accelerator": "cpu", "max_steps": 7}
    start = replace(
        TranslationRecipe(), auto=["model.hidden_size", "trainer.precision"], trainer=trainer
    )
    recipe, (reason,) = choose_precision(start)
    assert recipe.trainer == {**trainer, "precision": precision}
    assert recipe.auto == ["model.hidden_size"]
    assert reason.startswith(f"trainer.precision = {precision} (")
    unasked = replace(start, auto=[])
    assert choose_precision(unasked) == (unasked, [])
