"""Training and decoding beside other toolkits: same text, tokens, sizes, batches and threads.

benchmarks/peers/setup.sh
python benchmarks/peers/speed.py MULTI30K [--minutes 30] [--trial 6] [--toolkits mt opennmt joeynmt]

MULTI30K is a folder of train.*, valid.* and test2016.* in en and de. Everyone trains an LSTM of one
layer on each side, with embeddings and states of 256 units, on one thread, in batches of about
1,200 tokens, the others by Adam at a constant rate: of two, the better for validation BLEU in a
short trial. Training stops after some minutes. Every checkpoint translates the validation text
greedily afterwards, so that none of this is in the time of training. Decoding is timed as the
difference between a command that translates test2016 five times and one that translates its first
line. Curves
go to benchmarks/peers/curves.csv and curves.svg, BLEU against speed, of greedy and beam search, to
pareto.svg; runs, which are not done again, to build/peers.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import sacrebleu
import yaml

from mt.evaluation.plots import Series, line_chart, point_chart, write_svg
from mt.recipe import TokenizerSpec
from mt.tokenizer import Tokenizer, train_tokenizer

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build/peers"
VOCABULARY, UNITS, TOKENS, EVERY, DROPOUT = 4000, 256, 1200, 100, 0.3
RATES = 1e-3, 2e-3
GOAL = 30.0
REPEATED = 5
LANGUAGES = "en", "de"


class Point(NamedTuple):
    """A checkpoint."""

    seconds: float
    """Of training until then."""
    path: Path


def environment() -> dict[str, str]:
    """One thread, and the permission that OpenNMT-py needs to read its own checkpoints."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}


def call(words: Sequence[object], log: Path, minutes: float | None = None) -> float:
    """Run a command, for some minutes at most; return its seconds."""
    began = time.monotonic()
    with log.open("w") as file:
        done = subprocess.Popen(
            [str(word) for word in words], stdout=file, stderr=subprocess.STDOUT, env=environment()
        )
        try:
            status = done.wait(None if minutes is None else 60 * minutes)
        except subprocess.TimeoutExpired:
            done.terminate()
            done.wait()
            status = 0
    if status:
        sys.exit(f"{words[0]} failed; see {log}")
    return time.monotonic() - began


def prepare(folder: Path) -> None:
    """Write the text in subwords, as all but mt read it."""
    BUILD.mkdir(parents=True, exist_ok=True)
    model = BUILD / "tokenizer.model"
    if not model.exists():
        both = [line for side in LANGUAGES for line in lines(folder / f"train.{side}")]
        model.write_bytes(train_tokenizer(TokenizerSpec(vocab_size=VOCABULARY), lambda: both).model)
    tokenizer = Tokenizer(model.read_bytes())
    for name in ("train", "valid", "test2016"):
        for side in LANGUAGES:
            encoded = tokenizer.encode(lines(folder / f"{name}.{side}"))
            text = "".join(" ".join(tokenizer.pieces(row)) + "\n" for row in encoded)
            (BUILD / f"{name}.{side}").write_text(text, encoding="utf-8")
    for side in LANGUAGES:  # joeynmt validates where it saves; ten sentences take no time
        test = lines(BUILD / f"test2016.{side}")
        shorter = {"few": lines(BUILD / f"valid.{side}")[:10], "first": test[:1]}
        for name, chosen in {**shorter, "many": test * REPEATED}.items():
            (BUILD / f"{name}.{side}").write_text("\n".join(chosen) + "\n", encoding="utf-8")


def lines(path: Path) -> list[str]:
    """Read a text."""
    return path.read_text(encoding="utf-8").splitlines()


