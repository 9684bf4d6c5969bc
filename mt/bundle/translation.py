"""A translator on disk: a folder of data files that cannot run code.

Beside what every bundle has (see `mt.bundle.files`):

- `tokenizer.model`, or `source.model` and `target.model`: SentencePiece;
- `shortlist.safetensors`: which target tokens each source token is likely to become, if this was
  learned;
- `encoder.onnx`, `decoder.onnx`: the network as graphs (see `mt.onnx`), once it has been exported.

`config.json` holds the languages, the vocabulary sizes and the default search options too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save

from mt.bundle.files import (
    CONFIG,
    TOKENIZER,
    read_card,
    read_checked,
    read_config,
    read_network,
    read_options,
    read_tensors,
    read_tokenizer,
    write_files,
)
from mt.errors import MTError
from mt.nn.architecture import Architecture
from mt.nn.seq2seq import Seq2Seq
from mt.search.options import SearchOptions
from mt.search.shortlist import Shortlist
from mt.tokenizer import Tokenizers

_SHORTLIST = "shortlist.safetensors"
_SOURCE, _TARGET = "source.model", "target.model"
_NEEDED = {
    "source_language": str,
    "target_language": str,
    "source_vocabulary": int,
    "target_vocabulary": int,
    "search": dict,
}


class Bundle(NamedTuple):
    """A trained translator's parts."""

    model: Seq2Seq
    """The network, in evaluation mode on the CPU."""
    tokenizers: Tokenizers
    """Text to ids and back."""
    languages: tuple[str, str]
    """Source and target language code."""
    search: SearchOptions
    """Default decoding options."""
    card: str = ""
    """The model card, Markdown."""
    shortlist: Shortlist | None = None
    """What each source token is likely to become, where that was learned."""


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle; an older one in its place is replaced as a whole.

    Raises:
        MTError: The folder cannot be written; an older bundle stays as it was.
    """
    files = {}
    if bundle.shortlist is not None:
        tensors = {name: part.int() for name, part in bundle.shortlist._asdict().items()}
        files[_SHORTLIST] = save(tensors)
    source, target = bundle.tokenizers
    if source is target:
        files[TOKENIZER] = source.model
    else:
        files |= {_SOURCE: source.model, _TARGET: target.model}
    config = {
        "task": "translation",
        "source_language": bundle.languages[0],
        "target_language": bundle.languages[1],
        "source_vocabulary": len(source),
        "target_vocabulary": len(target),
        "architecture": asdict(bundle.model.architecture),
        "search": asdict(bundle.search),
    }
    write_files(folder, config, bundle.model, bundle.card, files)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check that it is whole. No code in it is ever run.

    Raises:
        MTError: A file is missing, damaged, altered or of another version; the message names it.
    """
    config = read_config(folder, "translation", _NEEDED)
    digests = config["sha256"]
    joint = TOKENIZER in digests
    names = [TOKENIZER] if joint else [_SOURCE, _TARGET]
    names += [_SHORTLIST] if _SHORTLIST in digests else []
    contents = {name: read_checked(folder / name, digests.get(name)) for name in names}
    source, target = (TOKENIZER, TOKENIZER) if joint else (_SOURCE, _TARGET)
    models = {name: read_tokenizer(contents[name], folder / name) for name in {source, target}}
    tokenizers = Tokenizers(models[source], models[target])
    vocabulary = config["source_vocabulary"], config["target_vocabulary"]
    if vocabulary != (len(tokenizers.source), len(tokenizers.target)):
        raise MTError(f"{folder / CONFIG}: the vocabulary sizes are not those of the tokenizer")
    model = read_network(
        Architecture,
        lambda its: Seq2Seq(its, *vocabulary, initialize=False),
        config,
        folder,
    )
    return Bundle(
        model,
        tokenizers,
        (config["source_language"], config["target_language"]),
        read_options(SearchOptions, config["search"], folder),
        read_card(folder),
        _shortlist(contents[_SHORTLIST], vocabulary, folder) if _SHORTLIST in contents else None,
    )


def load_graphs(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Read a network's graphs from its bundle, by file name.

    Raises:
        MTError: The bundle has not got them, or one is damaged.
    """
    digests = read_config(folder, "translation")["sha256"]
    if not digests.keys() >= set(names):
        raise MTError(f"{folder}: holds no ONNX graphs; run `mt export {folder}` first")
    return {name: read_checked(folder / name, digests[name]) for name in names}


def _shortlist(content: bytes, vocabulary: tuple[int, int], folder: Path) -> Shortlist:
    path = folder / _SHORTLIST
    parts = read_tensors(content, path)
    fault = None
    if parts.keys() != set(Shortlist._fields):
        fault = "has other tensors than a shortlist's"
    elif (parts["likely"].dim(), parts["frequent"].dim()) != (2, 1):
        fault = "has tensors of the wrong shape"
    elif len(parts["likely"]) != vocabulary[0]:
        fault = "is not as long as the vocabulary"
    elif any(part.is_floating_point() or _outside(part, vocabulary[1]) for part in parts.values()):
        fault = "names tokens that are not in the vocabulary"
    if fault:
        raise MTError(f"{path}: {fault}; copy the bundle again")
    return Shortlist(**{name: part.long() for name, part in parts.items()})


def _outside(tokens: torch.Tensor, vocabulary: int) -> bool:
    return tokens.numel() > 0 and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary
