"""`mt translate` as a Unix filter: every line answered, in order, whatever is in it."""

from __future__ import annotations

import gzip
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Command, Run, refusal, translate

from mt.translator import Translator


@pytest.fixture(scope="module")
def lines(project: Path) -> list[str]:
    """More than a chunk, so that two processes must share."""
    text = (project / "text/train.xx").read_text().splitlines()
    return (text * 2)[:1200]


def test_every_line_is_answered_in_order(mt: Command, run: Run, tmp_path: Path) -> None:
    text = (
        b"\xef\xbb\xbfba ce\r\n"
        b"\n"
        b"  \t \n"
        b"ce\rdio\n"
        b"fa\xe2\x80\xa8gul\n"
        b"hem\xc2\x85jor\n"
        b"kip \xff lan\n"
        b"\r\n"
        b"hem \r\n"
        b"\x0c\n"
        b"mop nus"
    )
    done = mt("translate", run.bundle, cwd=tmp_path, stdin=text)
    assert done.status == 0, done.err
    assert done.out.endswith("\n")
    answers = done.out.removesuffix("\n").split("\n")
    blank = [not answer for answer in answers]
    assert blank == [False, True, True, False, False, False, False, True, False, True, False]
    assert answers[0] == "mur tilo"
    assert answers[8] == "vi"
    assert answers[10] == "oli ente"
    assert done.err.count("\n") == 1
    assert "standard input: line 7" in done.err
    assert "U+FFFD" in done.err
    assert set("\r\x0b\x0c\u0085\u2028\u2029").isdisjoint(done.out)


def test_source_in_jsonl_is_the_line_as_read(mt: Command, run: Run, tmp_path: Path) -> None:
    text = b"ce\rdio\r\nfa\xe2\x80\xa8gul\nkip \xff\n\n"
    done = mt.here("translate", run.bundle, "--format", "jsonl", cwd=tmp_path, stdin=text)
    rows = [json.loads(line) for line in done.out.removesuffix("\n").split("\n")]
    assert [row["source"] for row in rows] == ["ce\rdio", "fa\u2028gul", "kip \ufffd", ""]
    assert rows[3]["translations"] == [
        {"text": "", "score": 0.0, "log_probability": 0.0, "tokens": 0}
    ]


def test_empty_input_gives_empty_output(mt: Command, run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    done = mt(
        "translate", run.bundle, "--input", "in", "--output", "out", "--devices", 2, cwd=tmp_path
    )
    assert done == (0, "", "")
    assert (tmp_path / "out").read_bytes() == b""


def test_n_best_rows(mt: Command, run: Run, tmp_path: Path) -> None:
    done = mt.here(
        "translate",
        run.bundle,
        "--n-best",
        3,
        "--format",
        "jsonl",
        "--beam_size=4",
        cwd=tmp_path,
        stdin="ba ce dio\nhem\n",
    )
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [list(row) for row in rows] == [["source", "translations"]] * 2
    for row in rows:
        found = row["translations"]
        assert len({one["text"] for one in found}) == 3
        assert all(list(o) == ["text", "score", "log_probability", "tokens"] for o in found)
        assert [o["score"] for o in found] == sorted((o["score"] for o in found), reverse=True)
        for one in found:  # the default normalisation: the average over tokens
            assert one["score"] == pytest.approx(one["log_probability"] / one["tokens"], abs=2e-4)


def test_files_devices_and_batches_never_change_the_output(
    mt: Command, run: Run, lines: list[str], tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in lines))
    options = {
        "one": [],
        "small": ["--batch-tokens", 150],
        "one.jsonl": ["--format", "jsonl"],
        "two.jsonl": ["--format", "jsonl", "--devices", 2, "--threads", 1],
    }
    for name, more in options.items():
        words = ["translate", run.bundle, "--input", "in", "--output", name, *more]
        command = mt if "--devices" in more else mt.here
        assert command(*words, cwd=tmp_path) == (0, "", "")
    outputs = {name: (tmp_path / name).read_bytes() for name in options}
    assert outputs["one"].count(b"\n") == len(lines)
    assert outputs["one"] == outputs["small"]
    assert outputs["one.jsonl"] == outputs["two.jsonl"]
    rows = [json.loads(line) for line in outputs["one.jsonl"].decode().splitlines()]
    texts = [row["translations"][0]["text"] for row in rows]
    assert texts == outputs["one"].decode().splitlines()
    assert [row["source"] for row in rows] == lines
    right = sum(text == translate(line) for text, line in zip(texts, lines, strict=True))
    assert right > 0.8 * len(lines)


