"""The recipe of a translator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mt.errors import MTError
from mt.nn.architecture import Architecture
from mt.recipe.sections import (
    ANY,
    Batching,
    HubSource,
    Optimization,
    Recipe,
    TokenizerSpec,
    check,
    check_folds,
)
from mt.search.options import SearchOptions


@dataclass(frozen=True)
class Source(HubSource):
    """One place that parallel text comes from. Exactly one of hub, files and catalogue is set."""

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
    language_identifier: str | None = None
    """Bundle of a classifier of languages, such as that of `recipes/language-id.yaml`: pairs with a
    side that is in another language are dropped."""
    language_probability: float = 0.9
    """How probable the other language must be."""
    language_min_characters: int = 20
    """Shorter texts, which tell little of their language, are left alone."""
    duplicates: bool = True
    """Keep only the first of identical pairs."""
    held_out: Literal["off", "exact", "near"] = "near"
    """Drop pairs whose source or target stands in validation or test: `exact`ly, or `near`ly:
    equal once lower-cased and stripped of digits, punctuation and placeholders, or with half of
    the word 4-grams, of either sentence, in common."""

    def __post_init__(self) -> None:
        limits = dict.fromkeys(("min_words", "max_words", "max_ratio"), (0, ANY))
        check(
            "corpus.cleaning.",
            self,
            **limits,
            language_probability=(0, 1),
            language_min_characters=(0, ANY),
        )


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
    folds: int = 0
    """Cross-validation: parts that the training text is shared out to, by its content; 0 makes
    none."""
    fold: int = 1
    """Which of the `folds` is held out, and validated on in place of other validation text."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """Which training pairs are dropped."""

    def __post_init__(self) -> None:
        check_folds(self.folds, self.fold)


@dataclass(frozen=True)
class Training(Optimization):
    """Loss, optimizer, schedule and stopping; the score of a validation is its BLEU."""

    label_smoothing: float = 0.1
    """Share of the target probability spread over the whole vocabulary (arXiv:1512.00567)."""
    r_drop: float = 0.0
    """Weight α of R-Drop's divergence between two passes of a batch with different dropout, which
    doubles the cost of an update (arXiv:2106.14448, where it is 5 for translation); 0 makes one
    pass."""
    validation_start: int = 500
    """Updates before the first validation BLEU: an untrained model decodes to the length cap."""
    validation_sentences: int = 0
    """Validation pairs, from the first, that are decoded for BLEU; 0 takes all."""
    validation_beam_size: int = 1
    """Beam of the validation decoding; the other search options are those of `search`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            "training.",
            self,
            label_smoothing=(0, 0.99),
            r_drop=(0, ANY),
            validation_start=(0, ANY),
            validation_sentences=(0, ANY),
            validation_beam_size=(1, ANY),
        )


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
        limits = {"forward": (0, ANY), "backward": (0, ANY), "beam_size": (1, ANY)}
        check("distillation.", self, **limits)
        if not self.original and not (self.forward or self.backward or self.teachers):
            raise MTError(
                "distillation.original: false leaves nothing to train on without a teacher; set "
                "distillation.forward: 1, or leave it out"
            )


@dataclass(frozen=True)
class BackTranslation:
    """Text in the target language alone, translated back (Sennrich et al., arXiv:1511.06709): what
    it becomes joins the training text as sources, the text itself as targets."""

    files: str | None = None
    """A file of lines in the target language; none translates nothing back. Lines that break a rule
    of `corpus.cleaning`, or stand in validation or test, are left out."""
    bundle: str | None = None
    """Bundle that translates from the target to the source language; without one, the run trains
    it first, by this recipe turned round."""
    beam_size: int = 1
    """Beam of the translation back."""
    tag: str = "<BT>"
    """Token that sources made in this way begin with, so that the network can tell them apart
    (Caswell et al., arXiv:1906.06442); empty for none."""

    def __post_init__(self) -> None:
        check("back_translation.", self, beam_size=(1, ANY))
        if self.bundle is not None and self.files is None:
            raise MTError(
                "back_translation.bundle: there is nothing to translate back; name text in "
                "back_translation.files, or leave the bundle out"
            )
        if any(character.isspace() for character in self.tag):
            raise MTError(f"back_translation.tag: must hold no blank, as {self.tag!r} does")


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
        check("shortlist.", self, size=(0, ANY), frequent=(0, ANY))


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
class TranslationRecipe(Recipe):
    """From parallel text to a translator."""

    task: Literal["translation"] = "translation"
    """What the network learns to do."""
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
    back_translation: BackTranslation = field(default_factory=BackTranslation)
    """Text in the target language alone; by default there is none."""
    search: SearchOptions = field(default_factory=SearchOptions)
    """Decoding options for validation and test, and the bundle's defaults."""
    shortlist: ShortlistOptions = field(default_factory=ShortlistOptions)
    """Which tokens decoding looks at; by default all."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """How the finished model is measured."""
    init_from: str | None = None
    """Bundle whose weights training starts from (fine-tuning); the network must be the same but for
    its dropout. Its tokenizer is used too, and `tokenizer` is passed over."""
    new_tokenizer: bool = False
    """With `init_from`: train a tokenizer on this corpus instead; tokens that the bundle's has too
    keep their weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.new_tokenizer and self.init_from is None:
            raise MTError("new_tokenizer: true needs init_from; leave it out, or name a bundle")
        if self.init_from is not None and (self.distillation.forward or self.distillation.backward):
            raise MTError(
                "distillation.forward and distillation.backward train teachers from the start, "
                "which init_from does not; name finished ones in distillation.teachers, or leave "
                "init_from out"
            )
        back = self.back_translation
        if self.init_from is not None and back.files is not None and back.bundle is None:
            raise MTError(
                "back_translation.files trains a translator in the other direction from the start, "
                "which init_from does not; name a finished one in back_translation.bundle"
            )
        if self.shortlist.size and self.model.attention == "none":
            raise MTError(
                "shortlist.size is learned from where attention was, and model.attention is none; "
                "choose an attention, or leave shortlist.size at 0"
            )
        if self.search.coverage_penalty and self.model.attention == "none":
            raise MTError(
                "search.coverage_penalty counts where attention was, and model.attention is none; "
                "choose an attention, or leave search.coverage_penalty at 0"
            )
        own_tokenizer = self.init_from is None or self.new_tokenizer
        if self.batches.subword_sampling and own_tokenizer and not self.tokenizer.subwords:
            raise MTError(
                f"batches.subword_sampling needs subwords, and tokenizer.kind is "
                f"{self.tokenizer.kind}; choose bpe or unigram, or leave batches.subword_sampling "
                "at 0"
            )
        kinds = ("embedding", "layer", "context", "output", "word")
        dropouts = (getattr(self.model, f"{kind}_dropout") for kind in kinds)
        if self.training.r_drop and not any(dropouts):
            raise MTError(
                "training.r_drop compares passes with different dropout, and the model's are all "
                "0; set one, such as model.output_dropout, or leave training.r_drop at 0"
            )
        if self.model.tie_embeddings == "three-way" and not self.tokenizer.joint:
            raise MTError(
                "model.tie_embeddings: three-way needs one vocabulary for both languages; "
                "set tokenizer.joint: true or model.tie_embeddings: two-way"
            )
