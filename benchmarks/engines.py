"""Engines that could decode on the CPU, beside each other: speed, size, and what they change.

python benchmarks/engines.py [BUNDLE SOURCE REFERENCE]   (default: the quickstart's)

Every engine computes the same network: PyTorch in float32 and with its own 8-bit products outside
the LSTMs, ONNX Runtime and OpenVINO on the graphs that `mt export` writes. OpenVINO computes the
decoder only: its LSTM over sequences gives other numbers than the rest where sentences differ in
length, so the encoder is ONNX Runtime's there. The search around them is ours. Each figure is the
best of three rounds in turn, on one thread. OpenVINO is left out where it is not installed.
"""

from __future__ import annotations

import copy
import io
import sys
import time
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from batches import test_text
from torch import nn

from mt.bundle import Bundle, load_bundle
from mt.evaluation.scores import corpus_score
from mt.lines import read_lines
from mt.onnx import DECODER, OnnxNetwork, export
from mt.translator import Translator

ROUNDS = 3


class OpenVino:
    """A graph in OpenVINO, with what `OnnxNetwork` asks of a session."""

    def __init__(self, graph: bytes):
        import openvino

        core = openvino.Core()
        hints = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
        # Some machines have 16-bit products, which the others here do not use.
        hints["INFERENCE_PRECISION_HINT"] = "f32"
        self.compiled = core.compile_model(core.read_model(io.BytesIO(graph)), "CPU", hints)

    def get_inputs(self) -> list[SimpleNamespace]:
        """Name the inputs."""
        return [SimpleNamespace(name=one.any_name) for one in self.compiled.inputs]

    def get_outputs(self) -> list[SimpleNamespace]:
        """Name the outputs."""
        return [SimpleNamespace(name=one.any_name) for one in self.compiled.outputs]

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        """Compute."""
        found = self.compiled(feed)
        return [found[name] for name in names]


def openvino_network(graphs: dict[str, bytes]) -> OnnxNetwork:
    """Put OpenVINO in the place of ONNX Runtime for the decoder."""
    network = OnnxNetwork(graphs, 1)
    network._decoder = OpenVino(graphs[DECODER])
    return network


def torch_int8(bundle: Bundle) -> Bundle:
    """Give a bundle PyTorch's 8-bit layers, in place of all but the LSTMs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated in favour of another package
        model = torch.ao.quantization.quantize_dynamic(copy.deepcopy(bundle.model), {nn.Linear})
    return bundle._replace(model=model)


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        bundle = load_bundle(Path(sys.argv[1]))
        sources, references = (list(read_lines(Path(path))) for path in sys.argv[2:])
    else:
        bundle = load_bundle(Path("runs/quickstart/bundle"))
        sources, references = test_text("source"), test_text("target")
    torch.set_num_threads(1)
    words = sum(len(line.split()) for line in sources)
    engines = {
        "torch": Translator(bundle, "cpu"),
        "torch, int8": Translator(torch_int8(bundle), "cpu"),
    }
    for kind, name in (("none", ""), ("int8", ", int8")):
        graphs = export(bundle.model, kind)
        engines[f"ONNX Runtime{name}"] = Translator(bundle, "cpu", OnnxNetwork(graphs, 1))
        if find_spec("openvino") is not None:
            engines[f"OpenVINO{name}"] = Translator(bundle, "cpu", openvino_network(graphs))
    print("| engine | beam | source words/s | other texts than torch | BLEU |")
    print("|---|---|---|---|---|")
    for beam in (1, 5):
        best: dict[str, float] = {}
        found: dict[str, list[str]] = {}
        for _ in range(ROUNDS):
            for name, translator in engines.items():
                began = time.perf_counter()
                found[name] = translator.translate(
                    sources, replace(translator.options, beam_size=beam)
                )
                taken = time.perf_counter() - began
                best[name] = min(taken, best.get(name, taken))
        for name, taken in best.items():
            other = sum(a != b for a, b in zip(found[name], found["torch"], strict=True))
            language = bundle.languages[1]
            bleu = corpus_score("bleu", found[name], [references], target_language=language)
            print(f"| {name} | {beam} | {words / taken:,.0f} | {other} | {bleu.score:.2f} |")


if __name__ == "__main__":
    main()
