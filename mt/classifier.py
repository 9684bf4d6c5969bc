"""Text and its class: the public Python API of text classifiers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mt.batches import pad, plan_decoding
from mt.bundle.classifier import ClassifierBundle, load_classifier
from mt.tokenizer import EOS, Tokenizer
from mt.translator import resolve_device

BATCH_TOKENS = 8192


class Prediction(NamedTuple):
    """A class that a text may be of."""

    label: str
    """Its name."""
    probability: float
    """From 0 to 1; those of all classes add up to 1."""


class Classifier:
    """A bundle, ready to tell the classes of texts.

    Args:
        bundle: Its parts; the network moves to `device`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
    """

    def __init__(self, bundle: ClassifierBundle, device: str | torch.device = "auto"):
        self.device = resolve_device(device)
        self.model = bundle.model.to(self.device)
        self.tokenizer = bundle.tokenizer
        self.classes, self.max_length = bundle.classes, bundle.max_length

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Classifier:
        """Read a bundle.

        Raises:
            MTError: The bundle is missing, damaged, of another version or task, or the device is
                not there.
        """
        return cls(load_classifier(Path(folder)), device)

    def classify(
        self, texts: Sequence[str], top: int = 1, batch_tokens: int = BATCH_TOKENS
    ) -> list[list[Prediction]]:
        """Tell what classes texts are likely of.

        Args:
            texts: Raw text, of which the first `max_length` tokens are read.
            top: Classes to name for each text, the likeliest first; at most all.
            batch_tokens: Padded tokens of a batch. It changes the speed, never an answer.
        """
        if not texts:
            return []
        logs = self.log_probabilities(texts, batch_tokens)
        # Sorted, and stable, so that of two alike the first class stands first.
        values, classes = logs.sort(dim=1, descending=True, stable=True)
        return [
            [
                Prediction(self.classes[number], value)
                for number, value in zip(numbers, shares, strict=True)
            ]
            for numbers, shares in zip(
                classes[:, :top].tolist(), values[:, :top].exp().tolist(), strict=True
            )
        ]

    @torch.inference_mode()
    def log_probabilities(self, texts: Sequence[str], batch_tokens: int = BATCH_TOKENS) -> Tensor:
        """Tell the natural logarithm of each class's probability, `(N, C)`, on the CPU.

        Args:
            texts: Raw text, of which the first `max_length` tokens are read.
            batch_tokens: Padded tokens of a batch. It changes the speed, never an answer.
        """
        self.model.eval()
        rows = encode_texts(self.tokenizer, texts, self.max_length)
        found = torch.empty(len(rows), len(self.classes), dtype=torch.float64)
        for places in plan_decoding([len(row) for row in rows], batch_tokens):
            tokens, lengths = pad([rows[place] for place in places])
            logits = self.model(tokens.to(self.device), lengths)
            found[places] = logits.double().log_softmax(1).cpu()
        return found


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Turn texts into tokens as the network reads them: cut, and with an end each."""
    return [[*row[:max_length], EOS] for row in tokenizer.encode_raw(texts)]
