"""What validation decides: the weights that are kept, the learning rate, and when to stop."""

from __future__ import annotations

import csv
import errno
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mt import Translator
from mt.errors import MTError
from mt.evaluation.scores import corpus_score
from mt.options import parse_train
from mt.search.options import SearchOptions
from mt.training.checkpoints import find_checkpoints, newest_whole_checkpoint
from mt.training.train import train

STALL = ("--training.learning_rate", "1e-9", "--training.warmup_steps", "1")


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def go(project: Path, tmp_path: Path) -> Any:
    """Train the small recipe in this process; return the rows of its metrics."""

    def run(*overrides: object, name: str = "run") -> list[dict[str, str]]:
        quick = ("--search.beam_size", 1, "--trainer.val_check_interval", 5)
        quick += ("--trainer.log_every_n_steps", 1, "--training.checkpoint_minutes", 100)
        words = [str(project / "recipes/tiny.yaml"), "--output", str(tmp_path / name)]
        options = parse_train([*words, *map(str, (*quick, *overrides))])
        train(options.recipe, options.output, options.resume, options.overwrite)
        return rows(tmp_path / name)

    return run


def rates(found: list[dict[str, str]]) -> list[float]:
    return [float(row["learning_rate"]) for row in found if row["learning_rate"]]


def test_plateau_lowers_the_rate_where_bleu_stalls(go: Any) -> None:
    plateau = (*STALL, "--training.schedule", "plateau", "--training.plateau_patience", 1)
    plateau += ("--training.plateau_factor", 0.25)
    straight = rates(go(*plateau, "--trainer.max_steps", 30))
    # The best is that of update 5; 10 and 15, then 20 and 25, are no better.
    assert straight == pytest.approx([1e-9] * 15 + [1e-9 / 4] * 10 + [1e-9 / 16] * 5)
    go(*plateau, "--trainer.max_steps", 15, name="parts")
    parts = rates(go(*plateau, "--trainer.max_steps", 30, "--resume", name="parts"))
    assert parts == straight


def test_patience_stops_a_run_whose_bleu_stalls(go: Any) -> None:
    found = go(*STALL, "--trainer.max_steps", 60, "--training.patience", 3)
    assert found[-1]["step"] == "20"


def test_patience_counts_from_the_best(go: Any, tmp_path: Path) -> None:
    found = go("--trainer.max_steps", 60, "--training.learning_rate", 0.03)
    bleus = [float(row["valid_bleu"]) for row in found if row["valid_bleu"]]
    best = bleus.index(max(bleus))
    assert best > 1  # else there was nothing to begin anew from
    checkpoint = find_checkpoints(tmp_path / "run/checkpoints")[0]
    [state] = torch.load(checkpoint, weights_only=True)["callbacks"].values()
    assert state["since_best"] == len(bleus) - 1 - best


def test_bleu_is_that_of_the_weights_that_are_kept(go: Any, project: Path, tmp_path: Path) -> None:
    """From `validation_start` on, at the end in any case, on the first sentences."""
    found = go(
        *("--trainer.max_steps", 22, "--training.validation_start", 12),
        *("--training.validation_sentences", 7, "--training.learning_rate", 0.03),
        *("--training.validation_beam_size", 2),
    )
    checks = [row for row in found if row["valid_loss"]]
    assert [row["step"] for row in checks] == ["5", "10", "15", "20", "22"]
    assert [row["step"] for row in checks if row["valid_bleu"]] == ["15", "20", "22"]
    translator = Translator.load(tmp_path / "run/bundle", "cpu")
    sources, references = (
        (project / "text" / f"valid.{side}").read_text().splitlines()[:7] for side in ("xx", "yy")
    )
    outputs = translator.translate(sources, SearchOptions(beam_size=2))
    bleu = corpus_score("bleu", outputs, [references], target_language="yy").score
    assert bleu == pytest.approx(max(float(row["valid_bleu"] or 0) for row in checks), rel=1e-4)


