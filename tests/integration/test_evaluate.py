"""`mt evaluate`, `mt score` and `mt tokenizer`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
from conftest import Command, Run, refusal


def test_table_files_and_signatures(mt: Command, run: Run, project: Path, tmp_path: Path) -> None:
    text = project / "text"
    lines = (text / "test.yy").read_text().splitlines()
    (tmp_path / "other.yy").write_text("".join(f"{line.upper()}\n" for line in lines))
    common = ["evaluate", run.bundle, "--source", text / "test.xx", "--reference"]
    common += [text / "test.yy", "other.yy"]
    done = mt(
        *common,
        "--metric",
        "bleu",
        "chrf",
        "ter",
        "bleu-lc-tok",
        "--beam-sizes",
        3,
        1,
        "--output",
        "scored",
        cwd=tmp_path,
    )
    assert done.status == 0, done.err
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == ["bleu", "chrf", "ter", "bleu-lc-tok"]
    assert all("nrefs:2|" in row[2] for row in rows)
    assert len({row[2] for row in rows}) == 4
    folder = tmp_path / "scored"
    assert {path.name for path in folder.iterdir()} == {
        "hypotheses.txt",
        "report.html",
        "report.md",
        "scores.json",
        "sentences.tsv",
    }
    [scored] = json.loads((folder / "scores.json").read_text())["sets"]
    assert (scored["name"], scored["sentences"]) == ("test.xx", 31)
    assert [[s["metric"], f"{s['score']:.2f}", s["signature"]] for s in scored["scores"]] == rows
    translated = mt.here("translate", run.bundle, "--input", text / "test.xx", cwd=tmp_path)
    assert (folder / "hypotheses.txt").read_text() == translated.out
    assert "</html>" in (folder / "report.html").read_text()
    # What was trained on is known from the run's folder, or not at all.
    written = (folder / "report.md").read_text()
    assert "| Word frequency in the training text |" in written
    assert "| Expected calibration error |" in written
    beams = written.partition("| beam size | BLEU | sentences a second |")[2].splitlines()[2:4]
    for beam, line in zip(("1", "3"), beams, strict=True):
        again = mt.here(*common, "--beam-size", beam, "--metric", "bleu", cwd=tmp_path)
        assert line.startswith(f"| {beam} | {float(again.out.split()[1]):.1f} | ")


def test_the_training_text_may_be_named_or_missing(
    mt: Command, run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.bundle, tmp_path / "alone")
    text = project / "text"
    common = ["evaluate", "alone", "--source", text / "test.xx", "--reference", text / "test.yy"]
    (tmp_path / "words.xx").write_text("\n".join((text / "test.xx").read_text().split()))
    (tmp_path / "words.yy").write_text("\n".join((text / "test.yy").read_text().split()))
    (tmp_path / "none").touch()
    tables = []
    for given in ([], ["--training-text", text / "test.xx", text / "test.yy"]):
        mt.here(*common, *given, "--output", "out", cwd=tmp_path)
        tables.append((tmp_path / "out/report.md").read_text())
    assert "training text" not in tables[0]
    known = tables[1].partition("| Source trigrams that stand in the training text |")[2]
    assert known.splitlines()[2].startswith("| 100% | 31 | ")
    for given, problem in (
        (["words.xx"], "--training-text: give two files"),
        (["words.xx", "none"], "--training-text: words.xx and none differ"),
        (["gone", "words.yy"], "cannot read gone"),
    ):
        assert problem in refusal(*common, "--training-text", *given, "--output", "new")
        assert not (tmp_path / "new/report.html").exists()


def test_json_is_scores_json_on_any_number_of_devices(
    mt: Command, run: Run, project: Path, tmp_path: Path
) -> None:
    outs = []
    for command, devices in ((mt.here, 1), (mt, 2)):
        done = command(
            "evaluate",
            run.bundle,
            "--source",
            project / "text/test.xx",
            "--reference",
            project / "text/test.yy",
            "--devices",
            devices,
            "--json",
            cwd=tmp_path,
        )
        assert done.status == 0, done.err
        # The default folder; and the same scores as at the end of training.
        folder = tmp_path / "runs/evaluate/test.xx"
        assert (folder / "scores.json").read_text() == done.out
        outs.append((done.out, (folder / "hypotheses.txt").read_bytes()))
    assert outs[0] == outs[1]
    [scored] = json.loads(outs[0][0])["sets"]
    [trained] = json.loads((run.folder / "scores.json").read_text())["sets"]
    assert scored["scores"] == trained["scores"]


def test_systems_of_any_kind_are_compared(
    mt: Command, run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = project / "text"
    lines = (text / "test.yy").read_text().splitlines()
    (tmp_path / "reversed").write_text("".join(f"{line[::-1]}\n" for line in lines))
    common = ["--source", text / "test.xx", "--reference", text / "test.yy"]
    compared = mt.here("compare", *common, "--metric", "bleu", "reversed", run.bundle, cwd=tmp_path)
    head, _, first, other = compared.out.splitlines()
    assert head == "| system | BLEU | better / equal / worse |"
    assert first.startswith("| reversed | ")
    assert other.startswith(f"| {run.folder.name} | ")
    assert "(p <0.001 / <0.001)" in other
    folder = tmp_path / "runs/compare/test.xx"
    translated = mt.here("translate", run.bundle, "--input", text / "test.xx", cwd=tmp_path)
    assert (folder / f"hypotheses.{run.folder.name}.txt").read_text() == translated.out
    assert not (folder / "hypotheses.txt").exists()
    (folder / "hypotheses.mine.txt").write_text("of another toolkit\n")
    mt.here("compare", *common, "--metric", "bleu", "reversed", "reversed", cwd=tmp_path)
    assert {path.name for path in folder.glob("hypotheses*")} == {
        f"hypotheses.{run.folder.name}.txt",
        "hypotheses.mine.txt",  # what an evaluation did not write is not its to remove
    }
    mt.here("compare", *common, "--metric", "bleu", "reversed", run.bundle, cwd=tmp_path)
    [one] = json.loads((folder / "scores.json").read_text())["sets"]
    assert (one["system"], [o["name"] for o in one["others"]]) == ("reversed", [run.folder.name])
    assert "Changed most, against" in (folder / "report.html").read_text()

    # The other way round it is `mt evaluate` with a baseline, and either form of output.
    evaluated = mt.here(
        "evaluate", run.bundle, *common, "--baseline", "reversed", "--json", cwd=tmp_path
    )
    [two] = json.loads(evaluated.out)["sets"]
    assert (two["system"], two["others"][0]["name"]) == (run.folder.name, "reversed")
    bleu = (scores[0]["score"] for scores in (two["scores"], two["others"][0]["scores"]))
    assert list(bleu) == [one["others"][0]["scores"][0]["score"], one["scores"][0]["score"]]
    files = ["--source", text / "test.xx", "--reference", "reversed"]
    unknown = refusal("compare", "reversed", "reversed", *files)
    assert "reversed: its language is unknown; say it with --target-language" in unknown
    files += ["--target-language", "yy", "--format", "latex"]
    table = mt.here("compare", "reversed", "reversed", *files, cwd=tmp_path)
    assert r"reversed 2 & " in table.out
    assert "(p 1 / 1)" in table.out


def test_several_test_sets_and_training_runs_at_once(
    mt: Command, run: Run, project: Path, tmp_path: Path
) -> None:
    text = project / "text"
    for side in ("xx", "yy"):
        lines = (text / f"test.{side}").read_text().splitlines()
        (tmp_path / f"short.{side}").write_text("".join(f"{line}\n" for line in lines[:9]))
    targets = {"whole": text / "test.yy", "part": tmp_path / "short.yy"}
    for name, path in targets.items():
        lines = path.read_text().splitlines()
        for number in (1, 2):  # reversed words in few lines or many
            turned = [s[::-1] if n % 4 < number else s for n, s in enumerate(lines)]
            (tmp_path / f"{name}.{number}").write_text("".join(f"{line}\n" for line in turned))
    sets = [f"whole={text / 'test.xx'},{text / 'test.yy'}", "part=short.xx,short.yy"]
    ours = ["turned={set}.1,{set}.2", run.bundle]
    common = ["compare", *ours, "--metric", "bleu", "--metric", "ter"]
    common += [word for one in sets for word in ("--test-set", one)]
    done = mt.here(*common, cwd=tmp_path)
    rows = [line.strip("| ").split(" | ") for line in done.out.splitlines()]
    assert rows[0][:4] == ["test set", "system", "BLEU", "TER"]
    assert [row[:2] for row in rows[2:]] == [
        [name, system] for name in targets for system in ("turned", run.folder.name)
    ]
    folder = tmp_path / "runs/compare/whole+part"
    found = json.loads((folder / "scores.json").read_text())["sets"]
    assert [one["sentences"] for one in found] == [31, 9]
    for one, row in zip(found, rows[2::2], strict=True):
        first = one["scores"][0]
        assert len(first["runs"]) == 2
        assert first["score"] == pytest.approx(sum(first["runs"]) / 2)
        assert row[2].startswith(f"{first['score']:.1f} ± ")
        assert "runs" not in one["others"][0]["scores"][0]
    for name, lines in (("whole", 31), ("part", 9)):
        written = (folder / f"hypotheses.{name}.{run.folder.name}.txt").read_text()
        assert written.count("\n") == lines
    table = [line.split("\t") for line in (folder / "sentences.tsv").read_text().splitlines()]
    assert table[0] == ["test set", "sentence", "system", "bleu", "ter", "chrf"]
    assert len(table) == 1 + 2 * (31 + 9)
    assert table[-1][:3] == ["part", "9", run.folder.name]

    # The same bundle as two runs has no spread.
    both = ["evaluate", f"{run.bundle},{run.bundle}", "--test-set", *sets, "--metric", "bleu"]
    evaluated = mt.here(*both, "--output", "out", cwd=tmp_path)
    assert [line.split("\t")[:2] for line in evaluated.out.splitlines()[:2]] == [
        ["whole", "bleu"],
        ["part", "bleu"],
    ]
    assert "± 0.0" in evaluated.out
    assert {path.name for path in (tmp_path / "out").glob("*.txt")} == {
        f"hypotheses.{name}.{number}.txt" for name in targets for number in (1, 2)
    }


def test_mistakes_name_files_counts_and_lines(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three").write_text("ba\n\u2028\nce\r\n")
    (tmp_path / "two").write_text("ba\nce")
    (tmp_path / "bad").write_bytes(b"ba\n\xfe\nce\n")
    (tmp_path / "none").touch()
    mistakes = [
        (["evaluate", "--source", "three", "--reference", "two"], ["three", "3", "two", "2"]),
        (["evaluate", "--source", "three", "--reference", "three", "two"], ["two has 2"]),
        (["evaluate", "--source", "bad", "--reference", "three"], ["bad: line 2", "UTF-8"]),
        (["evaluate", "--source", "none", "--reference", "none"], ["none", "file is empty"]),
        (["compare", "two", "--source", "three", "--reference", "three"], ["two has 2"]),
        (
            ["compare", "gone", "--source", "three", "--reference", "three"],
            ["gone: no such bundle"],
        ),
        (
            ["compare", "--source", "three", "--reference", "three", "--target-language", "de"],
            ["translates to yy, not to de"],
        ),
        (["evaluate"], ["give --source and --reference, or --test-set"]),
        # Without the command or without the model.
        (
            [
                "evaluate",
                "--test-set",
                "a=three,three",
                "--comet-model",
                "gone",
                "--metric",
                "comet",
            ],
            ["comet"],
        ),
        (["evaluate", "--source", "three"], ["give --source and --reference, or --test-set"]),
        (
            ["evaluate", "--source", "three", "--reference", "three", "--test-set", "a=b,c"],
            ["give either"],
        ),
        (["evaluate", "--test-set", "three,three"], ["--test-set three,three", "NAME="]),
        (["evaluate", "--test-set", "a=three"], ["--test-set a=three", "NAME="]),
        (["evaluate", "--test-set", "a=three,three", "a=two,two"], ["a is given twice"]),
        (
            ["compare", "three", "--test-set", "a=three,three", "--test-set", "b=two,two"],
            ["three: several test sets need a file each", "{set}"],
        ),
        (
            ["compare", "a=three", "a=three", "--source", "three", "--reference", "three"],
            ["a=three", "another system of the name a"],
        ),
        (["compare", "a=", "--source", "three", "--reference", "three"], ["a=", "NAME=PATH"]),
        (["score", "--source", "three", "--target", "two"], ["three has 3", "two has 2"]),
        (["score", "--source", "three", "--target", "bad"], ["bad: line 2", "UTF-8"]),
    ]
    for (command, *rest), words in mistakes:
        said = refusal(command, run.bundle, *rest)
        assert all(word in said for word in words), said
    assert not (tmp_path / "runs").exists()


def test_score_is_the_probability_of_a_translation(
    mt: Command, run: Run, project: Path, tmp_path: Path
) -> None:
    done = mt.here(
        "translate",
        run.bundle,
        "--input",
        project / "text/test.xx",
        "--format",
        "jsonl",
        cwd=tmp_path,
    )
    best = [json.loads(line)["translations"][0] for line in done.out.splitlines()]
    (tmp_path / "out").write_text("".join(f"{one['text']}\n" for one in best))
    scored = mt.here(
        "score",
        run.bundle,
        "--source",
        project / "text/test.xx",
        "--target",
        "out",
        "--batch-tokens",
        60,
        cwd=tmp_path,
    )
    rows = [line.split("\t") for line in scored.out.splitlines()]
    assert len(rows) == len(best) == 31
    # The search may spell a text with other tokens than the tokenizer: those scores do differ.
    same = [(row, one) for row, one in zip(rows, best, strict=True) if int(row[1]) == one["tokens"]]
    assert len(same) > 25
    for (log_probability, _), one in same:
        assert float(log_probability) == pytest.approx(one["log_probability"], abs=1e-3)


def test_blank_lines_have_a_score_too(mt: Command, run: Run, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("ba\n\n")
    (tmp_path / "target").write_text("\ntilo\n")
    done = mt.here("score", run.bundle, "--source", "source", "--target", "target", cwd=tmp_path)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert len(rows) == 2
    assert rows[0][1] == "1"  # the end of sentence alone
    assert all(float(row[0]) < 0 for row in rows)


def test_tokenizer_from_its_spec(mt: Command, project: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizers").mkdir()
    spec = tmp_path / "tokenizers/small.yaml"
    spec.write_text("kind: unigram\nvocab_size: 40\nbyte_fallback: false\ninput: [words.txt]\n")
    (tmp_path / "words.txt").write_text((project / "text/train.xx").read_text())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # The spec's paths are the project's, those of the command line the current folder's.
    done = mt.here("tokenizer", "../tokenizers/small.yaml", cwd=elsewhere)
    assert done == (0, "../tokenizers/small.model\n", "")
    model = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizers/small.model"))
    assert model.get_piece_size() == 40

    (elsewhere / "other.txt").write_text((project / "text/train.yy").read_text())
    done = mt.here(
        "tokenizer", spec, "--input", "other.txt", "--output", "out.model", cwd=elsewhere
    )
    assert done == (0, "out.model\n", "")
    other = sentencepiece.SentencePieceProcessor(str(elsewhere / "out.model"))
    assert len(other.encode("rada pelu")) < len(model.encode("rada pelu"))

    (tmp_path / "words.txt").unlink()
    missing = f"cannot read {tmp_path}/words.txt: No such file or directory"
    assert refusal("tokenizer", spec) == missing
