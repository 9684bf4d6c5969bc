"""A recipe: everything that decides a training run, as typed, frozen dataclasses.

The attribute docstrings are the text of `mt train --help`, and `recipes/*.yaml` are instances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from mt.errors import MTError
from mt.nn.architecture import Architecture
from mt.search.options import SearchOptions


def _check(section: str, options: object, **limits: tuple[float, float]) -> None:
    """Raise `MTError`, naming the field, where a value lies outside its limits, both included."""
    for name, (least, most) in limits.items():
        value = getattr(options, name)
        if not (least <= value <= most and math.isfinite(value)):
            limit = f"from {least} to {most}" if math.isfinite(most) else f"at least {least}"
            raise MTError(f"{section}{name}: must be {limit}, not {value}")


_ANY = math.inf
"""No upper limit."""


@dataclass(frozen=True)
class Source:
    """One place that parallel text comes from. Exactly one of hub, files and catalogue is set."""

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
    files: str | None = None
    """A folder of `train.L`, `valid.L` or `dev.L`, `test*.L` (L a language, or `tsv`, `csv`,
    `jsonl`, `parquet`), one table file, or the common stem of a `STEM.L` pair; each also with
    `.gz`, `.xz` or `.zst`."""
    catalogue: Literal["home-assistant", "libreoffice-help"] | None = None
    """Texts that a package manager brings: Home Assistant's user interface (pip) or
    LibreOffice's help (apt)."""
    source_column: str | None = None
    """Column of the source text in tables; by default the language code, `source`, or the
    language's entry in a `translation` column."""
    target_column: str | None = None
    """Column of the target text in tables, found likewise."""
    weight: float = 1.0
    """How often each training pair of this source is seen in an epoch: 2 doubles the pairs, 0.5
    keeps a fixed half, 1.5 doubles a fixed half."""


@dataclass(frozen=True)
class Cleaning:
    """Which training pairs are dropped. Each rule can be turned off, as it says."""

    min_words: int = 1
    """Fewest words on either side (two characters make one where a script writes no spaces)."""
    max_words: int = 150
    """Most words on either side; 0 sets no limit."""
    max_ratio: float = 4.0
    """Greatest ratio between the two sides' words, for pairs with a side over 5 words; 0: off."""
    identical: bool = True
    """Drop pairs whose two sides are the same."""
    control_characters: bool = True
    """Drop pairs that hold control characters other than tab."""
    source_script: str | None = None
    """Unicode script, such as `Latin` or `Cyrillic`, that most letters of the source must be in."""
    target_script: str | None = None
    """Unicode script that most letters of the target must be in."""
    duplicates: bool = True
    """Keep only the first of identical pairs."""
    held_out: Literal["off", "exact", "near"] = "near"
    """Drop pairs whose source or target stands in validation or test: `exact`ly, or `near`ly:
    equal once lower-cased and stripped of digits, punctuation and placeholders, or with half of
    the word 4-grams, of either sentence, in common."""

    def __post_init__(self) -> None:
        limits = dict.fromkeys(("min_words", "max_words", "max_ratio"), (0, _ANY))
        _check("corpus.cleaning.", self, **limits)


