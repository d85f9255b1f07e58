"""Which layers suffer most from eight bits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detectors.quantize import WEIGHTED, Inputs

SAMPLES = 4  # pictures; the order of the layers is the same with more

Array = NDArray[np.float32]


def most_sensitive_layers(path: Path, inputs: Inputs, layers: Sequence[str] = WEIGHTED) -> list[str]:
    """Return the names of a graph's nodes of these operators that have weights, the one eight bits hurt most first.

    A layer's own error is the relative error of its output when its weights (per output channel) and its input (per
    tensor) are rounded to eight bits, and everything before it is exact.
    """
    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in layers and node.input[1] in weights]
    activations = _record(path, model, sorted({node.input[0] for node in nodes}), inputs[:SAMPLES])
    errors = {}
    for node in nodes:
        weight = numpy_helper.to_array(weights[node.input[1]]).astype(np.float32)
        axis = 0 if node.op_type == "Conv" else weight.ndim - 1
        run = _single(model, node, weights)
        total, wrong = 0.0, 0.0
        for value in activations[node.input[0]]:
            exact = run(value, weight)
            wrong += float(np.square(exact - run(_rounded(value), _rounded(weight, axis))).sum())
            total += float(np.square(exact).sum())
        errors[node.name] = wrong / max(total, 1e-30)
    return sorted(errors, key=lambda name: -errors[name])


def _record(path: Path, model: Any, names: list[str], inputs: Inputs) -> dict[str, list[Array]]:
    """Run the graph and return what flows along the named edges, for each input."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    given = {value.name for value in probe.graph.input}
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in given
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # A graph of more than 2 GB can't be handed over in memory; weights in a file of their own stay where they are.
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (entry,) = (value.name for value in session.get_inputs())
    found: dict[str, list[Array]] = {name: [] for name in names}
    outputs = [name for name in names if name != entry]
    for value in inputs:
        for name, result in zip(outputs, session.run(outputs, {entry: value}), strict=True):
            found[name].append(result)
        if entry in found:
            found[entry].append(value)
    return found


def _single(model: Any, node: Any, weights: dict[str, Any]) -> Any:
    """Return the one layer as a function of its input and its weights."""
    free = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (node.input[0], node.input[1])]
    rest = [weights[name] for name in node.input[2:] if name in weights]
    out = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "layer", free, out, rest)
    single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(single.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda value, weight: session.run(None, {node.input[0]: value, node.input[1]: weight})[0]


def _rounded(value: Array, axis: int | None = None) -> Array:
    """Round to 255 symmetric steps, per slice along `axis` or over all."""
    others = tuple(number for number in range(value.ndim) if number != axis) if axis is not None else None
    step = np.maximum(np.abs(value).max(axis=others, keepdims=True), 1e-12) / 127
    return np.asarray(np.round(value / step) * step, dtype=np.float32)
