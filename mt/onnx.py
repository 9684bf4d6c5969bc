"""A network as two ONNX graphs, and their engine, ONNX Runtime.

`encoder.onnx` turns source tokens into the decoder's first state, `decoder.onnx` is one step of the
decoder. A graph is data: loading one runs no code of its maker's. Its operators are ONNX's own, but
for the encoder's LSTM in 8 bits, which is ONNX Runtime's.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mt.errors import MTError, require
from mt.nn.decoder import DecoderState, Step
from mt.nn.encoder import Memory
from mt.nn.recurrent import KernelLayer
from mt.nn.seq2seq import Seq2Seq

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
_OPSET = 17
_SENTENCE = "keys", "memory", "source_pad"
"""Parts of a state that all hypotheses of a sentence share."""
_PLACES = "rows", "places"
"""Parts that tell where hypotheses stand."""


def export(model: Seq2Seq, quantize: Literal["none", "int8"]) -> dict[str, bytes]:
    """Write a network as graphs.

    Args:
        model: In evaluation mode, on the CPU.
        quantize: `none` keeps float32; `int8` keeps weights as 8-bit integers, with a scale for
            each unit, and rounds what they are multiplied by, with a scale for each batch.

    Returns:
        The graphs by file name.

    Raises:
        MTError: The encoder runs step by step, or a package is missing.
    """
    require("mt export", "onnx", "onnx", "onnxruntime")
    if not all(isinstance(layer, KernelLayer) for layer in model.encoder.stack.layers):
        raise MTError(
            "the encoder of this model runs step by step, which a graph cannot do; train one whose "
            "model.encoder_cell is lstm, gru, elman-tanh or elman-relu, with "
            "model.encoder_transition_depth: 1"
        )
    # Two sentences with two hypotheses and with one; the sizes are examples, those of the graph
    # vary.
    source, lengths = torch.tensor([[4, 4, 4], [4, 4, 0]]), torch.tensor([3, 2])
    first = model.decoder.start(model.encoder(source, lengths))
    index, places = torch.tensor([[0, 0], [1, 1]]), torch.tensor([0, 1, 3])
    parts = _parts(first.reorder(index, places))
    rows = [name for name in parts if name not in (*_SENTENCE, *_PLACES)]
    outputs = ["logits", *(["attention"] if model.architecture.attention != "none" else [])]
    contents = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, module, inputs, results in (
            (ENCODER, _Encoder(model), {"source": source, "lengths": lengths}, [*_parts(first)]),
            (
                DECODER,
                _Decoder(model, list(parts)),
                {"tokens": torch.full((3,), 4), **parts},
                [*outputs, *(f"next.{row}" for row in rows)],
            ),
        ):
            path = Path(folder, name)
            _write(module.eval(), inputs, results, path)
            if quantize == "int8":
                _quantize(path)
            contents[name] = path.read_bytes()
    return contents


def _write(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    axes = {name: _axes(name.removeprefix("next.")) for name in (*inputs, *outputs)}
    with warnings.catch_warnings(), torch.no_grad():
        # It warns that sizes become constants (those that do are), that other batch sizes may fail
        # (tests have them), and of a newer exporter (which cannot write packed recurrent layers).
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )


def _quantize(path: Path) -> None:
    """Turn the products with weights, the recurrent layers and the embedding of a graph to 8 bits.

    Products with a single vector (the energies of additive attention) stay as they are: they have
    nothing to gain. ONNX Runtime's quantizer does all but the embedding, which it would give one
    scale for all tokens, and whose table it turns over where the output layer shares it.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path)
    tables = {}
    weights = {weight.name: weight for weight in graph.graph.initializer}
    vectors = []
    for node in graph.graph.node:
        last = weights.get(node.input[-1]) if node.op_type == "MatMul" else None
        if last is not None and last.dims[-1] == 1:
            vectors.append(node.name)
        if node.op_type == "Gather" and node.input[0] in weights:
            own = onnx.TensorProto.FromString(weights[node.input[0]].SerializeToString())
            own.name = f"{node.name}.table"
            graph.graph.initializer.append(own)
            tables[own.name] = f"{node.input[0]}_quantized"
            node.input[0] = own.name
    onnx.save(graph, path)
    logging.disable(logging.WARNING)  # it advises to simplify the graph first; there is nothing to
    try:
        kinds = ["MatMul", "Gemm", "LSTM"]
        options = {"weight_type": QuantType.QInt8, "per_channel": True, "nodes_to_exclude": vectors}
        quantize_dynamic(path, path, kinds, **options)
    finally:
        logging.disable(logging.NOTSET)
    graph = onnx.load(path)
    for table, shared in tables.items():
        _quantize_table(graph.graph, table, shared)
    onnx.save(graph, path)


