"""The size and shape of a translation network: the `model:` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Architecture:
    """Size and wiring of the encoder-decoder. Sizes are in units (floats per vector).

    Raises `ValueError`, naming the options, for values that are out of range or clash.
    """

    embedding_size: int = 256
    """Units of a token embedding."""
    hidden_size: int = 384
    """Units of each LSTM layer and direction."""
    encoder_layers: int = 1
    """Bidirectional LSTM layers of the encoder."""
    decoder_layers: int = 1
    """LSTM layers of the decoder."""
    wiring: Literal["parallel", "input-feeding"] = "parallel"
    """How the decoder uses attention. `parallel`: the bottom layer asks, the context goes to the
    layers above and to the output (GNMT, arXiv:1609.08144), so training runs whole sequences at
    once. `input-feeding`: the last attentional vector joins the next input (Luong et al.,
    arXiv:1508.04025), which forces one step at a time."""
    attention: Literal["dot", "general", "additive", "multi-head"] = "dot"
    """How a query is compared with the encoder's states: `dot` (of the two projected to
    `hidden_size`), `general` (a bilinear form), `additive` (Bahdanau et al., arXiv:1409.0473) or
    `multi-head` scaled dot product (Vaswani et al., arXiv:1706.03762)."""
    attention_heads: int = 4
    """Heads of multi-head attention; divides `hidden_size`."""
    tie_embeddings: Literal["none", "two-way", "three-way"] = "three-way"
    """Share the embedding matrix: `two-way` between decoder input and output (Press & Wolf,
    arXiv:1608.05859), `three-way` with the encoder too (needs a joint vocabulary)."""
    residual: bool = True
    """Add each LSTM layer's input to its output, from the second layer on."""
    bridge: Literal["zero", "learned"] = "learned"
    """First decoder state: `zero`, or a `learned` tanh layer over the encoder's final states."""
    embedding_dropout: float = 0.2
    """Probability of dropping a unit of a token embedding (source and target)."""
    layer_dropout: float = 0.3
    """Probability of dropping a unit between LSTM layers."""
    context_dropout: float = 0.0
    """Probability of dropping a unit of the attention context."""
    output_dropout: float = 0.3
    """Probability of dropping a unit of the top decoder state and the context, on their way to the
    output layer."""
    word_dropout: float = 0.0
    """Probability of blanking a whole input token (its embedding becomes zero), source and
    target (Gal & Ghahramani, arXiv:1512.05287)."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith(("_size", "_layers", "_heads")) and value < 1:
                raise ValueError(f"model.{name}: must be at least 1, not {value}")
            if name.endswith("_dropout") and not 0 <= value <= 1:
                raise ValueError(f"model.{name}: must be from 0 to 1, not {value}")
        if self.attention == "multi-head" and self.hidden_size % self.attention_heads:
            raise ValueError(
                f"model.attention_heads: {self.attention_heads} does not divide "
                f"model.hidden_size {self.hidden_size}; choose one that does"
            )
