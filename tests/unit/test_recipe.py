"""A recipe is checked when it is read, and its trainer before any text is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mt.errors import MTError
from mt.options import TrainOptions, parse_train
from mt.recipe import TranslationRecipe
from mt.training.train import train


def parse(folder: Path, *overrides: str) -> TrainOptions:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"corpus": {"files": "nowhere"}, "trainer": {"max_steps": 5}}))
    return parse_train([str(recipe), "--output", str(folder / "run"), *overrides])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", "-1"),
        ("corpus.cleaning.max_ratio", "-2"),
        ("tokenizer.vocab_size", "0"),
        ("tokenizer.character_coverage", "7"),
        ("batches.tokens", "0"),
        ("batches.subword_sampling", "1.5"),
        ("batches.workers", "-1"),
        ("training.label_smoothing", "1.5"),
        ("training.learning_rate", "-1"),
        ("training.betas", "[2, 2]"),
        ("training.ema", "2"),
        ("training.r_drop", "-1"),
        ("training.average_validations", "0"),
        ("training.patience", "-3"),
        ("training.learning_rate", "0"),
        ("training.validation_sentences", "-3"),
        ("training.validation_beam_size", "0"),
        ("model.hidden_size", "0"),
        ("model.output_dropout", "1.5"),
    ],
)
def test_values_out_of_range_are_refused_by_name(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(MTError, match=rf"^{option}: must be "):
        parse(tmp_path, f"--{option}", value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed:", "seed has no value"),
        ("search: {beam_size: null}", "search.beam_size has no value"),
        ("corpus: {sources: [{files: x, weight: null}]}", r"corpus.sources\[0\].weight has no"),
        ("corpus: {source: no}", "corpus.source: YAML takes no"),
        ("corpus: {sources: [{filez: x}]}", "^[^ ]*own.yaml: .*filez"),
        ("tokenizer: 3", "own.yaml: tokenizer: 3 is no mapping"),
        ("trainer: [3]", "own.yaml: trainer: .* is no mapping"),
        ("output: there", "own.yaml: output is an option of `mt train`, not of a recipe"),
        ("auto: [model.foo]", "auto: there is no option called model.foo"),
    ],
)
def test_gaps_and_words_of_yaml_are_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(MTError, match=message):
        parse_train([str(tmp_path / "own.yaml")])


def test_empty_sections_and_off_are_understood(tmp_path: Path) -> None:
    text = "corpus: {cleaning: {held_out: off}}\nmodel:\ntrainer:\n"
    (tmp_path / "own.yaml").write_text(text)
    recipe = parse_train([str(tmp_path / "own.yaml")]).recipe
    assert recipe.corpus.cleaning.held_out == "off"
    assert recipe.model == TranslationRecipe().model


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (["--model.hidden_size", "64"], 64),
        (["--model.hidden_size=64"], 64),
        (["--model", '{"hidden_size": 64}'], 64),
        (["--model.hidden_size", "384"], 384),  # the default, but asked for
    ],
)
def test_what_is_set_is_not_chosen(tmp_path: Path, given: list[str], size: int) -> None:
    (tmp_path / "own.yaml").write_text("auto: [model.hidden_size, model.embedding_size]")
    recipe = parse_train([str(tmp_path / "own.yaml"), *given]).recipe
    assert recipe.auto == ["model.embedding_size"]
    assert recipe.model.hidden_size == size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokenizer.joint", "false"], "tie_embeddings: three-way needs one vocabulary"),
        (
            ["--model.attention", "multi-head", "--model.attention_heads", "5"],
            "attention_heads: 5 does not divide",
        ),
        (["--model.coverage", "true"], "model.coverage: true .* model.wiring: parallel"),
        (
            ["--training.ema", "0.9", "--training.average_validations", "3"],
            r"average_validations and training\.ema both",
        ),
        (["--new-tokenizer", "true"], "new_tokenizer: true needs init_from"),
        (
            ["--shortlist.size", "9", "--model.attention", "none"],
            r"shortlist\.size .* model\.attention is none",
        ),
        (
            ["--search.coverage_penalty", "0.2", "--model.attention", "none"],
            r"search\.coverage_penalty .* model\.attention is none",
        ),
        (
            ["--batches.subword_sampling", "0.1", "--tokenizer.kind", "char"],
            r"batches\.subword_sampling .* tokenizer\.kind is char",
        ),
        (
            [
                *("--training.r_drop", "5", "--model.embedding_dropout", "0"),
                *("--model.layer_dropout", "0", "--model.output_dropout", "0"),
            ],
            r"training\.r_drop .* dropout",
        ),
        (
            ["--training.schedule", "plateau", "--training.patience", "3"],
            r"training\.patience: 3 .* training\.plateau_patience: 2",
        ),
    ],
)
def test_options_that_clash_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(MTError, match=message):
        parse(tmp_path, *options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_epochs", "0"),
        ("max_steps", "-3"),
        ("max_time", "soon"),
        ("max_time", "00:00:00:00"),
        ("accumulate_grad_batches", "0"),
        ("log_every_n_steps", "0"),
        ("check_val_every_n_epoch", "0"),
        ("val_check_interval", "0"),
        ("val_check_interval", "00:00:01:00"),
        ("gradient_clip_val", "-1"),
        ("gradient_clip_algorithm", "most"),
        ("precision", "16-mixed"),
        ("precision", "bf16-true"),
        ("precision", "transformer-engine"),
        ("devices", "0"),
        ("accelerator", "abacus"),
        ("strategy", "luck"),
    ],
)
def test_trainer_is_checked_before_the_text(tmp_path: Path, option: str, value: str) -> None:
    """Whose folder is not there; nothing is made."""
    options = parse(tmp_path, f"--trainer.{option}", value)
    with pytest.raises(MTError, match=r"^trainer") as caught:
        train(options.recipe, options.output)
    assert "\n" not in str(caught.value)
    assert option in str(caught.value)
    assert not options.output.exists()


def test_no_budget_is_no_run(tmp_path: Path) -> None:
    options = parse(tmp_path, "--trainer.max_steps", "-1")
    with pytest.raises(MTError, match="has no end"):
        train(options.recipe, options.output)
