"""The decoder: target tokens and a memory to the vectors that predict the next tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mt.nn.architecture import Architecture
from mt.nn.attention import make_attention
from mt.nn.embedding import Embedding
from mt.nn.encoder import Memory
from mt.nn.recurrent import lstm_step


class DecoderState(NamedTuple):
    """Everything a decoder remembers between two steps, for N = B * K rows.

    K rows in a row, the hypotheses of one sentence, share that sentence's memory.
    """

    hidden: Tensor
    """`(N, L, H)`: hidden state of each layer."""
    cell: Tensor
    """`(N, L, H)`: cell state of each layer."""
    feed: Tensor
    """`(N, F)`: last attentional vector of input feeding; F is 0 in the parallel wiring."""
    keys: Tensor
    """`(B, S, …)`: the attention's keys."""
    memory: Tensor
    """`(B, S, H)`: the encoder's states."""
    source_pad: Tensor
    """`(B, S)`, True at padding."""

    def reorder(self, index: Tensor) -> DecoderState:
        """Pick rows.

        Args:
            index: `(B', K')` numbers of old rows; the entries of a row belong to one sentence, and
                sentences keep their order.

        Returns:
            The state of the `B' * K'` rows.
        """
        sentences, rows = self.memory.shape[0], self.hidden.shape[0]
        flat = index.reshape(-1)
        keys, memory, source_pad = self.keys, self.memory, self.source_pad
        if index.shape[0] != sentences:
            kept = index[:, 0] // (rows // sentences)
            keys, memory, source_pad = keys[kept], memory[kept], source_pad[kept]
        return DecoderState(
            self.hidden.index_select(0, flat),
            self.cell.index_select(0, flat),
            self.feed.index_select(0, flat),
            keys,
            memory,
            source_pad,
        )


class Step(NamedTuple):
    """One decoding step of N rows."""

    logits: Tensor
    """`(N, V)`: unnormalised log-probabilities of the next token."""
    attention: Tensor
    """`(N, S)`: attention weights, 0 at padding."""
    state: DecoderState
    """The state after the step."""


