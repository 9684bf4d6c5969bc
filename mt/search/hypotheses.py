"""What a search asks of a decoder, and what it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


class DecoderState(Protocol):
    """All that a decoder remembers of R hypotheses, a row each.

    They stand in B x K places, those of a sentence side by side: place = sentence * K + hypothesis.
    Some places may be empty; then there are fewer rows than places, in the same order.
    """

    def reorder(self, index: Tensor, places: Tensor | None = None) -> Self:
        """The state in whose places stands what stood in the old places `index` (B', K') int64.

        The entries of one row of `index` all belong to one old sentence, and sentences keep their
        order, but some may be gone: where B' equals B, what is kept once a sentence stays as it is.
        `places` (R',) int64, ascending, are the new places that are not empty: all, where None.
        Each sentence has one at least, and what comes to stand there stood nowhere empty.
        """
        ...


class StepOutput(Protocol):
    """One decoder step of R rows: any tuple with these fields, which are only read."""

    @property
    def logits(self) -> Tensor:
        """Unnormalised scores of the next token (R, V)."""

    @property
    def attention(self) -> Tensor | None:
        """The step's weights over the source positions (R, S), 0 at padding; None without any."""

    @property
    def state(self) -> DecoderState:
        """The state after the step."""


class Decoder(Protocol):
    """Anything that scores the next token."""

    def step(self, tokens: Tensor, state: Any, /) -> StepOutput:
        """Feed the last tokens (R,) int64 (at first the begin of sentence) and score the next."""
        ...


@runtime_checkable
class NarrowingDecoder(Decoder, Protocol):
    """A decoder that is quicker where only some tokens are to be scored."""

    def narrow(self, candidates: Tensor, /) -> Decoder:
        """Return a decoder of the same states whose logits (R, C) are those of the tokens
        `candidates` (C,) int64; the tokens that it reads keep their ids."""
        ...


class Hypothesis(NamedTuple):
    """One translation as tokens.

    `tokens` carry neither begin nor end of sentence. `log_probability` is the natural logarithm of
    the probability that the decoder gives to these tokens *and* the end of sentence, whatever the
    options, so that it always equals the score of the same tokens under forced decoding. `score`
    is what hypotheses are ranked by: `log_probability` over `SearchOptions.normalizer`, plus the
    coverage penalty. `finished` is False where the limit on the length put the end there.
    """

    tokens: list[int]
    log_probability: float
    score: float
    finished: bool
