"""A language model on disk: a folder of data files that cannot run code.

Beside what every bundle has (see `mt.bundle.files`) there is `tokenizer.model`, SentencePiece;
`config.json` holds the language, the vocabulary size, and whether lines follow upon each other.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from mt.bundle.files import (
    CONFIG,
    WEIGHTS,
    fill,
    read_card,
    read_checked,
    read_config,
    read_options,
    read_tokenizer,
    write_files,
)
from mt.errors import MTError
from mt.nn.architecture import LanguageModelArchitecture
from mt.nn.language_model import LanguageNetwork
from mt.tokenizer import Tokenizer

_TOKENIZER = "tokenizer.model"
_NEEDED = {"language": str, "vocabulary": int, "running": bool}


class LanguageModelBundle(NamedTuple):
    """A trained language model's parts."""

    model: LanguageNetwork
    """The network, in evaluation mode on the CPU."""
    tokenizer: Tokenizer
    """Text to ids and back."""
    language: str
    """Its code."""
    running: bool
    """Lines follow upon each other; otherwise each stands by itself."""
    card: str = ""
    """The model card, Markdown."""


def save_language_model(bundle: LanguageModelBundle, folder: Path) -> None:
    """Write a bundle; an older one in its place is replaced as a whole.

    Raises:
        MTError: The folder cannot be written; an older bundle stays as it was.
    """
    config = {
        "task": "language-model",
        "language": bundle.language,
        "vocabulary": len(bundle.tokenizer),
        "running": bundle.running,
        "architecture": asdict(bundle.model.architecture),
    }
    files = {_TOKENIZER: bundle.tokenizer.model}
    write_files(folder, config, bundle.model, bundle.card, files)


def load_language_model(folder: Path) -> LanguageModelBundle:
    """Read a bundle and check that it is whole. No code in it is ever run.

    Raises:
        MTError: A file is missing, damaged, altered or of another version, or the bundle is of
            another task; the message names it.
    """
    config = read_config(folder, "language-model", _NEEDED)
    contents = {
        name: read_checked(folder / name, config["sha256"].get(name))
        for name in (WEIGHTS, _TOKENIZER)
    }
    tokenizer = read_tokenizer(contents[_TOKENIZER], folder / _TOKENIZER)
    if config["vocabulary"] != len(tokenizer):
        raise MTError(f"{folder / CONFIG}: the vocabulary size is not that of the tokenizer")
    architecture = read_options(LanguageModelArchitecture, config["architecture"], folder)
    try:
        model = LanguageNetwork(architecture, len(tokenizer), initialize=False)
    except (ValueError, TypeError, RuntimeError) as error:  # the last for sizes beyond all memory
        raise MTError(f"{folder / CONFIG}: {' '.join(str(error).split())}") from error
    fill(model, contents[WEIGHTS], folder / WEIGHTS)
    return LanguageModelBundle(
        model.eval(), tokenizer, config["language"], config["running"], read_card(folder)
    )
