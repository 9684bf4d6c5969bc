"""Which training pairs are in the wrong language, as a classifier of languages finds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from mt.corpus.formats import Pair
from mt.errors import MTError
from mt.recipe import Corpus


class LanguageRule:
    """Finds pairs with a side that is, as good as certainly, in another language.

    Args:
        bundle: Folder of a classifier whose classes are language codes.
        corpus: Its languages are looked for among the classes, by their code or its first part
            (`pt` for `pt-BR`); its cleaning says how sure, and of what length of text.

    Raises:
        MTError: The folder holds no classifier, or it does not know a language.
    """

    name = "wrong language"

    def __init__(self, bundle: Path, corpus: Corpus):
        # It brings torch, which a corpus without this rule does not need.
        from mt.bundle.files import CONFIG, read
        from mt.classifier import Classifier

        # On the CPU everywhere, so that the same text is dropped on every machine.
        self._classifier = Classifier.load(bundle, "cpu")
        # It holds the hashes of all other files.
        self.digest = hashlib.sha256(read(bundle / CONFIG)).hexdigest()
        self._wanted = [self._place(bundle, code) for code in (corpus.source, corpus.target)]
        self._probability = corpus.cleaning.language_probability
        self._characters = corpus.cleaning.language_min_characters

    def _place(self, bundle: Path, code: str) -> int:
        """Find a language among the classes."""
        known = [name.lower() for name in self._classifier.classes]
        for name in (code.lower(), code.lower().replace("_", "-").partition("-")[0]):
            if name in known:
                return known.index(name)
        raise MTError(
            f"corpus.cleaning.language_identifier: {bundle} does not know {code!r} but "
            f"{', '.join(self._classifier.classes)}; leave it out, or name another"
        )

    def right(self, pairs: Sequence[Pair]) -> list[bool]:
        """Tell of each pair whether neither side is in another language."""
        right = [True] * len(pairs)
        for side, wanted in enumerate(self._wanted):
            rows = [n for n, pair in enumerate(pairs) if len(pair[side]) >= self._characters]
            if not rows:
                continue
            logs = self._classifier.log_probabilities([pairs[row][side] for row in rows])
            likeliest, found = logs.exp().max(dim=1)
            for row, probability, place in zip(
                rows, likeliest.tolist(), found.tolist(), strict=True
            ):
                right[row] &= place == wanted or probability < self._probability
        return right
