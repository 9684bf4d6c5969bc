"""COMET by its own command, which is installed apart from mt; skipped where it is not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Command, Run

COMET = shutil.which("comet-score")
# It needs other versions of packages than mt, and over a gigabyte: nothing here installs it.
pytestmark = pytest.mark.skipif(COMET is None, reason="no comet-score on the PATH")


def test_scores_are_those_of_the_command(
    mt: Command, run: Run, project: Path, tmp_path: Path
) -> None:
    assert COMET is not None
    python = Path(COMET).resolve().parent / "python"
    script = Path(__file__).with_name("comet_model.py")
    subprocess.run([python, script, tmp_path / "model"], check=True, capture_output=True)
    model = tmp_path / "model/checkpoints/model.ckpt"
    source, reference = project / "text/test.xx", project / "text/test.yy"
    (tmp_path / "copied").write_bytes(source.read_bytes())
    options = ["--metric", "comet", "--metric", "bleu", "--comet-model", model]
    options += ["--source", source, "--reference", reference, "--output", "out"]
    done = mt("compare", "copied", run.bundle, *options, "--format", "json", cwd=tmp_path)
    assert done.status == 0, done.err
    [found] = json.loads(done.out)["sets"]
    ours = [one["scores"][-1] for one in (found, found["others"][0])]
    assert [one["metric"] for one in ours] == ["comet", "comet"]
    assert ours[0]["score"] != ours[1]["score"]
    assert ours[0]["interval"][0] < ours[0]["score"] < ours[0]["interval"][1]
    assert ours[1]["p_bootstrap"] is not None
    assert f"model:{model}|nrefs:1|scale:100|version:" in ours[0]["signature"]
    hypotheses = [tmp_path / "copied", *(tmp_path / "out").glob("hypotheses.*.txt")]
    for one, path in zip(ours, hypotheses, strict=True):
        command = [COMET, "-s", source, "-t", path, "-r", reference, "--model", model]
        command += ["--gpus", "0", "--only_system", "--quiet"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert one["score"] == pytest.approx(100 * float(told.split()[-1]), abs=0.006)
    model.write_bytes(b"no checkpoint")
    broken = mt("compare", "copied", *options, cwd=tmp_path)
    assert broken.status == 2
    assert "comet-score failed: " in broken.err