class OpenNMT:
    """OpenNMT-py 3.5.1."""

    rates = RATES
    bin = BUILD / "opennmt/bin"

    def train(self, run: Path, rate: float, minutes: float) -> None:
        """Train, saving a checkpoint every so many updates."""
        config = {
            "save_data": str(run),
            "src_vocab": str(run / "vocab"),
            "tgt_vocab": str(run / "vocab"),
            "share_vocab": True,
            "data": {
                "train": {
                    "path_src": str(BUILD / "train.en"),
                    "path_tgt": str(BUILD / "train.de"),
                    "transforms": [],
                }
            },
            "save_model": str(run / "model"),
            "encoder_type": "brnn",
            "decoder_type": "rnn",
            "rnn_type": "LSTM",
            "layers": 1,
            "hidden_size": UNITS,
            "word_vec_size": UNITS,
            "share_embeddings": True,
            "share_decoder_embeddings": True,
            "global_attention": "dot",
            "dropout": [DROPOUT],
            "label_smoothing": 0.1,
            "optim": "adam",
            "learning_rate": rate,
            "learning_rate_decay": 1.0,
            "max_grad_norm": 1.0,
            "batch_type": "tokens",
            "batch_size": TOKENS,
            "normalization": "tokens",
            "num_workers": 0,
            "train_steps": 1_000_000,
            "valid_steps": 1_000_000,
            "save_checkpoint_steps": EVERY,
            "report_every": EVERY,
            "seed": 1,
        }
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        vocabulary = ["--config", run / "config.yaml", "--n_sample", "-1"]
        call([self.bin / "onmt_build_vocab", *vocabulary], run / "vocab.log")
        call([self.bin / "onmt_train", "--config", run / "config.yaml"], run / "train.log", minutes)

    def points(self, run: Path) -> list[Point]:
        """Read when each checkpoint was written."""
        log = (run / "train.log").read_text()
        seconds = re.findall(r"Step (\d+)/.*?(\d+) sec;", log)
        paths = [(float(taken), run / f"model_step_{step}.pt") for step, taken in seconds]
        return [Point(taken, path) for taken, path in paths if path.exists()]

    def translate(self, run: Path, point: Point, name: str, beam: int) -> tuple[list[str], float]:
        """Translate a text into subwords; return the seconds of the whole command too."""
        output = run / f"{name}.{beam}.out"
        words: list[object] = [self.bin / "onmt_translate", "--model", point.path]
        words += ["--src", BUILD / f"{name}.en", "--output", output, "--beam_size", beam]
        words += ["--batch_type", "tokens", "--batch_size", 2048]
        seconds = call(words, run / "translate.log")
        return lines(output), seconds


