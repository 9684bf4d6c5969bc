"""The size and shape of networks: the `model:` section of a recipe, by task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cell = Literal[
    "elman-tanh", "elman-sigmoid", "elman-relu", "gru", "lstm", "layer-norm-lstm", "ssru"
]

KERNELS = ("elman-tanh", "elman-relu", "gru", "lstm")
"""Cells that PyTorch runs over whole sequences."""


@dataclass(frozen=True)
class Architecture:
    """Size and wiring of the encoder-decoder. Sizes are in units (floats per vector).

    Raises `ValueError`, naming the options, for values that are out of range or clash.
    """

    embedding_size: int = 256
    """Units of a token embedding."""
    hidden_size: int = 384
    """Units of each recurrent layer and direction."""
    encoder_layers: int = 1
    """Recurrent layers of the encoder."""
    decoder_layers: int = 1
    """Recurrent layers of the decoder."""
    encoder_cell: Cell = "lstm"
    """What a step of the encoder's layers computes: Elman's network with one of three activations,
    `gru`, `lstm`, `layer-norm-lstm` (each gate normalised, as in RNMT+, arXiv:1804.09849) or
    `ssru` (no matrix on the state, Kim et al. 2019)."""
    decoder_cell: Cell = "lstm"
    """The same for the decoder's layers."""
    bidirectional: bool = True
    """Let the encoder's layers read each sentence in both directions."""
    encoder_transition_depth: int = 1
    """Cells in a row at each step of an encoder layer; more than one make deep transitions
    (BiDeep, arXiv:1707.07631), which run step by step."""
    decoder_transition_depth: int = 1
    """The same for the decoder; in the conditional wiring, cells after the attention of the bottom
    layer."""
    wiring: Literal["parallel", "input-feeding", "conditional"] = "parallel"
    """How the decoder uses attention. `parallel`: the bottom layer asks, the context goes to the
    layers above and to the output (GNMT, arXiv:1609.08144), so training runs whole sequences at
    once. `input-feeding`: the last attentional vector joins the next input (Luong et al.,
    arXiv:1508.04025). `conditional`: the bottom layer has two cells a step; the first one's state
    asks, and the context is the second one's input (Nematus, arXiv:1703.04357). The latter two
    force one step at a time."""
    attention: Literal[
        "none",
        "dot",
        "scaled-dot",
        "general",
        "additive",
        "normalized-additive",
        "location-aware",
        "multi-head",
        "multi-head-additive",
    ] = "scaled-dot"
    """How a query is compared with the encoder's states: `none` (no attention at all), `dot` (their
    product, arXiv:1508.04025), `scaled-dot` (over the root of `hidden_size`), `general` (a
    bilinear form, arXiv:1508.04025), `additive` (Bahdanau et al., arXiv:1409.0473),
    `normalized-additive` (its energy normalised, arXiv:1602.07868), `location-aware` (additive,
    with filters over the last weights, arXiv:1506.07503), `multi-head` scaled dot product (Vaswani
    et al., arXiv:1706.03762) or `multi-head-additive` (RNMT+, arXiv:1804.09849)."""
    attention_heads: int = 4
    """Heads of multi-head attention; divides `hidden_size`."""
    coverage: bool = False
    """Let attention see how much each source token has been attended to already (Tu et al.,
    arXiv:1601.04811); needs a wiring that goes step by step."""
    tie_embeddings: Literal["none", "two-way", "three-way"] = "three-way"
    """Share the embedding matrix: `two-way` between decoder input and output (Press & Wolf,
    arXiv:1608.05859), `three-way` with the encoder too (needs a joint vocabulary)."""
    residual_from: int = 2
    """The first layer of encoder and decoder, counted from 1, whose input is added to its output
    (He et al., arXiv:1512.03385; between recurrent layers in GNMT, arXiv:1609.08144); 0 adds
    none."""
    bridge: Literal["zero", "last", "mean", "learned"] = "learned"
    """First decoder state: `zero`, the encoder's `last` state (its directions averaged), a tanh
    layer over the `mean` of the encoder's states, or a `learned` one over its last states."""
    embedding_dropout: float = 0.2
    """Probability of dropping a unit of a token embedding (source and target)."""
    layer_dropout: float = 0.3
    """Probability of dropping a unit between recurrent layers."""
    context_dropout: float = 0.0
    """Probability of dropping a unit of the attention context."""
    output_dropout: float = 0.3
    """Probability of dropping a unit of the top decoder state and the context, on their way to the
    output layer."""
    locked_dropout: bool = False
    """Drop the same units at every position of a sentence (variational dropout, Gal & Ghahramani,
    arXiv:1512.05287)."""
    word_dropout: float = 0.0
    """Probability of blanking a whole input token (its embedding becomes zero), source and
    target, each occurrence by itself (Iyyer et al., P15-1162)."""

    def __post_init__(self) -> None:
        check_sizes(self)
        for side in ("encoder", "decoder"):
            options = vars(self)
            if options[f"{side}_cell"] == "ssru" and options[f"{side}_transition_depth"] > 1:
                raise ValueError(
                    f"model.{side}_transition_depth: {options[f'{side}_transition_depth']} puts "
                    f"cells in a row that read the state alone, which model.{side}_cell: ssru "
                    "cannot; choose a depth of 1 or another cell"
                )
        if self.attention.startswith("multi-head") and self.hidden_size % self.attention_heads:
            raise ValueError(
                f"model.attention_heads: {self.attention_heads} does not divide "
                f"model.hidden_size {self.hidden_size}; choose one that does"
            )
        if self.attention == "none":
            if self.wiring != "parallel":
                raise ValueError(
                    f"model.wiring: {self.wiring} needs attention, and model.attention is none; "
                    "choose model.wiring: parallel or an attention"
                )
            if self.bridge == "zero":
                raise ValueError(
                    "model.bridge: zero and model.attention: none leave the decoder nothing of the "
                    "source; choose another model.bridge or an attention"
                )
            if self.coverage:
                raise ValueError(
                    "model.coverage: true needs attention, and model.attention is none; choose an "
                    "attention or model.coverage: false"
                )
        if self.wiring == "parallel":
            for option, chosen in (
                ("model.coverage: true", self.coverage),
                ("model.attention: location-aware", self.attention == "location-aware"),
            ):
                if chosen:
                    raise ValueError(
                        f"{option} looks back at each step, which model.wiring: parallel cannot; "
                        "choose model.wiring: input-feeding or conditional"
                    )
        if self.bridge == "last" and _states(self.encoder_cell) != _states(self.decoder_cell):
            raise ValueError(
                f"model.bridge: last cannot carry the state of model.encoder_cell: "
                f"{self.encoder_cell} over to model.decoder_cell: {self.decoder_cell}; choose "
                "another model.bridge"
            )


