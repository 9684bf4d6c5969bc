"""Files and streams through a bundle: what `mt translate`, `mt score` and their like do."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice, repeat
from pathlib import Path
from typing import BinaryIO

import torch

from mt.bundle.files import read_config
from mt.classifier import Classifier, Prediction
from mt.errors import MTError, require
from mt.files import open_atomically, write_atomically
from mt.forecaster import Forecast, Forecaster
from mt.language_model import LanguageModel
from mt.lines import (
    compressed,
    line_counts_differ,
    raw_lines,
    read_lines,
    read_parallel,
    stream_lines,
)
from mt.options import (
    ClassifyOptions,
    Decoding,
    ForecastOptions,
    GenerateOptions,
    ScoreOptions,
    TranslateOptions,
)
from mt.parallel import CHUNK, Engine, Job, LanguageModelUse, check_sizes
from mt.search.sampling import SamplingOptions
from mt.series import Series, continue_times, read_series, write_csv
from mt.translator import Translation, Translator

_log = logging.getLogger("mt")


def make_engine(bundle: Path, decoding: Decoding, n_best: int) -> Engine:
    """Load a bundle as the command line wants it."""
    search = {**decoding.search(), "n_best": n_best}
    lm = None
    if decoding.lm is not None:
        if not 0 <= decoding.lm_weight < float("inf"):
            raise MTError(f"--lm-weight: must be at least 0, not {decoding.lm_weight}")
        lm = LanguageModelUse(decoding.lm, decoding.lm_weight, decoding.lm_use)
    return Engine(
        bundle,
        decoding.device,
        decoding.devices,
        decoding.threads,
        decoding.engine,
        search,
        decoding.batch_tokens,
        lm,
    )


def translate_stream(bundle: Path, options: TranslateOptions, decoding: Decoding) -> None:
    """Translate the input's lines to the output, line by line at a terminal.

    Raises:
        MTError: A file cannot be read or written; an output file is whole or as it was before.
    """
    engine = make_engine(bundle, decoding, options.n_best)
    prefixes = None if options.prefixes is None else list(read_lines(options.prefixes))
    name = options.input or Path("standard input")
    lines = stream_lines(_raw_lines(options.input), str(name))
    terminal = options.input is None and sys.stdin.isatty()
    chunk = 1 if terminal else CHUNK
    with _open_output(options.output) as target:
        sources: list[list[str]] = []

        def jobs() -> Iterator[Job]:
            first, starts = 1, chain(prefixes or (), repeat(""))
            while texts := list(islice(lines, chunk)):
                sources.append(texts)
                begin = None if prefixes is None else list(islice(starts, len(texts)))
                yield Job(texts, begin, first)
                first += len(texts)
            if options.prefixes and prefixes is not None and len(prefixes) != first - 1:
                raise line_counts_differ(name, first - 1, options.prefixes, len(prefixes))

        for translations in engine.translate(jobs(), at_once=terminal):
            for text, found in zip(sources.pop(0), translations, strict=True):
                target.write(_format(text, found, options.format).encode())
            target.flush()


def _format(source: str, translations: list[Translation], form: str) -> str:
    if form == "text":
        return translations[0].text + "\n"
    rows = [
        {
            "text": t.text,
            "score": round(t.score, 4),
            "log_probability": round(t.log_probability, 4),
            "tokens": t.tokens,
        }
        for t in translations
    ]
    return json.dumps({"source": source, "translations": rows}, ensure_ascii=False) + "\n"


def _raw_lines(path: Path | None) -> Iterable[bytes]:
    if path is not None:
        return raw_lines(path)
    if sys.stdin is None:
        raise MTError("standard input is closed; name a file with --input")
    return sys.stdin.buffer


@contextmanager
def _open_output(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        if sys.stdout is None:
            raise MTError("standard output is closed; name a file with --output")
        yield sys.stdout.buffer
        return
    with open_atomically(path) as file, compressed(file, path) as stream:
        yield stream


def score_files(bundle: Path, options: ScoreOptions) -> None:
    """Print the log-probability and tokens of each line; of a language model also a summary, to
    standard error.

    Raises:
        MTError: A file cannot be read, files differ in their number of lines, or sources are
            missing, or of no use.
    """
    check_sizes(threads=options.threads, batch_tokens=options.batch_tokens)
    task = read_config(bundle).get("task", "translation")
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    if task == "language-model":
        if options.source is not None:
            raise MTError("--source: a language model scores text by itself; leave it out")
        _score_text(LanguageModel.load(bundle, options.device), options)
        return
    if options.source is None:
        read_config(bundle, "translation")  # a classifier needs another command, not a source
        raise MTError("--source: name the file of the lines that were translated")
    sources, targets = read_parallel([options.source, options.target])
    translator = Translator.load(bundle, options.device)
    for start in range(0, len(sources), CHUNK):
        chunk = slice(start, start + CHUNK)
        for log_probability, tokens in translator.score(
            sources[chunk], targets[chunk], options.batch_tokens, first_line=start + 1
        ):
            print(f"{log_probability:.4f}\t{tokens}")


def _score_text(model: LanguageModel, options: ScoreOptions) -> None:
    lines = list(read_lines(options.target))
    scored = model.score(lines, options.batch_tokens)
    for log_probability, tokens in scored:
        print(f"{log_probability:.4f}\t{tokens}")
    if lines:
        from mt.evaluation.text import score_text

        _log.info("%s", score_text(options.target.name, lines, scored))


def generate(bundle: Path, options: GenerateOptions) -> None:
    """Print texts that a language model writes, blank lines between those of several lines.

    Raises:
        MTError: The bundle is no language model, or an option is out of range.
    """
    check_sizes(threads=options.threads, length=options.length, number=options.number)
    how = SamplingOptions(options.temperature, options.top_k, options.top_p)
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    model = LanguageModel.load(bundle, options.device)
    prompts = [options.prompt] * options.number
    texts = model.generate(prompts, options.length, how, options.seed)
    print(("\n\n" if model.running else "\n").join(texts))


def forecast(bundle: Path, options: ForecastOptions) -> None:
    """Write what follows upon a series as CSV, and draw it.

    Raises:
        MTError: The bundle is no forecaster, the series is not of its columns, or an option is out
            of range.
    """
    check_sizes(threads=options.threads, horizon=options.horizon, samples=options.samples)
    if options.plot is not None:
        require("--plot", "forecast", "matplotlib")
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    forecaster = Forecaster.load(bundle, options.device)
    series = read_series(options.input, forecaster.columns, forecaster.time)
    found = forecaster.forecast(
        series.values, options.horizon, options.interval, options.samples, options.seed
    )
    steps = len(series.values)
    counted = [str(step) for step in range(1, steps + options.horizon + 1)]
    ahead = continue_times(series.times or counted[:steps], options.horizon)
    times = counted if ahead is None else [*(series.times or counted[:steps]), *ahead]
    name = "step" if ahead is None or forecaster.time is None else forecaster.time
    with _open_output(options.output) as target:
        target.write(write_csv(_rows(name, times[steps:], series, found)).encode())
    if options.plot is not None:
        from mt.evaluation.forecast_plot import forecast_png

        picture = forecast_png(series.columns, series.values, found, options.interval, times)
        write_atomically(options.plot, picture)


def _rows(
    name: str, times: list[str], series: Series, found: Forecast
) -> Iterator[list[str | float]]:
    yield [name, "column", "forecast", "lower", "upper"]
    for time, *ends in zip(times, *found, strict=True):
        for column, *values in zip(series.columns, *ends, strict=True):
            yield [time, column, *map(float, values)]


def classify_stream(bundle: Path, options: ClassifyOptions) -> None:
    """Tell the classes of the input's lines, line by line at a terminal; blank ones stay blank.

    Raises:
        MTError: The bundle is no classifier, or a file cannot be read or written; an output file is
            whole or as it was before.
    """
    check_sizes(threads=options.threads, top=options.top, batch_tokens=options.batch_tokens)
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    classifier = Classifier.load(bundle, options.device)
    lines = stream_lines(_raw_lines(options.input), str(options.input or "standard input"))
    chunk = 1 if options.input is None and sys.stdin.isatty() else CHUNK
    with _open_output(options.output) as target:
        while texts := list(islice(lines, chunk)):
            real = [text for text in texts if text.strip()]
            found = iter(classifier.classify(real, options.top, options.batch_tokens))
            for text in texts:
                predictions = next(found) if text.strip() else []
                target.write(_format_classes(text, predictions, options.format).encode())
            target.flush()


def _format_classes(text: str, predictions: list[Prediction], form: str) -> str:
    if form == "text":
        return "\t".join(f"{one.label}\t{one.probability:.4f}" for one in predictions) + "\n"
    rows = [{"class": one.label, "probability": round(one.probability, 6)} for one in predictions]
    return json.dumps({"text": text, "classes": rows}, ensure_ascii=False) + "\n"