class JoeyNMT:
    """JoeyNMT 2.3.0."""

    rates = RATES
    bin = BUILD / "joeynmt/bin"

    def config(self, run: Path, rate: float, dev: str, beam: int) -> Path:
        """Write its configuration."""
        sides = {
            key: {"lang": language, "level": "word", "lowercase": False, "voc_limit": 100_000}
            for key, language in zip(("src", "trg"), LANGUAGES, strict=True)
        }
        recurrent = {"type": "recurrent", "rnn_type": "lstm", "num_layers": 1, "dropout": DROPOUT}
        embeddings = {"embedding_dim": UNITS, "dropout": DROPOUT}
        config = {
            "name": "speed",
            "model_dir": str(run / "model"),
            "use_cuda": False,
            "data": {
                "train": str(BUILD / "train"),
                "dev": str(BUILD / dev),
                "test": str(BUILD / dev),
                "dataset_type": "plain",
                **{key: {**side, "voc_file": str(run / "vocab")} for key, side in sides.items()},
            },
            "testing": {"beam_size": beam, "batch_size": 2048, "batch_type": "token"},
            "training": {
                "random_seed": 1,
                "optimizer": "adam",
                "adam_betas": [0.9, 0.98],
                "learning_rate": rate,
                "learning_rate_min": 1e-9,
                "scheduling": "exponential",
                "decrease_factor": 1.0,
                "clip_grad_norm": 1.0,
                "loss": "crossentropy",
                "label_smoothing": 0.1,
                "normalization": "tokens",
                "batch_size": TOKENS,
                "batch_type": "token",
                "epochs": 1000,
                "validation_freq": EVERY,
                "logging_freq": EVERY,
                "keep_best_ckpts": -1,
                "overwrite": True,
                "shuffle": True,
            },
            "model": {
                "initializer": "xavier_uniform",
                "tied_embeddings": True,
                "tied_softmax": True,
                "encoder": {
                    **recurrent,
                    "bidirectional": True,
                    "hidden_size": UNITS,
                    "embeddings": embeddings,
                },
                "decoder": {
                    **recurrent,
                    "hidden_size": UNITS,
                    "embeddings": embeddings,
                    "attention": "bahdanau",
                    "input_feeding": True,
                    "init_hidden": "bridge",
                    "hidden_dropout": DROPOUT,
                },
            },
        }
        path = run / f"{dev}.{beam}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def train(self, run: Path, rate: float, minutes: float) -> None:
        """Train, saving a checkpoint every so many updates."""
        text = [line for side in LANGUAGES for line in lines(BUILD / f"train.{side}")]
        kinds = {piece for line in text for piece in line.split()}
        (run / "vocab").write_text(
            "\n".join(["<unk>", "<pad>", "<s>", "</s>", *sorted(kinds)]) + "\n"
        )
        config = self.config(run, rate, "few", 1)
        call(
            [self.bin / "python", "-m", "joeynmt", "train", config, "-t"],
            run / "train.log",
            minutes,
        )

    def points(self, run: Path) -> list[Point]:
        """Read when each checkpoint was written."""
        found, began, lost, paused = [], None, 0.0, None
        for line in lines(run / "model/train.log"):
            stamp = re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3})", line)
            if not stamp:
                continue
            now = datetime.fromisoformat(stamp[1]).timestamp() + int(stamp[2]) / 1000
            if "EPOCH 1" in line:
                began = now
            elif step := re.search(r"Step: +(\d+), Batch Loss", line):
                path = run / f"model/{step[1]}.ckpt"
                if began is not None and path.exists():
                    found.append(Point(now - began - lost, path))
                paused = now
            elif "Checkpoint saved" in line and paused is not None:
                lost += now - paused
        return found

    def translate(self, run: Path, point: Point, name: str, beam: int) -> tuple[list[str], float]:
        """Translate a text into subwords; return the seconds of the whole command too."""
        output, config = run / f"{name}.{beam}.out", self.config(run, RATES[0], name, beam)
        link = run / "model/best.ckpt"
        link.unlink(missing_ok=True)
        link.symlink_to(point.path.name)
        began = time.monotonic()
        with (BUILD / f"{name}.en").open() as text, output.open("w") as out:
            subprocess.run(
                [self.bin / "python", "-m", "joeynmt", "translate", config],
                stdin=text,
                stdout=out,
                stderr=(run / "translate.log").open("w"),
                env=environment(),
                check=True,
            )
        return lines(output), time.monotonic() - began


