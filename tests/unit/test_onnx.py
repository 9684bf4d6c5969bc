"""Graphs compute what the network computes, in every wiring, and travel in the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import OPTIONS, Chosen, allowed, name_of, pairwise
from torch import Tensor

from mt.bundle import Bundle, add_files, load_bundle, load_graphs, save_bundle
from mt.errors import MTError
from mt.nn.architecture import Architecture
from mt.nn.attention import ATTENTIONS
from mt.nn.decoder import DecoderState
from mt.nn.seq2seq import Seq2Seq
from mt.onnx import DECODER, ENCODER, OnnxNetwork, export

VOCABULARY = 30
UNROLLED = "elman-sigmoid", "layer-norm-lstm", "ssru"
"""Encoder cells that no graph has."""


def exportable(chosen: Chosen) -> Chosen:
    """The architecture with another encoder where its own runs step by step."""
    cells = [chosen["encoder_cell"]]
    if cells[0] in UNROLLED:
        cells = ["gru", "lstm"]  # one of them suits every bridge
    others = (chosen | {"encoder_cell": cell, "encoder_transition_depth": 1} for cell in cells)
    return next(filter(allowed, others))


def every_value() -> list[Chosen]:
    """Some of them in which every value of every option stands."""
    found: list[Chosen] = []
    seen: set[tuple[str, Any]] = set()
    for chosen in map(exportable, pairwise()):
        if not seen >= set(chosen.items()):
            seen |= set(chosen.items())
            found.append(chosen)
    return found


def network(**options: Any) -> Seq2Seq:
    torch.manual_seed(0)
    sizes = {"embedding_size": 12, "hidden_size": 16, "attention_heads": 4}
    model = Seq2Seq(Architecture(**(sizes | options)), VOCABULARY, VOCABULARY).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # that of the output layer begins at zero
                parameter.normal_(std=0.3)
    return model


SOURCE, LENGTHS = torch.tensor([[4, 9, 7, 0, 0], [5, 6, 7, 8, 9], [8, 0, 0, 0, 0]]), [3, 5, 1]


def walk(network: Any) -> list[tuple[Tensor, Tensor | None]]:
    """Three steps of two hypotheses a sentence: they cross, one ends, and a sentence leaves."""
    with torch.no_grad():
        state: DecoderState = network.start(SOURCE, torch.tensor(LENGTHS))
        state = state.reorder(torch.tensor([[0, 0], [1, 1], [2, 2]]))
        found = []
        for tokens, index, places in (
            ([4, 5, 6, 7, 8, 9], [[1, 0], [2, 3], [5, 5]], torch.tensor([0, 1, 3, 5])),
            ([9, 4, 7, 5], [[0, 0], [5, 5]], None),
            ([6, 6, 5, 7], [[0, 1], [2, 3]], None),
        ):
            step = network.step(torch.tensor(tokens), state)
            found.append((step.logits, step.attention))
            state = step.state.reorder(torch.tensor(index), places)
    return found


def test_the_examples_have_every_value_that_a_graph_can_have() -> None:
    seen = {item for chosen in every_value() for item in chosen.items()}
    every = {(name, value) for name, values in OPTIONS.items() for value in values}
    refused = {("encoder_cell", cell) for cell in UNROLLED} | {("encoder_transition_depth", 2)}
    assert seen == every - refused


@pytest.mark.parametrize("chosen", every_value(), ids=name_of)
def test_graphs_equal_the_network(chosen: Chosen) -> None:
    model = network(**chosen)
    graphs = OnnxNetwork(export(model, "none"), threads=1)
    for (logits, attention), (wanted, weights) in zip(walk(graphs), walk(model), strict=True):
        torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-4)
        if weights is None:
            assert attention is None
        else:
            assert attention is not None
            torch.testing.assert_close(attention, weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        *({"tie_embeddings": tie} for tie in ("none", "two-way", "three-way")),
        *({"attention": kind, "wiring": "conditional"} for kind in ATTENTIONS if kind != "none"),
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_eight_bits_stay_close_in_a_quarter_of_the_size(options: dict[str, Any]) -> None:
    model = network(**options, embedding_size=64, hidden_size=128)
    plain, small = export(model, "none"), export(model, "int8")
    assert plain.keys() == small.keys() == {ENCODER, DECODER}
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert sum(map(len, plain.values())) > 4 * weights
    assert sum(map(len, small.values())) < sum(map(len, plain.values())) / 3
    graphs = OnnxNetwork(small, threads=1)
    for (logits, _), (wanted, _) in zip(walk(graphs), walk(model), strict=True):
        off = (logits - wanted).norm() / wanted.norm()
        assert 0 < off < 0.05


@pytest.mark.parametrize("cell", UNROLLED)
def test_an_encoder_that_runs_step_by_step_is_refused(cell: str) -> None:
    with pytest.raises(MTError, match=r"model\.encoder_cell is lstm, gru"):
        export(network(encoder_cell=cell, bridge="learned"), "none")
    with pytest.raises(MTError, match=r"model\.encoder_transition_depth: 1"):
        export(network(encoder_transition_depth=2), "none")


@pytest.fixture
def saved(make_bundle: Callable[..., Bundle], tmp_path: Path) -> Path:
    save_bundle(make_bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_graphs_travel_in_the_bundle_under_its_hashes(saved: Path) -> None:
    with pytest.raises(MTError, match="run `mt export"):
        load_graphs(saved, (ENCODER, DECODER))
    with pytest.raises(MTError, match=r"encoder\.onnx: ONNX Runtime cannot read it"):
        OnnxNetwork({ENCODER: b"one", DECODER: b"two"}, threads=1)
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    add_files(saved, {ENCODER: b"one", DECODER: b"two"})
    add_files(saved, {ENCODER: b"new", DECODER: b"two"})
    assert load_graphs(saved, (ENCODER, DECODER)) == {ENCODER: b"new", DECODER: b"two"}
    for name, content in before.items():
        if name != "config.json":
            assert (saved / name).read_bytes() == content
    config, old = json.loads((saved / "config.json").read_text()), json.loads(before["config.json"])
    assert {**config, "sha256": 0} == {**old, "sha256": 0}
    assert old["sha256"].items() <= config["sha256"].items()
    assert asdict(load_bundle(saved).search) == config["search"]
    (saved / DECODER).write_bytes(b"twa")
    with pytest.raises(MTError, match=r"decoder\.onnx: .*SHA-256 differs"):
        load_graphs(saved, (ENCODER, DECODER))
    with pytest.raises(MTError, match=r"decoder\.onnx: .*SHA-256 differs"):
        add_files(saved, {ENCODER: b"one"})
    add_files(saved, {ENCODER: b"one", DECODER: b"two"})  # what is replaced may be damaged
    assert load_graphs(saved, (ENCODER, DECODER))[DECODER] == b"two"
