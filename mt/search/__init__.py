"""Scores to tokens: greedy and beam search over any decoder that keeps the `Decoder` protocol."""
