"""Runs that start from a bundle: with its tokenizer or a new one, and with weights frozen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROJECT, Command, Run, train_here

from mt import Translator
from mt.errors import MTError
from mt.nn.seq2seq import Seq2Seq
from mt.options import parse_train

TIED = {"decoder.embedding.weight", "decoder.output.weight"}
"""The encoder's embedding under its other names."""
SHORT = ("--trainer.max_steps", 2, "--training.ema", 0, "--training.warmup_steps", 1)


@pytest.fixture
def tune(project: Path, run: Run, tmp_path: Path) -> Any:
    """Go on from the trained run for two updates, in this process; return the network."""

    def go(*overrides: object, name: str = "run") -> Translator:
        start = ("--init-from", run.bundle)
        folder = train_here(project, tmp_path / name, *start, *SHORT, *overrides)
        return Translator.load(folder / "bundle", "cpu")

    return go


def weights(model: Seq2Seq) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters(remove_duplicate=False))


def test_a_run_starts_from_the_weights_of_the_bundle(tune: Any, run: Run) -> None:
    before = Translator.load(run.bundle, "cpu")
    same = tune("--training.learning_rate", 1e-12)
    assert same.tokenizers.source.model == before.tokenizers.source.model
    for name, weight in weights(before.model).items():
        torch.testing.assert_close(weights(same.model)[name], weight, rtol=0, atol=1e-9)
    moved = tune("--training.learning_rate", 1e-2, name="moved")
    changed = {n for n, w in weights(before.model).items() if not w.equal(weights(moved.model)[n])}
    assert changed == weights(before.model).keys()


def test_frozen_weights_stay_as_they_are(tune: Any, run: Run) -> None:
    before = weights(Translator.load(run.bundle, "cpu").model)
    after = weights(tune("--training.freeze", '["encoder.stack.*", "decoder.output.bias"]').model)
    frozen = {name for name in before if name.startswith("encoder.stack.")}
    frozen |= {"decoder.output.bias"}
    assert {name for name in before if before[name].equal(after[name])} == frozen


def test_what_is_tied_to_a_frozen_weight_is_named(
    tune: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        tune("--training.freeze", '["encoder.*"]')
    (line,) = (text for text in caplog.messages if text.startswith("frozen"))
    assert "encoder.*, and decoder.embedding.weight, decoder.output.weight, tied" in line


def test_a_new_tokenizer_keeps_the_weights_of_the_pieces_it_knows(tune: Any, run: Run) -> None:
    before = Translator.load(run.bundle, "cpu")
    after = tune(
        "--new-tokenizer",
        "true",
        "--tokenizer.vocab_size",
        90,
        "--training.learning_rate",
        1e-12,
    )
    old, new = before.tokenizers.source, after.tokenizers.source
    assert len(new) == 90 != len(old)
    places = {piece: number for number, piece in enumerate(old.pieces(range(len(old))))}
    known = [(n, places[p]) for n, p in enumerate(new.pieces(range(90))) if p in places]
    assert 40 < len(known) < 120
    for name in ("encoder.embedding.weight", "decoder.output.weight", "decoder.output.bias"):
        ours, theirs = (weights(t.model)[name] for t in (after, before))
        for number, place in known:
            torch.testing.assert_close(ours[number], theirs[place], rtol=0, atol=1e-9)
    for name, weight in weights(before.model).items():
        if not name.endswith(("embedding.weight", "output.weight", "output.bias")):
            torch.testing.assert_close(weights(after.model)[name], weight, rtol=0, atol=1e-9)


def test_sizes_that_are_chosen_are_the_bundles(
    mt: Command, project: Path, run: Run, tmp_path: Path
) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        "auto: [model.hidden_size, model.embedding_size, tokenizer.vocab_size, model.layer_dropout]"
    )
    words = ["train", recipe, "--corpus.files", project / "text", "--corpus.source", "xx"]
    words += ["--corpus.target", "yy", "--init-from", run.bundle, "--trainer.max_steps", "1"]
    done = mt.here(*words, cwd=tmp_path)
    for line in ("model.hidden_size = 48 (as in", "model.layer_dropout = 0.5", "from"):
        assert line in done.err
    assert "vocab_size =" not in done.err
    card = (tmp_path / "runs/own/bundle/README.md").read_text()
    assert "init_from: bundle" in card
    assert str(tmp_path.parent) not in card


def test_mistakes_are_told(tune: Any, run: Run, tmp_path: Path) -> None:
    with pytest.raises(MTError, match=r"another network.* --model\.hidden_size 48$"):
        tune("--model.hidden_size", 40)
    with pytest.raises(MTError, match=r"training\.freeze: .*encodr.*encoder\.stack"):
        tune("--training.freeze", '["encodr.*"]')
    with pytest.raises(MTError, match=r"training\.freeze: nothing is left"):
        tune("--training.freeze", '["*"]')
    with pytest.raises(MTError, match="nowhere"):
        tune("--init-from", tmp_path / "nowhere")
    with pytest.raises(MTError, match=f"a run's folder; give the bundle in it, {run.bundle}$"):
        tune("--init-from", run.bundle.parent)
    with pytest.raises(MTError, match=r"new_tokenizer.*init_from"):
        parse_train([str(PROJECT / "recipes/quickstart.yaml"), "--new_tokenizer", "true"])
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_with_what_it_started_from(tune: Any, run: Run, tmp_path: Path) -> None:
    frozen = ("--training.freeze", '["encoder.*"]')
    tune(*frozen)
    more = ("--resume", "--trainer.max_steps", 4)
    with pytest.raises(MTError, match=r"`training\.freeze` differs"):
        tune(*more)
    with pytest.raises(MTError, match=r"`new_tokenizer` differs"):
        tune(*frozen, *more, "--new-tokenizer", "true")
    shutil.copytree(run.bundle, tmp_path / "copy")
    with pytest.raises(MTError, match=r"`init_from` differs"):
        tune(*frozen, *more, "--init-from", tmp_path / "copy")
    before = weights(Translator.load(run.bundle, "cpu").model)
    after = weights(tune(*frozen, *more).model)
    still = {name for name in before if before[name].equal(after[name])}
    assert still == {name for name in before if name.startswith("encoder.")} | TIED


def test_a_run_may_start_from_the_bundle_that_it_replaces(
    project: Path, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.folder, tmp_path / "mine")
    words = ["--init-from", tmp_path / "mine/bundle", *SHORT, "--training.learning_rate", 1e-12]
    train_here(project, tmp_path / "mine", "--overwrite", *words)
    one, other = (
        weights(Translator.load(folder / "bundle", "cpu").model)
        for folder in (tmp_path / "mine", run.folder)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
