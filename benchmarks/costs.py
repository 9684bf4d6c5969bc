"""Decoding: time and memory against beam, batch, sentence length, vocabulary and threads.

python benchmarks/costs.py   (writes benchmarks/costs-*.svg and prints the tables)

One setting is changed at a time. The network is untrained and every sentence is as long as its
source, so that the work is known; 384 units, embeddings of 256. Each figure comes from a process of
its own: the best of three runs over 500 sentences, and the peak of its resident memory beyond what
it had before the first.
"""

from __future__ import annotations

import os
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

DEFAULT = {"beam": 5, "batch tokens": 2048, "length": 20, "vocabulary": 4000, "threads": 1}
VALUES = {
    "beam": [1, 2, 5, 10, 20],
    "batch tokens": [20, 128, 512, 2048, 8192],
    "length": [5, 10, 20, 40, 80, 160],
    "vocabulary": [1000, 4000, 16_000, 32_000],
    "threads": sorted({1, 2, os.cpu_count() or 1}),
}
SENTENCES, ROUNDS = 500, 3
HERE = Path(__file__).parent


def resident() -> float:
    """Highest resident set of this process so far, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def measure(setting: dict[str, int]) -> tuple[float, float]:
    """Decode; return microseconds a token of the translations, and MB."""
    import torch

    from mt.nn.architecture import Architecture
    from mt.nn.seq2seq import Seq2Seq
    from mt.search import SearchOptions, search
    from mt.tokenizer import BOS, EOS, PAD

    torch.set_num_threads(setting["threads"])
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"embedding_size": 256, "hidden_size": 384}
    vocabulary, length = setting["vocabulary"], setting["length"]
    model = Seq2Seq(Architecture(**sizes), vocabulary, vocabulary).eval()
    options = SearchOptions(beam_size=setting["beam"], min_length=length, max_length=length)
    rows = max(1, setting["batch tokens"] // length)
    before, best = resident(), float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for start in range(0, SENTENCES, rows):
            count = min(rows, SENTENCES - start)
            source = torch.randint(EOS + 1, vocabulary, (count, length + 1))
            lengths = torch.full((count,), length + 1)
            with torch.inference_mode():
                state = model.start(source, lengths)
                search(
                    model,
                    state,
                    lengths - 1,
                    options,
                    bos=BOS,
                    eos=EOS,
                    forbidden=(PAD, BOS),
                )
        best = min(best, time.perf_counter() - began)
    return 1e6 * best / (SENTENCES * (length + 1)), resident() - before


def main() -> None:
    """Print the tables and draw them."""
    from mt.evaluation.plots import Series, line_chart, write_svg

    for name, values in VALUES.items():
        print(f"| {name} | microseconds a token | tokens/s | memory, MB |")
        print("|---|---|---|---|")
        points = []
        for value in values:
            with get_context("spawn").Pool(1) as pool:
                taken, memory = pool.apply(measure, ({**DEFAULT, name: value},))
            points.append((float(value), taken))
            print(f"| {value:,} | {taken:,.0f} | {1e6 / taken:,.0f} | {memory:,.0f} |", flush=True)
        print()
        chart = line_chart(
            f"Time against {name}",
            "microseconds a token",
            [Series("", points, dots=True)],
            from_zero=True,
            x_name=name,
        )
        write_svg(HERE / f"costs-{name.replace(' ', '-')}.svg", chart)


if __name__ == "__main__":
    main()
