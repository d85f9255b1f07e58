"""Weights stored in 16 bits: a graph of half the size, which widens them as it is loaded and computes in fp32."""

import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from safetensors.numpy import load_file, save_file

from detectors.models.store import write_graph

LEAST = 1024  # values: what is smaller, such as a bias, saves nothing
SUFFIX = " in 16 bits"


def halve(model: onnx.ModelProto) -> None:
    """Store a graph's weights in 16 bits, each followed by a cast, which a runtime folds as it loads the graph."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= LEAST:
            name = tensor.name
            with np.errstate(over="ignore"):  # what is too large for 16 bits becomes infinite: parity refuses it
                stored = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(stored, name + SUFFIX))
            casts.append(helper.make_node("Cast", [name + SUFFIX], [name], name=f"widen {name}", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def widened(folder: Path, name: str, target: Path) -> Path:
    """Return a folder whose graph has its weights in 32 bits, for tools that look for them: this one, or a copy.

    Args:
        folder: of the graph.
        name: of its file.
        target: where the new one is to be.
    """
    model = onnx.load(folder / name, load_external_data=False)
    if not any(tensor.name.endswith(SUFFIX) for tensor in model.graph.initializer):
        return folder
    load_external_data_for_model(model, str(folder))
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name.endswith(SUFFIX)}
    for node in [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in stored]:
        tensor = stored[node.input[0]]
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, node.output[0]))
        model.graph.node.remove(node)
    target.mkdir(parents=True)
    for path in folder.glob("*.json"):
        shutil.copyfile(path, target / path.name)
    write_graph(model, target / name)
    return target


def copy_in_16_bits(source: Path, target: Path) -> None:
    """Copy a file of Hugging Face weights, stored in 16 bits, which `from_pretrained` widens as it loads them."""
    stored = {
        name: values.astype(np.float16) if values.dtype == np.float32 else values
        for name, values in load_file(source).items()
    }
    save_file(stored, target, metadata={"format": "pt"})
    target.chmod(0o644)  # the library makes it its owner's alone


if __name__ == "__main__":
    copy_in_16_bits(Path(sys.argv[1]), Path(sys.argv[2]))
