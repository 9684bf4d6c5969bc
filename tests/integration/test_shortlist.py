"""A recipe with a lexical shortlist, and decoding by it."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Command, train_here

from mt.bundle import load_bundle
from mt.tokenizer import EOS


def test_a_run_learns_a_shortlist_and_its_bundle_decodes_by_it(
    mt: Command, project: Path, tmp_path: Path
) -> None:
    folder = train_here(project, tmp_path / "run", "--shortlist.size", 6, "--shortlist.frequent", 2)
    bundle = load_bundle(folder / "bundle")
    assert bundle.shortlist is not None
    assert bundle.shortlist.likely.shape == (len(bundle.tokenizers.source), 6)
    assert "Shortlist" in bundle.card
    assert "Shortlist" in (folder / "report.html").read_text()
    text = (project / "text/test.xx").read_bytes()
    mt.here("export", folder / "bundle", cwd=tmp_path)
    asked = ["translate", folder / "bundle", "--format", "jsonl"]
    runs = [
        mt.here(*asked, *words, cwd=project, stdin=text)
        for words in ((), ("--shortlist", "false"), ("--engine", "onnx"))
    ]
    short, full, onnx = (
        [json.loads(line)["translations"][0] for line in run.out.splitlines()] for run in runs
    )
    assert [one["text"] for one in short] == [one["text"] for one in onnx]
    scores = json.loads((folder / "scores.json").read_text())["sets"][0]["scores"]
    assert scores[0]["score"] > 80
    # The same text has a greater share of what fewer tokens have among them.
    same = [(a, b) for a, b in zip(short, full, strict=True) if a["text"] == b["text"]]
    assert len(same) > len(full) / 2
    assert all(a["log_probability"] > b["log_probability"] for a, b in same)
    sources = bundle.tokenizers.source.encode(text.decode().splitlines())
    allowed = bundle.shortlist.allowed(
        [[*row, EOS] for row in sources], len(bundle.tokenizers.target)
    )
    for row, one in zip(allowed, short, strict=True):
        [tokens] = bundle.tokenizers.target.encode([one["text"]])
        assert row[tokens].all()