def read_line(file: int, seconds: float = 120) -> bytes:
    """Read up to the end of a line, and fail rather than wait for ever."""
    text, until = b"", time.monotonic() + seconds
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([file], [], [], max(0.0, until - time.monotonic()))
        assert ready, f"no answer; so far {text!r}"
        more = os.read(file, 1)
        assert more, f"the output ended; so far {text!r}"
        text += more
    return text


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    for end in (ours, theirs):
        os.close(end)


@pytest.mark.parametrize("devices", [1, 2])
def test_terminal_is_answered_line_by_line(
    mt: Command, run: Run, tmp_path: Path, terminal: tuple[int, int], devices: int
) -> None:
    ours, theirs = terminal
    process = mt.start(
        "-m", "mt.cli", "translate", run.bundle, "--devices", devices, cwd=tmp_path, stdin=theirs
    )
    try:
        assert process.stdout is not None
        for line, answer in (("hem", "vi"), ("ba ce", "mur tilo"), ("", ""), ("hem", "vi")):
            os.write(ours, f"{line}\n".encode())
            assert read_line(process.stdout.fileno()).decode() == f"{answer}\n"
        os.write(ours, b"\x04")  # Control-D: the end
        assert process.wait(timeout=60) == 0
        assert process.communicate() == (b"", b"")
    finally:
        process.kill()
        process.communicate()


