"""Several processes train and decode as one does."""

from __future__ import annotations

import csv
import json
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import ddp
import pytest
import torch
from conftest import Command, Run

UPDATES, TOKENS = 20, 300
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


class Record(NamedTuple):
    """What all processes of a training did together."""

    processes: int
    gradients: dict[str, torch.Tensor]
    """Of the first update."""
    losses: list[float]
    """A token's, of each update."""
    sentences: list[list[int]]
    """Sentence numbers of each update, sorted."""
    shares: list[int]
    """Sentences that each process trained on."""
    translations: list[list[str]]
    """What each process holds after decoding together."""


@pytest.fixture(scope="module")
def record(mt: Command, run: Run, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that trains for some updates in float64, with given options."""

    def train(tokens: int, dropout: float, *options: str) -> Record:
        folder = tmp_path_factory.mktemp("record")
        dropouts = [
            word
            for name in ("embedding", "layer", "context", "output")
            for word in (f"--model.{name}_dropout", dropout)
        ]
        words = [
            *(folder, run.bundle, project / "text/test.xx", project / "recipes/tiny.yaml"),
            *(*dropouts, "--batches.tokens", tokens, "--trainer.max_steps", UPDATES),
            *("--trainer.precision", "64-true", *options),
        ]
        if options == TWO:  # Lightning starts the script once more
            done = mt.python(ddp.__file__, *words, cwd=project)
            assert done.status == 0, done.err
        else:
            ddp.main(list(map(str, words)))
        parts = [torch.load(path) for path in sorted(folder.glob("*.pt"))]
        losses, sentences = defaultdict(float), defaultdict(list)
        for part in parts:
            for update, loss, update_tokens, numbers in part["batches"]:
                losses[update] += loss / update_tokens
                sentences[update] += numbers
        assert list(losses) == list(range(UPDATES))
        return Record(
            parts[0]["world_size"],
            parts[0]["gradients"],
            list(losses.values()),
            [sorted(numbers) for numbers in sentences.values()],
            [sum(len(numbers) for *_, numbers in part["batches"]) for part in parts],
            [part["translations"] for part in parts],
        )

    return train


@pytest.fixture(scope="module")
def alone(record: Any) -> Record:
    """One process with the whole batch."""
    result: Record = record(2 * TOKENS, 0.0)
    assert result.processes == 1
    assert all(gradient.dtype == torch.float64 for gradient in result.gradients.values())
    return result


@pytest.fixture(scope="module")
def together(record: Any) -> Record:
    """Two processes with half a batch each."""
    result: Record = record(TOKENS, 0.0, *TWO)
    assert result.processes == 2
    return result


def assert_same_training(one: Record, other: Record) -> None:
    assert one.sentences == other.sentences
    assert one.gradients.keys() == other.gradients.keys()
    for name, gradient in one.gradients.items():
        assert gradient.abs().max() > 1e-6, name
        torch.testing.assert_close(gradient, other.gradients[name], rtol=0, atol=1e-9)
    assert one.losses == pytest.approx(other.losses, rel=0, abs=1e-8)
    assert one.losses[-1] < one.losses[0] - 0.5  # so the updates were the same too


def test_two_processes_train_as_one(alone: Record, together: Record) -> None:
    assert_same_training(alone, together)
    assert max(together.shares) < 1.1 * min(together.shares)


def test_two_accumulated_batches_train_as_one(record: Any, alone: Record) -> None:
    assert_same_training(alone, record(TOKENS, 0.0, "--trainer.accumulate_grad_batches", "2"))


def test_dropout_leaves_the_plan_alone(record: Any, alone: Record) -> None:
    dropped = record(TOKENS, 0.3, *TWO)
    assert dropped.sentences == alone.sentences
    assert dropped.losses[0] != pytest.approx(alone.losses[0], abs=1e-6)


def test_no_translation_is_missing_or_doubled(
    mt: Command, run: Run, project: Path, alone: Record, together: Record
) -> None:
    done = mt.here("translate", run.bundle, "--input", project / "text/test.xx", cwd=project)
    expected = done.out.splitlines()
    assert len(expected) == 31  # an odd number: one process has more to do
    assert alone.translations == [expected]
    assert together.translations == [expected, expected]


OPTIONS = (
    "--trainer.max_steps",
    "60",
    "--batches.tokens",
    "200",
    "--training.validation_beam_size",
    "2",
)


def assert_finished(mt: Command, project: Path, folder: Path) -> None:
    """Compare what two processes measured with what one measures of the same weights."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["loss"]] == [str(n) for n in range(10, 61, 10)]
    best = max(float(row["valid_bleu"]) for row in rows if row["valid_bleu"])
    assert 10 < best < 100
    for name, beam, count in (("valid", 2, 41), ("test", 3, 31)):
        done = mt.here(
            "evaluate",
            folder / "bundle",
            "--source",
            project / f"text/{name}.xx",
            "--reference",
            project / f"text/{name}.yy",
            "--beam-size",
            beam,
            "--json",
            cwd=folder,
        )
        [scored] = json.loads(done.out)["sets"]
        assert scored["sentences"] == count
        if name == "valid":
            assert scored["scores"][0]["score"] == pytest.approx(best, abs=1e-3)
        else:
            [trained] = json.loads((folder / "scores.json").read_text())["sets"]
            assert trained["sentences"] == count
            assert scored["scores"] == trained["scores"]


def test_run_on_two_processes(mt: Command, project: Path, tmp_path: Path) -> None:
    command = ("train", "recipes/tiny.yaml", "--output", tmp_path / "run", *TWO, *OPTIONS)
    done = mt(*command, cwd=project)
    assert done.status == 0, done.err
    assert done.err.count("translator ") == 1  # one process speaks
    assert "Traceback" not in done.err
    assert_finished(mt, project, tmp_path / "run")


def test_run_on_two_nodes(mt: Command, project: Path, tmp_path: Path) -> None:
    """As `torchrun` starts it on two machines that share their disk."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = [
        mt.start(
            "-m",
            "torch.distributed.run",
            "--nnodes",
            2,
            "--node-rank",
            node,
            "--nproc-per-node",
            1,
            "--master-addr",
            "127.0.0.1",
            "--master-port",
            port,
            "-m",
            "mt.cli",
            "train",
            "recipes/tiny.yaml",
            "--output",
            tmp_path / "run",
            "--trainer.num_nodes",
            2,
            "--trainer.devices",
            1,
            "--trainer.strategy",
            "ddp",
            *OPTIONS,
            cwd=project,
        )
        for node in range(2)
    ]
    try:
        said = [node.communicate(timeout=240)[1].decode() for node in nodes]
    finally:
        for node in nodes:
            node.kill()
            node.communicate()
    assert [node.returncode for node in nodes] == [0, 0], "\n\n".join(said)
    assert_finished(mt, project, tmp_path / "run")