class Decoder(nn.Module):
    """LSTM layers with attention, in the parallel wiring or with input feeding.

    Both end in an attentional vector a = W [h; context] + b of E units (Luong et al.,
    arXiv:1508.04025, eq. 5, without its tanh, which keeps a tied output layer from being sure of
    anything) and in logits = embedding · a + b.

    In the parallel wiring the bottom layer's states query the memory, and the context joins the
    input of each layer above (Wu et al., arXiv:1609.08144), so nothing that a step needs depends on
    the attentional vector of the step before, and a whole target runs in one call a layer. With
    input feeding the top layer asks, and the attentional vector joins the bottom layer's next
    input.
    """

    def __init__(self, architecture: Architecture, embedding: Embedding, output: nn.Linear):
        super().__init__()
        embedding_size, hidden_size = architecture.embedding_size, architecture.hidden_size
        self.input_feeding = architecture.wiring == "input-feeding"
        self.residual = architecture.residual
        self.embedding = embedding
        self.output = output
        bottom = embedding_size + (embedding_size if self.input_feeding else 0)
        above = hidden_size + (0 if self.input_feeding else hidden_size)
        self.layers = nn.ModuleList(
            nn.LSTM(bottom if layer == 0 else above, hidden_size, batch_first=True)
            for layer in range(architecture.decoder_layers)
        )
        self.attention = make_attention(architecture)
        self.combine = nn.Linear(2 * hidden_size, embedding_size)
        self.bridge = (
            nn.Linear(2 * hidden_size, 2 * hidden_size * architecture.decoder_layers)
            if architecture.bridge == "learned"
            else None
        )
        self.layer_dropout = nn.Dropout(architecture.layer_dropout)
        self.context_dropout = nn.Dropout(architecture.context_dropout)
        self.output_dropout = nn.Dropout(architecture.output_dropout)

    def start(self, memory: Memory) -> DecoderState:
        """Build the state before the first token, one row a sentence.

        With the learned bridge, [h; c] = tanh(W s + b) of the encoder's summary s; otherwise zero.
        """
        states, source_pad, summary = memory
        layers, hidden_size = len(self.layers), states.shape[-1]
        if self.bridge is not None:
            first = torch.tanh(self.bridge(summary)).view(-1, layers, 2 * hidden_size)
            hidden, cell = first.chunk(2, dim=-1)
        else:
            hidden = cell = states.new_zeros(len(states), layers, hidden_size)
        feed = self.combine.out_features if self.input_feeding else 0
        return DecoderState(
            hidden.contiguous(),
            cell.contiguous(),
            states.new_zeros(len(states), feed),
            self.attention.keys(states),
            states,
            source_pad,
        )

    def forward(self, target_in: Tensor, state: DecoderState) -> Tensor:
        """Run a whole target.

        Args:
            target_in: `(B, T)` token ids, beginning with the beginning of sentence.
            state: From `start`.

        Returns:
            The attentional vectors `(B, T, E)` for the output layer.
        """
        inputs = self.embedding(target_in)
        if self.input_feeding:
            vectors = []
            for step in inputs.unbind(dim=1):
                vector, _, state = self._advance(step, state)
                vectors.append(vector)
            return torch.stack(vectors, dim=1)
        states, context = inputs, inputs
        for number, lstm in enumerate(self.layers):
            below = states
            if number > 0:
                below = self.layer_dropout(states)
            first = state.hidden[None, :, number], state.cell[None, :, number]
            first = first[0].contiguous(), first[1].contiguous()
            states, _ = lstm(below if number == 0 else torch.cat((below, context), -1), first)
            if number == 0:
                context, _ = self.attention(states, state.keys, state.memory, state.source_pad)
                context = self.context_dropout(context)
            elif self.residual:
                states = states + below
        return self._combine(states, context)

    def step(self, tokens: Tensor, state: DecoderState) -> Step:
        """Advance every row by one token.

        Args:
            tokens: `(N,)` the tokens chosen last.
            state: The state of N rows.
        """
        vector, attention, state = self._advance(self.embedding(tokens), state)
        return Step(self.output(vector), attention, state)

    def _advance(self, inputs: Tensor, state: DecoderState) -> tuple[Tensor, Tensor, DecoderState]:
        """Advance by one step: inputs `(N, E)` to the attentional vector `(N, E)`."""
        states = torch.cat((inputs, state.feed), -1) if self.input_feeding else inputs
        context = attention = inputs
        hiddens, cells = [], []
        for number, lstm in enumerate(self.layers):
            assert isinstance(lstm, nn.LSTM)
            below = self.layer_dropout(states) if number > 0 else states
            joined = below
            if number > 0 and not self.input_feeding:
                joined = torch.cat((below, context), -1)
            states, cell = lstm_step(lstm, joined, state.hidden[:, number], state.cell[:, number])
            hiddens.append(states)
            cells.append(cell)
            if number > 0 and self.residual:
                states = states + below
            if number == (len(self.layers) - 1 if self.input_feeding else 0):
                context, attention = self._attend(states, state)
        vector = self._combine(states, context)
        state = state._replace(
            hidden=torch.stack(hiddens, 1),
            cell=torch.stack(cells, 1),
            feed=vector if self.input_feeding else state.feed,
        )
        return vector, attention, state

    def _attend(self, query: Tensor, state: DecoderState) -> tuple[Tensor, Tensor]:
        """Let `(B * K, H)` queries read the memory of their sentence."""
        grouped = query.view(state.memory.shape[0], -1, query.shape[-1])
        context, attention = self.attention(grouped, state.keys, state.memory, state.source_pad)
        return self.context_dropout(context.flatten(0, 1)), attention.flatten(0, 1)

    def _combine(self, states: Tensor, context: Tensor) -> Tensor:
        joined = torch.cat((states, context), -1)
        vector: Tensor = self.combine(self.output_dropout(joined))
        return vector
