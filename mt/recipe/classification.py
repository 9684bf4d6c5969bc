"""The recipe of a text classifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mt.nn.architecture import ClassifierArchitecture
from mt.recipe.sections import ANY, HubSource, Optimization, Recipe, TokenizerSpec, check


@dataclass(frozen=True)
class LabelledSource(HubSource):
    """One place that labelled text comes from. Exactly one of hub, files and catalogue is set."""

    files: str | None = None
    """A folder of `train.F`, `valid.F` or `dev.F`, `test*.F` (F one of `tsv`, `csv`, `jsonl`,
    `parquet`), or one such file; each also with `.gz`, `.xz` or `.zst`."""
    catalogue: Literal["home-assistant-languages"] | None = None
    """Texts that a package manager brings: Home Assistant's user interface (pip), each with its
    language."""
    text_column: str | None = None
    """Column of the text in tables; by default `text`."""
    label_column: str | None = None
    """Column of the label in tables; by default `label`. Numbers that the hub has names for become
    these names."""


@dataclass(frozen=True)
class LabelledCleaning:
    """Which training texts are dropped. Each rule can be turned off, as it says."""

    duplicates: bool = True
    """Keep only the first of texts that are the same, label and all."""
    conflicts: Literal["drop", "keep"] = "drop"
    """Drop texts that stand there with several labels, all of them; or keep them."""
    held_out: Literal["off", "exact", "near"] = "near"
    """Drop texts that stand in validation or test: `exact`ly, or `near`ly: equal once lower-cased
    and stripped of digits, punctuation and placeholders, or with half of the word 4-grams, of
    either text, in common."""
    min_examples: int = 1
    """Labels with fewer texts than this are left out, in validation and test too."""
    max_examples: int = 0
    """Most texts of a label, chosen by the hash of their content, so that an epoch is not spent on
    the most frequent ones; 0 sets no limit."""

    def __post_init__(self) -> None:
        check("corpus.cleaning.", self, min_examples=(1, ANY), max_examples=(0, ANY))


@dataclass(frozen=True)
class LabelledCorpus:
    """Text with a label each."""

    sources: list[LabelledSource] = field(default_factory=list)
    """Where the text comes from, one after the other."""
    files: str | None = None
    """A local folder or file (see `sources.files`) to use in place of `sources`."""
    text_column: str | None = None
    """Column of the text in the tables of `files` (see `sources.text_column`)."""
    label_column: str | None = None
    """Column of the label, likewise."""
    valid_size: int = 2000
    """Texts to cut from the training text where no validation text is named; at most a tenth."""
    test_size: int = 2000
    """Texts to cut from the training text where no test text is named; at most a tenth."""
    cleaning: LabelledCleaning = field(default_factory=LabelledCleaning)
    """Which training texts are dropped."""

    def __post_init__(self) -> None:
        check("corpus.", self, valid_size=(1, ANY), test_size=(1, ANY))


@dataclass(frozen=True)
class ClassificationBatching:
    """How texts are packed into batches."""

    tokens: int = 4096
    """Budget of a batch on each device: rows times their longest, padding included."""
    max_length: int = 512
    """Tokens of a text that are read, from its beginning; what follows is passed over, in training
    and in use."""
    workers: int = 0
    """Processes that prepare batches ahead; 0 prepares them in the training process."""

    def __post_init__(self) -> None:
        check("batches.", self, tokens=(1, ANY), max_length=(1, ANY), workers=(0, ANY))


@dataclass(frozen=True)
class ClassificationTraining(Optimization):
    """Loss, optimizer, schedule and stopping; the score of a validation is its accuracy."""

    label_smoothing: float = 0.0
    """Share of the target probability spread over all classes (arXiv:1512.00567)."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: a text weighs in inverse proportion to how many have its label, so that every
    class weighs the same in the loss; the mean weight is 1."""
    metric: Literal["accuracy", "macro-accuracy"] = "accuracy"
    """What chooses the weights: the share of texts that are classified right, or the mean of these
    shares over the classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("training.", self, label_smoothing=(0, 0.99))


@dataclass(frozen=True)
class ClassificationEvaluation:
    """How the finished model is measured on the test sets."""

    min_characters: int = 0
    """Measure once more, as a test set of its own, those texts of each test set that have at least
    so many characters; 0 does not."""

    def __post_init__(self) -> None:
        check("evaluation.", self, min_characters=(0, ANY))


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """From labelled text to a classifier."""

    task: Literal["classification"] = "classification"
    """What the network learns to do."""
    corpus: LabelledCorpus = field(default_factory=LabelledCorpus)
    """The labelled text."""
    tokenizer: TokenizerSpec = field(default_factory=TokenizerSpec)
    """How text becomes tokens; a recipe may name a file of `tokenizers/` here."""
    model: ClassifierArchitecture = field(default_factory=ClassifierArchitecture)
    """Size of the network."""
    batches: ClassificationBatching = field(default_factory=ClassificationBatching)
    """How texts are packed into batches."""
    training: ClassificationTraining = field(default_factory=ClassificationTraining)
    """Loss, optimizer, schedule and stopping."""
    evaluation: ClassificationEvaluation = field(default_factory=ClassificationEvaluation)
    """How the finished model is measured."""
