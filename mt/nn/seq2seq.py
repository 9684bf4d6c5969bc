"""The whole network: an encoder and a decoder with their embeddings and output layer."""

from __future__ import annotations

from torch import Tensor, nn

from mt.nn.architecture import Architecture
from mt.nn.decoder import Decoder, DecoderState, NarrowedDecoder, Step
from mt.nn.dropout import Dropout
from mt.nn.embedding import Embedding
from mt.nn.encoder import Encoder
from mt.nn.recurrent import RecurrentLayer


class Seq2Seq(nn.Module):
    """Recurrent encoder-decoder with attention.

    Args:
        architecture: Sizes and wiring.
        source_vocabulary: Number of source tokens.
        target_vocabulary: Number of target tokens.
        initialize: Draw good first weights, which takes time; of no use where stored ones follow.

    Raises:
        ValueError: Options of the architecture are out of range or clash; the message names them.
    """

    def __init__(
        self,
        architecture: Architecture,
        source_vocabulary: int,
        target_vocabulary: int,
        initialize: bool = True,
    ):
        super().__init__()
        three_way = architecture.tie_embeddings == "three-way"
        if three_way and source_vocabulary != target_vocabulary:
            raise ValueError(
                "model.tie_embeddings: three-way needs one vocabulary for both languages; "
                "set tokenizer.joint: true or model.tie_embeddings: two-way"
            )
        self.architecture = architecture
        size = architecture.embedding_size
        dropout = Dropout(architecture.embedding_dropout, architecture.locked_dropout)
        target = Embedding(target_vocabulary, size, dropout, architecture.word_dropout)
        source = target
        if not three_way:
            source = Embedding(source_vocabulary, size, dropout, architecture.word_dropout)
        output = nn.Linear(size, target_vocabulary)
        self.encoder = Encoder(architecture, source)
        self.decoder = Decoder(architecture, target, output)
        self.tie_weights()
        if initialize:
            self.initialize()

    def initialize(self) -> None:
        """Give recurrent and output layers better first weights than PyTorch's own."""
        for module in self.modules():
            if isinstance(module, RecurrentLayer):
                module.reset_parameters()
        if self.architecture.tie_embeddings == "none":
            nn.init.normal_(self.output.weight, std=self.output.in_features**-0.5)
        nn.init.zeros_(self.output.bias)

    def tie_weights(self) -> None:
        """Make tied weights one parameter again, after each was given a value of its own."""
        if self.architecture.tie_embeddings != "none":
            self.decoder.output.weight = self.decoder.embedding.weight
        if self.architecture.tie_embeddings == "three-way":
            self.encoder.embedding.weight = self.decoder.embedding.weight

    @property
    def output(self) -> nn.Linear:
        """The layer from attentional vectors `(…, E)` to logits `(…, V)`."""
        return self.decoder.output

    def start(self, source: Tensor, source_lengths: Tensor) -> DecoderState:
        """Encode and build the decoder's first state, one row a sentence.

        Args:
            source: Token ids `(B, S)`, padded at the end.
            source_lengths: `(B,)` on the CPU.
        """
        return self.decoder.start(self.encoder(source, source_lengths))

    def step(self, tokens: Tensor, state: DecoderState) -> Step:
        """Advance every row by one token; see `Decoder.step`."""
        return self.decoder.step(tokens, state)

    def narrow(self, candidates: Tensor) -> NarrowedDecoder:
        """Return a decoder that scores the tokens `candidates` `(C,)` only."""
        return NarrowedDecoder(self.decoder, candidates)

    def forward(self, source: Tensor, source_lengths: Tensor, target_in: Tensor) -> Tensor:
        """Compute the vectors that the output layer turns into logits.

        Args:
            source: Token ids `(B, S)`, padded at the end.
            source_lengths: `(B,)` on the CPU.
            target_in: Token ids `(B, T)`, beginning with the beginning of sentence.

        Returns:
            `(B, T, E)`. The caller chooses the positions that deserve the cost of logits.
        """
        vectors: Tensor = self.decoder(target_in, self.start(source, source_lengths))[0]
        return vectors

    def align(self, source: Tensor, source_lengths: Tensor, target_in: Tensor) -> Tensor:
        """Tell where attention was when each token of a target was predicted.

        Arguments are those of `forward`.

        Returns:
            The weights `(B, T, S)`, 0 at padding of the source.

        Raises:
            ValueError: The network has no attention.
        """
        weights: Tensor | None = self.decoder(target_in, self.start(source, source_lengths))[1]
        if weights is None:
            raise ValueError("a network without attention aligns nothing")
        return weights
