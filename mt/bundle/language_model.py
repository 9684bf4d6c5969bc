"""A language model on disk: a folder of data files that cannot run code.

Beside what every bundle has (see `mt.bundle.files`) there is `tokenizer.model`, SentencePiece;
`config.json` holds the language, the vocabulary size, and whether lines follow upon each other.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from mt.bundle.files import (
    TOKENIZER,
    read_card,
    read_config,
    read_network,
    read_only_tokenizer,
    write_files,
)
from mt.nn.architecture import LanguageModelArchitecture
from mt.nn.language_model import LanguageNetwork
from mt.tokenizer import Tokenizer

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
    files = {TOKENIZER: bundle.tokenizer.model}
    write_files(folder, config, bundle.model, bundle.card, files)


def load_language_model(folder: Path) -> LanguageModelBundle:
    """Read a bundle and check that it is whole. No code in it is ever run.

    Raises:
        MTError: A file is missing, damaged, altered or of another version, or the bundle is of
            another task; the message names it.
    """
    config = read_config(folder, "language-model", _NEEDED)
    tokenizer = read_only_tokenizer(config, folder)
    model = read_network(
        LanguageModelArchitecture,
        lambda its: LanguageNetwork(its, len(tokenizer), initialize=False),
        config,
        folder,
    )
    return LanguageModelBundle(
        model, tokenizer, config["language"], config["running"], read_card(folder)
    )
