"""The command line: one short function for each subcommand."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt import __version__
from mt.errors import MTError

if TYPE_CHECKING:
    from mt.evaluation.scores import SetScores
    from mt.options import CompareOptions, Decoding, EvaluateOptions

USAGE = """\
usage: mt COMMAND …

  train RECIPE       from data to a trained network, its scores and a report
  sweep RECIPE SPACE choose a recipe's options by trying them
  tokenizer SPEC     train a SentencePiece model
  translate BUNDLE   translate lines of text
  evaluate BUNDLE    score translations of a test set
  compare SYSTEM …   score several systems, and test whether they differ
  score BUNDLE       log-probabilities of given translations or text
  generate BUNDLE    write text with a language model
  select             choose the pairs of a corpus that are best to train on
  forecast BUNDLE    forecast a time series
  classify BUNDLE    classes of lines of text, by a classifier
  export BUNDLE      add ONNX graphs, for another engine

mt COMMAND --help explains every option; mt --version tells the version."""


def train(arguments: list[str]) -> None:
    """Run `mt train`."""
    from mt.options import parse_train

    options = parse_train(arguments)
    if options.print_config:
        from mt.training.folder import recipe_yaml

        print(recipe_yaml(options.recipe), end="")
        return
    from mt.training.train import train

    train(options.recipe, options.output, options.resume, options.overwrite)


def sweep(arguments: list[str]) -> None:
    """Run `mt sweep`."""
    from mt.options import parse_sweep

    options = parse_sweep(arguments)
    from mt.training.sweep import sweep

    sweep(options)


def tokenizer(arguments: list[str]) -> None:
    """Run `mt tokenizer`."""
    from mt.files import write_atomically
    from mt.lines import read_lines
    from mt.options import TokenizerOptions, parse_command, read_spec
    from mt.tokenizer import train_tokenizer

    [name], [options] = parse_command(
        "mt tokenizer",
        "Train a SentencePiece model.",
        {"SPEC": "YAML file that describes the tokenizer, such as tokenizers/joint-bpe-4k.yaml"},
        [TokenizerOptions],
        arguments,
    )
    spec, inputs = read_spec(Path(name))
    files = options.input or inputs
    if not files:
        raise MTError(f"{name}: no text to train on; give --input FILE or list it as `input`")
    texts = [text for file in files for text in read_lines(file) if text.strip()]
    output = options.output or Path(name).with_suffix(".model")
    write_atomically(output, train_tokenizer(spec, lambda: texts).model)
    print(output)


def translate(arguments: list[str]) -> None:
    """Run `mt translate`."""
    from mt.options import Decoding, TranslateOptions, parse_command

    [bundle], [options, decoding] = parse_command(
        "mt translate",
        "Translate lines of text: as many lines out as in, in the same order, blank ones blank.",
        {"BUNDLE": "folder of a trained translator, such as runs/quickstart/bundle"},
        [TranslateOptions, Decoding],
        arguments,
    )
    if options.n_best > 1 and options.format != "jsonl":
        raise MTError(f"--n-best {options.n_best} needs --format jsonl")
    from mt.filter import translate_stream

    translate_stream(Path(bundle), options, decoding)


def evaluate(arguments: list[str]) -> None:
    """Run `mt evaluate`."""
    from mt.options import Decoding, EvaluateOptions, parse_command

    [bundle], [options, decoding] = parse_command(
        "mt evaluate",
        "Translate test sets and score them; writes scores.json, report.md and report.html.",
        {
            "BUNDLE": "folder of a trained translator, such as runs/quickstart/bundle; several "
            "training runs of it as NAME=BUNDLE,BUNDLE"
        },
        [EvaluateOptions, Decoding],
        arguments,
    )
    from mt.evaluation.scores import scores_json
    from mt.evaluation.tables import markdown, score_rows

    systems = [bundle, *([options.baseline] if options.baseline else [])]
    folder = Path("runs/evaluate")
    sets = _evaluate(systems, options, decoding, folder, beam_sizes=options.beam_sizes)
    if options.json:
        print(scores_json(sets), end="")
        return
    named = len(sets) > 1
    for one in sets:
        for score in one.scores:
            start = f"{one.name}\t" if named else ""
            print(f"{start}{score.metric}\t{score.score:.2f}\t{score.signature}")
    if named or sets[0].others or sets[0].scores[0].runs:
        print(f"\n{markdown(score_rows(sets))}", end="")


def compare(arguments: list[str]) -> None:
    """Run `mt compare`."""
    from mt.options import CompareOptions, Decoding, parse_command

    [names], [options, decoding] = parse_command(
        "mt compare",
        "Score several systems on test sets, and test how each differs from the first.",
        {
            "SYSTEM...": "folder of a trained translator, which translates now, or file of "
            "translations, made by whatever toolkit ({set} in its path stands for the name of a "
            "test set); several training runs of a system as NAME=PATH,PATH; the first is what "
            "others are compared with"
        },
        [CompareOptions, Decoding],
        arguments,
    )
    from mt.evaluation.scores import scores_json
    from mt.evaluation.tables import latex, markdown, score_rows

    language = options.target_language
    sets = _evaluate(names, options, decoding, Path("runs/compare"), target_language=language)
    if options.format == "json":
        print(scores_json(sets), end="")
    else:
        write = latex if options.format == "latex" else markdown
        print(write(score_rows(sets)), end="")


def _evaluate(
    systems: list[str],
    options: EvaluateOptions | CompareOptions,
    decoding: Decoding,
    folder: Path,
    **more: Any,
) -> list[SetScores]:
    from mt.evaluation.evaluate import evaluate
    from mt.evaluation.systems import read_tests
    from mt.filter import make_engine

    tests = read_tests(options.source, options.reference, options.test_set)
    return evaluate(
        systems,
        tests,
        options.metric,
        options.output or folder / "+".join(test.name for test in tests),
        lambda path: make_engine(path, decoding, n_best=1),
        options.training_text,
        comet_model=options.comet_model,
        **more,
    )


def score(arguments: list[str]) -> None:
    """Run `mt score`."""
    from mt.options import ScoreOptions, parse_command

    [bundle], [options] = parse_command(
        "mt score",
        "Print the log-probability of each line (natural logarithm) and its tokens, both with the "
        "end of the line, separated by a tab: of translations, or of text by a language model.",
        {
            "BUNDLE": "folder of a trained translator, such as runs/quickstart/bundle, or of a "
            "language model"
        },
        [ScoreOptions],
        arguments,
    )
    from mt.filter import score_files

    score_files(Path(bundle), options)


def generate(arguments: list[str]) -> None:
    """Run `mt generate`."""
    from mt.options import GenerateOptions, parse_command

    [bundle], [options] = parse_command(
        "mt generate",
        "Write text, token by token, as a language model finds it likely.",
        {"BUNDLE": "folder of a trained language model, such as runs/char-lm/bundle"},
        [GenerateOptions],
        arguments,
    )
    from mt.filter import generate

    generate(Path(bundle), options)


def select(arguments: list[str]) -> None:
    """Run `mt select`."""
    from mt.options import SelectOptions, parse_command

    _, [options] = parse_command(
        "mt select",
        "Choose the pairs of a corpus that are best to train on, as language models or translators "
        "judge.",
        {},
        [SelectOptions],
        arguments,
    )
    from mt.selection import select

    kept, there = select(options)
    print(f"{kept:,} of {there:,} pairs kept", file=sys.stderr)


def forecast(arguments: list[str]) -> None:
    """Run `mt forecast`."""
    from mt.options import ForecastOptions, parse_command

    [bundle], [options] = parse_command(
        "mt forecast",
        "Forecast a time series, with prediction intervals, as CSV: a row for each time step and "
        "column.",
        {"BUNDLE": "folder of a trained forecaster, such as runs/sunspots/bundle"},
        [ForecastOptions],
        arguments,
    )
    from mt.filter import forecast

    forecast(Path(bundle), options)


def classify(arguments: list[str]) -> None:
    """Run `mt classify`."""
    from mt.options import ClassifyOptions, parse_command

    [bundle], [options] = parse_command(
        "mt classify",
        "Print the class of each line and its probability, separated by a tab; blank lines stay "
        "blank.",
        {"BUNDLE": "folder of a trained classifier, such as runs/language-id/bundle"},
        [ClassifyOptions],
        arguments,
    )
    from mt.filter import classify_stream

    classify_stream(Path(bundle), options)


def export(arguments: list[str]) -> None:
    """Run `mt export`."""
    # What the exporter says of its tracing is for its makers; torch reads this when it is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from mt.options import ExportOptions, parse_command

    [name], [options] = parse_command(
        "mt export",
        "Put the network into its bundle once more, as graphs that `--engine onnx` computes with.",
        {"BUNDLE": "folder of a trained translator, such as runs/quickstart/bundle"},
        [ExportOptions],
        arguments,
    )
    from mt.bundle import add_files, load_bundle
    from mt.onnx import export

    graphs = export(load_bundle(Path(name)).model, options.quantize)
    add_files(Path(name), graphs)
    for graph, content in graphs.items():
        print(f"{Path(name) / graph}\t{len(content) / 1e6:.1f} MB")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "sweep": sweep,
    "tokenizer": tokenizer,
    "translate": translate,
    "evaluate": evaluate,
    "compare": compare,
    "score": score,
    "generate": generate,
    "select": select,
    "forecast": forecast,
    "classify": classify,
    "export": export,
}


def _terminate(*_: object) -> None:
    """Leave as after Ctrl-C, so that nothing half-written stays behind."""
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Run the command line in `sys.argv`; a user's mistake is one line and exit status 2."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("mt").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminate)
    # PyTorch's threads wait for each other in a loop, for milliseconds by default: on cores that
    # other programs need, they burn the time that the last one of them wants. Read by GNU's OpenMP
    # when PyTorch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    arguments = sys.argv[1:]
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(USAGE)
        elif arguments[0] == "--version":
            print(f"mt {__version__}")
        elif arguments[0] in COMMANDS:
            COMMANDS[arguments[0]](arguments[1:])
        else:
            raise MTError(f"unknown command `{arguments[0]}`; use {', '.join(COMMANDS)}")
    except MTError as error:
        print(f"mt: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("mt: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # a full disk, say: nothing that a traceback would explain
        place = f"{error.filename}: " if error.filename else ""
        print(f"mt: error: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