@dataclass(frozen=True)
class StackArchitecture:
    """Size of a stack of recurrent layers. Sizes are in units (floats per vector).

    Raises `ValueError`, naming the options, for values that are out of range or clash.
    """

    hidden_size: int = 128
    """Units of each recurrent layer and direction."""
    layers: int = 1
    """Recurrent layers, one upon another."""
    cell: Cell = "lstm"
    """What a step computes: Elman's network with one of three activations, `gru`, `lstm`,
    `layer-norm-lstm` or `ssru`."""
    residual_from: int = 2
    """The first layer, counted from 1, whose input is added to its output; 0 adds none."""
    layer_dropout: float = 0.3
    """Probability of dropping a unit between recurrent layers."""
    output_dropout: float = 0.3
    """Probability of dropping a unit of what the output layer reads."""
    locked_dropout: bool = False
    """Drop the same units at every step of a row (variational dropout, Gal & Ghahramani,
    arXiv:1512.05287)."""

    def __post_init__(self) -> None:
        check_sizes(self)


@dataclass(frozen=True)
class LanguageModelArchitecture(StackArchitecture):
    """Size of the language model."""

    hidden_size: int = 512
    embedding_size: int = 256
    """Units of a token embedding."""
    tie_embeddings: bool = True
    """Predict tokens by the matrix that embeds them (Press & Wolf, arXiv:1608.05859)."""
    embedding_dropout: float = 0.2
    """Probability of dropping a unit of a token embedding."""
    word_dropout: float = 0.0
    """Probability of blanking a whole input token (its embedding becomes zero)."""
    weight_drop: float = 0.0
    """Probability of dropping a weight between one step's state and the next one's, anew for each
    batch (DropConnect, as in AWD-LSTM, Merity et al., arXiv:1708.02182); the cells that PyTorch
    runs over whole sequences have it: lstm, gru, elman-tanh and elman-relu."""


