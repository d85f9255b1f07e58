"""The graph of a model with a head on views: cut before its last layer, so that it gives features."""

from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detectors.errors import ModelError
from detectors.models import MODEL_FILE

FEATURES = "features"
TOLERANCE = 1e-4  # of a logit, between the last layer in the graph and in numpy


def cut(folder: Path, width: int, inputs: list[NDArray[np.float32]]) -> None:
    """Leave the last layer of a folder's graph out: `pixel_values` to `features` (1, width).

    Weights that lie beside the graph stay there: with more than 2 GB of them, no graph holds them.

    Args:
        folder: of the graph, in fp32.
        width: of the features that the head takes.
        inputs: on which what was left out has to make the logits again from the features.

    Raises:
        ModelError: its last layer can't be found, or takes something else.
    """
    path = folder / MODEL_FILE
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    logits = graph.output[0].name
    node, bias = makers[logits], np.zeros(1, np.float32)
    if node.op_type == "Add":
        known = [name for name in node.input if name in weights]
        others = [name for name in node.input if name not in weights]
        if len(known) != 1 or others[0] not in makers:
            raise ModelError("the last layer of its graph can't be found: a head on views needs a linear one")
        bias, node = _array(weights[known[0]], folder), makers[others[0]]
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        raise ModelError(f"its graph ends in a {node.op_type}: a head on views needs a linear last layer")
    kernel = _array(weights[node.input[1]], folder)
    if node.op_type == "Gemm":
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        kernel = kernel.T if values.get("transB") else kernel
        bias = _array(weights[node.input[2]], folder) if len(node.input) > 2 else bias
    features = node.input[0]
    before = _runs(model, folder, [features, logits], inputs)
    far = [float(np.abs(given @ kernel + bias - said).max()) for given, said in before]
    if any(given.shape != (1, width) for given, _ in before) or not max(far) < TOLERANCE * max(1.0, _largest(before)):
        raise ModelError(f"its last layer is none that takes the {width} features of the head")
    graph.node.append(helper.make_node("Identity", [features], [FEATURES], name=FEATURES))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [1, width]))
    _prune(graph)
    path.write_bytes(model.SerializeToString())


def _array(tensor: onnx.TensorProto, folder: Path) -> NDArray[np.float32]:
    """Return a tensor's numbers, which may lie beside the graph; they are read into a copy."""
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    return np.asarray(numpy_helper.to_array(copy, str(folder)), dtype=np.float32)


def _largest(runs: list[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> float:
    return max(float(np.abs(said).max()) for _, said in runs)


def _runs(
    model: onnx.ModelProto, folder: Path, names: list[str], inputs: list[NDArray[np.float32]]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return what flows along two edges, for each input."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    given = {value.name for value in probe.graph.output}
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in given
    )
    with NamedTemporaryFile(dir=folder, prefix=MODEL_FILE, suffix=".probe") as file:  # beside its weights
        file.write(probe.SerializeToString())
        file.flush()
        session = onnxruntime.InferenceSession(file.name, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    return [tuple(session.run(names, {entry: one})) for one in inputs]


def _prune(graph: onnx.GraphProto) -> None:
    """Take out the nodes and weights that nothing leads from to the output."""
    wanted, kept = {graph.output[0].name}, []
    for node in reversed(graph.node):  # in the order of the runs, as a graph has to be
        if wanted & set(node.output):
            wanted.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(weights)
