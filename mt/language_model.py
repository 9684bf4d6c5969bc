"""Text and its probability: the public Python API of language models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from mt.batches import pad, plan_decoding
from mt.bundle.language_model import LanguageModelBundle, load_language_model
from mt.nn.language_model import forced
from mt.nn.recurrent import StackState
from mt.search.sampling import SamplingOptions, draw, narrow
from mt.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from mt.translator import resolve_device

BATCH_TOKENS = 4096
_WINDOW = 1024
"""Tokens of running text that are read at a time, in all rows."""


class LanguageModel:
    """A bundle, ready to tell how likely text is, and to write.

    Args:
        bundle: Its parts; the network moves to `device`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
    """

    def __init__(self, bundle: LanguageModelBundle, device: str | torch.device = "auto"):
        self.device = resolve_device(device)
        self.model = bundle.model.to(self.device)
        self.tokenizer = bundle.tokenizer
        self.language, self.running = bundle.language, bundle.running

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> LanguageModel:
        """Read a bundle.

        Raises:
            MTError: The bundle is missing, damaged, of another version or task, or the device is
                not there.
        """
        return cls(load_language_model(Path(folder)), device)

    def score(
        self, lines: Sequence[str], batch_tokens: int = BATCH_TOKENS
    ) -> list[tuple[float, int]]:
        """Tell how likely lines are: of running text, each after those before it.

        Args:
            lines: Raw text.
            batch_tokens: Padded tokens of a batch. It changes the speed, never a score.

        Returns:
            For each line the natural logarithm of its probability and its number of tokens, both
            with the end of line.
        """
        encoded = self.tokenizer.encode_raw(lines)
        if self.running and lines:
            return self._score_running(encoded)
        scores = [(0.0, 0)] * len(lines)
        for places in plan_decoding([len(row) + 1 for row in encoded], batch_tokens):
            rows = [encoded[place] for place in places]
            inputs, _ = pad([[BOS, *row] for row in rows])
            outputs, lengths = pad([[*row, EOS] for row in rows])
            found, _ = self._forced(inputs, outputs, None)
            for place, total, length in zip(
                places, found.sum(1).tolist(), lengths.tolist(), strict=True
            ):
                scores[place] = (total, length)
        return scores

    def _score_running(self, encoded: list[list[int]]) -> list[tuple[float, int]]:
        [values] = self._read_side_by_side([encoded])
        ends = list(accumulate(len(row) + 1 for row in encoded))
        return [
            (float(values[start:end].sum()), end - start)
            for start, end in zip([0, *ends], ends, strict=False)
        ]

    def score_texts(self, texts: Sequence[Sequence[str]]) -> list[tuple[float, int]]:
        """Tell how likely whole texts are, each read from its own beginning.

        Args:
            texts: Lines of each.

        Returns:
            For each the natural logarithm of its probability and its number of tokens.
        """
        if not texts:
            return []
        encoded = [self.tokenizer.encode_raw(lines) for lines in texts]
        values = self._read_side_by_side(encoded)
        return [(float(row.sum()), len(row)) for row in values]

    def _read_side_by_side(self, texts: list[list[list[int]]]) -> list[Tensor]:
        """Give the log-probability `(T,)` of each token of texts, ends of lines included."""
        flat = [[token for row in text for token in (*row, EOS)] for text in texts]
        outputs, lengths = pad(flat)
        inputs = torch.cat((torch.full_like(outputs[:, :1], EOS), outputs[:, :-1]), dim=1)
        found, state = [], None
        width = max(1, _WINDOW // len(flat))
        for start in range(0, outputs.shape[1], width):
            window = slice(start, start + width)
            values, state = self._forced(inputs[:, window], outputs[:, window], state)
            found.append(values.cpu())
        whole = torch.cat(found, dim=1)
        return [row[:length] for row, length in zip(whole, lengths.tolist(), strict=True)]

    @torch.inference_mode()
    def _forced(
        self, inputs: Tensor, outputs: Tensor, state: StackState | None
    ) -> tuple[Tensor, StackState]:
        return forced(self.model.eval(), inputs, outputs, state, self.device)

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[str],
        length: int = 100,
        options: SamplingOptions | None = None,
        seed: int = 1,
    ) -> list[str]:
        """Go on from each prompt.

        Args:
            prompts: Raw text that each result begins with; it may be empty.
            length: Tokens to write at most; where each line stands by itself, its end comes first.
            options: How tokens are drawn.
            seed: Of the draw. A prompt's continuation depends on its place among the prompts.

        Returns:
            A text for each prompt; of running text, it may hold several lines.
        """
        self.model.eval()
        options = options or SamplingOptions()
        generator = torch.Generator(self.device).manual_seed(seed)
        written = [_lines(self.tokenizer, prompt, self.running) for prompt in prompts]
        forbidden = [PAD, UNK, BOS, *self.tokenizer.symbols.values()]
        ended = torch.zeros(len(prompts), dtype=torch.bool, device=self.device)
        start = EOS if self.running else BOS
        state, tokens = self._read([[start, *row] for row in written])
        for _ in range(length):
            step = self.model.step(tokens, state)
            logits = step.logits.float()
            logits[:, forbidden] = -torch.inf
            tokens, state = draw(narrow(logits, options), generator), step.state
            for row, token in enumerate(tokens.tolist()):
                if not ended[row]:
                    written[row].append(token)
            if not self.running:
                ended |= tokens == EOS
                if bool(ended.all()):
                    break
        return [_text(self.tokenizer, row) for row in written]

    def _read(self, rows: list[list[int]]) -> tuple[StackState, Tensor]:
        """Read all tokens of each row but its last, and give the state and these."""
        last = torch.tensor([row[-1] for row in rows], device=self.device)
        empty = self.model.stack.zeros(last.new_zeros(1, dtype=self.model.dtype))
        before = [tuple(row[:-1]) for row in rows]
        read = {  # each by itself: its state ends with its last token; and the same ones once
            one: self.model(torch.tensor([one], device=self.device))[1] if one else empty
            for one in dict.fromkeys(before)
        }
        states = [read[one] for one in before]
        state = [
            tuple(torch.cat(tensors, dim=1) for tensors in zip(*layers, strict=True))
            for layers in zip(*states, strict=True)
        ]
        return state, last


def _lines(tokenizer: Tokenizer, prompt: str, running: bool) -> list[int]:
    """Turn a prompt into tokens; of running text it may be of several lines."""
    lines = prompt.split("\n") if running else [prompt.replace("\n", " ")]
    encoded = tokenizer.encode_raw(lines)
    return [token for row in encoded for token in (*row, EOS)][:-1]


def _text(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """Turn tokens into text, ends of lines into line breaks but for one at the very end."""
    return "\n".join(tokenizer.decode(list(_split(tokens))))


def _split(tokens: list[int]) -> Iterator[list[int]]:
    row: list[int] = []
    for token in tokens:
        if token == EOS:
            yield row
            row = []
        else:
            row.append(token)
    if row:
        yield row
