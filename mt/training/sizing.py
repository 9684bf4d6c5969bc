"""Sizes that fit a corpus: the fields that a recipe leaves to `auto`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any, NamedTuple

from mt.errors import MTError
from mt.recipe import TranslationRecipe


class Size(NamedTuple):
    """What suits corpora of up to so many training pairs."""

    pairs: float
    vocab_size: int
    embedding_size: int
    hidden_size: int
    layers: int
    dropout: float
    subword_sampling: float
    max_epochs: int


SIZES = (
    Size(3_000, 1_000, 128, 256, 1, 0.5, 0.1, 120),
    Size(8_000, 2_000, 192, 320, 1, 0.5, 0.1, 80),
    Size(20_000, 3_000, 256, 384, 1, 0.45, 0.1, 50),
    Size(60_000, 4_000, 256, 384, 1, 0.4, 0, 30),
    Size(200_000, 8_000, 256, 512, 1, 0.3, 0, 14),
    Size(600_000, 12_000, 320, 512, 2, 0.25, 0, 8),
    Size(2_000_000, 16_000, 384, 640, 2, 0.2, 0, 5),
    Size(float("inf"), 32_000, 512, 1024, 3, 0.1, 0, 3),
)
"""Smaller corpora want fewer parameters, more dropout and more passes; only where there are many
passes does it pay to see each word in several segmentations."""

_FIELDS: dict[str, Callable[[Size], Any]] = {
    "tokenizer.vocab_size": lambda size: size.vocab_size,
    "model.embedding_size": lambda size: size.embedding_size,
    "model.hidden_size": lambda size: size.hidden_size,
    "model.encoder_layers": lambda size: size.layers,
    "model.decoder_layers": lambda size: size.layers,
    "model.embedding_dropout": lambda size: round(size.dropout * 0.6, 2),
    "model.layer_dropout": lambda size: size.dropout,
    "model.output_dropout": lambda size: size.dropout,
    "batches.subword_sampling": lambda size: size.subword_sampling,
    "trainer.max_epochs": lambda size: size.max_epochs,
}


def choose_sizes(
    recipe: TranslationRecipe, pairs: int, texts: Callable[[], Iterable[str]]
) -> tuple[TranslationRecipe, list[str]]:
    """Fill in the fields that `recipe.auto` names.

    Args:
        recipe: The recipe.
        pairs: Training pairs after cleaning.
        texts: Gives the training text that the (joint or larger) vocabulary must spell.

    Returns:
        The recipe with these fields set, and a line about each choice and its reason.

    Raises:
        MTError: A name in `auto` is not a field that can be chosen.
    """
    size = next(size for size in SIZES if pairs <= size.pairs)
    reasons = []
    for name in recipe.auto:
        if name not in _FIELDS:
            known = ", ".join((*_FIELDS, "trainer.precision"))
            raise MTError(f"auto: cannot choose `{name}`; it can choose {known}")
        value = _FIELDS[name](size)
        reason = f"{pairs:,} training pairs"
        if name == "batches.subword_sampling" and not recipe.tokenizer.subwords:
            value, reason = 0, f"tokenizer.kind is {recipe.tokenizer.kind}"
        if name == "tokenizer.vocab_size":
            # Every common character needs a token before any subword gets one.
            alphabet = _alphabet(texts(), recipe.tokenizer.character_coverage)
            least = 500 + int(1.5 * alphabet)
            if least > value:
                value = -(-least // 100) * 100
                reason += f", {alphabet:,} different characters"
        recipe = _set(recipe, name, value)
        reasons.append(f"{name} = {value} ({reason})")
    return replace(recipe, auto=[]), reasons


def _alphabet(texts: Iterable[str], coverage: float) -> int:
    """Count the most frequent characters that make up a share `coverage` of the text."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    left, needed = sum(counts.values()) * coverage, 0
    for _, count in counts.most_common():
        if left <= 0:
            break
        left -= count
        needed += 1
    return needed


def _set(recipe: TranslationRecipe, name: str, value: Any) -> TranslationRecipe:
    section, field = name.split(".")
    if section == "trainer":
        return replace(recipe, trainer={**recipe.trainer, field: value})
    old = getattr(recipe, section)
    assert field in {f.name for f in fields(old)}
    sections: dict[str, Any] = {section: replace(old, **{field: value})}
    return replace(recipe, **sections)