def _quantize_table(graph: Any, table: str, shared: str) -> None:
    """Look tokens up in an 8-bit table: the output layer's, turned over, where there is one."""
    from onnx import TensorProto, helper, numpy_helper

    weights = {weight.name: weight for weight in graph.initializer}
    place, node = next(
        (place, node) for place, node in enumerate(graph.node) if table in node.input
    )
    name, axis = node.name, 1
    scales = shared.replace("_quantized", "_scale")
    if shared not in weights:
        axis, shared, scales = 0, f"{name}.rows", f"{name}.scales"
        rows = numpy_helper.to_array(weights[table])
        scale = np.abs(rows).max(axis=1).clip(1e-12) / 127
        eighth = np.rint(rows / scale[:, None]).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(eighth, shared))
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), scales))
    graph.initializer.remove(weights[table])
    nodes = [helper.make_node("Gather", [shared, node.input[1]], [f"{name}.bytes"], axis=axis)]
    found = f"{name}.bytes"
    if axis:  # tokens are (N,) there
        nodes.append(helper.make_node("Transpose", [found], [f"{name}.turned"], perm=[1, 0]))
        found = f"{name}.turned"
    nodes += [
        helper.make_node("Cast", [found], [f"{name}.floats"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [scales, node.input[1]], [f"{name}.scale"]),
        helper.make_node("Unsqueeze", [f"{name}.scale", f"{name}.last"], [f"{name}.factor"]),
        helper.make_node("Mul", [f"{name}.floats", f"{name}.factor"], [node.output[0]]),
    ]
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), f"{name}.last"))
    graph.node.remove(node)
    for number, new in enumerate(nodes):
        graph.node.insert(place + number, new)


def _axes(name: str) -> dict[int, str]:
    """Name the dimensions that differ between batches."""
    if name == "rows":
        return {0: "sentences", 1: "width"}
    axes = {0: "sentences" if name in ("source", "lengths", *_SENTENCE) else "rows"}
    return axes | ({1: "positions"} if name in ("source", "past", "attention", *_SENTENCE) else {})


def _parts(state: DecoderState) -> dict[str, Tensor]:
    """Name the tensors of a state; those of no width are left out."""
    parts = {
        f"layer{number}.{part}": tensor
        for number, layer in enumerate(state.layers)
        for part, tensor in enumerate(layer)
    }
    others = ("feed", "past", *_SENTENCE, *_PLACES)
    parts |= {name: getattr(state, name) for name in others if getattr(state, name) is not None}
    return {name: tensor for name, tensor in parts.items() if tensor.shape[-1]}


def _state(parts: Mapping[str, Tensor]) -> DecoderState:
    """Build a state from its named tensors."""
    layers: dict[str, list[Tensor]] = {}
    for name, tensor in parts.items():
        if name.startswith("layer"):
            layers.setdefault(name.partition(".")[0], []).append(tensor)
    memory, rows = parts["memory"], parts["layer0.0"].shape[0]
    feed, past = parts.get("feed"), parts.get("past")
    return DecoderState(
        tuple(map(tuple, layers.values())),
        memory.new_zeros(rows, 0) if feed is None else feed,
        memory.new_zeros(rows, memory.shape[1], 0) if past is None else past,
        parts["keys"],
        memory,
        parts["source_pad"],
        parts.get("rows"),
        parts.get("places"),
    )


