"""`mt export`, and translating by its graphs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from conftest import Command, Run, refusal

from mt import MTError, Translator
from mt.onnx import export


@pytest.fixture(scope="module")
def exported(mt: Command, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    shutil.copytree(run.bundle, folder)
    done = mt("export", folder, cwd=folder.parent)
    assert done.status == 0, done.err
    assert done.err == ""
    shown = [line.split("\t")[0] for line in done.out.splitlines()]
    assert shown == [str(folder / "encoder.onnx"), str(folder / "decoder.onnx")]
    return folder


def test_the_graphs_translate_every_line_as_the_network_does(
    mt: Command, exported: Path, project: Path
) -> None:
    text = (project / "text/train.xx").read_bytes()
    asked = ["--format", "jsonl", "--n-best", "2"]
    torch, onnx, two = (
        command("translate", exported, *asked, *words, cwd=project, stdin=text)
        for command, words in (
            (mt.here, ()),
            (mt.here, ("--engine", "onnx")),
            (mt, ("--engine", "onnx", "--devices", "2", "--threads", "1")),
        )
    )
    assert two.status == 0, two.err
    assert two.out == onnx.out
    pairs = zip(torch.out.splitlines(), onnx.out.splitlines(), strict=True)
    for ours, theirs in (map(json.loads, pair) for pair in pairs):
        assert ours["source"] == theirs["source"]
        one, other = ours["translations"][0], theirs["translations"][0]
        assert one["text"] == other["text"]
        assert one["log_probability"] == pytest.approx(other["log_probability"], abs=2e-4)


def test_eight_bits_translate_the_language_too(
    mt: Command, exported: Path, project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported, folder)
    before = {path.name: path.stat().st_size for path in exported.glob("*.onnx")}
    mt.here("export", folder, "--quantize", "int8", cwd=tmp_path)
    after = {path.name: path.stat().st_size for path in folder.glob("*.onnx")}
    assert after.keys() == before.keys()
    assert sum(after.values()) < sum(before.values())
    done = mt.here(
        "evaluate",
        folder,
        *("--source", project / "text/test.xx", "--reference", project / "text/test.yy"),
        *("--engine", "onnx", "--json", "--output", tmp_path / "out"),
        cwd=tmp_path,
    )
    assert json.loads(done.out)["sets"][0]["scores"][0]["score"] > 80
    # PyTorch still translates by the weights beside them.
    assert Translator.load(folder).translate(["ba ce"]) == ["mur tilo"]


def test_mistakes_are_told(
    run: Run, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such bundle" in refusal("export", tmp_path / "nowhere")
    assert "run `mt export" in refusal("translate", run.bundle, "--engine", "onnx")
    with pytest.raises(MTError, match="the onnx engine computes on the CPU"):
        Translator.load(exported, "cuda", "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    missing = r"onnxruntime is not installed; pip install 'mt\[onnx\]'"
    with pytest.raises(MTError, match=missing):
        Translator.load(exported, "cpu", "onnx")
    with pytest.raises(MTError, match=missing):
        export(Translator.load(exported, "cpu").model, "none")
