"""Text comes in: hub, files and package catalogues become one Arrow-backed parallel corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["ParallelCorpus", "RuleCount", "cleaning_table", "load_corpus"]

if TYPE_CHECKING:
    from mt.corpus.cleaning import RuleCount
    from mt.corpus.load import ParallelCorpus, cleaning_table, load_corpus


def __getattr__(name: str) -> object:
    # NumPy and Arrow take a moment to import: naming the package must not cost it.
    if name == "RuleCount":
        from mt.corpus.cleaning import RuleCount

        return RuleCount
    if name in __all__:
        from mt.corpus import load

        return getattr(load, name)
    raise AttributeError(f"module 'mt.corpus' has no attribute {name!r}")