class Mt:
    """This toolkit: the recipe with the sizes of all, made for a sprint.

    Scaled dot attention and no dropout, a higher rate with a shorter warm-up and average, 700
    updates.
    """

    rates = (5e-3,)

    def __init__(self, precision: str, text: Path):
        self.precision, self.text = precision, text

    def train(self, run: Path, rate: float, minutes: float) -> None:
        """Train, validating every so many updates."""
        words: list[object] = [ROOT / ".venv/bin/mt", "train", ROOT / "recipes/multi30k-en-de.yaml"]
        words += ["--corpus.files", self.text.absolute(), "--output", run / "run", "--overwrite"]
        words += ["--tokenizer.vocab_size", VOCABULARY]
        words += ["--model.hidden_size", UNITS, "--model.attention", "scaled-dot"]
        words += ["--model.embedding_dropout", 0, "--model.output_dropout", 0]
        words += ["--training.learning_rate", rate, "--training.warmup_steps", 100]
        words += ["--training.ema", 0.99, "--trainer.max_steps", 700]
        words += ["--training.validation_start", 2 * EVERY]
        words += ["--trainer.val_check_interval", EVERY // 2, "--trainer.precision", self.precision]
        call(words, run / "train.log", minutes)

    def curve(self, run: Path) -> list[tuple[float, float]]:
        """Read seconds of training, without those of validation, and BLEU."""
        found, lost = [], 0.0
        took = re.findall(
            r"^step ([\d,]+) · valid.*took (\d+):(\d+)", (run / "train.log").read_text(), re.M
        )
        spent = {int(step.replace(",", "")): 60 * int(m) + int(s) for step, m, s in took}
        with (run / "run/metrics.csv").open() as file:
            for row in csv.DictReader(file):
                if row["valid_loss"]:
                    seconds = float(row["seconds"]) - lost
                    lost += spent[int(row["step"])]
                    if row["valid_bleu"]:
                        found.append((seconds, float(row["valid_bleu"])))
        return found

    def points(self, run: Path) -> list[Point]:
        """Name the finished translator."""
        return [Point(0.0, run / "run/bundle")]

    def translate(self, run: Path, point: Point, name: str, beam: int) -> tuple[list[str], float]:
        """Translate a text into words; return the seconds of the whole command too."""
        return Engine("torch", point.path, self.text).translate(run, point, name, beam)


class Engine(NamedTuple):
    """A translator of this toolkit, which is there already."""

    engine: str
    bundle: Path
    text: Path

    def translate(self, run: Path, point: Point, name: str, beam: int) -> tuple[list[str], float]:
        """Translate a text into words; return the seconds of the whole command too."""
        source, output = run / f"{name}.en", run / f"{name}.{beam}.out"
        test = lines(self.text / "test2016.en")
        given = test[:1] if name == "first" else test * REPEATED
        source.write_text("\n".join(given) + "\n", encoding="utf-8")
        words: list[object] = [ROOT / ".venv/bin/mt", "translate", self.bundle, "--threads", 1]
        words += ["--engine", self.engine, "--input", source, "--output", output]
        seconds = call([*words, "--beam-size", beam], run / "translate.log")
        return lines(output), seconds

    def points(self, run: Path) -> list[Point]:
        """Name the bundle."""
        return [Point(0.0, self.bundle)]


def curve(toolkit: Any, run: Path, references: list[str]) -> list[Any]:
    """Translate the validation text by every checkpoint: seconds of training and BLEU."""
    file = run / "curve.json"
    if not file.exists():
        found = []
        for point in toolkit.points(run):
            pieces, _ = toolkit.translate(run, point, "valid", 1)
            bleu = sacrebleu.corpus_bleu(join(pieces), [references]).score
            found.append((point.seconds, bleu))
            print(f"{run.name} {point.seconds:.0f} {bleu:.2f}", file=sys.stderr, flush=True)
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def trained(name: str, toolkit: Any, rate: float, minutes: float) -> Path:
    """Train, where that has not been done."""
    run = BUILD / f"{name}-{rate}-{minutes:g}"
    if not (run / "done").exists():
        shutil.rmtree(run, ignore_errors=True)  # what an interrupted one left, if any did
        run.mkdir()
        toolkit.train(run, rate, minutes)
        (run / "done").touch()
    return run


def join(pieces: list[str]) -> list[str]:
    """Subwords to text."""
    return ["".join(row.split()).replace("\u2581", " ").strip() for row in pieces]


def main() -> None:
    """Train what has not been trained, print the tables and draw the curves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("multi30k", type=Path)
    parser.add_argument("--minutes", type=float, default=30, help="of training (default: 30)")
    parser.add_argument("--trial", type=float, default=6, help="of each rate (default: 6)")
    parser.add_argument("--toolkits", nargs="+", default=["mt", "mt-bf16", "opennmt", "joeynmt"])
    parser.add_argument(
        "--translators",
        nargs="*",
        default=[],
        metavar="NAME=ENGINE:BUNDLE",
        help="translators of this toolkit to measure beside those that are trained here",
    )
    given = parser.parse_args()
    text: Path = given.multi30k
    kinds = {
        "mt": Mt("32-true", text),
        "mt-bf16": Mt("bf16-mixed", text),
        "opennmt": OpenNMT(),
        "joeynmt": JoeyNMT(),
    }
    prepare(text)
    references = {name: lines(text / f"{name}.de") for name in ("valid", "test2016")}
    best: dict[str, tuple[float, list[Any], Path]] = {}
    for name in given.toolkits:
        toolkit = kinds[name]
        rate = toolkit.rates[0]
        if len(toolkit.rates) > 1:
            trials = [trained(name, toolkit, each, given.trial) for each in toolkit.rates]
            reached = [
                max((bleu for _, bleu in curve(toolkit, run, references["valid"])), default=0.0)
                for run in trials
            ]
            rate = toolkit.rates[reached.index(max(reached))]
        run = trained(name, toolkit, rate, given.minutes)
        found = (
            toolkit.curve(run)
            if isinstance(toolkit, Mt)
            else curve(toolkit, run, references["valid"])
        )
        if not found:
            sys.exit(f"{run}: no checkpoint after {given.minutes:g} minutes; give more")
        best[name] = max(bleu for _, bleu in found), found, run
    show_training(best)
    translators = {name: (kinds[name], run) for name, (_, _, run) in best.items()}
    for one in given.translators:
        name, _, place = one.partition("=")
        engine, _, bundle = place.partition(":")
        translators[name] = Engine(engine, Path(bundle), text), BUILD / name.replace(" ", "-")
    show_decoding(translators, lines(text / "test2016.en"), references["test2016"])


def show_training(best: dict[str, tuple[float, list[Any], Path]]) -> None:
    """Print and draw what each toolkit reached: BLEU, its curve, and where that lies."""
    print("| toolkit | Adam's rate | minutes to validation BLEU 30 | best, and after minutes |")
    print("|---|---|---|---|")
    with (HERE / "curves.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["toolkit", "seconds", "bleu"])
        for name, (reached, found, run) in best.items():
            table.writerows((name, f"{seconds:.0f}", f"{bleu:.2f}") for seconds, bleu in found)
            goal = next((s / 60 for s, bleu in found if bleu >= GOAL), None)
            when = next(s / 60 for s, bleu in found if bleu == reached)
            minutes = f"more than {found[-1][0] / 60:.0f}" if goal is None else f"{goal:.1f}"
            rate = run.name.removeprefix(f"{name}-").rpartition("-")[0]
            print(f"| {name} | {rate} | {minutes} | {reached:.1f} after {when:.0f} |")
    series = [
        Series(name, [(s / 60, bleu) for s, bleu in found], style)
        for (name, (_, found, _)), style in zip(best.items(), "abcd", strict=False)
    ]
    chart = line_chart("Validation BLEU", "greedy, one core", series, x_name="minutes")
    write_svg(HERE / "curves.svg", chart)


def decode(
    toolkit: Any, run: Path, sources: list[str], references: list[str]
) -> list[tuple[float, float]]:
    """Translate test2016 greedily and with a beam of 5: sentences/s and BLEU of each."""
    file = run / "decoding.json"
    if not file.exists():
        run.mkdir(exist_ok=True)
        measured = []
        for beam in (1, 5):
            outputs, times = [], []
            for part in ("first", "many"):
                found, seconds = toolkit.translate(run, toolkit.points(run)[-1], part, beam)
                outputs.append(found if isinstance(toolkit, Mt | Engine) else join(found))
                times.append(seconds)
            bleu = sacrebleu.corpus_bleu(outputs[1][: len(sources)], [references]).score
            measured.append((len(sources) * REPEATED / (times[1] - times[0]), bleu))
        file.write_text(json.dumps(measured))
    return [(speed, bleu) for speed, bleu in json.loads(file.read_text())]


def show_decoding(
    translators: dict[str, tuple[Any, Path]], sources: list[str], references: list[str]
) -> None:
    """Let each translate test2016; print and draw speed and BLEU."""
    print("\n| translator | beam | sentences/s | source words/s | test2016 BLEU |")
    print("|---|---|---|---|---|")
    words = sum(len(line.split()) for line in sources) / len(sources)  # in a sentence
    lines_drawn: list[Series] = []
    for name, (toolkit, run) in translators.items():
        measured = decode(toolkit, run, sources, references)
        for beam, (speed, bleu) in zip((1, 5), measured, strict=True):
            print(f"| {name} | {beam} | {speed:,.0f} | {words * speed:,.0f} | {bleu:.1f} |")
        style = {"opennmt": "b", "joeynmt": "c"}.get(name, "d" if "int8" in name else "a")
        points = [(words * speed, bleu) for speed, bleu in measured[::-1]]
        lines_drawn.append(Series(name, points, style))
    name = "source words/s, one core"
    chart = point_chart("Speed and quality", "test2016", lines_drawn, x_name=name, log=True)
    write_svg(HERE / "pareto.svg", chart)


if __name__ == "__main__":
    main()
