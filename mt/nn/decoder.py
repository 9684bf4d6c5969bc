"""The decoder: target tokens and a memory to the vectors that predict the next tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mt.nn.architecture import Architecture
from mt.nn.attention import make_attention
from mt.nn.cells import CELLS, State
from mt.nn.dropout import Dropout
from mt.nn.embedding import Embedding
from mt.nn.encoder import Memory
from mt.nn.linear import Linear
from mt.nn.recurrent import RecurrentLayer, make_layer


class DecoderState(NamedTuple):
    """Everything a decoder remembers between two steps, for N rows.

    Rows stand in B * K places, K in a row for the hypotheses of one sentence, which share that
    sentence's memory. Some places may be empty: see `mt.search.hypotheses.DecoderState`.
    """

    layers: tuple[State, ...]
    """The state of each layer, tensors `(N, H)`."""
    feed: Tensor
    """`(N, F)`: last attentional vector of input feeding; F is 0 in the other wirings."""
    past: Tensor
    """`(N, S, P)`: where attention was; P is 0 for attention that does not look back."""
    keys: Tensor
    """`(B, S, …)`: the attention's keys."""
    memory: Tensor
    """`(B, S, H)`: the encoder's states."""
    source_pad: Tensor
    """`(B, S)`, True at padding."""
    rows: Tensor | None = None
    """`(B, K)`: the row of each place, any at an empty one; None where no place is empty."""
    places: Tensor | None = None
    """`(N,)`: the place of each row; None where no place is empty."""

    def reorder(self, index: Tensor, places: Tensor | None = None) -> DecoderState:
        """Pick rows.

        Args:
            index: `(B', K')` numbers of old places; the entries of a row belong to one sentence,
                and sentences keep their order.
            places: `(N',)`, ascending: the new places that are not empty; all by default.

        Returns:
            The state of the N' rows.
        """
        sentences, flat, rows = len(self.memory), index.reshape(-1), None
        if places is not None:
            flat = flat[places]
            rows = torch.zeros_like(index)
            rows.view(-1)[places] = torch.arange(len(places), device=places.device)
        width = len(self.feed) // sentences
        if self.rows is not None:
            flat, width = self.rows.view(-1)[flat], self.rows.shape[1]
        keys, memory, source_pad = self.keys, self.memory, self.source_pad
        if index.shape[0] != sentences:
            kept = index[:, 0] // width
            keys, memory, source_pad = keys[kept], memory[kept], source_pad[kept]
        return DecoderState(
            tuple(tuple(t.index_select(0, flat) for t in state) for state in self.layers),
            self.feed.index_select(0, flat),
            self.past.index_select(0, flat),
            keys,
            memory,
            source_pad,
            rows,
            places,
        )


class Step(NamedTuple):
    """One decoding step of N rows."""

    logits: Tensor
    """`(N, V)`: unnormalised log-probabilities of the next token; narrowed, `(N, C)`."""
    attention: Tensor | None
    """`(N, S)`: attention weights, 0 at padding; None where there is no attention."""
    state: DecoderState
    """The state after the step."""


class _Masks(NamedTuple):
    """What locked dropout multiplies the vectors of N sentences by, at every position."""

    layers: list[Tensor]
    """`(N, H)` each: below every layer but the bottom one."""
    context: Tensor
    """`(N, C)`."""
    output: Tensor
    """`(N, H + C)`."""


