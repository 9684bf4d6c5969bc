"""Decoding on the CPU: speed beside the arithmetic that it needs, by engine, beam and threads.

python benchmarks/decoding.py [BUNDLE] [SOURCE]   (default: the quickstart's, and its test text)

The arithmetic is two operations for each multiplication with a weight matrix and for each number of
the memory that attention reads or adds up: of the encoder for each source token, of the decoder for
each step of each hypothesis that is still alive, at its own length. The yardstick is the better of
1024- and 2048-square float32 products, taken in turn with what is measured. Graphs are exported to
a copy of the bundle. A final table says where the time of a beam of 5 goes in PyTorch.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from batches import test_text
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mt.bundle import Bundle, add_files, load_bundle
from mt.lines import read_lines
from mt.nn.embedding import Embedding
from mt.nn.seq2seq import Seq2Seq
from mt.onnx import export
from mt.translator import Translator

SENTENCES, ROUNDS, LATENCY, OPERATORS = 1000, 3, 200, 12


def gemm_rate() -> float:
    """Measure float32 products, in operations a second."""
    best = 0.0
    for size in (1024, 2048):
        one = torch.randn(size, size)
        for _ in range(3):
            began = time.perf_counter()
            one @ one
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def matrices(module: nn.Module) -> int:
    """Count the weights of a module's matrices, without embeddings."""
    tables = {id(m.weight) for m in module.modules() if isinstance(m, Embedding)}
    weights = [p for p in module.parameters() if p.dim() > 1 and id(p) not in tables]
    return sum(p.numel() for p in weights)


class Work(NamedTuple):
    """Multiplications with weights that a network needs."""

    sentence: int
    """For each sentence."""
    source: int
    """For each source token."""
    target: int
    """For each target token, or step of a hypothesis."""


def work(network: Seq2Seq) -> Work:
    """Count a network's multiplications."""
    decoder = network.decoder
    parts = dict(decoder.attention.named_children())
    asking = [parts[name] for name in ("query", "output") if name in parts]
    step = [
        *decoder.layers,
        decoder.combine,
        *([decoder.second] if decoder.second else []),
        *asking,
    ]
    return Work(
        matrices(decoder.bridge),
        matrices(network.encoder) + matrices(decoder.attention) - sum(map(matrices, asking)),
        sum(map(matrices, step)) + decoder.output.weight.numel(),
    )


class Counter:
    """A network that counts the operations that are asked of it."""

    def __init__(self, network: Seq2Seq):
        self.network, self.needs, self.operations = network, work(network), 0.0

    def start(self, source: Tensor, lengths: Tensor) -> Any:
        """Count, and let the network encode."""
        needs = self.needs
        self.operations += 2.0 * (int(lengths.sum()) * needs.source + len(lengths) * needs.sentence)
        return self.network.start(source, lengths)

    def step(self, tokens: Tensor, state: Any) -> Any:
        """Count, and let the network go on."""
        attention = 2 * state.memory.shape[1] * state.memory.shape[2]
        self.operations += 2.0 * len(tokens) * (self.needs.target + attention)
        return self.network.step(tokens, state)


def operations(bundle: Bundle, texts: list[str], beam: int) -> float:
    """Count what each sentence alone needs: then every row is a live hypothesis."""
    counter = Counter(bundle.model)
    alone = Translator(bundle, "cpu", counter)
    for text in texts:
        alone.translate([text], replace(bundle.search, beam_size=beam))
    return counter.operations


def timed(translator: Translator, texts: list[str], beam: int) -> tuple[float, list[str]]:
    """Translate the whole text; return the seconds too."""
    began = time.perf_counter()
    found = translator.translate(texts, replace(translator.options, beam_size=beam))
    return time.perf_counter() - began, found


def latencies(translator: Translator, texts: list[str], beam: int) -> str:
    """Time sentences one by one: the median and the 95th percentile, in milliseconds."""
    taken = [1000 * timed(translator, [text], beam)[0] for text in texts]
    return f"{statistics.median(taken):.1f} / {statistics.quantiles(taken, n=20)[-1]:.1f}"


def main() -> None:
    """Print the tables."""
    lines = read_lines(Path(sys.argv[2])) if len(sys.argv) > 2 else test_text("source")
    texts = [line for line in lines if line.strip()][:SENTENCES]
    words = sum(len(text.split()) for text in texts)
    bundle = load_bundle(BUNDLE)
    counts = {beam: operations(bundle, texts, beam) for beam in (1, 5)}
    size = sum(parameter.numel() for parameter in bundle.model.parameters()) / 1e6
    print(f"{BUNDLE}, {size:.1f} million weights; {len(texts):,} sentences, {words:,} words\n")
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"torch": BUNDLE}
        for quantize, name in ((None, "onnx"), ("int8", "onnx, int8")):
            folders[name] = shutil.copytree(BUNDLE, Path(scratch, name))
            graphs = export(bundle.model, quantize)
            add_files(folders[name], graphs)
            print(f"{name}: {sum(map(len, graphs.values())) / 1e6:.1f} MB")
        for threads in (1, 2):
            torch.set_num_threads(threads)
            rate = max(gemm_rate() for _ in range(ROUNDS))
            rows = []
            engines = {
                name: Translator.load(folder, "cpu", "torch" if name == "torch" else "onnx")
                for name, folder in folders.items()
            }
            for beam, count in counts.items():
                best: dict[str, float] = {}
                found: dict[str, list[str]] = {}
                for _ in range(ROUNDS):  # in turn, so that a noisy moment meets all
                    rate = max(rate, gemm_rate())
                    for name, translator in engines.items():
                        taken, found[name] = timed(translator, texts, beam)
                        best[name] = min(taken, best.get(name, taken))
                for name, taken in best.items():
                    other = sum(a != b for a, b in zip(found[name], found["torch"], strict=True))
                    cells = (taken, count, other, latencies(engines[name], texts[:LATENCY], beam))
                    rows.append((name, beam, *cells))
            print(f"\n{threads} threads; float32 products at {rate / 1e9:.0f} GFLOP/s\n")
            print(
                "| engine | beam | sentences/s | source words/s | times the arithmetic "
                "| other texts than torch | one sentence, ms, p50 / p95 |"
            )
            print("|---|---|---|---|---|---|---|")
            for name, beam, taken, count, other, latency in rows:
                print(
                    f"| {name} | {beam} | {len(texts) / taken:,.0f} | {words / taken:,.0f} "
                    f"| {taken * rate / count:.2f} | {other} | {latency} |",
                    flush=True,
                )

    show_profile(Translator.load(BUNDLE, "cpu"), texts)


def show_profile(translator: Translator, texts: list[str]) -> None:
    """Print PyTorch's operators by their share of the time on one thread."""
    torch.set_num_threads(1)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        timed(translator, texts, 5)
    events = sorted(profiled.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print("\n| torch, beam 5, one thread: operator | share of the operators' time |")
    print("|---|---|")
    for event in events[:OPERATORS]:
        print(f"| `{event.key}` | {event.self_cpu_time_total / total:.1%} |")


BUNDLE = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart/bundle")

if __name__ == "__main__":
    main()
