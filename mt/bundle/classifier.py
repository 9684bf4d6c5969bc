"""A text classifier on disk: a folder of data files that cannot run code.

Beside what every bundle has (see `mt.bundle.files`) there is `tokenizer.model`, SentencePiece;
`config.json` holds the names of the classes, the vocabulary size, and how many tokens of a text
are read.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from mt.bundle.files import (
    CONFIG,
    TOKENIZER,
    read_card,
    read_config,
    read_network,
    read_only_tokenizer,
    write_files,
)
from mt.errors import MTError
from mt.nn.architecture import ClassifierArchitecture
from mt.nn.classifier import ClassifierNetwork
from mt.tokenizer import Tokenizer

_NEEDED = {"classes": list, "vocabulary": int, "max_length": int}


class ClassifierBundle(NamedTuple):
    """A trained text classifier's parts."""

    model: ClassifierNetwork
    """The network, in evaluation mode on the CPU."""
    tokenizer: Tokenizer
    """Text to ids."""
    classes: tuple[str, ...]
    """Their names, in the order of the network's outputs."""
    max_length: int
    """Tokens of a text that are read, from its beginning."""
    card: str = ""
    """The model card, Markdown."""


def save_classifier(bundle: ClassifierBundle, folder: Path) -> None:
    """Write a bundle; an older one in its place is replaced as a whole.

    Raises:
        MTError: The folder cannot be written; an older bundle stays as it was.
    """
    config = {
        "task": "classification",
        "classes": list(bundle.classes),
        "vocabulary": len(bundle.tokenizer),
        "max_length": bundle.max_length,
        "architecture": asdict(bundle.model.architecture),
    }
    files = {TOKENIZER: bundle.tokenizer.model}
    write_files(folder, config, bundle.model, bundle.card, files)


def load_classifier(folder: Path) -> ClassifierBundle:
    """Read a bundle and check that it is whole. No code in it is ever run.

    Raises:
        MTError: A file is missing, damaged, altered or of another version, or the bundle is of
            another task; the message names it.
    """
    config = read_config(folder, "classification", _NEEDED)
    classes = config["classes"]
    if not _are_names(classes):
        raise MTError(
            f"{folder / CONFIG}: `classes` must be two or more different names of one line each; "
            "copy the bundle again"
        )
    if config["max_length"] < 1:
        raise MTError(f"{folder / CONFIG}: `max_length` must be at least 1; copy the bundle again")
    tokenizer = read_only_tokenizer(config, folder)
    model = read_network(
        ClassifierArchitecture,
        lambda its: ClassifierNetwork(its, len(tokenizer), len(classes), initialize=False),
        config,
        folder,
    )
    return ClassifierBundle(
        model, tokenizer, tuple(classes), config["max_length"], read_card(folder)
    )


def _are_names(classes: list[object]) -> bool:
    """Tell whether these can be printed in a column, and told apart."""
    names = [name for name in classes if isinstance(name, str)]
    good = all(name and name == " ".join(name.split()) for name in names)
    return good and len(classes) == len(set(names)) >= 2