class _Encoder(nn.Module):
    """The encoder and the first state, on padded sentences from the longest to the shortest.

    `mt.nn.encoder` packs tokens once and never unpacks between layers; a graph knows packing only
    as an attribute of a recurrent layer.
    """

    def __init__(self, model: Seq2Seq):
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        stack = self.encoder.stack
        vectors = self.encoder.embedding(source)
        final: tuple[Tensor, ...] = ()
        for number, layer in enumerate(stack.layers, start=1):
            packed, final = layer(pack_padded_sequence(vectors, lengths, batch_first=True))
            outputs, _ = pad_packed_sequence(packed, batch_first=True)
            vectors = outputs + vectors if 0 < stack.residual_from <= number else outputs
        source_pad = torch.arange(source.shape[1])[None] >= lengths[:, None]
        states = self.encoder.project(vectors).masked_fill(source_pad[:, :, None], 0.0)
        memory = Memory(states, source_pad, tuple(part.transpose(0, 1) for part in final))
        return tuple(_parts(self.decoder.start(memory)).values())


class _Decoder(nn.Module):
    """A step of the decoder, with the parts of its state as arguments of their own."""

    def __init__(self, model: Seq2Seq, names: Sequence[str]):
        super().__init__()
        self.decoder, self.names = model.decoder, names

    def forward(self, tokens: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        step = self.decoder.step(tokens, _state(dict(zip(self.names, parts, strict=True))))
        after = _parts(step.state)
        moved = [after[name] for name in self.names if name not in (*_SENTENCE, *_PLACES)]
        attention = [] if step.attention is None else [step.attention]
        return (step.logits, *attention, *moved)


class OnnxNetwork:
    """Runs the graphs; does for a search what the network that they were made from does.

    Args:
        graphs: By file name, from `export`.
        threads: CPU threads.

    Raises:
        MTError: ONNX Runtime is missing, or cannot read a graph.
    """

    def __init__(self, graphs: Mapping[str, bytes], threads: int):
        require("--engine onnx", "onnx", "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Its threads, and those of PyTorch, which work in turn, must not spin while they wait.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; its warnings are about the optimiser's own work
        sessions = []
        for name in (ENCODER, DECODER):
            try:
                sessions.append(
                    onnxruntime.InferenceSession(
                        graphs[name], options, providers=["CPUExecutionProvider"]
                    )
                )
            except Exception as error:  # its errors have no other class in common
                reason = " ".join(str(error).split())
                raise MTError(
                    f"{name}: ONNX Runtime cannot read it ({reason}); run `mt export` again"
                ) from error
        self._encoder, self._decoder = sessions
        self._inputs = [node.name for node in self._decoder.get_inputs()]
        self._outputs = [node.name for node in self._decoder.get_outputs()]
        self._parts = [node.name for node in self._encoder.get_outputs()]

    def start(self, source: Tensor, source_lengths: Tensor) -> DecoderState:
        """See `Seq2Seq.start`."""
        lengths, order = source_lengths.sort(descending=True, stable=True)
        feed = {"source": source[order].numpy(), "lengths": lengths.numpy()}
        back = order.argsort()
        outputs = self._encoder.run(self._parts, feed)
        parts = (torch.from_numpy(output)[back] for output in outputs)
        return _state(dict(zip(self._parts, parts, strict=True)))

    def step(self, tokens: Tensor, state: DecoderState) -> Step:
        """See `Decoder.step`."""
        parts = _parts(state)
        known = {"tokens": tokens, **parts}
        if state.rows is None:
            known["places"] = torch.arange(len(tokens))
            known["rows"] = known["places"].view(len(state.memory), -1)
        feed = {name: known[name].numpy() for name in self._inputs}
        outputs = map(torch.from_numpy, self._decoder.run(self._outputs, feed))
        found = dict(zip(self._outputs, outputs, strict=True))
        after = {name: found.get(f"next.{name}", part) for name, part in parts.items()}
        return Step(found["logits"], found.get("attention"), _state(after))