def test_reader_that_has_enough_is_no_error(mt: Command, run: Run, lines: list[str]) -> None:
    command = [sys.executable, "-m", "mt.cli", "translate", str(run.bundle)]
    with subprocess.Popen(
        command,
        cwd=run.folder,
        env=mt.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write("".join(f"{line}\n" for line in lines[:20]).encode())
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141  # what a shell reports for SIGPIPE


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, b"mt: interrupted\n"), (signal.SIGTERM, 143, b"")],
)
def test_interrupted_run_leaves_the_output_file_as_it_was(
    mt: Command, run: Run, tmp_path: Path, number: signal.Signals, status: int, said: bytes
) -> None:
    (tmp_path / "out").write_text("old\n")
    process = mt.start(
        "-m",
        "mt.cli",
        "translate",
        run.bundle,
        "--output",
        "out",
        cwd=tmp_path,
        # A suite that runs in the background has its interrupts ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdin is not None
        process.stdin.write(b"ba ce\n")
        process.stdin.flush()
        while len(list(tmp_path.iterdir())) == 1:  # until it has opened its output
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(timeout=60) == status
        assert process.communicate()[1] == said
    finally:
        process.kill()
        process.communicate()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out": "old\n"}


def test_output_that_cannot_be_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("absent/out", "folder"):
        assert refusal("translate", run.bundle, "--output", name).startswith(f"{name}: ")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_input_may_be_compressed(mt: Command, run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.gz").write_bytes(gzip.compress(b"hem\nba \xff\n"))
    done = mt.here("translate", run.bundle, "--input", "in.gz", cwd=tmp_path)
    assert done.out.splitlines()[0] == "vi"
    assert "in.gz: line 2 is not valid UTF-8" in done.err


def test_output_is_packed_as_its_name_says(mt: Command, run: Run, tmp_path: Path) -> None:
    mt.here("translate", run.bundle, "--output", "out.gz", stdin="hem\n", cwd=tmp_path)
    assert gzip.decompress((tmp_path / "out.gz").read_bytes()) == b"vi\n"


def test_links_and_pipes_stay_what_they_are(mt: Command, run: Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("there")
    mt.here("translate", run.bundle, "--output", "link", cwd=tmp_path, stdin="hem\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "vi\n"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        mt.here("translate", run.bundle, "--output", "pipe", cwd=tmp_path, stdin="hem\n")
        assert os.read(reader, 100) == b"vi\n"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    done = mt("translate", run.bundle, "--output", "/dev/stdout", cwd=tmp_path, stdin="hem\n")
    assert done == (0, "vi\n", "")


def test_closed_streams_are_told(mt: Command, run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hem\n")
    for closed, option, remedy in ((0, (), "--input"), (1, ("--input", "in"), "--output")):
        process = mt.start(
            *("-m", "mt.cli", "translate", run.bundle, *option),
            cwd=tmp_path,
            preexec_fn=lambda closed=closed: os.close(closed),
        )
        _, err = process.communicate(timeout=100)
        assert process.returncode == 2
        assert remedy in err.decode()
        assert err.count(b"\n") == 1


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_process_that_dies_ends_the_others(mt: Command, run: Run, tmp_path: Path) -> None:
    """As one does that the machine ends for want of memory."""
    process = mt.start(
        *("-m", "mt.cli", "translate", run.bundle, "--devices", 2, "--output", "out"), cwd=tmp_path
    )
    try:
        assert process.stdin is not None
        process.stdin.write(b"ba ce dio fa gul\n" * 1000)
        process.stdin.flush()
        children: list[str] = []
        while len(children) < 2:
            assert process.poll() is None
            time.sleep(0.05)
            listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            children = [
                child
                for child in listed
                if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
            ]
        os.kill(int(children[0]), signal.SIGKILL)
        _, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 2
    assert err.decode().startswith("mt: error: --devices 2: a process was ended")
    assert err.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_bundles_are_refused_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage = {"model.safetensors": b"\0" * 100, "config.json": b"{", "tokenizer.model": b""}
    for file, content in damage.items():
        shutil.copytree(run.bundle, tmp_path / f"bad-{file}")
        (tmp_path / f"bad-{file}" / file).write_bytes(content)
        said = refusal("translate", f"bad-{file}", "--output", "out")
        assert said.startswith(f"bad-{file}/{file}: ")
    assert not (tmp_path / "out").exists()


def test_lengths_and_prefixes(mt: Command, run: Run, tmp_path: Path) -> None:
    (tmp_path / "begin").write_text("sep so\n\n\n")
    text = "ba ce dio\nhem\nba ce dio\n"
    done = mt.here("translate", run.bundle, "--prefixes", "begin", cwd=tmp_path, stdin=text)
    first, *others = done.out.splitlines()
    assert first.startswith("sep so")
    assert others == ["vi", "kan mur tilo"]
    done = mt.here(
        "translate", run.bundle, "--max-length", 2, "--format=jsonl", cwd=tmp_path, stdin=text
    )
    for line in done.out.splitlines():
        assert json.loads(line)["translations"][0]["tokens"] <= 3  # the end of sentence counts
    done = mt("translate", run.bundle, "--prefixes", "begin", cwd=tmp_path, stdin=text + "ba\n")
    assert done.status == 2
    assert done.err.startswith("mt: error: standard input has 4 lines but begin has 3")


def test_long_source_is_cut_with_a_warning_that_names_the_line(
    mt: Command, run: Run, tmp_path: Path
) -> None:
    long = " ".join(["ba"] * 1100)
    pieces = len(Translator.load(run.bundle).tokenizers.source.encode([long])[0])
    assert pieces > 1024
    (tmp_path / "in").write_text("hem\n" * 1001 + long + "\nhem\n")
    done = mt.here(
        "translate", run.bundle, "--input", "in", "--max-length", 4, "--beam-size", 1, cwd=tmp_path
    )
    assert done.out.count("\n") == 1003
    assert done.err.count("\n") == 1
    assert "line 1002:" in done.err
    assert "1024" in done.err.replace(",", "")


def test_neither_lightning_nor_datasets_is_imported(mt: Command, run: Run, tmp_path: Path) -> None:
    done = mt.python(
        "-X", "importtime", "-m", "mt.cli", "translate", run.bundle, cwd=tmp_path, stdin="hem\n"
    )
    assert done.out == "vi\n"
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.err.splitlines()}
    assert imported >= {"torch", "sentencepiece"}
    assert imported.isdisjoint({"lightning", "lightning_fabric", "pytorch_lightning", "datasets"})
