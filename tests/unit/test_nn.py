"""The recurrent network: its equations, and what must never change its output."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mt.nn.architecture import Architecture
from mt.nn.decoder import DecoderState
from mt.nn.embedding import Embedding
from mt.nn.encoder import Memory
from mt.nn.recurrent import BidirectionalStack, initialize_lstm, lstm_step
from mt.nn.seq2seq import Seq2Seq

VOCABULARY = 11
WIRINGS = "parallel", "input-feeding"
ATTENTIONS = "dot", "general", "additive", "multi-head"
TIES = "none", "two-way", "three-way"
EVERY = list(itertools.product(WIRINGS, ATTENTIONS, (1, 2), ("zero", "learned"), TIES))
SOME = list(itertools.product(WIRINGS, ATTENTIONS))


def network(**options: Any) -> Seq2Seq:
    sizes: dict[str, Any] = {"embedding_size": 6, "hidden_size": 8, "attention_heads": 2}
    torch.manual_seed(0)
    model = Seq2Seq(Architecture(**(sizes | options)), VOCABULARY, VOCABULARY).double()
    with torch.no_grad():
        for parameter in model.parameters():  # biases too, or half of the equations go untested
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def sentences(lengths: list[int], width: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    source = torch.zeros(len(lengths), width or max(lengths), dtype=torch.long)
    for row, length in zip(source, lengths, strict=True):
        row[:length] = torch.randint(1, VOCABULARY, (length,), generator=generator)
    return source, torch.tensor(lengths)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


# Decoding step by step


@pytest.mark.parametrize(("wiring", "attention", "layers", "bridge", "tie"), EVERY)
@torch.no_grad()
def test_stepping_equals_the_whole_sequence(
    wiring: str, attention: str, layers: int, bridge: str, tie: str
) -> None:
    model = network(
        wiring=wiring,
        attention=attention,
        encoder_layers=layers,
        decoder_layers=layers,
        bridge=bridge,
        tie_embeddings=tie,
    )
    source, lengths = sentences([4, 2, 5])
    target = torch.randint(VOCABULARY, (3, 6))
    expected = model.output(model(source, lengths, target))
    state = model.decoder.start(model.encoder(source, lengths))
    for time, tokens in enumerate(target.unbind(1)):
        logits, weights, state = model.decoder.step(tokens, state)
        close(logits, expected[:, time])
        close(weights.sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(("wiring", "attention"), SOME)
@torch.no_grad()
def test_hypotheses_that_move_and_leave_equal_the_whole_sequence(
    wiring: str, attention: str
) -> None:
    """Three rows a sentence swap places at each step, and the middle sentence leaves."""
    model = network(wiring=wiring, attention=attention, decoder_layers=2)
    source, lengths = sentences([4, 2, 5])
    generator = torch.Generator().manual_seed(1)
    state = model.decoder.start(model.encoder(source, lengths))
    state = state.reorder(torch.arange(3)[:, None].expand(3, 3))
    owners, history = [0, 1, 2], torch.zeros(9, 0, dtype=torch.long)
    for time in range(6):
        tokens = torch.randint(VOCABULARY, (3 * len(owners),), generator=generator)
        history = torch.cat((history, tokens[:, None]), 1)
        step = model.decoder.step(tokens, state)
        rows = torch.tensor(owners).repeat_interleave(3)
        close(step.logits, model.output(model(source[rows], lengths[rows], history))[:, -1])
        assert (step.attention[source[rows] == 0] == 0).all()
        kept = [0, 2] if time == 2 else list(range(len(owners)))
        parents = torch.randint(3, (len(kept), 3), generator=generator)
        index = parents + 3 * torch.tensor(kept)[:, None]
        state, history = step.state.reorder(index), history[index.flatten()]
        owners = [owners[number] for number in kept]
    assert owners == [0, 2]


def make_state(sentences: int, rows: int) -> DecoderState:
    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape)

    return DecoderState(
        numbers(sentences * rows, 2, 3),
        numbers(sentences * rows, 2, 3),
        numbers(sentences * rows, 0),
        numbers(sentences, 4, 3),
        numbers(sentences, 4, 3),
        numbers(sentences, 4) > 0,
    )


def test_reordering_keeps_the_memory_of_sentences_that_stay_uncopied() -> None:
    state = make_state(2, 3)
    moved = state.reorder(torch.tensor([[2, 0], [3, 3]]))
    assert moved.keys is state.keys
    assert moved.memory is state.memory
    assert moved.source_pad is state.source_pad
    assert moved.hidden.equal(state.hidden[[2, 0, 3, 3]])
    assert moved.cell.equal(state.cell[[2, 0, 3, 3]])


def test_reordering_drops_the_memory_of_sentences_that_leave() -> None:
    state = make_state(3, 2)
    moved = state.reorder(torch.tensor([[1], [4]]))
    assert moved.memory.equal(state.memory[[0, 2]])
    assert moved.keys.equal(state.keys[[0, 2]])
    assert moved.source_pad.equal(state.source_pad[[0, 2]])
    assert moved.hidden.equal(state.hidden[[1, 4]])


# Batches


@pytest.mark.parametrize(("wiring", "attention"), SOME)
@settings(max_examples=5)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    padding=st.integers(0, 3),
    seed=st.integers(0, 999),
)
@torch.no_grad()
def test_neither_padding_nor_neighbours_nor_order_change_an_output(
    wiring: str, attention: str, lengths: list[int], padding: int, seed: int
) -> None:
    model = network(wiring=wiring, attention=attention, encoder_layers=2, decoder_layers=2)
    source, source_lengths = sentences(lengths, max(lengths) + padding, seed)
    target = torch.randint(VOCABULARY, (len(lengths), 5))
    together = model(source, source_lengths, target)
    order = torch.randperm(len(lengths))
    close(model(source[order], source_lengths[order], target[order]), together[order])
    for row, length in enumerate(lengths):
        alone = model(source[row : row + 1, :length], source_lengths[row : row + 1], target[[row]])
        close(alone[0], together[row])
    source[source == 0] = 7  # whatever stands in the padding
    close(model(source, source_lengths, target), together)


@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_the_packed_encoder_equals_each_sentence_alone(layers: int) -> None:
    model = network(encoder_layers=layers)
    lengths = [3, 6, 1, 6]
    source, source_lengths = sentences(lengths, 8)
    together: Memory = model.encoder(source, source_lengths)
    for row, length in enumerate(lengths):
        alone = model.encoder(source[row : row + 1, :length], source_lengths[row : row + 1])
        close(together.states[row, :length], alone.states[0])
        close(together.summary[row], alone.summary[0])
        assert together.source_pad[row].tolist() == [False] * length + [True] * (8 - length)


@torch.no_grad()
def test_future_target_tokens_do_not_change_the_past() -> None:
    for wiring in WIRINGS:
        model = network(wiring=wiring, decoder_layers=2)
        source, lengths = sentences([4])
        target = torch.tensor([[1, 2, 3, 4]])
        changed = torch.tensor([[1, 2, 9, 4]])
        before, after = (model(source, lengths, t)[0] for t in (target, changed))
        close(before[:2], after[:2])
        assert (before[2:] - after[2:]).abs().amax(1).gt(1e-6).all()


# Equations


def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(inputs: Any, hidden: Any, cell: Any, lstm: nn.LSTM, direction: str = "") -> Any:
    """The equations of `mt.nn.recurrent`, one sequence `(T, I)`: states `(T, H)`."""
    w, u, b1, b2 = (
        getattr(lstm, f"{name}_l0{direction}").detach().numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    states = []
    for x in inputs:
        i, f, g, o = np.split(w @ x + u @ hidden + b1 + b2, 4)
        cell = logistic(f) * cell + logistic(i) * np.tanh(g)
        hidden = logistic(o) * np.tanh(cell)
        states.append(hidden)
    return np.stack(states)


@torch.no_grad()
def test_a_step_equals_the_equations_and_the_fused_layer() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 4, batch_first=True).double()
    inputs, hidden, cell = (torch.randn(*s).double() for s in ((2, 5, 3), (2, 4), (2, 4)))
    fused, (last_hidden, last_cell) = lstm(inputs, (hidden[None], cell[None]))
    by_hand = [
        lstm_by_hand(*(x[row].numpy() for x in (inputs, hidden, cell)), lstm) for row in (0, 1)
    ]
    close(fused, torch.from_numpy(np.stack(by_hand)))
    for time in range(5):
        hidden, cell = lstm_step(lstm, inputs[:, time], hidden, cell)
        close(hidden, fused[:, time])
    close(hidden, last_hidden[0])
    close(cell, last_cell[0])


@pytest.mark.parametrize("residual", [True, False])
@torch.no_grad()
def test_the_bidirectional_stack_equals_the_equations(residual: bool) -> None:
    torch.manual_seed(0)
    stack = BidirectionalStack(3, 4, 2, residual, dropout=0.5).double().eval()
    lengths = [5, 2]
    inputs = torch.randn(2, 5, 3).double()
    packed = pack_padded_sequence(inputs, torch.tensor(lengths), True, False)
    output, summary, _ = stack(packed)
    states = pad_packed_sequence(output, batch_first=True)[0]
    for row, length in enumerate(lengths):
        below = inputs[row, :length].numpy()
        for number, lstm in enumerate(stack.layers):
            assert isinstance(lstm, nn.LSTM)
            zero = np.zeros(4)
            forward = lstm_by_hand(below, zero, zero, lstm)
            backward = lstm_by_hand(below[::-1], zero, zero, lstm, "_reverse")[::-1]
            both = np.concatenate((forward, backward), 1)
            below = both + below if residual and number > 0 else both
        close(states[row, :length], torch.from_numpy(below))
        close(summary[row], torch.from_numpy(np.concatenate((forward[-1], backward[0]))))


@pytest.mark.parametrize("residual", [True, False])
def test_the_parallel_wiring_equals_its_equations(residual: bool) -> None:
    """Two layers with dot attention, written out from the docstrings of the decoder."""
    model = network(decoder_layers=2, attention="dot", bridge="learned", residual=residual)
    assert model.encoder.stack.residual == residual
    decoder = model.decoder
    source, lengths = sentences([4])
    target = torch.tensor([[3, 1, 5]])
    states, _, summary = model.encoder(source, lengths)
    assert decoder.bridge is not None
    first = torch.tanh(decoder.bridge(summary))[0].detach().numpy().reshape(2, 2, 8)
    memory = states[0].detach().numpy()
    inputs = decoder.embedding.weight[target[0]].detach().numpy() * 6**0.5
    bottom, above = decoder.layers
    assert isinstance(bottom, nn.LSTM)
    assert isinstance(above, nn.LSTM)
    low = lstm_by_hand(inputs, *first[0], bottom)
    energy = np.exp(low @ memory.T)
    context = energy / energy.sum(1, keepdims=True) @ memory
    high = lstm_by_hand(np.concatenate((low, context), 1), *first[1], above)
    high = high + low if residual else high
    weight, bias = (p.detach().numpy() for p in decoder.combine.parameters())
    vectors = np.concatenate((high, context), 1) @ weight.T + bias
    close(model(source, lengths, target)[0], torch.from_numpy(vectors))


def test_input_feeding_equals_its_equations() -> None:
    model = network(wiring="input-feeding", attention="general", bridge="zero")
    decoder = model.decoder
    source, lengths = sentences([4])
    target = torch.tensor([[3, 1, 5]])
    memory = model.encoder(source, lengths).states[0].detach().numpy()
    inputs = decoder.embedding.weight[target[0]].detach().numpy() * 6**0.5
    (lstm,) = decoder.layers
    assert isinstance(lstm, nn.LSTM)
    bilinear = decoder.attention.project.weight.detach().numpy()
    weight, bias = (p.detach().numpy() for p in decoder.combine.parameters())
    vector, vectors = np.zeros(6), []
    fed: list[Any] = []
    for x in inputs:
        fed.append(np.concatenate((x, vector)))
        hidden = lstm_by_hand(np.stack(fed), np.zeros(8), np.zeros(8), lstm)[-1]
        energy = np.exp(memory @ bilinear.T @ hidden)
        context = energy / energy.sum() @ memory
        vector = weight @ np.concatenate((hidden, context)) + bias
        vectors.append(vector)
    close(model(source, lengths, target)[0], torch.from_numpy(np.stack(vectors)))


def test_initial_lstm_weights() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 5, bidirectional=True)
    initialize_lstm(lstm)
    for direction in ("", "_reverse"):
        for gate in getattr(lstm, f"weight_hh_l0{direction}").detach().chunk(4):
            close(gate @ gate.T, torch.eye(5), 1e-5)
        bias = getattr(lstm, f"bias_ih_l0{direction}") + getattr(lstm, f"bias_hh_l0{direction}")
        assert bias.tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10  # i, f, g, o


# Dropout


def test_word_dropout_blanks_whole_tokens_in_training_alone() -> None:
    torch.manual_seed(0)
    embedding = Embedding(50, 8, dropout=0.0, word_dropout=0.3)
    tokens = torch.randint(50, (40, 50))
    plain = embedding.eval()(tokens)
    dropped = embedding.train()(tokens)
    blank = (dropped == 0).all(-1)
    assert 0.25 < blank.float().mean() < 0.35
    assert dropped[~blank].equal(plain[~blank])
    assert not (plain == 0).any()


def test_embeddings_have_unit_variance_and_their_table_suits_the_output_layer() -> None:
    torch.manual_seed(0)
    embedding = Embedding(400, 64, 0.0, 0.0)
    assert embedding(torch.arange(400)).std().item() == pytest.approx(1, abs=0.05)
    assert embedding.weight.std().item() == pytest.approx(1 / 8, abs=0.01)


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize(
    "dropout",
    ["embedding_dropout", "layer_dropout", "context_dropout", "output_dropout", "word_dropout"],
)
@torch.no_grad()
def test_each_dropout_acts_in_training_alone(wiring: str, dropout: str) -> None:
    names = "embedding", "layer", "context", "output", "word"
    off = {f"{name}_dropout": 0.0 for name in names}
    model = network(wiring=wiring, decoder_layers=2, encoder_layers=2, **(off | {dropout: 0.5}))
    arguments = *sentences([4, 3]), torch.ones(2, 4, dtype=torch.long)
    plain = model.eval()(*arguments)
    assert plain.equal(model(*arguments))
    model.train()
    assert not torch.allclose(model(*arguments), plain)
    silent = network(wiring=wiring, decoder_layers=2, encoder_layers=2, **off)
    close(silent.train()(*arguments), plain)


# Tied weights and refusals


@pytest.mark.parametrize("tie", TIES)
def test_tied_weights_are_one_parameter(tie: str) -> None:
    model = network(tie_embeddings=tie)
    source, target = model.encoder.embedding.weight, model.decoder.embedding.weight
    assert (model.output.weight is target) == (tie != "none")
    assert (source is target) == (tie == "three-way")
    tables = {"none": 3, "two-way": 2, "three-way": 1}[tie]
    assert sum(p.shape == (VOCABULARY, 6) for p in model.parameters()) == tables


@pytest.mark.parametrize(("wiring", "attention"), SOME)
def test_every_parameter_learns(wiring: str, attention: str) -> None:
    model = network(
        wiring=wiring,
        attention=attention,
        encoder_layers=2,
        decoder_layers=2,
        tie_embeddings="none",
    )
    source, lengths = sentences([4, 3])
    vectors = model(source, lengths, torch.randint(VOCABULARY, (2, 4)))
    model.output(vectors).square().sum().backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A softmax does not feel what all its scores share.
    assert idle in ([], ["decoder.attention.key.bias"])


def test_clashing_options_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"tie_embeddings: three-way.*tokenizer\.joint"):
        Seq2Seq(Architecture(tie_embeddings="three-way"), 10, 11)
    with pytest.raises(ValueError, match=r"attention_heads: 3.*hidden_size 8"):
        Seq2Seq(Architecture(hidden_size=8, attention="multi-head", attention_heads=3), 10, 10)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("embedding_size", 0),
        ("hidden_size", -8),
        ("encoder_layers", 0),
        ("decoder_layers", 0),
        ("attention_heads", 0),
        ("layer_dropout", 1.5),
        ("word_dropout", -0.1),
    ],
)
def test_impossible_options_are_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"model\.{option}: .*{value}"):
        network(attention="multi-head", **{option: value})
