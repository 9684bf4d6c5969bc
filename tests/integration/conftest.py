"""Commands run as a user runs them, a small invented language, and one trained run of it."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from mt.cli import COMMANDS
from mt.errors import MTError
from mt.options import parse_train
from mt.training.train import train

PROJECT = Path(__file__).resolve().parents[2]

WORDS = {
    "ba": "tilo",
    "ce": "mur",
    "dio": "kan",
    "fa": "sep",
    "gul": "rada",
    "hem": "vi",
    "jor": "pelu",
    "kip": "so",
    "lan": "gra",
    "mop": "ente",
    "nus": "oli",
    "pra": "dum",
    "qua": "zef",
    "rin": "wa",
    "sul": "hibo",
    "tov": "ycra",
}
"""The language xx, word by word in yy; in yy the last word comes first."""

RECIPE: dict[str, Any] = {
    "corpus": {
        "source": "xx",
        "target": "yy",
        "files": "text",
        "cleaning": {"held_out": "exact"},
    },
    "tokenizer": {"vocab_size": 120, "byte_fallback": False},
    "model": {
        "embedding_size": 32,
        "hidden_size": 48,
        "embedding_dropout": 0.05,
        "layer_dropout": 0.05,
        "output_dropout": 0.05,
    },
    "batches": {"tokens": 400},
    "training": {
        "learning_rate": 1e-2,
        "warmup_steps": 20,
        "ema": 0.95,
        "validation_start": 0,
        "checkpoint_minutes": 0.01,
    },
    "search": {"beam_size": 3},
    "evaluation": {"gradient_flow": True},
    "seed": 3,
    "trainer": {
        "max_epochs": 24,
        "accelerator": "cpu",
        "log_every_n_steps": 10,
        "check_val_every_n_epoch": 6,
    },
}


class Done(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


class Command:
    """Runs `mt`, or Python, in a folder, with a cache of its own and one thread."""

    def __init__(self, cache: Path):
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("MT_", "HF_", "PYTHON"))}
        self.environment = {**keep, "MT_CACHE": str(cache), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments: object, cwd: Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start Python with these arguments, its standard streams piped unless told otherwise."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, *map(str, arguments)]
        return subprocess.Popen(command, cwd=cwd, env=self.environment, **{**pipes, **options})

    def python(self, *arguments: object, cwd: Path, stdin: bytes | str = b"") -> Done:
        """Run Python to its end."""
        process = self.start(*arguments, cwd=cwd)
        try:
            text = stdin.encode() if isinstance(stdin, str) else stdin
            out, err = process.communicate(text, timeout=200)
        finally:
            process.kill()
        return Done(process.returncode, out.decode(), err.decode())

    def __call__(self, *arguments: object, cwd: Path, stdin: bytes | str = b"") -> Done:
        """Run `mt` to its end, in a process of its own."""
        return self.python("-m", "mt.cli", *arguments, cwd=cwd, stdin=stdin)

    def here(self, *arguments: object, cwd: Path, stdin: bytes | str = b"") -> Done:
        """Run a command that must succeed in this process, whose imports are done."""
        name, *others = map(str, arguments)
        text = stdin.encode() if isinstance(stdin, str) else stdin
        out, err = BytesIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr(os, "cpu_count", lambda: 1)  # as `one_thread` says
            patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text)))
            patch.setattr(sys, "stdout", TextIOWrapper(out, "utf-8", write_through=True))
            patch.setattr(sys, "stderr", err)
            patch.setattr(logging.getLogger("mt"), "handlers", [logging.StreamHandler()])
            patch.setattr(logging.getLogger("mt"), "level", logging.INFO)
            try:
                COMMANDS[name](others)
            except SystemExit as end:  # of --help
                if end.code:
                    raise
            told = out.getvalue().decode()
        return Done(0, told, err.getvalue())


def refusal(*arguments: object) -> str:
    """Run a command that must be refused, in this process, and give the line that it says."""
    name, *others = map(str, arguments)
    with pytest.raises(MTError) as caught:
        COMMANDS[name](others)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="session")
def mt(cache: Path) -> Command:
    return Command(cache)


def translate(sentence: str) -> str:
    return " ".join(WORDS[word] for word in reversed(sentence.split()))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipes/tiny.yaml` and its text in `text/`: 800, 41 and 31 pairs."""
    folder = tmp_path_factory.mktemp("project")
    generator = random.Random(5)
    lines = [
        " ".join(generator.choices(list(WORDS), k=generator.randint(1, 5))) for _ in range(3000)
    ]
    lines = list(dict.fromkeys(lines))
    (folder / "text").mkdir()
    parts = {"train": lines[:800], "valid": lines[800:841], "test": lines[841:872]}
    for name, text in parts.items():
        (folder / "text" / f"{name}.xx").write_text("".join(f"{line}\n" for line in text))
        (folder / "text" / f"{name}.yy").write_text("".join(f"{translate(t)}\n" for t in text))
    (folder / "recipes").mkdir()
    (folder / "recipes/tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


def train_here(project: Path, folder: Path, *overrides: object) -> Path:
    """Train the recipe in this process, with options; return the run's folder."""
    words = [project / "recipes/tiny.yaml", "--output", folder, *overrides]
    options = parse_train(list(map(str, words)))
    train(options.recipe, options.output, options.resume, options.overwrite)
    return folder


class Run(NamedTuple):
    """A finished `mt train`."""

    folder: Path
    done: Done

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"


@pytest.fixture(scope="session")
def run(mt: Command, project: Path) -> Run:
    """The recipe, trained in the project's folder without any option."""
    done = mt("train", "recipes/tiny.yaml", cwd=project)
    assert done.status == 0, done.err
    return Run(project / "runs/tiny", done)
