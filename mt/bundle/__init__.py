"""Trained networks on disk: data only, checked when they are read."""

from mt.bundle.files import VERSION, add_files
from mt.bundle.translation import Bundle, load_bundle, load_graphs, save_bundle

__all__ = ["VERSION", "Bundle", "add_files", "load_bundle", "load_graphs", "save_bundle"]
