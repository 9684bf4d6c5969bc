"""Tensors to tensors: the recurrent encoder-decoder. Imports nothing of `mt` but `mt.nn`."""