def test_tensorboard_has_curves_sample_translations_and_attention(go: Any, tmp_path: Path) -> None:
    found = go("--trainer.max_steps", 10)
    board = EventAccumulator(str(tmp_path / "run/tensorboard"))
    board.Reload()
    tags = board.Tags()
    assert {"loss", "valid_bleu", "valid_chrf", "gradient_norm"} <= set(tags["scalars"])
    losses = [event.value for event in board.Scalars("loss")]
    assert losses == pytest.approx([float(r["loss"]) for r in found if r["loss"]], rel=1e-4)
    [samples] = [tag for tag in tags["tensors"] if tag.startswith("samples")]
    written = board.Tensors(samples)[-1].tensor_proto.string_val[0].decode()
    assert all(word in written for word in ("source", "reference", "output"))
    outputs = [line.split()[1:] for line in written.splitlines() if line.startswith("  output")]
    assert len(outputs) == 3
    for number, words in enumerate(outputs, 1):
        if words:  # sixteen pixels a word
            assert board.Images(f"attention/{number}")[-1].height == 16 * len(words)
    assert any(outputs)


def test_time_is_a_budget_too(go: Any) -> None:
    """The rate falls with the time that is left, to the end of it."""
    found = go("--trainer.max_epochs", -1, "--trainer.max_time", "00:00:00:02", *STALL)
    assert float(found[-1]["seconds"]) >= 2
    for before, row in pairwise(found):
        if row["learning_rate"]:
            left = 1 - float(before["seconds"]) / 2
            assert float(row["learning_rate"]) == pytest.approx(1e-9 * left, rel=1e-3, abs=1e-14)
    checks = [row["step"] for row in found if row["valid_bleu"]]
    assert len(set(checks)) == len(checks)  # no step is validated twice


def test_divergence_is_told(go: Any) -> None:
    with pytest.raises(MTError, match="training diverged: 3 updates in a row"):
        go(
            *("--training.learning_rate", 1e38, "--training.max_skipped", 2),
            *("--trainer.max_steps", 60, "--training.warmup_steps", 0),
            *("--training.validation_start", 100, "--trainer.val_check_interval", 100),
        )


def test_full_disk_leaves_the_checkpoint_before(
    go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = L.Trainer.save_checkpoint

    def fill(trainer: L.Trainer, path: Path, *more: Any, **options: Any) -> None:
        save(trainer, path, *more, **options)
        if trainer.global_step > 5:
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(L.Trainer, "save_checkpoint", fill)
    with pytest.raises(MTError, match=r"step-10\.ckpt: cannot write .*No space left.*--resume"):
        go("--trainer.max_steps", 40)
    folder = tmp_path / "run/checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-5.ckpt"]
    checkpoint = newest_whole_checkpoint(folder)
    assert checkpoint is not None
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 5


def test_checkpoint_has_its_name_once_it_is_whole(
    go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may be killed while it writes."""
    save, seen = L.Trainer.save_checkpoint, []

    def look(trainer: L.Trainer, path: Path, *more: Any, **options: Any) -> None:
        save(trainer, path, *more, **options)
        found = {p.stem for p in find_checkpoints(tmp_path / "run/checkpoints")}
        seen.append(f"step-{trainer.global_step}" in found)

    monkeypatch.setattr(L.Trainer, "save_checkpoint", look)
    go("--trainer.max_steps", 12)
    assert seen == [False] * 3


def test_two_checkpoints_are_kept_and_leftovers_go(go: Any, tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/step-99.part").touch()  # of a process that was killed
    go("--trainer.max_steps", 21, "--resume")
    assert len(find_checkpoints(tmp_path / "run/checkpoints")) == 2
    assert not (tmp_path / "run/checkpoints/step-99.part").exists()


def test_the_mean_of_the_last_validations_is_kept_and_resumed(go: Any, tmp_path: Path) -> None:
    averaged = ("--training.ema", 0, "--training.average_validations", 3, "--trainer.max_steps")
    constant = ("--training.schedule", "constant")
    straight = go(*averaged, 40, *constant)
    go(*averaged, 20, *constant, name="parts")
    parts = go(*averaged, 40, *constant, "--resume", name="parts")
    scores = [
        [row["valid_loss"] for row in found if row["valid_loss"]] for found in (straight, parts)
    ]
    assert scores[0] == scores[1]
    go("--training.ema", 0, "--trainer.max_steps", 40, *constant, name="last")
    kept = {name: Translator.load(tmp_path / name / "bundle").model for name in ("run", "last")}
    assert not torch.equal(*(model.output.bias for model in kept.values()))
