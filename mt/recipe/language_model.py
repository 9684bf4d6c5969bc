"""The recipe of a language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mt.errors import MTError
from mt.nn.architecture import LanguageModelArchitecture
from mt.recipe.sections import (
    ANY,
    HubSource,
    Optimization,
    Recipe,
    TokenizerSpec,
    check,
    check_folds,
)


@dataclass(frozen=True)
class TextSource(HubSource):
    """One place that text comes from. Exactly one of hub and files is set."""

    files: str | None = None
    """A folder of `train.L`, `valid.L` or `dev.L`, `test*.L` (L the language, or `txt`, `tsv`,
    `csv`, `jsonl`, `parquet`), or one such file; each also with `.gz`, `.xz` or `.zst`."""
    column: str | None = None
    """Column of the text in tables; by default the language code, `text`, or the language's entry
    in a `translation` column."""


@dataclass(frozen=True)
class TextCleaning:
    """Which training lines are dropped. Each rule can be turned off, as it says."""

    min_words: int = 1
    """Fewest words (two characters make one where a script writes no spaces)."""
    max_words: int = 150
    """Most words; 0 sets no limit."""
    control_characters: bool = True
    """Drop lines that hold control characters other than tab."""
    script: str | None = None
    """Unicode script, such as `Latin` or `Cyrillic`, that most letters must be in."""
    duplicates: bool = True
    """Keep only the first of identical lines."""
    held_out: Literal["off", "exact", "near"] = "near"
    """Drop lines that stand in validation or test: `exact`ly, or `near`ly: equal once lower-cased
    and stripped of digits, punctuation and placeholders, or with half of the word 4-grams, of
    either line, in common."""

    def __post_init__(self) -> None:
        check("corpus.cleaning.", self, min_words=(0, ANY), max_words=(0, ANY))


@dataclass(frozen=True)
class TextCorpus:
    """Text in one language."""

    language: str = "en"
    """Language code."""
    sources: list[TextSource] = field(default_factory=list)
    """Where the text comes from, one after the other."""
    files: str | None = None
    """A local folder or file (see `sources.files`) to use in place of `sources`."""
    column: str | None = None
    """Column of the text in the tables of `files` (see `sources.column`)."""
    running: bool = False
    """Read the text as one, line after line, as in a book: nothing is cleaned away, and validation
    and test text are cut from its end. Otherwise each line stands by itself."""
    valid_size: int = 2000
    """Lines to cut from the training text where no validation text is named; at most a tenth."""
    test_size: int = 2000
    """Lines to cut from the training text where no test text is named; at most a tenth."""
    folds: int = 0
    """Cross-validation: parts that the training text is shared out to, by its content; 0 makes
    none."""
    fold: int = 1
    """Which of the `folds` is held out, and validated on in place of other validation text."""
    cleaning: TextCleaning = field(default_factory=TextCleaning)
    """Which training lines are dropped, where each stands by itself."""

    def __post_init__(self) -> None:
        check("corpus.", self, valid_size=(1, ANY), test_size=(1, ANY))
        check_folds(self.folds, self.fold)
        if self.running and self.folds:
            raise MTError("corpus.folds: running text has no parts to exchange; leave it 0")


@dataclass(frozen=True)
class TextBatching:
    """How text is packed into batches."""

    tokens: int = 2400
    """Budget of a batch on each device: rows times their longest, padding included; of running
    text, rows times `bptt`."""
    bptt: int = 64
    """Running text: tokens after which back-propagation through time is cut; the state goes on
    (truncated back-propagation, Williams & Peng 1990)."""
    max_length: int = 256
    """Lines of more tokens are left out of training; of running text, none is."""
    workers: int = 0
    """Processes that prepare batches ahead; 0 prepares them in the training process."""

    def __post_init__(self) -> None:
        limits = dict.fromkeys(("tokens", "bptt", "max_length"), (1, ANY))
        check("batches.", self, **limits, workers=(0, ANY))


@dataclass(frozen=True)
class LanguageModelRecipe(Recipe):
    """From text to a language model."""

    task: Literal["language-model"] = "language-model"
    """What the network learns to do."""
    corpus: TextCorpus = field(default_factory=TextCorpus)
    """The text."""
    tokenizer: TokenizerSpec = field(default_factory=TokenizerSpec)
    """How text becomes tokens; a recipe may name a file of `tokenizers/` here."""
    tokenizer_from: str | None = None
    """Bundle whose tokenizer is used in place of `tokenizer`: that of a translator's target side,
    for a model that helps it."""
    model: LanguageModelArchitecture = field(default_factory=LanguageModelArchitecture)
    """Size of the network."""
    batches: TextBatching = field(default_factory=TextBatching)
    """How text is packed into batches."""
    training: Optimization = field(default_factory=Optimization)
    """Optimizer, schedule and stopping; the score of a validation is its perplexity."""
