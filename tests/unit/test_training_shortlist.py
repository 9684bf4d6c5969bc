"""What a shortlist learns from attention, against counting in plain Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from mt.bundle import Bundle
from mt.recipe import ShortlistOptions
from mt.search.shortlist import Shortlist
from mt.tokenizer import BOS, EOS
from mt.training import shortlist as module
from mt.training.shortlist import coverage, learn_shortlist
from mt.translator import Translator

SOURCES = ["abc def", "ghij", "", "abc", "a b c d", "jih gfe"]
TARGETS = ["x yz", "abc def ghi", "a", "zz z", "b", "abc abc"]


@pytest.fixture
def translator(make_bundle: Callable[..., Bundle]) -> Translator:
    return Translator(make_bundle(joint=False), "cpu")


@torch.no_grad()
def counted(translator: Translator, numbers: range) -> Counter[tuple[int, int]]:
    """How often each source token is what a target token's attention is on, pair by pair."""
    links: Counter[tuple[int, int]] = Counter()
    for number in numbers:
        [[source], [target]] = translator.encode_pairs([SOURCES[number]], [TARGETS[number]])
        ids = [*source, EOS]
        state = translator.model.start(torch.tensor([ids]), torch.tensor([len(ids)]))
        for last, token in zip([BOS, *target], target, strict=False):
            step = translator.model.step(torch.tensor([last]), state)
            assert step.attention is not None
            links[ids[int(step.attention.argmax())], token] += 1
            state = step.state
    return links


@pytest.mark.parametrize(("size", "frequent"), [(2, 3), (5, 0), (1, 100)])
def test_a_list_holds_what_attention_links_the_most(
    translator: Translator, size: int, frequent: int
) -> None:
    batches = [(SOURCES[:2], TARGETS[:2]), (SOURCES[2:], TARGETS[2:])]
    options = ShortlistOptions(size, frequent)
    found = learn_shortlist(translator, batches, len(SOURCES), options)
    links = counted(translator, range(len(SOURCES)))
    assert len({source for source, _ in links}) > 2
    assert found.likely.shape == (len(translator.tokenizers.source), size)
    for source, row in enumerate(found.likely.tolist()):
        own = [(-count, target) for (one, target), count in links.items() if one == source]
        wanted = [target for _, target in sorted(own)[:size]]
        assert row == wanted + [EOS] * (size - len(wanted))
    totals: Counter[int] = Counter()
    for (_, target), count in links.items():
        totals[target] += count
    order = sorted(range(len(translator.tokenizers.target)), key=lambda t: (-totals[t], t))
    assert found.frequent.tolist() == order[:frequent]


def test_a_large_text_is_sampled_evenly(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAIRS", 2)
    options = ShortlistOptions(4, 0)
    found = learn_shortlist(translator, [(SOURCES, TARGETS)], len(SOURCES), options)
    links = counted(translator, range(0, 6, 3))
    held = {
        (source, target)
        for source, row in enumerate(found.likely.tolist())
        for target in row
        if target != EOS
    }
    assert held == set(links)


def test_coverage_counts_tokens_of_the_text(translator: Translator) -> None:
    vocabulary = len(translator.tokenizers.target)
    nothing = Shortlist(
        torch.full((len(translator.tokenizers.source), 1), EOS), torch.tensor([EOS])
    )
    assert coverage(nothing, translator, SOURCES, TARGETS) == (0, 1)
    everything = nothing._replace(frequent=torch.arange(vocabulary))
    assert coverage(everything, translator, SOURCES, TARGETS) == (1, vocabulary)
    [_, [target]] = translator.encode_pairs(["a"], ["abc abc x"])
    one = nothing._replace(frequent=torch.tensor(target[:1]))
    share = target.count(target[0]) / len(target)
    assert coverage(one, translator, ["a"], ["abc abc x"]) == (share, 2)
