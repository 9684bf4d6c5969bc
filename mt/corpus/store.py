"""Pairs on disk: Arrow files written in batches, hashes of content, a lock between processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import datasets

BATCH = 10_000  # pairs in memory at a time


class PairWriter:
    """Write pairs to an Arrow file, a batch at a time; `with` closes it."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        self._stream = path.open("wb")
        self._schema = pyarrow.schema({"source": pyarrow.string(), "target": pyarrow.string()})
        self._writer = pyarrow.ipc.new_stream(self._stream, self._schema)

    def __enter__(self) -> PairWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._writer.close()
        finally:
            self._stream.close()

    def write(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Append pairs, `(N,)` and `(N,)`."""
        import pyarrow

        arrays = [pyarrow.array(side, pyarrow.string()) for side in (sources, targets)]
        self._writer.write_batch(pyarrow.record_batch(arrays, schema=self._schema))


def read_batches(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the batches that a `PairWriter` wrote, each as its sources and its targets."""
    import pyarrow

    with path.open("rb") as stream:
        for batch in pyarrow.ipc.open_stream(stream):
            yield batch.column(0).to_pylist(), batch.column(1).to_pylist()


def open_pairs(path: Path) -> datasets.Dataset:
    """Open what a `PairWriter` wrote as a dataset that stays on disk, mapped into memory."""
    import datasets

    return datasets.Dataset.from_file(str(path))


def hash_text(text: str) -> bytes:
    """Hash a text to 8 bytes, the same in every process and on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def hash_texts(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Hash texts, `(N,)`, each as `hash_text` does, to one number each, `(N,)`."""
    hashes = b"".join(map(hash_text, texts))
    return np.frombuffer(hashes, dtype=">u8").astype(np.uint64)


def hash_files(paths: Sequence[Path]) -> str:
    """Hash the content of files; the names play no part."""
    digest = hashlib.blake2b(digest_size=20)
    for path in paths:
        one = hashlib.blake2b(digest_size=20)
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                one.update(chunk)
        digest.update(one.digest())
    return digest.hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars and log lines of `datasets` and the hub's client off the terminal."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub", "httpx")]
    levels = [logger.level for logger in loggers]
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process in at a time, where the file system can lock; the lock ends with it."""
    with path.open("ab") as stream:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def disk_full(error: BaseException) -> OSError | None:
    """Find the full disk among an error and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def first_line(error: object) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return next(iter(str(error).strip().split("\n")), "") or type(error).__name__
