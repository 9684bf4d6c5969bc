"""COMET: a trained network's judgement (Rei et al., 2020.emnlp-main.213; 2022.wmt-1.52).

It needs other versions of packages than `mt`, so it is not imported: its own command `comet-score`,
in an environment of its own, is run where one is installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from mt.errors import MTError

COMMAND = "comet-score"


class Comet:
    """A COMET model that is installed.

    Args:
        model: A checkpoint file of COMET's, or the name of a model in the Hub's local cache.

    Raises:
        MTError: The command or the model is not installed.
    """

    def __init__(self, model: str):
        found = shutil.which(COMMAND)
        if found is None:
            raise MTError(
                f"comet: no command {COMMAND} on the PATH; install it apart from mt, with "
                "`pipx install unbabel-comet` and `pipx inject unbabel-comet 'setuptools<82'`"
            )
        if not _is_installed(model):
            raise MTError(
                f"--comet-model {model}: no checkpoint of COMET's, nor a model that {COMMAND} has "
                f"downloaded; run `{COMMAND} --model {model}` once, or name a file model.ckpt"
            )
        self.command, self.model = found, model

    def __call__(
        self, sources: Sequence[str], hypotheses: Sequence[str], reference: Sequence[str]
    ) -> list[float]:
        """Score each sentence; 100 times what the model says.

        Raises:
            MTError: The command failed.
        """
        with tempfile.TemporaryDirectory() as folder:
            command = [self.command, "--model", self.model, "--to_json", f"{folder}/out.json"]
            command += ["--quiet", "--only_system", "--gpus", str(int(torch.cuda.is_available()))]
            for option, lines in (("-s", sources), ("-t", hypotheses), ("-r", reference)):
                path = Path(folder, option[1:])
                # It takes a carriage return for the end of a line.
                text = "".join(f"{line}\n".replace("\r", " ") for line in lines)
                path.write_bytes(text.encode("utf-8", "replace"))
                command += [option, str(path)]
            self._run(command)
            [rows] = json.loads(Path(folder, "out.json").read_text("utf-8")).values()
        if len(rows) != len(sources):
            raise MTError(f"{COMMAND}: {len(rows)} scores for {len(sources)} sentences")
        return [100 * float(row["COMET"]) for row in rows]

    def signature(self) -> str:
        """Say what was measured, as sacreBLEU's signatures do."""
        python = Path(self.command).resolve().parent / "python"
        code = "from importlib.metadata import version; print(version('unbabel-comet'))"
        version = self._run([str(python), "-c", code])
        return f"model:{self.model}|nrefs:1|scale:100|version:{version.strip()}"

    def _run(self, command: list[str]) -> str:
        # What is installed is used, and nothing fetched: models have gigabytes.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        try:
            done = subprocess.run(command, capture_output=True, env=environment)
        except OSError as error:
            raise MTError(f"{command[0]}: cannot run ({error.strerror})") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
            raise MTError(f"{COMMAND} failed: {said[-1]}")
        return done.stdout.decode("utf-8", "replace")


def _is_installed(model: str) -> bool:
    if Path(model).is_file():
        return (Path(model).resolve().parents[1] / "hparams.yaml").is_file()
    from huggingface_hub import try_to_load_from_cache

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return False
    return isinstance(try_to_load_from_cache(model, "hparams.yaml"), str)
