"""`mt`: small, fast, private translation engines from your own parallel text.

>>> from mt import Translator
>>> Translator.load("runs/quickstart/bundle").translate(["Select the file."])  # doctest: +SKIP
["Wählen Sie die Datei aus."]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["MTError", "Translator", "__version__"]

if TYPE_CHECKING:
    from mt.errors import MTError
    from mt.translator import Translator


def __getattr__(name: str) -> object:
    # Torch takes a second to import: `mt --version` and `mt --help` must not wait for it.
    if name == "Translator":
        from mt.translator import Translator

        return Translator
    if name == "MTError":
        from mt.errors import MTError

        return MTError
    raise AttributeError(f"module 'mt' has no attribute {name!r}")
