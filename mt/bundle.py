"""The model on disk: a folder of data files that cannot run code.

- `model.safetensors`: the weights, float32;
- `config.json`: format version, languages, architecture, default search options, and the SHA-256 of
  every other file;
- `tokenizer.model`, or `source.model` and `target.model`: SentencePiece;
- `README.md`: the model card;
- `shortlist.safetensors`: which target tokens each source token is likely to become, if this was
  learned;
- `encoder.onnx`, `decoder.onnx`: the network as graphs (see `mt.onnx`), once it has been exported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from mt.errors import MTError
from mt.nn.architecture import Architecture
from mt.nn.seq2seq import Seq2Seq
from mt.search.options import SearchOptions
from mt.search.shortlist import Shortlist
from mt.tokenizer import Tokenizer, Tokenizers

VERSION = 1
"""Version of the format; a reader refuses any other."""
_FORMAT = "mt-bundle"
_WEIGHTS, _CONFIG, _CARD = "model.safetensors", "config.json", "README.md"
_SHORTLIST = "shortlist.safetensors"
_JOINT, _SOURCE, _TARGET = "tokenizer.model", "source.model", "target.model"


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
    files = {
        _WEIGHTS: save(
            {
                name: parameter.detach().float().cpu().contiguous()
                for name, parameter in bundle.model.named_parameters()
            }
        ),
        _CARD: bundle.card.encode(),
    }
    if bundle.shortlist is not None:
        tensors = {name: part.int() for name, part in bundle.shortlist._asdict().items()}
        files[_SHORTLIST] = save(tensors)
    source, target = bundle.tokenizers
    if source is target:
        files[_JOINT] = source.model
    else:
        files |= {_SOURCE: source.model, _TARGET: target.model}
    config = {
        "format": _FORMAT,
        "version": VERSION,
        "source_language": bundle.languages[0],
        "target_language": bundle.languages[1],
        "source_vocabulary": len(source),
        "target_vocabulary": len(target),
        "architecture": asdict(bundle.model.architecture),
        "search": asdict(bundle.search),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    files[_CONFIG] = _config_json(config)
    _replace_folder(folder, files)


def _replace_folder(folder: Path, files: dict[str, bytes]) -> None:
    scratch: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        new = scratch / "new"
        new.mkdir()
        for name, data in files.items():
            with open(new / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            folder.rename(scratch / "old")
        new.rename(folder)
    except OSError as error:
        raise MTError(f"{folder}: cannot write the bundle ({error.strerror})") from error
    finally:
        if scratch is not None:
            if (scratch / "old").exists() and not folder.exists():  # failed or interrupted
                (scratch / "old").rename(folder)
            # What cannot be removed is a hidden folder too many, not a reason to fail.
            shutil.rmtree(scratch, ignore_errors=True)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check that it is whole. No code in it is ever run.

    Raises:
        MTError: A file is missing, damaged, altered or of another version; the message names it.
    """
    config = _read_config(folder)
    digests = config["sha256"]
    joint = _JOINT in digests
    names = [_WEIGHTS, *([_JOINT] if joint else [_SOURCE, _TARGET])]
    names += [_SHORTLIST] if _SHORTLIST in digests else []
    contents = {name: _read_checked(folder / name, digests.get(name)) for name in names}
    source, target = (_JOINT, _JOINT) if joint else (_SOURCE, _TARGET)
    models = {name: _tokenizer(contents[name], folder / name) for name in {source, target}}
    tokenizers = Tokenizers(models[source], models[target])
    vocabulary = config["source_vocabulary"], config["target_vocabulary"]
    if vocabulary != (len(tokenizers.source), len(tokenizers.target)):
        raise MTError(f"{folder / _CONFIG}: the vocabulary sizes are not those of the tokenizer")
    architecture = _dataclass(Architecture, config["architecture"], folder)
    try:
        model = Seq2Seq(architecture, *vocabulary, initialize=False)
    except (ValueError, TypeError, RuntimeError) as error:  # the last for sizes beyond all memory
        raise MTError(f"{folder / _CONFIG}: {' '.join(str(error).split())}") from error
    _fill(model, contents[_WEIGHTS], folder / _WEIGHTS)
    return Bundle(
        model.eval(),
        tokenizers,
        (config["source_language"], config["target_language"]),
        _dataclass(SearchOptions, config["search"], folder),
        _read(folder / _CARD).decode(errors="replace") if (folder / _CARD).exists() else "",
        _shortlist(contents[_SHORTLIST], vocabulary, folder) if _SHORTLIST in contents else None,
    )


