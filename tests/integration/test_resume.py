"""A run that is killed and resumed ends exactly as one that never stopped."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, refusal

from mt.options import parse_train
from mt.training.checkpoints import find_checkpoints
from mt.training.folder import RunFolder

PER_EPOCH, STEPS = 19, 70
OPTIONS = (
    "--batches.tokens",
    "200",
    "--batches.subword_sampling",
    "0.2",
    "--model.layer_dropout",
    "0.3",
    "--model.word_dropout",
    "0.1",
    "--training.checkpoint_minutes",
    "0",
    "--trainer.check_val_every_n_epoch",
    "1",
    "--trainer.max_steps",
    str(STEPS),
    "--search.beam_size",
    "1",
)


def train(mt: Command, project: Path, folder: Path, *more: str) -> str:
    words = ("train", "recipes/tiny.yaml", "--output", folder, *OPTIONS, *more)
    return mt.here(*words, cwd=project).err


@pytest.fixture(scope="module")
def straight(mt: Command, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    train(mt, project, folder)
    return folder


@pytest.fixture(scope="module")
def killed(mt: Command, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its second epoch or later, within an epoch."""
    folder = tmp_path_factory.mktemp("killed")
    process = mt.start(
        "-m", "mt.cli", "train", "recipes/tiny.yaml", "--output", folder, *OPTIONS, cwd=project
    )
    try:
        while step(folder) < PER_EPOCH + 5:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    assert step(folder) < STEPS
    assert {row["epoch"] for row in figures(folder)} >= {"1"}  # PER_EPOCH is right
    if step(folder) % PER_EPOCH == 0:
        find_checkpoints(folder / "checkpoints")[0].unlink()
    return folder


def step(folder: Path) -> int:
    found = find_checkpoints(folder / "checkpoints")
    return int(found[0].stem.removeprefix("step-")) if found else 0


