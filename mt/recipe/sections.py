"""The sections that recipes of several tasks have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, cast

from mt.errors import MTError


def check(section: str, options: object, **limits: tuple[float, float]) -> None:
    """Raise `MTError`, naming the field, where a value lies outside its limits, both included."""
    for name, (least, most) in limits.items():
        value = getattr(options, name)
        if not (least <= value <= most and math.isfinite(value)):
            limit = f"from {least} to {most}" if math.isfinite(most) else f"at least {least}"
            raise MTError(f"{section}{name}: must be {limit}, not {value}")


ANY = math.inf
"""No upper limit."""


def check_folds(folds: int, fold: int) -> None:
    """Refuse parts of a cross-validation that there are not; raises `MTError`."""
    if folds < 0 or folds == 1:
        raise MTError(f"corpus.folds: must be at least 2, or 0 for none, not {folds}")
    if not 1 <= fold <= max(1, folds):
        raise MTError(f"corpus.fold: must be from 1 to corpus.folds, {folds}, not {fold}")


@dataclass(frozen=True)
class HubSource:
    """A dataset on the Hugging Face Hub."""

    hub: str | None = None
    """Dataset on the Hugging Face Hub, such as `bentrevett/multi30k`."""
    config: str | None = None
    """Configuration of the hub dataset, such as `de-en`."""
    revision: str | None = None
    """Branch, tag or commit of the hub dataset; a commit makes a recipe repeatable."""
    splits: dict[str, str] = field(
        default_factory=lambda: {"train": "train", "valid": "validation", "test": "test"}
    )
    """Our split (`train`, `valid`, `test` or `test...`) to the hub's; a validation or test split
    that no source names is cut from the training text."""


@dataclass(frozen=True)
class TokenizerSpec:
    """How text becomes subword tokens: a SentencePiece model (arXiv:1808.06226)."""

    kind: Literal["bpe", "unigram", "char", "byte"] = "bpe"
    """Subword model: byte-pair encoding (arXiv:1508.07909) or unigram (arXiv:1804.10959); or no
    subwords: `char` takes every character for a token, `byte` every byte of UTF-8, a space apart;
    both keep all spaces."""
    vocab_size: int = 4000
    """Tokens of the vocabulary (of each, when they are separate); at most, for `char`; `byte`
    always has 261."""
    joint: bool = True
    """One vocabulary for both languages; otherwise one for each."""
    byte_fallback: bool = True
    """Spell characters outside the vocabulary as UTF-8 bytes, so that nothing is unknown."""
    character_coverage: float = 0.9995
    """Share of the text's characters that get a token of their own."""
    normalization: Literal["nfkc", "identity"] = "nfkc"
    """Unicode normalisation inside the tokenizer."""
    user_symbols: list[str] = field(default_factory=list)
    """Strings that always stay one token."""
    placeholders: bool = True
    """Copy placeholders such as `{name}`, `%s` and `%1` from source to translation: each is one
    symbol to the network and put back afterwards."""
    max_sentences: int = 2_000_000
    """Sentences to train on, drawn with `seed` from larger corpora."""
    seed: int = 1
    """Seed of the draw."""

    @property
    def subwords(self) -> bool:
        """Whether text can be segmented in several ways."""
        return self.kind in ("bpe", "unigram")

    def __post_init__(self) -> None:
        check(
            "tokenizer.",
            self,
            vocab_size=(1, ANY),
            character_coverage=(0, 1),
            max_sentences=(1, ANY),
            seed=(0, 2**32 - 1),
        )


@dataclass(frozen=True)
class Batching:
    """How sentences are packed into batches."""

    tokens: int = 1200
    """Budget of a batch on each device: rows times the longest of all sources and targets,
    padding included, by the best segmentation (`subword_sampling` lengthens sentences)."""
    max_length: int = 256
    """Training pairs with a longer side, in tokens of the best segmentation, are left out."""
    subword_sampling: float = 0.0
    """BPE-dropout probability (arXiv:1910.13267), or the inverse temperature of unigram sampling
    (arXiv:1804.10959), on both sides, anew in every epoch; 0 always takes the best segmentation."""
    workers: int = 0
    """Processes that prepare batches ahead; 0 prepares them in the training process."""

    def __post_init__(self) -> None:
        check(
            "batches.",
            self,
            tokens=(1, ANY),
            max_length=(1, ANY),
            subword_sampling=(0, 1),
            workers=(0, ANY),
        )


