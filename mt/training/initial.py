"""Fine-tuning: a run that starts from the weights of a bundle, with some of them frozen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from mt.bundle import Bundle, load_bundle
from mt.errors import MTError
from mt.nn.seq2seq import Seq2Seq
from mt.recipe import TranslationRecipe
from mt.tokenizer import Tokenizer, Tokenizers

_log = logging.getLogger(__name__)


def open_initial(recipe: TranslationRecipe) -> tuple[TranslationRecipe, Bundle | None, list[str]]:
    """Load the bundle that a run starts from, and take from it what is chosen automatically.

    Args:
        recipe: Its `auto` may name options of the network and the tokenizer.

    Returns:
        The recipe, the bundle (None where the recipe names none), and a line about each choice.

    Raises:
        MTError: The bundle cannot be read, or is another network than the recipe's.
    """
    if recipe.init_from is None:
        return recipe, None, []
    bundle = load_bundle(Path(recipe.init_from))
    theirs, reasons, left = bundle.model.architecture, [], []
    for name in recipe.auto:
        section, _, field = name.partition(".")
        if section == "tokenizer" and not recipe.new_tokenizer:
            continue
        if section != "model" or _may_differ(field):
            left.append(name)
            continue
        value = getattr(theirs, field)
        recipe = replace(recipe, model=replace(recipe.model, **{field: value}))
        reasons.append(f"{name} = {value} (as in {recipe.init_from})")
    recipe = replace(recipe, auto=left)
    clashes = [
        f"--model.{field.name} {getattr(theirs, field.name)}"
        for field in fields(theirs)
        if not _may_differ(field.name)
        and (field.name != "attention_heads" or theirs.attention.startswith("multi-head"))
        and getattr(theirs, field.name) != getattr(recipe.model, field.name)
    ]
    if clashes:
        raise MTError(
            f"{recipe.init_from} is another network than the recipe's; add {' '.join(clashes)}"
        )
    return recipe, bundle, reasons


def _may_differ(option: str) -> bool:
    """Tell whether an option of the network leaves its weights as they are."""
    return option.endswith("_dropout")


def copy_weights(model: Seq2Seq, tokenizers: Tokenizers, bundle: Bundle) -> str:
    """Give a network the weights of a bundle, those of tokens by their pieces.

    A token that the bundle does not know keeps its first weights.

    Args:
        model: Of the same architecture.
        tokenizers: Of the new network.
        bundle: Where the weights come from.

    Returns:
        How much of the vocabularies was known, in words.
    """
    known = [_known(*pair) for pair in zip(tokenizers, bundle.tokenizers, strict=True)]
    theirs = dict(bundle.model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if name.startswith("encoder.embedding."):
                _copy_rows(parameter, theirs[name], known[0])
            elif name.startswith(("decoder.embedding.", "decoder.output.")):
                _copy_rows(parameter, theirs[name], known[1])
            else:
                parameter.copy_(theirs[name])
    shares = (
        f"{len(rows):,} of {len(tokenizer):,} tokens"
        for rows, tokenizer in zip(known, tokenizers, strict=True)
    )
    return " + ".join(dict.fromkeys(shares))


def _known(new: Tokenizer, old: Tokenizer) -> list[tuple[int, int]]:
    """Pair the ids of the pieces that both vocabularies have: (new, old)."""
    places = {piece: number for number, piece in enumerate(old.pieces(range(len(old))))}
    pieces = enumerate(new.pieces(range(len(new))))
    return [(number, places[piece]) for number, piece in pieces if piece in places]


def _copy_rows(to: Tensor, source: Tensor, rows: Sequence[tuple[int, int]]) -> None:
    new, old = zip(*rows, strict=True)
    to[list(new)] = source[list(old)]


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Keep parameters as they are in training, and say which.

    Args:
        model: The network.
        patterns: Of their names, such as `encoder.*`.

    Raises:
        MTError: A pattern matches nothing, or nothing is left to train.
    """
    names = dict(model.named_parameters(remove_duplicate=False))
    named = set()
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            rooms = sorted({".".join(name.split(".")[:2]) for name in names})
            raise MTError(
                f"training.freeze: no parameter is called {pattern}; their names begin with "
                f"{', '.join(rooms)}"
            )
        for name in matching:
            names[name].requires_grad_(False)
        named.update(matching)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise MTError("training.freeze: nothing is left to train; freeze less")
    if frozen := [name for name, parameter in names.items() if not parameter.requires_grad]:
        tied = ", ".join(name for name in frozen if name not in named)
        more = f", and {tied}, tied to one of them" if tied else ""
        _log.info("frozen     %s%s", ", ".join(patterns), more)
