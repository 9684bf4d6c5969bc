"""Small models must learn to copy, reverse and sort sequences that they have never seen."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from architectures import Chosen, name_of, pairwise

from mt.batches import collate, pad, plan_updates
from mt.nn.architecture import Architecture
from mt.nn.seq2seq import Seq2Seq
from mt.recipe import Training
from mt.search import SearchOptions, search
from mt.tokenizer import BOS, EOS, PAD, UNK
from mt.training.module import Budget
from mt.training.schedules import learning_rate
from mt.training.translation import TranslationModule

Rows = list[list[int]]

COPY, REVERSE, SORT = 4, 5, 6  # the first token says what is wanted
SYMBOLS = range(7, 15)
VOCABULARY = 15


def answer(source: list[int]) -> list[int]:
    task, *symbols = source
    return {COPY: symbols, REVERSE: symbols[::-1], SORT: sorted(symbols)}[task]


def questions(count: int, shortest: int, longest: int, generator: random.Random) -> Rows:
    return [
        [generator.choice((COPY, REVERSE, SORT)), *generator.choices(SYMBOLS, k=length)]
        for length in (generator.randint(shortest, longest) for _ in range(count))
    ]


def train(architecture: Architecture, sources: Rows, updates: int) -> Seq2Seq:
    torch.manual_seed(1)
    model = Seq2Seq(architecture, VOCABULARY, VOCABULARY)
    cells = architecture.encoder_cell, architecture.decoder_cell
    gated = not any(cell.startswith("elman") for cell in cells)
    options = Training(
        learning_rate=1e-2 if gated else 3e-3,  # without gates, great steps end in saturation
        warmup_steps=30,
        schedule="linear",
        label_smoothing=0.05,
    )
    module = TranslationModule(model, options, seed=1, budget=Budget(updates, None))
    optimizer = module.configure_optimizers()
    targets = [answer(source) for source in sources]
    lengths = (np.array([len(row) + 1 for row in rows]) for rows in (sources, targets))
    plan = plan_updates(*lengths, tokens=700, seed=1, epoch=0)
    model.train()
    for step in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(options, step, step / updates)
        update = plan[step % len(plan)]
        sums = module.loss_sums(
            collate([sources[n] for n in update], [targets[n] for n in update], update)
        )
        optimizer.zero_grad()
        (sums.loss / sums.outputs).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def decode(model: Seq2Seq, sources: Rows, beam_size: int) -> Rows:
    with torch.no_grad():
        ids, lengths = pad([[*row, EOS] for row in sources])
        state = model.decoder.start(model.encoder(ids, lengths))
        options = SearchOptions(beam_size=beam_size)
        found = search(
            model.decoder,
            state,
            lengths - 1,
            options,
            bos=BOS,
            eos=EOS,
            forbidden=(PAD, UNK, BOS),
        )
    return [best[0].tokens for best in found]


def learnt(architecture: Architecture, longest: int, updates: int) -> set[int]:
    """Train on sequences of up to `longest` symbols, ask for others, greedily and with a beam.

    Returns the tasks that at least 95% of the answers get right.
    """
    generator = random.Random(1)
    unseen = questions(300, 3, longest, generator)
    known = {tuple(source) for source in unseen}
    asked = questions(20_000, 1, longest, generator)
    sources = [source for source in asked if tuple(source) not in known]
    model = train(architecture, sources, updates)
    mastered = {COPY, REVERSE, SORT}
    for beam_size in (1, 4):
        decoded = decode(model, unseen, beam_size)
        for task in (COPY, REVERSE, SORT):
            right = [d == answer(s) for s, d in zip(unseen, decoded, strict=True) if s[0] == task]
            if sum(right) / len(right) < 0.95:
                mastered.discard(task)
    return mastered


SIZES: dict[str, Any] = {
    "embedding_size": 32,
    "hidden_size": 64,
    "embedding_dropout": 0.0,
    "layer_dropout": 0.0,
    "output_dropout": 0.0,
}


@pytest.mark.learning
@pytest.mark.parametrize(
    ("updates", "options"),
    [
        (600, {"attention": "dot"}),
        (600, {"attention": "multi-head", "encoder_layers": 2, "decoder_layers": 2}),
        (600, {"attention": "additive", "wiring": "input-feeding"}),
        (900, {"attention": "general", "bridge": "zero", "tie_embeddings": "two-way"}),
    ],
    ids=lambda given: "-".join(map(str, given.values())) if isinstance(given, dict) else None,
)
def test_learns_to_copy_reverse_and_sort(updates: int, options: dict[str, Any]) -> None:
    assert learnt(Architecture(**SIZES, **options), 6, updates) == {COPY, REVERSE, SORT}


@pytest.mark.learning
@pytest.mark.every
@pytest.mark.parametrize("chosen", pairwise(), ids=name_of)
def test_every_option_learns_in_company(chosen: Chosen) -> None:
    """Most master all three tasks; the weakest, such as a one-way Elman network, only to sort.

    Without attention all of a source has to go through one state, which takes longer to learn; so
    do networks with the logistic function, whose slopes are at most a quarter.
    """
    dropped = {name: 0.05 for name in SIZES if name.endswith("_dropout")}  # or locking does nothing
    sizes = SIZES | dropped if chosen["locked_dropout"] else SIZES
    architecture = Architecture(**sizes, **chosen)
    updates = 8000 if architecture.attention == "none" else 1200
    if "elman-sigmoid" in (architecture.encoder_cell, architecture.decoder_cell):
        updates *= 2
    assert learnt(architecture, 5, updates)