@dataclass(frozen=True)
class ForecasterArchitecture(StackArchitecture):
    """Size of the forecaster."""

    hidden_size: int = 32
    cell: Cell = "gru"
    layer_dropout: float = 0.0
    output_dropout: float = 0.0
    loss: Literal["squared", "absolute", "gaussian"] = "gaussian"
    """What is minimised: the squared or the absolute error of the next step, or the negative
    log-likelihood of a Gaussian whose mean and standard deviation are both predicted."""
    weight_drop: float = 0.0
    """Probability of dropping a weight between one step's state and the next one's, anew for each
    batch (DropConnect, arXiv:1708.02182); lstm, gru, elman-tanh and elman-relu have it."""


@dataclass(frozen=True)
class ClassifierArchitecture(StackArchitecture):
    """Size of the text classifier."""

    embedding_size: int = 128
    """Units of a token embedding."""
    ngrams: int = 1
    """Tokens of the longest n-grams that have a vector, too: to that of a token are added those of
    the n-grams of 2 to so many tokens that end at it; 1 leaves it at tokens."""
    ngram_buckets: int = 65536
    """Vectors that all n-grams share, each finding its own by a hash (Bojanowski et al.,
    arXiv:1607.04606)."""
    bidirectional: bool = True
    """Let the layers read each text in both directions."""
    pooling: Literal["last", "mean", "max", "attention"] = "max"
    """What is made of the top layer's outputs: the `last` of each direction, their `mean`, the
    `max` of each unit, or a mean weighted by `attention` with a learned query (Yang et al.,
    N16-1174)."""
    embedding_dropout: float = 0.2
    """Probability of dropping a unit of a token embedding."""
    word_dropout: float = 0.0
    """Probability of blanking the vector of a token, or of an n-gram, each by itself."""


_COUNTS = ("_size", "layers", "_heads", "_depth", "ngrams", "_buckets")


def check_sizes(architecture: object) -> None:
    """Refuse sizes, probabilities and residual connections of any network that are out of range.

    Raises:
        ValueError: One is; the message names it.
    """
    for name, value in vars(architecture).items():
        if name.endswith(_COUNTS) and value < 1:
            raise ValueError(f"model.{name}: must be at least 1, not {value}")
        probability = name.endswith(("_dropout", "_drop")) and name != "locked_dropout"
        if probability and not 0 <= value < 1:
            raise ValueError(f"model.{name}: must be from 0 to below 1, not {value}")
        if name == "residual_from" and (value < 0 or value == 1):
            raise ValueError(
                f"model.residual_from: must be 0 or at least 2, not {value}: the first layer's "
                "input and output are not alike"
            )
        if name == "weight_drop" and value and vars(architecture)["cell"] not in KERNELS:
            raise ValueError(
                f"model.weight_drop: {value} acts within {', '.join(KERNELS)}, and model.cell is "
                f"{vars(architecture)['cell']}; choose one of these, or model.weight_drop: 0"
            )


def _states(cell: str) -> int:
    """Tensors of the cell's state: an LSTM's memory stands beside its output."""
    return 2 if cell.endswith("lstm") else 1
