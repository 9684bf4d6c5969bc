"""How far back a trained translator's decoder feels a loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from mt.nn.gradients import gradient_norms, mean_norm
from mt.nn.seq2seq import Seq2Seq
from mt.tokenizer import BOS, EOS
from mt.translator import Translator


def gradient_flow(
    translator: Translator, sources: Sequence[str], targets: Sequence[str], steps: int = 40
) -> list[tuple[int, float]]:
    """Follow the loss of the end of sentence back through the decoder's states.

    Args:
        translator: A trained engine.
        sources: Raw sentences.
        targets: Their translations.
        steps: The longest distance.

    Returns:
        (distance, norm): the geometric mean, over the sentences that are long enough, of the norm
        of the gradient of the last token's loss (nats) with respect to the state of all decoder
        layers that many steps earlier.
    """
    model = copy.deepcopy(translator.model).cpu().eval()  # see `gradient_norms`
    found: list[list[float]] = [[] for _ in range(steps + 1)]
    for source, target in zip(*translator.encode_pairs(sources, targets), strict=True):
        norms = _norms(model, source, target)[-steps - 1 :]
        for distance, norm in enumerate(reversed(norms)):
            found[distance].append(norm)
    return [
        (distance, mean_norm(torch.tensor(norms, dtype=torch.float64)))
        for distance, norms in enumerate(found)
        if norms
    ]


@torch.enable_grad()
def _norms(model: Seq2Seq, source: list[int], target: list[int]) -> list[float]:
    """Return the norm at each step of one sentence, the first step first."""
    memory = model.encoder(torch.tensor([[*source, EOS]]), torch.tensor([len(source) + 1]))
    state, states = model.decoder.start(memory), []
    logits = torch.empty(0)
    for token in (BOS, *target):
        logits, _, state = model.decoder.step(torch.tensor([token]), state)
        states.append(tuple(tensor for layer in state.layers for tensor in layer))
    losses = cross_entropy(logits, torch.tensor([EOS]), reduction="none")
    norms: list[float] = gradient_norms(losses, states)[:, 0].tolist()
    return norms
