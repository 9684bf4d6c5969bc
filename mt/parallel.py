"""One translator on several devices: batches go out, translations come back in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch

from mt.bundle import load_language_model
from mt.errors import MTError
from mt.search.options import SearchOptions
from mt.translator import NOTHING, Advice, SearchBatch, Translation, Translator, resolve_device

CHUNK = 1000
"""Lines that are sorted by length and batched together, on one device or many: the same batches,
so the same output to the byte."""


class _Names(Protocol):
    """The queue that gives each process the name of its device."""

    def get(self) -> str: ...


class Job(NamedTuple):
    """Lines to translate together."""

    texts: list[str]
    prefixes: list[str] | None
    first_line: int


def check_sizes(**options: int) -> None:
    """Refuse what cannot be counted; `threads` may be 0.

    Raises:
        MTError: A number is too low.
    """
    for name, value in options.items():
        least = 0 if name == "threads" else 1
        if value < least:
            raise MTError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")


class LanguageModelUse(NamedTuple):
    """A language model that translators are to load; see `Advice`."""

    bundle: Path
    weight: float
    use: Literal["fusion", "rerank"]


class Engine:
    """Translates jobs on one device or several.

    Args:
        bundle: Folder of the bundle.
        device: See `Translator`; with several, `cpu` or GPUs from the first on.
        devices: Processes, one a GPU, or so many on the CPU.
        threads: CPU threads of each process; 0 shares the cores out.
        engine: See `Translator.load`.
        options: Options that replace the bundle's own, by name.
        batch_tokens: Padded source tokens of a batch.
        lm: A language model that has a say, its weight, and its use (see `Advice`).
    """

    def __init__(
        self,
        bundle: Path,
        device: str,
        devices: int,
        threads: int,
        engine: Literal["torch", "onnx"],
        options: dict[str, object],
        batch_tokens: int,
        lm: LanguageModelUse | None = None,
    ):
        check_sizes(devices=devices, threads=threads, batch_tokens=batch_tokens)
        self.devices = devices
        kind = resolve_device("cpu" if (engine, device) == ("onnx", "auto") else device)
        if kind.type == "cuda" and devices > torch.cuda.device_count():
            raise MTError(f"--devices {devices}: this machine has {torch.cuda.device_count()} GPUs")
        self.threads = threads or max(1, (os.cpu_count() or 1) // devices)
        self._batch_tokens = batch_tokens
        self._arguments = bundle, self.threads, engine, options, lm
        self._device = str(kind)
        # Loaded here with several devices too: a mistake is one line and not one of each process.
        self._loaded = _load(self._device, *self._arguments)

    @property
    def translator(self) -> Translator:
        """This process's own translator."""
        return self._loaded.translator

    def translate(
        self, jobs: Iterable[Job], at_once: bool = False
    ) -> Iterator[list[list[Translation]]]:
        """Translate jobs, in order, as they come.

        Args:
            jobs: What to translate.
            at_once: Answer each job before asking for the next, as a person at a terminal expects.
        """
        translator, options = self._loaded
        if self.devices == 1:
            for job in jobs:
                yield translator.n_best(
                    job.texts, options, self._batch_tokens, job.prefixes, job.first_line
                )
            return
        context = multiprocessing.get_context("spawn")
        names = context.SimpleQueue()
        for number in range(self.devices):
            names.put(f"cuda:{number}" if self._device.startswith("cuda") else self._device)
        pool = ProcessPoolExecutor(self.devices, context, _start, (names, *self._arguments))

        def submit(job: Job) -> _Waiting:
            batches = translator.plan(job.texts, self._batch_tokens, job.prefixes, job.first_line)
            parts = [(batch.numbers, pool.submit(_work, batch)) for batch in batches]
            return _Waiting(len(job.texts), parts)

        try:
            # No more in flight than keeps every process busy: the input may be endless.
            jobs, ahead = iter(jobs), 1 if at_once else 2 * self.devices
            waiting = deque(map(submit, islice(jobs, ahead)))
            while waiting:
                yield waiting.popleft().get()
                waiting.extend(map(submit, islice(jobs, 1)))
        except BrokenProcessPool as error:
            raise MTError(
                f"--devices {self.devices}: a process was ended from outside, perhaps for want of "
                "memory; use fewer devices or a smaller --batch-tokens"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


class _Waiting(NamedTuple):
    """A job whose batches are under way."""

    texts: int
    parts: list[tuple[list[int], Future[list[list[Translation]]]]]

    def get(self) -> list[list[Translation]]:
        results = [[NOTHING] for _ in range(self.texts)]
        for numbers, part in self.parts:
            for number, found in zip(numbers, part.result(), strict=True):
                results[number] = found
        return results


class _Loaded(NamedTuple):
    """A translator with its options, as each process holds one."""

    translator: Translator
    options: SearchOptions


_loaded: _Loaded
"""What a process of the pool has loaded; processes are started once and get many batches."""


def _start(names: _Names, *arguments: Any) -> None:
    global _loaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process tells
    _loaded = _load(names.get(), *arguments)


def _work(batch: SearchBatch) -> list[list[Translation]]:
    return _loaded.translator.translate_batch(batch, _loaded.options)


def _load(
    device: str,
    bundle: Path,
    threads: int,
    engine: Literal["torch", "onnx"],
    options: dict[str, object],
    lm: LanguageModelUse | None,
) -> _Loaded:
    torch.set_num_threads(threads)
    advice = None
    if lm is not None:
        advice = Advice(load_language_model(lm.bundle), lm.weight, lm.use)
    translator = Translator.load(bundle, device, engine, advice)
    chosen = {name: value for name, value in options.items() if value is not None}
    return _Loaded(translator, SearchOptions(**{**vars(translator.options), **chosen}))
