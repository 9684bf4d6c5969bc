"""Files that are whole or absent, and the folder for what can be made again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mt.errors import MTError


def cache_folder(name: str) -> Path:
    """Make and return a folder for what can be made again: `$MT_CACHE`, else `~/.cache/mt`."""
    root = os.environ.get("MT_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "mt"
    )
    folder = Path(root).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MTError(
            f"{folder}: cannot make the cache folder ({error.strerror}); "
            "set MT_CACHE to a folder you can write"
        ) from error
    return folder


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write, so that no reader, and no power cut, ever sees a part of it.

    A link is followed; a pipe or a device is no file and is written as it comes.

    Raises:
        MTError: The disk is full or the folder cannot be written; an older file stays as it was.
    """
    target = os.path.realpath(path)
    temporary = ""
    try:
        if path.is_dir():
            raise MTError(f"{path}: a folder; name a file to write")
        if path.exists() and not path.is_file():
            with open(path, "wb") as file:
                yield file
            return
        handle, temporary = tempfile.mkstemp(
            dir=os.path.dirname(target), prefix=f".{os.path.basename(target)}."
        )
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise MTError(f"{path}: cannot write ({error.strerror})") from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a whole file, see `open_atomically`; its folder is made.

    Raises:
        MTError: As `open_atomically` does.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MTError(f"{path}: cannot write ({error.strerror})") from error
    with open_atomically(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def check_folder(path: Path, option: str) -> None:
    """Tell before the work, and not after it, that results cannot be written to a folder.

    Raises:
        MTError: It is a file, or it or the folder that it would be made in cannot be written.
    """
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise MTError(f"{existing}: not a folder; choose another {option}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise MTError(f"{existing}: cannot write there; choose another {option}")