@dataclass(frozen=True)
class Optimization:
    """Optimizer, schedule and stopping. Budgets are Lightning's `trainer` options."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Update rule."""
    learning_rate: float = 3e-3
    """Highest learning rate of the schedule."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates of Adam's two moments."""
    epsilon: float = 1e-8
    """Adam's denominator offset."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """Weight decay: decoupled in AdamW, an L2 penalty elsewhere."""
    schedule: Literal["constant", "linear", "cosine", "inverse-sqrt", "plateau"] = "linear"
    """Learning rate after the warm-up. `linear` and `cosine` (arXiv:1608.03983) reach zero at the
    end of the budget: the nearest of `trainer.max_steps`, `trainer.max_epochs` and
    `trainer.max_time`; `inverse-sqrt` falls with the root of the updates (arXiv:1706.03762),
    `plateau` by steps."""
    warmup_steps: int = 200
    """Updates over which the learning rate rises linearly from zero."""
    plateau_factor: float = 0.5
    """`plateau`: multiply the learning rate by this when the validation's score stalls."""
    plateau_patience: int = 2
    """`plateau`: validations without a better score that are borne first."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights that is validated and kept
    (per update, e.g. 0.999; Polyak & Juditsky 1992 average evenly); 0 validates and keeps the
    weights themselves."""
    average_validations: int = 1
    """Validate and keep the mean of the weights at the last so many validations, in place of a
    moving average (Vaswani et al., arXiv:1706.03762, section 6.1); 1 takes the weights as they
    are."""
    patience: int = 0
    """Stop after this many validations in a row without a better score; 0 never stops early."""
    freeze: list[str] = field(default_factory=list)
    """Parameters that training leaves as they are, by patterns of their names: `encoder.stack.*`;
    what is tied to one stays too."""
    max_skipped: int = 20
    """Updates with a NaN or infinite gradient that are skipped in a row before training stops."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints for `--resume`; one is also written at each validation."""

    def __post_init__(self) -> None:
        check(
            "training.",
            self,
            learning_rate=(0, ANY),
            epsilon=(0, ANY),
            momentum=(0, 1),
            weight_decay=(0, ANY),
            warmup_steps=(0, ANY),
            plateau_factor=(0, 1),
            plateau_patience=(0, ANY),
            ema=(0, 0.999999),
            average_validations=(1, ANY),
            patience=(0, ANY),
            max_skipped=(0, ANY),
            checkpoint_minutes=(0, ANY),
        )
        if self.ema and self.average_validations > 1:
            raise MTError(
                "training.average_validations and training.ema both average the weights; set "
                "training.ema: 0 or training.average_validations: 1"
            )
        if self.learning_rate == 0:
            raise MTError("training.learning_rate: must be above 0")
        if self.schedule == "plateau" and 0 < self.patience <= self.plateau_patience + 1:
            raise MTError(
                f"training.patience: {self.patience} stops the run before "
                f"training.plateau_patience: {self.plateau_patience} lowers the learning rate; "
                "choose a greater patience, or 0"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise MTError(f"training.betas: must be from 0 to below 1, not {self.betas}")


@dataclass(frozen=True)
class Recipe:
    """What the recipes of all tasks have in common."""

    task: str = ""
    """What the network learns to do."""
    training: Optimization = field(default_factory=Optimization)
    """Optimizer, schedule and stopping."""
    seed: int = 1
    """Seed of the initial weights, dropout, batch order and subword sampling."""
    auto: list[str] = field(default_factory=list)
    """Dotted names of fields to choose (see docs/recipes.md); one that is set on the command line
    keeps that value."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Options of Lightning's Trainer, under its own names."""

    def __post_init__(self) -> None:
        check("", self, seed=(0, 2**32 - 1))


_PATHS = {"bundle", "files", "init_from", "language_identifier", "teachers", "tokenizer_from"}
"""Options of any section that are paths, or lists of paths."""
_Options = TypeVar("_Options")


def map_paths(options: _Options, change: Callable[[str], str]) -> _Options:
    """Return a recipe, or what its YAML holds, with every path in it changed."""
    return cast("_Options", _map_paths(options, change, False))


def _map_paths(value: Any, change: Callable[[str], str], path: bool) -> Any:
    if isinstance(value, str):
        return change(value) if path else value
    if isinstance(value, list):
        return [_map_paths(item, change, path) for item in value]
    if isinstance(value, dict):
        return {name: _map_paths(item, change, name in _PATHS) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: getattr(value, f.name) for f in fields(value)}
        return replace(value, **_map_paths(own, change, False))
    return value