@dataclass(frozen=True)
class Corpus:
    """The parallel text."""

    source: str = "en"
    """Language code of the source side."""
    target: str = "de"
    """Language code of the target side."""
    sources: list[Source] = field(default_factory=list)
    """Where the text comes from, mixed by weight."""
    files: str | None = None
    """A local folder (see `sources.files`) to use in place of `sources`."""
    source_column: str | None = None
    """Column of the source text in the tables of `files` (see `sources.source_column`)."""
    target_column: str | None = None
    """Column of the target text, likewise."""
    valid_size: int = 2000
    """Pairs to cut from the training text where no validation text is named; at most a tenth."""
    test_size: int = 2000
    """Pairs to cut from the training text where no test text is named; at most a tenth."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """Which training pairs are dropped."""


@dataclass(frozen=True)
class TokenizerSpec:
    """How text becomes subword tokens: a SentencePiece model (arXiv:1808.06226)."""

    kind: Literal["bpe", "unigram"] = "bpe"
    """Subword model: byte-pair encoding (arXiv:1508.07909) or unigram (arXiv:1804.10959)."""
    vocab_size: int = 4000
    """Tokens of the vocabulary (of each, when they are separate)."""
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

    def __post_init__(self) -> None:
        _check(
            "tokenizer.",
            self,
            vocab_size=(1, _ANY),
            character_coverage=(0, 1),
            max_sentences=(1, _ANY),
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
        _check(
            "batches.",
            self,
            tokens=(1, _ANY),
            max_length=(1, _ANY),
            subword_sampling=(0, 1),
            workers=(0, _ANY),
        )


@dataclass(frozen=True)
class Training:
    """Loss, optimizer, schedule and stopping. Budgets are Lightning's `trainer` options."""

    label_smoothing: float = 0.1
    """Share of the target probability spread over the whole vocabulary (arXiv:1512.00567)."""
    r_drop: float = 0.0
    """Weight α of R-Drop's divergence between two passes of a batch with different dropout, which
    doubles the cost of an update (arXiv:2106.14448, where it is 5 for translation); 0 makes one
    pass."""
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
    """Learning rate after the warm-up. `linear` and `cosine` reach zero at the end of the budget:
    the nearest of `trainer.max_steps`, `trainer.max_epochs` and `trainer.max_time`."""
    warmup_steps: int = 200
    """Updates over which the learning rate rises linearly from zero."""
    plateau_factor: float = 0.5
    """`plateau`: multiply the learning rate by this when validation BLEU stalls."""
    plateau_patience: int = 2
    """`plateau`: validations without a better BLEU that are borne first."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights that is validated and kept
    (per update, e.g. 0.999); 0 validates and keeps the weights themselves."""
    average_validations: int = 1
    """Validate and keep the mean of the weights at the last so many validations, in place of a
    moving average (Vaswani et al., arXiv:1706.03762, section 6.1); 1 takes the weights as they
    are."""
    patience: int = 0
    """Stop after this many validations in a row without a better BLEU; 0 never stops early."""
    freeze: list[str] = field(default_factory=list)
    """Parameters that training leaves as they are, by patterns of their names: `encoder.*`."""
    validation_start: int = 500
    """Updates before the first validation BLEU: an untrained model decodes to the length cap."""
    validation_sentences: int = 0
    """Validation pairs, from the first, that are decoded for BLEU; 0 takes all."""
    validation_beam_size: int = 1
    """Beam of the validation decoding; the other search options are those of `search`."""
    max_skipped: int = 20
    """Updates with a NaN or infinite gradient that are skipped in a row before training stops."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints for `--resume`; one is also written at each validation."""

    def __post_init__(self) -> None:
        _check(
            "training.",
            self,
            label_smoothing=(0, 0.99),
            r_drop=(0, _ANY),
            learning_rate=(0, _ANY),
            epsilon=(0, _ANY),
            momentum=(0, 1),
            weight_decay=(0, _ANY),
            warmup_steps=(0, _ANY),
            plateau_factor=(0, 1),
            plateau_patience=(0, _ANY),
            ema=(0, 0.999999),
            average_validations=(1, _ANY),
            patience=(0, _ANY),
            validation_start=(0, _ANY),
            validation_sentences=(0, _ANY),
            validation_beam_size=(1, _ANY),
            max_skipped=(0, _ANY),
            checkpoint_minutes=(0, _ANY),
        )
        if self.ema and self.average_validations > 1:
            raise MTError(
                "training.average_validations and training.ema both average the weights; set "
                "training.ema: 0 or training.average_validations: 1"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise MTError(f"training.betas: must be from 0 to below 1, not {self.betas}")


@dataclass(frozen=True)
class Distillation:
    """Sequence-level knowledge distillation (Kim & Rush, arXiv:1606.07947): teachers translate the
    training text, and what they write is trained on too."""

    forward: int = 0
    """Teachers from source to target that the run trains first; their translations of the sources
    join the training text as targets."""
    backward: int = 0
    """Teachers from target to source that the run trains first; their translations of the targets
    join as sources. Both kinds together are data diversification (Nguyen et al.,
    arXiv:1911.01986)."""
    teachers: list[str] = field(default_factory=list)
    """Bundles that teach as well, of either direction."""
    original: bool = True
    """Train on the training text as it is, too."""
    beam_size: int = 5
    """Beam of the teachers' translations; the other search options are those of `search`."""
    teacher: dict[str, Any] = field(default_factory=dict)
    """What the recipe of the teachers that the run trains has otherwise than this one, in `model`,
    `batches`, `training`, `search` and `trainer`: `{trainer: {max_epochs: 12}}`."""

    def __post_init__(self) -> None:
        limits = {"forward": (0, _ANY), "backward": (0, _ANY), "beam_size": (1, _ANY)}
        _check("distillation.", self, **limits)
        if not self.original and not (self.forward or self.backward or self.teachers):
            raise MTError(
                "distillation.original: false leaves nothing to train on without a teacher; set "
                "distillation.forward: 1, or leave it out"
            )


@dataclass(frozen=True)
class ShortlistOptions:
    """A lexical shortlist (Jean et al., arXiv:1412.2007): what each source token is likely to
    become, learned from where attention was in the training text. Decoding then looks at these
    tokens only."""

    size: int = 0
    """Target tokens for each source token; 0 learns no list."""
    frequent: int = 100
    """The most frequent target tokens, which any translation may hold."""

    def __post_init__(self) -> None:
        _check("shortlist.", self, size=(0, _ANY), frequent=(0, _ANY))


@dataclass(frozen=True)
class Evaluation:
    """How the finished model is measured on the test sets."""

    metrics: list[Literal["bleu", "chrf", "chrf++", "ter", "bleu-lc-tok"]] = field(
        default_factory=lambda: ["bleu", "chrf"]
    )
    """Scores, each kept with its sacreBLEU signature."""
    gradient_flow: bool = False
    """Show in the report how far back through the decoder's states the loss of the last token is
    felt, on validation text."""


@dataclass(frozen=True)
class Recipe:
    """A complete training run."""

    corpus: Corpus = field(default_factory=Corpus)
    """The parallel text."""
    tokenizer: TokenizerSpec = field(default_factory=TokenizerSpec)
    """How text becomes tokens; a recipe may name a file of `tokenizers/` here."""
    model: Architecture = field(default_factory=Architecture)
    """Size and wiring of the network."""
    batches: Batching = field(default_factory=Batching)
    """How sentences are packed into batches."""
    training: Training = field(default_factory=Training)
    """Loss, optimizer, schedule and stopping."""
    distillation: Distillation = field(default_factory=Distillation)
    """Teachers whose translations join the training text; by default there are none."""
    search: SearchOptions = field(default_factory=SearchOptions)
    """Decoding options for validation and test, and the bundle's defaults."""
    shortlist: ShortlistOptions = field(default_factory=ShortlistOptions)
    """Which tokens decoding looks at; by default all."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """How the finished model is measured."""
    seed: int = 1
    """Seed of the initial weights, dropout, batch order and subword sampling."""
    init_from: str | None = None
    """Bundle whose weights training starts from (fine-tuning); the network must be the same but for
    its dropout. Its tokenizer is used too, and `tokenizer` is passed over."""
    new_tokenizer: bool = False
    """With `init_from`: train a tokenizer on this corpus instead; tokens that the bundle's has too
    keep their weights."""
    auto: list[str] = field(default_factory=list)
    """Dotted names of fields to choose from the size of the corpus (see docs/recipes.md); one that
    is set on the command line keeps that value."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Options of Lightning's Trainer, under its own names."""

    def __post_init__(self) -> None:
        _check("", self, seed=(0, 2**32 - 1))
        if self.new_tokenizer and self.init_from is None:
            raise MTError("new_tokenizer: true needs init_from; leave it out, or name a bundle")
        if self.init_from is not None and (self.distillation.forward or self.distillation.backward):
            raise MTError(
                "distillation.forward and distillation.backward train teachers from the start, "
                "which init_from does not; name finished ones in distillation.teachers, or leave "
                "init_from out"
            )
        if self.shortlist.size and self.model.attention == "none":
            raise MTError(
                "shortlist.size is learned from where attention was, and model.attention is none; "
                "choose an attention, or leave shortlist.size at 0"
            )
        if self.model.tie_embeddings == "three-way" and not self.tokenizer.joint:
            raise MTError(
                "model.tie_embeddings: three-way needs one vocabulary for both languages; "
                "set tokenizer.joint: true or model.tie_embeddings: two-way"
            )
