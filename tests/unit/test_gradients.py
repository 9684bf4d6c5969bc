"""How far back a decoder feels a loss, against differences of the loss itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mt.bundle import Bundle
from mt.evaluation.gradients import gradient_flow
from mt.tokenizer import BOS, EOS
from mt.translator import Translator


def slope(loss: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of a loss by each unit of a vector."""
    moves = torch.eye(len(at), dtype=torch.float64) * step
    return torch.stack([(loss(at + move) - loss(at - move)) / (2 * step) for move in moves])


@pytest.mark.parametrize("wiring", ["parallel", "conditional"])
def test_the_flow_through_a_decoder(make_bundle: Callable[..., Bundle], wiring: str) -> None:
    """One sentence, whose last token's loss is changed by moving the state in between."""
    bundle = make_bundle(wiring=wiring, decoder_cell="gru")
    bundle.model.double()
    translator = Translator(bundle, "cpu")
    source, target = "ab c", "de"
    flow = gradient_flow(translator, [source], [target])
    ((ids,), (wanted,)) = translator.encode_pairs([source], [target])
    assert [distance for distance, _ in flow] == list(range(len(wanted) + 1))
    decoder = bundle.model.decoder
    with torch.no_grad():
        memory = bundle.model.encoder(torch.tensor([[*ids, EOS]]), torch.tensor([len(ids) + 1]))
        state = decoder.step(torch.tensor([BOS]), decoder.start(memory)).state
        at = torch.cat([layer[0][0] for layer in state.layers])

        def loss(units: Tensor) -> Tensor:
            layers = tuple((part[None],) for part in units.split(16))
            later, logits = state._replace(layers=layers), torch.empty(0)
            for token in wanted:
                logits, _, later = decoder.step(torch.tensor([token]), later)
            return cross_entropy(logits, torch.tensor([EOS]))

        expected = slope(loss, at).norm().item()
    assert flow[-1][1] == pytest.approx(expected, rel=1e-6)


def test_distances_are_averaged_over_the_sentences_that_reach_them(
    make_bundle: Callable[..., Bundle],
) -> None:
    translator = Translator(make_bundle(), "cpu")
    one, other = (gradient_flow(translator, ["ab"], [target]) for target in ("c", "abcd"))
    both = gradient_flow(translator, ["ab", "ab"], ["c", "abcd"])
    assert len(one) < len(other) == len(both)
    assert [norm for _, norm in both[: len(one)]] == pytest.approx(
        [(a[1] * b[1]) ** 0.5 for a, b in zip(one, other, strict=False)]
    )
    assert both[len(one) :] == other[len(one) :]
    assert gradient_flow(translator, ["ab"], ["abcd"], steps=2) == other[:3]