def state(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(
        folder / f"checkpoints/step-{STEPS}.ckpt", weights_only=True
    )
    return content


def figures(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without speed, and without the mean loss since the last row: after
    a resumption the first mean holds fewer updates."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "second" not in k and k != "loss"} for row in rows]


def assert_same(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{number}")
    else:
        assert one == other, where


def assert_same_run(one: Path, other: Path) -> None:
    digests = [
        hashlib.sha256((folder / "bundle/model.safetensors").read_bytes()).hexdigest()
        for folder in (one, other)
    ]
    assert digests[0] == digests[1]
    for part in ("state_dict", "optimizer_states"):
        assert_same(state(one)[part], state(other)[part], part)
    assert figures(one) == figures(other)
    scores = []
    for folder in (one, other):
        scores.append(json.loads((folder / "scores.json").read_text()))
        for test in scores[-1]["sets"]:
            assert test.pop("system") == folder.name
    assert scores[0] == scores[1]


def test_resumed_run_equals_a_straight_one(
    mt: Command, project: Path, straight: Path, killed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    at = step(folder)
    assert at % PER_EPOCH != 0
    words = ("train", "recipes/tiny.yaml", "--output", folder, *OPTIONS, "--resume")
    done = mt(*words, cwd=project)
    assert done.status == 0, done.err
    assert f"step-{at}.ckpt" in done.err
    assert "damaged" not in done.err
    assert_same_run(straight, folder)


@pytest.mark.parametrize("damage", ["truncated", "one byte"])
def test_damaged_checkpoint_gives_way_to_the_one_before(
    mt: Command, project: Path, straight: Path, killed: Path, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    checkpoints = find_checkpoints(folder / "checkpoints")
    if len(checkpoints) == 1:  # killed between two epochs, see `killed`
        shutil.copy(checkpoints[0], checkpoints[0].with_name(f"step-{step(folder) + 1}.ckpt"))
        checkpoints = find_checkpoints(folder / "checkpoints")
    newest, before, *_ = checkpoints  # three where the kill came before the oldest was removed
    content = newest.read_bytes()
    half = len(content) // 2
    other = bytes([content[half] ^ 1])
    rest = b"" if damage == "truncated" else other + content[half + 1 :]
    newest.write_bytes(content[:half] + rest)
    said = train(mt, project, folder, "--resume")
    assert f"{newest}: damaged" in said
    assert f"resuming   {before}" in said
    assert_same_run(straight, folder)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_says_how_to_go_on(
    mt: Command, project: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    process = mt.start(
        *("-m", "mt.cli", "train", "recipes/tiny.yaml", "--output", tmp_path, *OPTIONS),
        *("--trainer.max_steps", "100000"),
        cwd=project,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while step(tmp_path) < 3:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    assert "interrupted; --resume goes on from the last checkpoint, if there is one" in err.decode()
    assert "Traceback" not in err.decode()
    assert not (tmp_path / "scores.json").exists()


def test_finished_run_goes_on_with_a_larger_budget(
    mt: Command, project: Path, straight: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    train(mt, project, folder, "--resume", "--trainer.max_steps", str(STEPS + 15))
    assert step(folder) == STEPS + 15
    steps = [int(row["step"]) for row in figures(folder)]
    assert steps == sorted(steps)
    assert steps[-1] == STEPS + 15
    assert steps[: len(figures(straight))] == [int(row["step"]) for row in figures(straight)]


def test_finished_run_stays_as_it_is_without_one(
    mt: Command, project: Path, straight: Path, tmp_path: Path
) -> None:
    """A run may be killed after its last update, while it translates the test sets."""
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    (folder / "scores.json").unlink()
    train(mt, project, folder, "--resume")
    assert_same_run(straight, folder)


def test_run_that_stopped_early_stays_stopped(mt: Command, project: Path, tmp_path: Path) -> None:
    stall = ("--training.patience", "2", "--training.learning_rate", "1e-9")
    stall += ("--trainer.val_check_interval", "5")
    said = train(mt, project, tmp_path, *stall)
    assert "stopping: no better score in 2 validations" in said
    assert step(tmp_path) == 15
    train(mt, project, tmp_path, *stall, "--resume")
    assert step(tmp_path) == 15
    assert [row["step"] for row in figures(tmp_path) if row["valid_bleu"]] == ["5", "10", "15"]
    train(mt, project, tmp_path, *stall, "--resume", "--training.patience", "3")
    assert step(tmp_path) == 20


def test_scores_stand_beside_a_finished_run_alone(straight: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(straight, folder.path)
    recipe = parse_train([str(folder.recipe)]).recipe
    described = json.loads(folder.environment.read_text())
    folder.prepare(recipe, described, resume=True, overwrite=False)
    assert not folder.scores.exists()
    folder.clear()
    assert list(folder.path.iterdir()) == []


def test_accumulation_may_change(
    mt: Command, project: Path, straight: Path, killed: Path, tmp_path: Path
) -> None:
    """Batches are counted from where the run resumes, whatever made an update before."""
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    if step(folder) % 2 == 0:
        find_checkpoints(folder / "checkpoints")[0].unlink()
    at = step(folder)
    assert at % 2
    wider = ("--trainer.accumulate_grad_batches", "2", "--trainer.log_every_n_steps", "1")
    train(mt, project, folder, "--resume", *wider)
    assert step(folder) == STEPS
    logged = [int(row["step"]) for row in figures(folder) if row["learning_rate"]]
    assert logged[-(STEPS - at) :] == list(range(at + 1, STEPS + 1))


def test_other_text_cannot_resume(
    project: Path, killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokenizer would be another, and the embeddings those of other tokens."""
    monkeypatch.chdir(project)
    text = project / "text/train.yy"
    before = text.read_bytes()
    shutil.copytree(killed, tmp_path / "run")
    try:
        text.write_bytes(before.replace(b"tilo", b"tila"))
        words = ("train", "recipes/tiny.yaml", "--output", tmp_path / "run", *OPTIONS, "--resume")
        assert "run: the text is not that of the run" in refusal(*words)
    finally:
        text.write_bytes(before)


@pytest.mark.parametrize(
    "change",
    [
        ("--model.hidden_size", 50),
        ("--training.optimizer", "sgd"),
        ("--training.ema", 0),
        ("--seed", 9),
    ],
)
def test_another_model_or_optimizer_cannot_resume(
    project: Path, killed: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, object]
) -> None:
    monkeypatch.chdir(project)
    before = {path: path.stat().st_mtime_ns for path in killed.rglob("*")}
    words = ("train", "recipes/tiny.yaml", "--output", killed, *OPTIONS, "--resume", *change)
    assert f"`{change[0].removeprefix('--')}` differs" in refusal(*words)
    assert {path: path.stat().st_mtime_ns for path in killed.rglob("*")} == before
