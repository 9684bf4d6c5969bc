"""Raw lines in and out.

A line ends at LF, and a CR before it belongs to the end; nothing else (U+2028, U+0085, a lone CR)
ends one.
"""

from __future__ import annotations

import gzip
import io
import logging
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mt.errors import MTError

_log = logging.getLogger("mt")
_CHUNK = 1 << 20  # bytes

COMPRESSIONS = (".gz", ".xz", ".zst")
"""Endings of the names of files that are unpacked when read, and packed when written."""


def ending(path: Path) -> str:
    """Return the ending of a file's name but for that of a compression: `en` of `train.en.gz`."""
    plain = Path(path.stem) if path.suffix in COMPRESSIONS else path
    return plain.suffix.removeprefix(".")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their ends; a BOM at its start is left out.

    The file may be compressed: see `decompressed`.

    Raises `MTError` where it cannot be read, or a line, which is named, is not UTF-8.
    """
    number = 1  # of the first line in `block`
    for block in _blocks(path):
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError as error:
            line = number + block.count(b"\n", 0, error.start)
            raise MTError(
                f"{path}: line {line} is not valid UTF-8; convert the file, for example with iconv"
            ) from None
        if number == 1:
            text = text.removeprefix("\ufeff")
        lines = text.split("\n")
        if lines[-1] == "":
            lines.pop()
        for line_text in lines:
            yield line_text[:-1] if line_text.endswith("\r") else line_text
        number += len(lines)


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the decompressed bytes of a file, cut after line ends only."""
    rest: list[bytes] = []
    for chunk in decompressed(path):
        end = chunk.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, chunk[:end]])
            rest = []
        if end < len(chunk):
            rest.append(chunk[end:])
    if rest:
        yield b"".join(rest)


def decompressed(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked where it ends in .gz, .xz or .zst.

    Raises `MTError` where it cannot be read, is damaged or is cut short.
    """
    from zstandard import ZstdError

    try:
        if path.suffix == ".zst":
            yield from _unpacked_zst(path)
            return
        openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
        with openers.get(path.suffix, Path.open)(path, "rb") as stream:
            while chunk := stream.read1(_CHUNK):  # what is there, of a pipe
                yield chunk
    except EOFError:
        raise MTError(f"{path} is cut short; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, ZstdError) as error:
        raise MTError(f"{path} is damaged ({error}); fetch it again") from None
    except OSError as error:
        raise MTError(f"cannot read {path}: {error.strerror or error}") from None


def _unpacked_zst(path: Path) -> Iterator[bytes]:
    # The library's stream reader takes a frame that is cut short for the end of the file.
    from zstandard import ZstdDecompressor

    decompressor = None
    with path.open("rb") as stream:
        while data := stream.read(_CHUNK):
            while data:
                decompressor = decompressor or ZstdDecompressor().decompressobj()
                yield decompressor.decompress(data)
                data = decompressor.unused_data if decompressor.eof else b""
                decompressor = None if decompressor.eof else decompressor
    if decompressor is not None:
        raise EOFError


@contextmanager
def compressed(stream: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """Open a stream for the bytes of a file, packed where it ends in .gz, .xz or .zst.

    The same bytes are packed to the same bytes: no name and no time is stored.
    """
    if path.suffix not in COMPRESSIONS:
        yield stream
        return
    from zstandard import ZstdCompressor

    packers: dict[str, Callable[[], Any]] = {
        ".gz": partial(gzip.GzipFile, "", "wb", fileobj=stream, mtime=0),
        ".xz": partial(lzma.LZMAFile, stream, "wb"),
        ".zst": partial(ZstdCompressor().stream_writer, stream, closefd=False),
    }
    with packers[path.suffix]() as packed:
        yield packed


def raw_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their ends, as they come; see `decompressed`."""
    for block in _blocks(path):
        yield from io.BytesIO(block)


def stream_lines(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Yield lines as they come; a byte that is not UTF-8 becomes U+FFFD, with a warning."""
    for number, line in enumerate(lines, start=1):
        if line.endswith(b"\n"):
            line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        try:
            text = line.decode()
        except UnicodeDecodeError:
            _log.warning(
                "%s: line %d is not valid UTF-8; U+FFFD stands for its bytes", name, number
            )
            text = line.decode(errors="replace")
        yield text.removeprefix("\ufeff") if number == 1 else text


def read_parallel(paths: Sequence[Path]) -> list[list[str]]:
    """Read files whose lines N translate each other.

    Raises `MTError` as `read_lines` does, and for files that differ in their number of lines.
    """
    columns = [list(read_lines(path)) for path in paths]
    for path, column in zip(paths[1:], columns[1:], strict=True):
        if len(column) != len(columns[0]):
            raise line_counts_differ(paths[0], len(columns[0]), path, len(column))
    return columns


def line_counts_differ(first: Path, lines: int, second: Path, other_lines: int) -> MTError:
    """Say that two files which should translate each other do not."""
    return MTError(
        f"{first} has {lines:,} lines but {second} has {other_lines:,}; "
        "line N of one must translate line N of the other"
    )


def duration(seconds: float) -> str:
    """Write a duration as a person says it: `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
