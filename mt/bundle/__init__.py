"""Trained networks on disk: data only, checked when they are read."""

from mt.bundle.files import VERSION, add_files
from mt.bundle.language_model import (
    LanguageModelBundle,
    load_language_model,
    save_language_model,
)
from mt.bundle.translation import Bundle, load_bundle, load_graphs, save_bundle

__all__ = [
    "VERSION",
    "Bundle",
    "LanguageModelBundle",
    "add_files",
    "load_bundle",
    "load_graphs",
    "load_language_model",
    "save_bundle",
    "save_language_model",
]
