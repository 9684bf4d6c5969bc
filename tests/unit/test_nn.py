"""The recurrent network: its equations, and what must never change its output."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from architectures import Chosen, name_of, pairwise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mt.nn.architecture import Architecture
from mt.nn.cells import CELLS
from mt.nn.decoder import DecoderState
from mt.nn.dropout import Dropout, drop
from mt.nn.embedding import Embedding
from mt.nn.encoder import Memory
from mt.nn.linear import Linear
from mt.nn.recurrent import KernelLayer, RecurrentStack, make_layer
from mt.nn.seq2seq import Seq2Seq

VOCABULARY = 11
WIRINGS = "parallel", "input-feeding", "conditional"
TIES = "none", "two-way", "three-way"

every = pytest.mark.parametrize("chosen", pairwise(), ids=name_of)
some = pytest.mark.parametrize("chosen", pairwise()[:12], ids=name_of)


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


@every
@torch.no_grad()
def test_stepping_equals_the_whole_sequence(chosen: Chosen) -> None:
    model = network(**chosen)
    source, lengths = sentences([4, 2, 5])
    target = torch.randint(VOCABULARY, (3, 6))
    expected = model.output(model(source, lengths, target))
    aligned = None
    if chosen["attention"] == "none":
        with pytest.raises(ValueError, match="aligns nothing"):
            model.align(source, lengths, target)
    else:
        aligned = model.align(source, lengths, target)
    state = model.decoder.start(model.encoder(source, lengths))
    some = torch.tensor([1, 2, 5])
    for time, tokens in enumerate(target.unbind(1)):
        close(model.narrow(some).step(tokens, state).logits, expected[:, time, some])
        logits, weights, state = model.decoder.step(tokens, state)
        close(logits, expected[:, time])
        if weights is None:
            assert aligned is None
        else:
            assert aligned is not None
            close(weights, aligned[:, time])
            close(weights.sum(1), torch.ones(3, dtype=torch.float64))


@every
@torch.no_grad()
def test_hypotheses_that_move_and_leave_equal_the_whole_sequence(chosen: Chosen) -> None:
    """Three hypotheses a sentence swap places at each step, some end, and the middle sentence
    leaves."""
    model = network(**chosen)
    source, lengths = sentences([4, 2, 5])
    generator = torch.Generator().manual_seed(1)
    state = model.decoder.start(model.encoder(source, lengths))
    state = state.reorder(torch.arange(3)[:, None].expand(3, 3))
    owners, history = [0, 1, 2], torch.zeros(9, 0, dtype=torch.long)
    places = torch.arange(9)
    for time in range(6):
        tokens = torch.randint(VOCABULARY, (len(places),), generator=generator)
        history = torch.cat((history, tokens[:, None]), 1)
        step = model.decoder.step(tokens, state)
        rows = torch.tensor(owners)[places // 3]
        close(step.logits, model.output(model(source[rows], lengths[rows], history))[:, -1])
        assert step.attention is None or (step.attention[source[rows] == 0] == 0).all()
        kept = [0, 2] if time == 2 else list(range(len(owners)))
        there = torch.rand(len(kept), 3, generator=generator) < (1.0 if time < 2 else 0.6)
        there[:, 1] = True
        index = 3 * torch.tensor(kept)[:, None].expand(-1, 3).clone()  # at empty places, whichever
        for row, number in enumerate(kept):
            [old] = (places // 3 == number).nonzero(as_tuple=True)
            drawn = torch.randint(len(old), (3,), generator=generator)
            index[row] = torch.where(there[row], places[old][drawn], index[row])
        after = there.flatten().nonzero()[:, 0]
        came = torch.searchsorted(places, index.flatten()[after])
        state, history = step.state.reorder(index, after if time else None), history[came]
        places, owners = after, [owners[number] for number in kept]
    assert owners == [0, 2]
    assert 2 <= len(places) < 6


def make_state(sentences: int, rows: int) -> DecoderState:
    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape)

    return DecoderState(
        ((numbers(sentences * rows, 3), numbers(sentences * rows, 3)),),
        numbers(sentences * rows, 2),
        numbers(sentences * rows, 4, 1),
        numbers(sentences, 4, 3),
        numbers(sentences, 4, 3),
        numbers(sentences, 4) > 0,
    )


def rows_of(state: DecoderState) -> list[Tensor]:
    return [*state.layers[0], state.feed, state.past]


def test_reordering_keeps_the_memory_of_sentences_that_stay_uncopied() -> None:
    state = make_state(2, 3)
    moved = state.reorder(torch.tensor([[2, 0], [3, 3]]))
    assert moved.keys is state.keys
    assert moved.memory is state.memory
    assert moved.source_pad is state.source_pad
    for after, before in zip(rows_of(moved), rows_of(state), strict=True):
        assert after.equal(before[[2, 0, 3, 3]])


def test_reordering_drops_the_memory_of_sentences_that_leave() -> None:
    state = make_state(3, 2)
    moved = state.reorder(torch.tensor([[1], [4]]))
    assert moved.memory.equal(state.memory[[0, 2]])
    assert moved.keys.equal(state.keys[[0, 2]])
    assert moved.source_pad.equal(state.source_pad[[0, 2]])
    for after, before in zip(rows_of(moved), rows_of(state), strict=True):
        assert after.equal(before[[1, 4]])


# Batches


@every
@settings(max_examples=3)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    padding=st.integers(0, 3),
    seed=st.integers(0, 999),
)
@torch.no_grad()
def test_neither_padding_nor_neighbours_nor_order_change_an_output(
    chosen: Chosen, lengths: list[int], padding: int, seed: int
) -> None:
    model = network(**chosen)
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


@pytest.mark.parametrize(
    ("cell", "layers", "depth"),
    [(cell, *size) for cell in CELLS for size in ((1, 1), (3, 1))]
    + [(cell, 2, 2) for cell in CELLS if cell != "ssru"],
)
@pytest.mark.parametrize("bidirectional", [True, False])
@torch.no_grad()
def test_the_packed_encoder_equals_each_sentence_alone(
    cell: str, bidirectional: bool, layers: int, depth: int
) -> None:
    model = network(
        encoder_cell=cell,
        bidirectional=bidirectional,
        encoder_layers=layers,
        encoder_transition_depth=depth,
    )
    lengths = [3, 6, 1, 6]
    source, source_lengths = sentences(lengths, 8)
    together: Memory = model.encoder(source, source_lengths)
    for row, length in enumerate(lengths):
        alone = model.encoder(source[row : row + 1, :length], source_lengths[row : row + 1])
        close(together.states[row, :length], alone.states[0])
        for one, other in zip(together.final, alone.final, strict=True):
            close(one[row], other[0])
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


def kernel(layer: Any) -> nn.LSTM:
    assert isinstance(layer, KernelLayer)
    assert isinstance(layer.kernel, nn.LSTM)
    return layer.kernel


def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def lstm_step_by_hand(x: Any, hidden: Any, cell: Any, lstm: nn.LSTM, direction: str = "") -> Any:
    """The equations of `mt.nn.cells.LSTM`: the new hidden and cell state."""
    w, u, b1, b2 = (
        getattr(lstm, f"{name}_l0{direction}").detach().numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    i, f, g, o = np.split(w @ x + u @ hidden + b1 + b2, 4)
    cell = logistic(f) * cell + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(cell), cell


def lstm_by_hand(inputs: Any, hidden: Any, cell: Any, lstm: nn.LSTM, direction: str = "") -> Any:
    """One sequence `(T, I)`: states `(T, H)`."""
    states = []
    for x in inputs:
        hidden, cell = lstm_step_by_hand(x, hidden, cell, lstm, direction)
        states.append(hidden)
    return np.stack(states)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("depth", [1, 2])
@torch.no_grad()
def test_a_layer_step_by_step_equals_the_whole_sequence(cell: str, depth: int) -> None:
    torch.manual_seed(0)
    layer = make_layer(cell, 3, 4, depth=depth).double()
    inputs = torch.randn(2, 5, 3).double()
    state = tuple(torch.randn(2, 4).double() for _ in range(CELLS[cell].states))
    whole, final = layer(inputs, tuple(tensor[None] for tensor in state))
    for time in range(5):
        output, state = layer.step(inputs[:, time], state)
        close(output, whole[:, time])
    for one, other in zip(state, final, strict=True):
        close(one, other[0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("lengths", [[2, 5, 3], [8, 9, 8]])
@torch.no_grad()
def test_packed_equals_padded_and_backwards_is_forwards_on_the_reverse(
    cell: str, depth: int, lengths: list[int]
) -> None:
    """With first states that differ, and lengths out of order."""
    torch.manual_seed(0)
    layer = make_layer(cell, 3, 4, True, depth).double()
    inputs = torch.randn(3, max(lengths), 3).double()
    first = tuple(torch.randn(2, 3, 4).double() for _ in range(CELLS[cell].states))
    packed = pack_padded_sequence(inputs, torch.tensor(lengths), True, False)
    outputs, finals = layer(packed, first)
    padded, _ = pad_packed_sequence(outputs, batch_first=True)
    for row, length in enumerate(lengths):
        start = tuple(tensor[:, row : row + 1] for tensor in first)
        alone, final = layer(inputs[row : row + 1, :length], start)
        close(padded[row, :length], alone[0])
        for one, other in zip(finals, final, strict=True):
            close(one[:, row], other[:, 0])
        ways = torch.tensor([1, 0])  # a network whose directions change places
        swapped, _ = twin(layer)(
            inputs[row : row + 1, :length].flip(1), tuple(tensor[ways] for tensor in start)
        )
        close(swapped[0].flip(0).roll(4, 1), alone[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_lstm_in_runs_of_steps_is_what_pytorch_makes_of_packed_sequences(
    dtype: torch.dtype,
) -> None:
    """Outputs, last states, and the gradients of everything."""
    torch.manual_seed(0)
    layer = make_layer("lstm", 3, 4, True).to(dtype)
    inputs, lengths = torch.randn(5, 13, 3, dtype=dtype), torch.tensor([12, 13, 12, 10, 13])
    first = tuple(torch.randn(2, 5, 4, dtype=dtype) for _ in range(2))
    leaves = [inputs, *first, *layer.parameters()]
    for leaf in leaves:
        leaf.requires_grad_()
    found = []
    for run in (layer, layer.kernel):
        outputs, finals = run(pack_padded_sequence(inputs, lengths, True, False), first)
        results = [outputs.data, *finals]
        loss = torch.stack([(result**2).sum() for result in results]).sum()
        found.append([*results, *torch.autograd.grad(loss, leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("sentences", [1, 5, 17])
def test_an_lstm_in_bfloat16_is_close_to_float32(sentences: int) -> None:
    """Outputs, last states, and the gradients of everything."""
    torch.manual_seed(0)
    layer = make_layer("lstm", 3, 4, True)
    inputs, lengths = torch.randn(sentences, 9, 3), torch.full((sentences,), 9)
    lengths[-1] = 8 if sentences > 1 else 9
    leaves = [inputs, *layer.parameters()]
    for leaf in leaves:
        leaf.requires_grad_()
    found = []
    for narrow in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            outputs, finals = layer(pack_padded_sequence(inputs, lengths, True, False))
        results = [result.float() for result in (outputs.data, *finals)]
        loss = torch.stack([(result**2).sum() for result in results]).sum()
        found.append([*results, *torch.autograd.grad(loss, leaves)])
    for ours, exact in zip(*found, strict=True):
        assert ours.shape == exact.shape
        assert (ours - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("shape", [(1, 3), (63, 3), (64, 3), (5, 13, 3), (0, 3)])
def test_rounding_the_rows_of_a_product_changes_neither_values_nor_gradients(
    shape: tuple[int, ...],
) -> None:
    torch.manual_seed(0)
    ours = Linear(3, 2)
    theirs = nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, requires_grad=True)
    found = []
    for layer in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = layer(x)
        grads = torch.autograd.grad((outputs.float() ** 2).sum(), [x, *layer.parameters()])
        found.append([outputs, *grads])
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.01)


def twin(layer: Any) -> Any:
    """The same layer with its directions changed."""
    other = copy.deepcopy(layer)
    if isinstance(other, KernelLayer):
        weights = dict(layer.kernel.named_parameters())
        for name, parameter in other.kernel.named_parameters():
            backward = name.endswith("_reverse")
            source = name.removesuffix("_reverse") if backward else f"{name}_reverse"
            parameter.copy_(weights[source])
    else:
        half = len(other.cells) // 2
        other.cells = nn.ModuleList([*other.cells[half:], *other.cells[:half]])
    return other


def any_cell(name: str) -> Any:
    torch.manual_seed(0)
    cell = CELLS[name](3, 4).double()
    for parameter in cell.parameters():
        nn.init.normal_(parameter)
    return cell


@torch.no_grad()
def test_the_layer_normalised_lstm_equals_its_equations() -> None:
    cell = any_cell("layer-norm-lstm")
    x, h, c = (torch.randn(n).double() for n in (3, 4, 4))
    sums = (cell.weight_ih @ x + cell.weight_hh @ h).view(4, 4)
    mean, variance = sums.mean(1, keepdim=True), sums.var(1, unbiased=False, keepdim=True)
    gain, shift = (torch.stack([getattr(n, p) for n in cell.norms]) for p in ("weight", "bias"))
    i, f, g, o = gain * (sums - mean) / (variance + 1e-5).sqrt() + shift
    new = f.sigmoid() * c + i.sigmoid() * g.tanh()
    state = cell.advance(cell.project(x[None]), (h[None], c[None]))
    close(state[1][0], new)
    close(cell.output(state)[0], o.sigmoid() * new.tanh())


@torch.no_grad()
def test_the_ssru_equals_its_equations() -> None:
    cell = any_cell("ssru")
    x, c = (torch.randn(n).double() for n in (3, 4))
    forget, new = (cell.weight_ih @ x + cell.bias_ih).view(2, 4)
    forget = forget.sigmoid()
    state = cell.advance(cell.project(x[None]), (c[None],))
    close(state[0][0], forget * c + (1 - forget) * new)
    close(cell.output(state)[0], (forget * c + (1 - forget) * new).clamp(min=0))


@torch.no_grad()
def test_a_network_with_the_logistic_function_begins_as_one_with_tanh() -> None:
    sigmoid, tanh = (any_cell(f"elman-{name}") for name in ("sigmoid", "tanh"))
    sigmoid.reset_parameters()
    tanh.reset_parameters()  # biases of zero
    tanh.weight_ih.copy_(sigmoid.weight_ih / 2)
    tanh.weight_hh.copy_(sigmoid.weight_hh / 4)
    states = torch.full((1, 4), 0.5).double(), torch.zeros(1, 4).double()
    for x in torch.randn(5, 1, 3).double():
        [one], [other] = (
            cell.advance(cell.project(x), (state,))
            for cell, state in zip((sigmoid, tanh), states, strict=True)
        )
        states = one, other
        close(2 * one - 1, other)
    close(tanh.weight_hh @ tanh.weight_hh.T, torch.eye(4).double())  # not vanishing


@pytest.mark.parametrize("residual_from", [0, 2, 3])
@torch.no_grad()
def test_the_bidirectional_stack_equals_the_equations(residual_from: int) -> None:
    torch.manual_seed(0)
    layers = [make_layer("lstm", 3 if number == 0 else 8, 4, True) for number in range(3)]
    stack = RecurrentStack(layers, residual_from, Dropout(0.5)).double().eval()
    lengths = [5, 2]
    inputs = torch.randn(2, 5, 3).double()
    packed = pack_padded_sequence(inputs, torch.tensor(lengths), True, False)
    output, finals = stack(packed)
    states = pad_packed_sequence(output, batch_first=True)[0]
    for row, length in enumerate(lengths):
        below = inputs[row, :length].numpy()
        for number, layer in enumerate(stack.layers, start=1):
            lstm = kernel(layer)
            zero = np.zeros(4)
            forward = lstm_by_hand(below, zero, zero, lstm)
            backward = lstm_by_hand(below[::-1], zero, zero, lstm, "_reverse")[::-1]
            both = np.concatenate((forward, backward), 1)
            below = both + below if 0 < residual_from <= number else both
            close(finals[number - 1][0][0, row], torch.from_numpy(forward[-1]))
            close(finals[number - 1][0][1, row], torch.from_numpy(backward[0]))
        close(states[row, :length], torch.from_numpy(below))


@pytest.mark.parametrize("residual_from", [0, 2])
def test_the_parallel_wiring_equals_its_equations(residual_from: int) -> None:
    """Two layers with dot attention, written out from the docstrings of the decoder."""
    model = network(
        decoder_layers=2, attention="dot", bridge="learned", residual_from=residual_from
    )
    assert model.encoder.stack.residual_from == residual_from
    decoder = model.decoder
    source, lengths = sentences([4])
    target = torch.tensor([[3, 1, 5]])
    states, _, final = model.encoder(source, lengths)
    assert decoder.bridge.project is not None
    summary = final[0].flatten(1)  # both directions' last hidden states side by side
    first = torch.tanh(decoder.bridge.project(summary))[0].detach().numpy().reshape(2, 2, 8)
    memory = states[0].detach().numpy()
    inputs = decoder.embedding.weight[target[0]].detach().numpy() * 6**0.5
    bottom, above = map(kernel, decoder.layers)
    low = lstm_by_hand(inputs, *first[0], bottom)
    energy = np.exp(low @ memory.T)
    context = energy / energy.sum(1, keepdims=True) @ memory
    high = lstm_by_hand(np.concatenate((low, context), 1), *first[1], above)
    high = high + low if residual_from else high
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
    (lstm,) = map(kernel, decoder.layers)
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


def test_the_conditional_wiring_equals_its_equations() -> None:
    """Two cells a step, the context between them, and a layer above that sees it too."""
    model = network(
        wiring="conditional", attention="general", bridge="zero", decoder_layers=2, residual_from=0
    )
    decoder = model.decoder
    source, lengths = sentences([4])
    target = torch.tensor([[3, 1, 5]])
    memory = model.encoder(source, lengths).states[0].detach().numpy()
    inputs = decoder.embedding.weight[target[0]].detach().numpy() * 6**0.5
    asking, above, reading = map(kernel, (*decoder.layers, decoder.second))
    bilinear = decoder.attention.project.weight.detach().numpy()
    weight, bias = (p.detach().numpy() for p in decoder.combine.parameters())
    state, vectors, high = (np.zeros(8), np.zeros(8)), [], []
    for x in inputs:
        state = lstm_step_by_hand(x, *state, asking)
        energy = np.exp(memory @ bilinear.T @ state[0])
        context = energy / energy.sum() @ memory
        state = lstm_step_by_hand(context, *state, reading)
        high.append(np.concatenate((state[0], context)))
        top = lstm_by_hand(np.stack(high), np.zeros(8), np.zeros(8), above)[-1]
        vectors.append(weight @ np.concatenate((top, context)) + bias)
    close(model(source, lengths, target)[0], torch.from_numpy(np.stack(vectors)))


def deep_step_by_hand(x: Any, hidden: Any, layer: Any) -> Any:
    """Sigmoid cells in a row: the first takes the input, and each has weights of its own."""
    for number, cell in enumerate(layer.cells):
        w, u, b1, b2 = (p.detach().numpy() for p in cell.parameters())
        hidden = logistic((w @ x if number == 0 else 0) + u @ hidden + b1 + b2)
    return hidden


@pytest.mark.parametrize("wiring", ["input-feeding", "conditional"])
def test_deep_layers_with_coverage_equal_their_equations(wiring: str) -> None:
    """Two layers of two cells a step, a residual connection, and a sum of past weights."""
    model = network(
        wiring=wiring,
        attention="dot",
        coverage=True,
        bridge="zero",
        decoder_cell="elman-sigmoid",
        decoder_layers=2,
        decoder_transition_depth=2,
    )
    decoder: Any = model.decoder
    asking = 1 if wiring == "conditional" else 2  # cells of the bottom layer before it asks
    assert [len(layer.cells) for layer in decoder.layers] == [asking, 2]
    assert decoder.second is None or len(decoder.second.cells) == 2
    source, lengths = sentences([4])
    target = torch.tensor([[3, 1, 5]])
    memory = model.encoder(source, lengths).states[0].detach().numpy()
    inputs = decoder.embedding.weight[target[0]].detach().numpy() * 6**0.5
    weight, bias = (p.detach().numpy() for p in decoder.combine.parameters())
    cover = decoder.attention.coverage.weight[:, 0].detach().numpy()
    low = high = np.zeros(8)
    vector, covered, vectors = np.zeros(6), np.zeros(4), []

    def attend(query: Any) -> tuple[Any, Any]:
        energy = np.exp((memory + np.outer(covered, cover)) @ query)
        weights = energy / energy.sum()
        return weights @ memory, covered + weights

    for x in inputs:
        if wiring == "input-feeding":
            low = deep_step_by_hand(np.concatenate((x, vector)), low, decoder.layers[0])
            high = deep_step_by_hand(low, high, decoder.layers[1])
            context, covered = attend(high + low)
        else:
            low = deep_step_by_hand(x, low, decoder.layers[0])
            context, covered = attend(low)
            low = deep_step_by_hand(context, low, decoder.second)
            high = deep_step_by_hand(np.concatenate((low, context)), high, decoder.layers[1])
        vector = weight @ np.concatenate((high + low, context)) + bias
        vectors.append(vector)
    close(model(source, lengths, target)[0], torch.from_numpy(np.stack(vectors)))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bridge", ["zero", "last", "mean", "learned"])
@torch.no_grad()
def test_the_first_state_of_the_decoder(bridge: str, cell: str) -> None:
    model = network(bridge=bridge, encoder_cell=cell, decoder_cell=cell, decoder_layers=2)
    source, lengths = sentences([4, 2])
    memory = model.encoder(source, lengths)
    layers = model.decoder.start(memory).layers
    assert len(layers) == 2
    for number, state in enumerate(layers):
        assert len(state) == CELLS[cell].states
        for part, tensor in enumerate(state):
            for row, length in enumerate(lengths.tolist()):
                if bridge == "zero":
                    expected = torch.zeros(8).double()
                elif bridge == "last":
                    expected = (memory.final[part][row, 0] + memory.final[part][row, 1]) / 2
                else:
                    known = memory.states[row, :length].mean(0)
                    if bridge == "learned":
                        known = torch.cat((memory.final[0][row, 0], memory.final[0][row, 1]))
                    place = (number * len(state) + part) * 8
                    expected = torch.tanh(model.decoder.bridge.project(known))[place : place + 8]
                close(tensor[row], expected)


# Those of sigmoid have a test of their own, above.
@pytest.mark.parametrize("cell", sorted(CELLS.keys() - {"elman-sigmoid"}))
@pytest.mark.parametrize("depth", [1, 2])
def test_first_weights(cell: str, depth: int) -> None:
    torch.manual_seed(0)
    layer = make_layer(cell, 6, 5, True, depth)
    layer.reset_parameters()
    parameters = dict(layer.named_parameters())
    for name, parameter in parameters.items():
        if "weight_hh" in name:
            for gate in parameter.detach().split(5):
                close(gate @ gate.T, torch.eye(5), 1e-5)
        if "bias_ih" in name:
            state = parameters.get(name.replace("_ih", "_hh"), torch.zeros_like(parameter))
            bias = (parameter + state).view(-1, 5).tolist()
            # One for f of i, f, g, o; for z of r, z, n; for f of the SSRU's.
            keeping = {"lstm": 1, "gru": 1, "ssru": 0}.get(cell)
            assert bias == [[float(gate == keeping)] * 5 for gate in range(len(bias))]
    norms = [m.bias.tolist() for n, m in layer.named_modules() if isinstance(m, nn.LayerNorm)]
    assert norms == [[float(gate == 1)] * 5 for _ in range(len(norms) // 4) for gate in range(4)]


# Dropout


def test_word_dropout_blanks_whole_tokens_in_training_alone() -> None:
    torch.manual_seed(0)
    embedding = Embedding(50, 8, Dropout(0.0), word_dropout=0.3)
    tokens = torch.randint(50, (40, 50))
    plain = embedding.eval()(tokens)
    dropped = embedding.train()(tokens)
    blank = (dropped == 0).all(-1)
    assert 0.25 < blank.float().mean() < 0.35
    assert dropped[~blank].equal(plain[~blank])
    assert not (plain == 0).any()


def test_embeddings_have_unit_variance_and_their_table_suits_the_output_layer() -> None:
    torch.manual_seed(0)
    embedding = Embedding(400, 64, Dropout(0.0), 0.0)
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


def blanked(vectors: Tensor) -> Tensor:
    return vectors == 0


@pytest.mark.parametrize("p", [0.1, 0.45, 0.9, 1.0])
def test_dropout_blanks_a_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    count = 400_003  # not a multiple of what one random word decides on
    vectors = torch.rand(count, dtype=torch.float64).add_(1).requires_grad_()
    dropped = drop(vectors, p)
    kept = ~blanked(dropped)
    deviation = (p * (1 - p) / count) ** 0.5
    assert abs(kept.double().mean().item() - (1 - p)) <= 5 * deviation
    close(dropped[kept], (vectors / (1 - p))[kept])
    for apart in range(1, 9):  # neighbours are independent, in one word or in two
        both = (kept[apart:] & kept[:-apart]).double().mean().item()
        assert abs(both - (1 - p) ** 2) <= 10 * deviation
    dropped.sum().backward()
    assert vectors.grad is not None
    close(vectors.grad, kept.double() / (1 - p) if p < 1 else torch.zeros_like(vectors))
    torch.manual_seed(0)
    torch.rand(count, dtype=torch.float64)
    assert drop(vectors, p).equal(dropped)


@pytest.mark.parametrize("locked", [True, False])
def test_locked_dropout_blanks_the_same_units_all_along_a_sentence(locked: bool) -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.4, locked)
    vectors, lengths = torch.ones(3, 7, 50), [4, 7, 2]
    packed = pack_padded_sequence(vectors, torch.tensor(lengths), True, False)
    assert dropout.eval()(vectors).equal(vectors)
    dropout.train()
    unpacked = pad_packed_sequence(dropout(packed), batch_first=True)[0]
    for dropped in (dropout(vectors), unpacked):
        rows = [row[:length] for row, length in zip(dropped, lengths, strict=True)]
        assert torch.cat(rows).unique().tolist() == [0, pytest.approx(1 / 0.6)]
        for row in rows:
            assert (blanked(row) == blanked(row[0])).all() == locked
            assert 0.2 < blanked(row).float().mean() < 0.6
        assert not blanked(rows[0][0]).equal(blanked(rows[1][0]))


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("locked", [True, False])
def test_the_decoder_locks_its_dropout_in_every_wiring(wiring: str, locked: bool) -> None:
    model = network(
        wiring=wiring,
        decoder_layers=3,
        layer_dropout=0.5,
        context_dropout=0.5,
        output_dropout=0.5,
        locked_dropout=locked,
    ).train()
    seen: dict[str, list[Tensor]] = {"output": [], "second": [], "third": []}

    def watch(layer: Any, name: str) -> None:
        step = layer.step
        layer.step = lambda x, state: (seen[name].append(x), step(x, state))[1]
        layer.register_forward_pre_hook(lambda _, x: seen[name].append(x[0]))

    model.decoder.combine.register_forward_pre_hook(lambda _, x: seen["output"].append(x[0]))
    watch(model.decoder.layers[1], "second")
    watch(model.decoder.layers[2], "third")
    model(*sentences([4, 3]), torch.ones(2, 6, dtype=torch.long))
    below = [
        torch.cat([part.reshape(-1, part.shape[-1])[:, :8] for part in seen[name]])
        for name in ("second", "third")
    ]
    assert not blanked(below[0]).equal(blanked(below[1]))  # each layer has a draw of its own
    for name, parts in seen.items():
        vectors = parts[0] if wiring == "parallel" else torch.stack(parts, 1)
        assert vectors.shape[:2] == (2, 6), name
        same = (blanked(vectors) == blanked(vectors[:, :1])).all((1, 2))
        assert same.tolist() == [locked, locked], name
        assert not blanked(vectors[0]).equal(blanked(vectors[1])), name


# Tied weights and refusals


@pytest.mark.parametrize("tie", TIES)
def test_tied_weights_are_one_parameter(tie: str) -> None:
    model = network(tie_embeddings=tie)
    source, target = model.encoder.embedding.weight, model.decoder.embedding.weight
    assert (model.output.weight is target) == (tie != "none")
    assert (source is target) == (tie == "three-way")
    tables = {"none": 3, "two-way": 2, "three-way": 1}[tie]
    assert sum(p.shape == (VOCABULARY, 6) for p in model.parameters()) == tables


@every
def test_every_parameter_learns(chosen: Chosen) -> None:
    model = network(**chosen)
    source, lengths = sentences([4, 3])
    vectors = model(source, lengths, torch.randint(VOCABULARY, (2, 4)))
    model.output(vectors).square().sum().backward()
    idle = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    idle -= {"decoder.attention.key.bias"}  # a softmax does not feel what all its scores share
    assert not {n for n in idle if dict(model.named_parameters())[n].numel()}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"attention": "multi-head", "attention_heads": 3},
            ["attention_heads: 3", "hidden_size 8"],
        ),
        ({"attention": "multi-head-additive", "attention_heads": 3}, ["attention_heads: 3"]),
        ({"attention": "location-aware"}, ["attention: location-aware", "wiring: parallel"]),
        ({"coverage": True}, ["coverage: true", "wiring: parallel"]),
        (
            {"attention": "none", "wiring": "input-feeding"},
            ["attention is none", "wiring: input-feeding"],
        ),
        (
            {"attention": "none", "wiring": "conditional"},
            ["attention is none", "wiring: conditional"],
        ),
        ({"attention": "none", "bridge": "zero"}, ["attention: none", "bridge: zero"]),
        (
            {"encoder_cell": "ssru", "encoder_transition_depth": 2},
            ["encoder_cell: ssru", "encoder_transition_depth: 2"],
        ),
        (
            {"decoder_cell": "ssru", "decoder_transition_depth": 3},
            ["decoder_cell: ssru", "decoder_transition_depth: 3"],
        ),
        ({"attention": "none", "coverage": True}, ["attention is none", "coverage: true"]),
        (
            {"bridge": "last", "encoder_cell": "gru"},
            ["bridge: last", "encoder_cell: gru", "decoder_cell: lstm"],
        ),
        (
            {"bridge": "last", "decoder_cell": "ssru", "encoder_cell": "layer-norm-lstm"},
            ["bridge: last", "encoder_cell: layer-norm-lstm", "decoder_cell: ssru"],
        ),
    ],
    ids=str,
)
def test_clashing_options_are_refused_by_name(options: Chosen, named: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^model\.") as caught:
        Architecture(hidden_size=8, **options)
    assert all(f"model.{name}" in str(caught.value) for name in named if " is " not in name)
    assert all(name in str(caught.value) for name in named)
    assert "choose" in str(caught.value)


def test_what_clashes_in_one_wiring_goes_in_another() -> None:
    for wiring in ("input-feeding", "conditional"):
        for coverage in (False, True):
            Architecture(attention="location-aware", wiring=wiring, coverage=coverage)
    Architecture(attention="none", bridge="last")
    Architecture(bridge="last", encoder_cell="gru", decoder_cell="elman-relu")


def test_vocabularies_that_cannot_be_tied_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"tie_embeddings: three-way.*tokenizer\.joint"):
        Seq2Seq(Architecture(tie_embeddings="three-way"), 10, 11)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("embedding_size", 0),
        ("hidden_size", -8),
        ("encoder_layers", 0),
        ("decoder_layers", 0),
        ("attention_heads", 0),
        ("encoder_transition_depth", 0),
        ("decoder_transition_depth", 0),
        ("residual_from", 1),
        ("residual_from", -1),
        ("layer_dropout", 1.5),
        ("word_dropout", -0.1),
    ],
)
def test_impossible_options_are_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"model\.{option}: .*{value}"):
        network(attention="multi-head", **{option: value})
