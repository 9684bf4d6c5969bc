"""Raw lines in and out.

A line ends at LF, and a CR before it belongs to the end; nothing else (U+2028, U+0085, a lone CR)
ends one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mt.errors import MTError

_log = logging.getLogger("mt")


def read_lines(path: Path) -> list[str]:
    """Read a file of sentences.

    Raises:
        MTError: The file cannot be read, or a line, which is named, is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            return [
                _decode(line, f"{path}, line {number}", strict=True)
                for number, line in enumerate(file, start=1)
            ]
    except OSError as error:
        raise MTError(f"{path}: cannot read ({error.strerror})") from error


def stream_lines(file: BinaryIO, name: str) -> Iterator[str]:
    """Read lines as they come; a byte that is not UTF-8 becomes U+FFFD, with a warning."""
    for number, line in enumerate(file, start=1):
        yield _decode(line, f"{name}, line {number}", strict=False)


def _decode(line: bytes, where: str, strict: bool) -> str:
    if line.endswith(b"\n"):
        line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        if strict:
            raise MTError(
                f"{where}: not UTF-8; convert the file, with iconv for example"
            ) from error
        _log.warning("%s: not UTF-8; U+FFFD stands for the bytes that cannot be read", where)
        text = line.decode(errors="replace")
    return text.removeprefix("\ufeff")


def check_same_count(counts: Iterable[tuple[Path, int]]) -> None:
    """Check that files which translate each other have as many lines as the first.

    Raises:
        MTError: Two of them differ; both are named with their counts.
    """
    (first, expected), *others = counts
    for path, count in others:
        if count != expected:
            raise MTError(
                f"{first} has {expected:,} lines but {path} has {count:,}; "
                "line N of one must translate line N of the other"
            )