class Decoder(nn.Module):
    """Recurrent layers with attention.

    Every wiring ends in an attentional vector a = W [h; context] + b of E units (Luong et al.,
    arXiv:1508.04025, eq. 5, without its tanh, which keeps a tied output layer from being sure of
    anything) and in logits = embedding · a + b.

    - `parallel`: the bottom layer's states query the memory, and the context joins the input of
      each layer above (Wu et al., arXiv:1609.08144), so nothing that a step needs depends on the
      attentional vector of the step before, and a whole target runs in one call a layer.
    - `input-feeding`: the top layer asks, and the attentional vector joins the bottom layer's next
      input.
    - `conditional`: the bottom layer's first cell asks, and the context is the input of its second
      cell (Sennrich et al., arXiv:1703.04357); layers above see the context as in `parallel`.
    """

    def __init__(self, architecture: Architecture, embedding: Embedding, output: nn.Linear):
        super().__init__()
        embedding_size, hidden_size = architecture.embedding_size, architecture.hidden_size
        self.wiring = architecture.wiring
        self.residual_from = architecture.residual_from
        self.embedding = embedding
        self.output = output
        self.attention = make_attention(architecture)
        context_size = self.attention.context_size
        cell, depth = architecture.decoder_cell, architecture.decoder_transition_depth
        feeding, conditional = self.wiring == "input-feeding", self.wiring == "conditional"
        self.layers = nn.ModuleList(
            [
                make_layer(
                    cell,
                    embedding_size * (2 if feeding else 1),
                    hidden_size,
                    depth=1 if conditional else depth,
                )
            ]
        )
        """From the bottom up; in the conditional wiring, the first holds the cell that asks."""
        above = hidden_size + (0 if feeding else context_size)
        self.layers.extend(
            make_layer(cell, above, hidden_size, depth=depth)
            for _ in range(1, architecture.decoder_layers)
        )
        self.second = (
            make_layer(cell, context_size, hidden_size, depth=depth) if conditional else None
        )
        """The cell of the conditional wiring that reads the context."""
        self.combine = Linear(hidden_size + context_size, embedding_size)
        self.bridge = Bridge(architecture)
        locked = architecture.locked_dropout
        self.layer_dropout = Dropout(architecture.layer_dropout, locked)
        self.context_dropout = Dropout(architecture.context_dropout, locked)
        self.output_dropout = Dropout(architecture.output_dropout, locked)

    def start(self, memory: Memory) -> DecoderState:
        """Build the state before the first token, one row a sentence."""
        states = memory.states
        feed = self.combine.out_features if self.wiring == "input-feeding" else 0
        return DecoderState(
            self.bridge(memory),
            states.new_zeros(states.shape[0], feed),
            states.new_zeros(*states.shape[:2], self.attention.past_size),
            self.attention.keys(states),
            states,
            memory.source_pad,
        )

    def forward(self, target_in: Tensor, state: DecoderState) -> tuple[Tensor, Tensor | None]:
        """Run a whole target.

        Args:
            target_in: `(B, T)` token ids, beginning with the beginning of sentence.
            state: From `start`.

        Returns:
            The attentional vectors `(B, T, E)` for the output layer, and the attention weights
            `(B, T, S)`, None where there is no attention.
        """
        inputs = self.embedding(target_in)
        if self.wiring != "parallel":
            masks, vectors, looks = self._masks(state), [], []
            for step in inputs.unbind(dim=1):
                vector, look, state = self._advance(step, state, masks)
                vectors.append(vector)
                looks += [] if look is None else [look]
            return torch.stack(vectors, dim=1), torch.stack(looks, dim=1) if looks else None
        states = context = inputs
        weights = None
        for number, layer in enumerate(self.layers, start=1):
            below, joined = states, inputs
            if number > 1:
                below = self.layer_dropout(states)
                joined = torch.cat((below, context), -1)
            first = tuple(tensor[None] for tensor in state.layers[number - 1])
            states, _ = layer(joined, first)
            if number == 1:
                context, weights = self.attention(
                    states, state.keys, state.memory, state.source_pad
                )
                context = self.context_dropout(context)
            if 0 < self.residual_from <= number:
                states = states + below
        vectors = self.output_dropout(torch.cat((states, context), -1))
        return self.combine(vectors), weights

    def step(self, tokens: Tensor, state: DecoderState) -> Step:
        """Advance every row by one token.

        Args:
            tokens: `(N,)` the tokens chosen last.
            state: The state of N rows.
        """
        vector, weights, state = self.look(tokens, state)
        return Step(self.output(vector), weights, state)

    def look(
        self, tokens: Tensor, state: DecoderState
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """Do the same up to the attentional vectors `(N, E)`, in place of logits."""
        return self._advance(self.embedding.look_up(tokens), state, None)

    def _advance(
        self, inputs: Tensor, state: DecoderState, masks: _Masks | None
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """Advance by one step: inputs `(N, E)` to the attentional vector `(N, E)`."""
        feeding = self.wiring == "input-feeding"
        states = torch.cat((inputs, state.feed), -1) if feeding else inputs
        context, weights = inputs[:, :0], None
        carried = []
        for number, layer in enumerate(self.layers, start=1):
            below = joined = states
            if number > 1:
                below = self.layer_dropout.step(states, masks and masks.layers[number - 2])
                joined = below if feeding else torch.cat((below, context), -1)
            assert isinstance(layer, RecurrentLayer)
            states, after = layer.step(joined, state.layers[number - 1])
            if 0 < self.residual_from <= number:
                states = states + below
            if number == (len(self.layers) if feeding else 1):
                context, weights, past = self._attend(states, state)
                context = self.context_dropout.step(context, masks and masks.context)
                state = state._replace(past=past)
                if self.second is not None:
                    states, after = self.second.step(context, after)
            carried.append(after)
        vector: Tensor = self.combine(
            self.output_dropout.step(torch.cat((states, context), -1), masks and masks.output)
        )
        return (
            vector,
            weights,
            state._replace(layers=tuple(carried), feed=vector if feeding else state.feed),
        )

    def _attend(self, query: Tensor, state: DecoderState) -> tuple[Tensor, Tensor | None, Tensor]:
        """Let `(N, H)` queries read the memory of their sentence."""
        keys, memory, source_pad, past = state.keys, state.memory, state.source_pad, state.past
        if past.shape[2]:  # each hypothesis has a past, and so keys, of its own
            keys, memory, source_pad = (
                part[self._owners(state)] for part in (keys, memory, source_pad)
            )
            query, keys = query[:, None], self.attention.recall(keys, past)
        elif state.rows is None:
            query = query.view(len(memory), -1, query.shape[-1])
        else:
            query = query[state.rows]
        context, weights = self.attention(query, keys, memory, source_pad)
        context = context.flatten(0, 1)
        weights = None if weights is None else weights.flatten(0, 1)
        if state.places is not None and not past.shape[2]:
            context = context[state.places]
            weights = None if weights is None else weights[state.places]
        if weights is not None:
            past = self.attention.remember(past, weights)
        return context, weights, past

    def _owners(self, state: DecoderState) -> Tensor:
        """The sentence `(N,)` of each row."""
        if state.rows is not None and state.places is not None:
            return state.places // state.rows.shape[1]
        sentences = torch.arange(len(state.memory), device=state.memory.device)
        return sentences.repeat_interleave(len(state.feed) // len(state.memory))

    def _masks(self, state: DecoderState) -> _Masks | None:
        if not (self.training and self.layer_dropout.locked):
            return None
        hidden = state.memory[:, 0]
        context = hidden[:, : self.attention.context_size]
        return _Masks(
            [self.layer_dropout.mask(hidden) for _ in self.layers[1:]],
            self.context_dropout.mask(context),
            self.output_dropout.mask(torch.cat((hidden, context), -1)),
        )


class NarrowedDecoder:
    """A decoder that scores some tokens only, whose output weights are gathered once.

    Args:
        decoder: Reads all tokens.
        candidates: `(C,)` the tokens to score.
    """

    def __init__(self, decoder: Decoder, candidates: Tensor):
        self.decoder = decoder
        self.weight = decoder.output.weight[candidates]
        self.bias = decoder.output.bias[candidates]

    def step(self, tokens: Tensor, state: DecoderState) -> Step:
        """See `Decoder.step`; the logits are `(N, C)`."""
        vector, weights, state = self.decoder.look(tokens, state)
        return Step(linear(vector, self.weight, self.bias), weights, state)


class Bridge(nn.Module):
    """From what the encoder knows to the decoder's first state.

    - `zero`: nothing.
    - `last`: the encoder's last state, its directions averaged, for every layer.
    - `mean`: tanh(W m + b) of the mean m of the memory (Sennrich et al., arXiv:1703.04357).
    - `learned`: tanh(W s + b) of the last states s of both directions.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.kind = architecture.bridge
        self.layers = architecture.decoder_layers
        self.states = states = CELLS[architecture.decoder_cell].states
        self.hidden_size = architecture.hidden_size
        directions = 2 if architecture.bidirectional and self.kind == "learned" else 1
        self.project = (
            nn.Linear(directions * self.hidden_size, self.layers * states * self.hidden_size)
            if self.kind in ("mean", "learned")
            else None
        )

    def forward(self, memory: Memory) -> tuple[State, ...]:
        """Give each layer its first state, tensors `(B, H)`."""
        states, source_pad, final = memory
        if self.project is None:
            first = tuple(tensor.mean(dim=1) for tensor in final)
            if self.kind == "zero":
                first = (states.new_zeros(states.shape[0], self.hidden_size),) * self.states
            return (first,) * self.layers
        if self.kind == "mean":
            real = ~source_pad[:, :, None]
            known = (states * real).sum(dim=1) / real.sum(dim=1)
        else:
            known = final[0].flatten(1)
        numbers = torch.tanh(self.project(known)).view(
            -1, self.layers, self.states, self.hidden_size
        )
        return tuple(layer.unbind(dim=1) for layer in numbers.unbind(dim=1))
