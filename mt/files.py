"""Files that are whole or absent, and the folder for what can be made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that no reader, and no power cut, ever sees a part of it.

    Raises:
        MTError: The disk is full or the folder cannot be written; an older file stays as it was.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise MTError(f"{path}: cannot write ({error.strerror})") from error
