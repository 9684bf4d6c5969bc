"""A bundle's files, whatever its task: written whole, checked when they are read.

Every bundle has `config.json` (format version, task, architecture, and the SHA-256 of every other
file), `model.safetensors` (the weights, float32) and `README.md` (the model card). All of it is
data: reading a bundle never runs code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from mt.errors import MTError
from mt.tokenizer import Tokenizer

VERSION = 1
"""Version of the format; a reader refuses any other."""
_FORMAT = "mt-bundle"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
TOKENIZER = "tokenizer.model"
COMMANDS = {
    "translation": "mt translate",
    "language-model": "mt generate",
    "forecasting": "mt forecast",
    "classification": "mt classify",
}
"""What a bundle is for, by its task."""


def write_files(
    folder: Path, config: Mapping[str, Any], model: nn.Module, card: str, more: dict[str, bytes]
) -> None:
    """Write a bundle; an older one in its place is replaced as a whole.

    Args:
        folder: The bundle.
        config: Its task, and what else `config.json` says beside format and hashes.
        model: Its weights are kept.
        card: The model card, Markdown.
        more: Other files.

    Raises:
        MTError: The folder cannot be written; an older bundle stays as it was.
    """
    weights = {
        name: parameter.detach().float().cpu().contiguous()
        for name, parameter in model.named_parameters()
    }
    files = {WEIGHTS: save(weights), CARD: card.encode(), **more}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    whole = {"format": _FORMAT, "version": VERSION, **config, "sha256": digests}
    _replace_folder(folder, {**files, CONFIG: _config_json(whole)})


def add_files(folder: Path, more: dict[str, bytes]) -> None:
    """Put files into a bundle, in place of older ones of their names.

    Raises:
        MTError: The bundle is damaged, or the folder cannot be written; it stays as it was.
    """
    config = read_config(folder)
    digests = config["sha256"] = {
        **{name: digest for name, digest in config["sha256"].items() if name not in more},
        **{name: hashlib.sha256(data).hexdigest() for name, data in more.items()},
    }
    kept = {
        name: read_checked(folder / name, digest)
        for name, digest in digests.items()
        if name not in more
    }
    _replace_folder(folder, {**kept, **more, CONFIG: _config_json(config)})


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


def _config_json(config: dict[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def read_config(
    folder: Path, task: str | None = None, needed: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """Read `config.json`.

    Args:
        folder: The bundle.
        task: The one that the bundle must be of; None for any.
        needed: What the configuration must say, and its types.

    Raises:
        MTError: It is missing, damaged, of another version or task.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise MTError(f"{folder}: no such bundle; give the folder that holds {CONFIG}")
    if not path.exists() and (folder / "bundle" / CONFIG).exists():
        raise MTError(f"{folder}: a run's folder; give the bundle in it, {folder / 'bundle'}")
    try:
        config = json.loads(read(path))
    except ValueError as error:
        raise MTError(f"{path}: not valid JSON ({error}); copy the bundle again") from error
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        raise MTError(f"{path}: this is not the configuration of a bundle")
    if config.get("version") != VERSION:
        raise MTError(
            f"{path}: format version {config.get('version')} is not the version {VERSION} that "
            "this mt reads; use the mt that wrote it, or train again"
        )
    its = config.get("task", "translation")
    if task is not None and its != task:
        use = COMMANDS.get(its, "the mt that wrote it")
        raise MTError(f"{folder}: the bundle is of task {its}, not {task}; use {use}")
    needed = {"architecture": dict, "sha256": dict, **(needed or {})}
    for key, kind in needed.items():
        if not isinstance(config.get(key), kind):
            raise MTError(f"{path}: `{key}` is missing or of the wrong type; copy the bundle again")
    return config


def read(path: Path) -> bytes:
    """Read a file whole; raises `MTError` where that cannot be."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise MTError(f"{path}: cannot read ({error.strerror}); copy the bundle again") from error


def read_checked(path: Path, digest: str | None) -> bytes:
    """Read a file and compare its SHA-256; raises `MTError` where it differs."""
    content = read(path)
    if hashlib.sha256(content).hexdigest() != digest:
        raise MTError(
            f"{path}: the content is not what {CONFIG} says (SHA-256 differs); "
            "the file is damaged or was exchanged: copy the bundle again"
        )
    return content


def read_card(folder: Path) -> str:
    """Read the model card; empty where there is none."""
    path = folder / CARD
    return read(path).decode(errors="replace") if path.exists() else ""


def read_tokenizer(content: bytes, path: Path) -> Tokenizer:
    """Make the tokenizer that a file holds; raises `MTError` where it holds none."""
    try:
        return Tokenizer(content)
    except MTError as error:
        raise MTError(f"{path}: {error}") from error


def read_only_tokenizer(config: dict[str, Any], folder: Path) -> Tokenizer:
    """Read the tokenizer of a bundle that has one, whose size `config.json` calls `vocabulary`."""
    path = folder / TOKENIZER
    tokenizer = read_tokenizer(read_checked(path, config["sha256"].get(TOKENIZER)), path)
    if config["vocabulary"] != len(tokenizer):
        raise MTError(f"{folder / CONFIG}: the vocabulary size is not that of the tokenizer")
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a bundle's language, of a translator that of its target side.

    Raises:
        MTError: The bundle is damaged, or has no tokenizer.
    """
    digests = read_config(folder)["sha256"]
    for name in ("target.model", TOKENIZER):
        if name in digests:
            path = folder / name
            return read_tokenizer(read_checked(path, digests[name]), path)
    raise MTError(f"{folder}: the bundle has no tokenizer")


def read_tensors(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    """Make the tensors that a file holds; raises `MTError` where it is damaged."""
    try:
        return load(data)
    except (SafetensorError, ValueError) as error:
        raise MTError(f"{path}: not a safetensors file ({error}); copy the bundle again") from error


_Options = TypeVar("_Options")
_Network = TypeVar("_Network", bound=nn.Module)


def read_options(kind: type[_Options], values: dict[str, Any], folder: Path) -> _Options:
    """Make a dataclass of what `config.json` says; raises `MTError` where it says it wrongly."""
    path = folder / CONFIG
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


def read_network(
    kind: type[_Options],
    make: Callable[[_Options], _Network],
    config: dict[str, Any],
    folder: Path,
) -> _Network:
    """Make the network that a bundle holds, in evaluation mode on the CPU.

    Args:
        kind: What its `architecture` is.
        make: Makes the network of it, its weights still to be filled in.
        config: What `config.json` says.
        folder: The bundle.

    Raises:
        MTError: It makes no sense, or the weights are damaged or do not fit.
    """
    weights = read_checked(folder / WEIGHTS, config["sha256"].get(WEIGHTS))
    architecture = read_options(kind, config["architecture"], folder)
    try:
        model = make(architecture)
    except (ValueError, TypeError, RuntimeError) as error:  # the last for sizes beyond all memory
        raise MTError(f"{folder / CONFIG}: {' '.join(str(error).split())}") from error
    fill(model, weights, folder / WEIGHTS)
    return model.eval()


def fill(model: nn.Module, data: bytes, path: Path) -> None:
    """Put stored weights into a model; raises `MTError` where they do not fit."""
    weights = read_tensors(data, path)
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name in dict.fromkeys([*expected, *weights]):
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