def add_graphs(folder: Path, graphs: dict[str, bytes]) -> None:
    """Put a network's graphs into its bundle, in place of older ones.

    Raises:
        MTError: The bundle is damaged, or the folder cannot be written; it stays as it was.
    """
    config = _read_config(folder)
    digests = config["sha256"] = {
        **{name: digest for name, digest in config["sha256"].items() if name not in graphs},
        **{name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()},
    }
    kept = {
        name: _read_checked(folder / name, digest)
        for name, digest in digests.items()
        if name not in graphs
    }
    _replace_folder(folder, {**kept, **graphs, _CONFIG: _config_json(config)})


def load_graphs(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Read a network's graphs from its bundle, by file name.

    Raises:
        MTError: The bundle has not got them, or one is damaged.
    """
    digests = _read_config(folder)["sha256"]
    if not digests.keys() >= set(names):
        raise MTError(f"{folder}: holds no ONNX graphs; run `mt export {folder}` first")
    return {name: _read_checked(folder / name, digests[name]) for name in names}


def _config_json(config: dict[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not folder.is_dir():
        raise MTError(f"{folder}: no such bundle; give the folder that holds {_CONFIG}")
    try:
        config = json.loads(_read(path))
    except ValueError as error:
        raise MTError(f"{path}: not valid JSON ({error}); copy the bundle again") from error
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        raise MTError(f"{path}: this is not the configuration of a bundle")
    if config.get("version") != VERSION:
        raise MTError(
            f"{path}: format version {config.get('version')} is not the version {VERSION} that "
            "this mt reads; use the mt that wrote it, or train again"
        )
    needed = {
        "source_language": str,
        "target_language": str,
        "source_vocabulary": int,
        "target_vocabulary": int,
        "architecture": dict,
        "search": dict,
        "sha256": dict,
    }
    for key, kind in needed.items():
        if not isinstance(config.get(key), kind):
            raise MTError(f"{path}: `{key}` is missing or of the wrong type; copy the bundle again")
    return config


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MTError(f"{path}: cannot read ({error.strerror}); copy the bundle again") from error


def _read_checked(path: Path, digest: str | None) -> bytes:
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != digest:
        raise MTError(
            f"{path}: the content is not what {_CONFIG} says (SHA-256 differs); "
            "the file is damaged or was exchanged: copy the bundle again"
        )
    return content


_Options = TypeVar("_Options", Architecture, SearchOptions)


def _tokenizer(content: bytes, path: Path) -> Tokenizer:
    try:
        return Tokenizer(content)
    except MTError as error:
        raise MTError(f"{path}: {error}") from error


def _shortlist(content: bytes, vocabulary: tuple[int, int], folder: Path) -> Shortlist:
    path = folder / _SHORTLIST
    parts = _tensors(content, path)
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


def _tensors(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    try:
        return load(data)
    except (SafetensorError, ValueError) as error:
        raise MTError(f"{path}: not a safetensors file ({error}); copy the bundle again") from error


def _dataclass(kind: type[_Options], values: dict[str, Any], folder: Path) -> _Options:
    path = folder / _CONFIG
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise MTError(f"{path}: unknown option `{name}`; use the mt that wrote it")
        if not _fits(value, hints[name]):
            raise MTError(f"{path}: `{name}` cannot be {value!r}; copy the bundle again")
    try:
        return kind(**values)
    except (MTError, ValueError) as error:
        raise MTError(f"{path}: {error}") from error


def _fits(value: object, hint: Any) -> bool:
    """Tell whether a value from JSON is of an option's type."""
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    return type(value) is hint or (hint is float and type(value) is int)


def _fill(model: Seq2Seq, data: bytes, path: Path) -> None:
    """Put stored weights into a model."""
    weights = _tensors(data, path)
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name in expected.keys() | weights.keys():
        if name not in weights or name not in expected:
            fault = "missing from" if name not in weights else "unexpected in"
            raise MTError(f"{path}: weight `{name}` is {fault} the file; copy the bundle again")
        if weights[name].shape != expected[name]:
            raise MTError(
                f"{path}: weight `{name}` has shape {tuple(weights[name].shape)}, "
                f"the architecture wants {tuple(expected[name])}; copy the bundle again"
            )
        if weights[name].dtype != torch.float32:
            raise MTError(
                f"{path}: weight `{name}` is {str(weights[name].dtype).removeprefix('torch.')}, "
                "not float32; copy the bundle again"
            )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tied = {  # tied weights are stored once, under their first name
        name: weights[names[id(parameter)]]
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    model.load_state_dict(tied)
