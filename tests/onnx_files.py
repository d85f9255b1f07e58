"""ONNX files as others export them: a tiny network in numpy and onnx.helper, in every shape that they come in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

YAML = "mean: [0.485, 0.456, 0.406]\nstd: [0.229, 0.224, 0.225]\nlabels: [no_roadwork, roadwork]\noutput: logits\n"
Dimensions = Sequence[int | str | None]


def make_onnx(
    path: Path,
    *,
    shape: Dimensions = ("batch", 3, 64, 64),
    kind: int = TensorProto.FLOAT,
    classes: int = 2,
    last: str = "",
    row: Sequence[int] = (),
    domain: str = "",
    opset: int = 17,
    more: bool = False,
    separate: str = "",
    double: bool = False,
) -> Path:
    """Write a network of a convolution, a mean and a product, which tells pictures apart.

    Args:
        path: of the file.
        shape: of its input.
        kind: of its numbers.
        classes: outputs.
        last: an operator after the logits.
        row: the shape that they are brought to at last.
        domain: of an operator that no library has.
        opset: of ONNX.
        more: another output.
        separate: the name of a file beside it for the weights.
        double: its output is in 64 bits.
    """
    random, real = np.random.default_rng(7), kind in (TensorProto.FLOAT, TensorProto.FLOAT16)
    form = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    weights: dict[str, Any] = {
        "kernel": random.normal(0, 0.3, (8, 3, 8, 8)).astype(form),
        "head": random.normal(0, 0.6, (8, classes)).astype(form),
        "bias": random.normal(0, 0.1, classes).astype(form),
    }
    nodes, now = [], "picture"
    if not real:
        nodes.append(helper.make_node("Cast", [now], ["cast"], to=TensorProto.FLOAT))
        now = "cast"
    if shape[-1] == 3:
        nodes.append(helper.make_node("Transpose", [now], ["turned"], perm=[0, 3, 1, 2]))
        now = "turned"
    nodes += [
        helper.make_node("Conv", [now, "kernel"], ["maps"], strides=[8, 8]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "head", "bias"], ["logits"]),
    ]
    now = "logits"
    if last:
        own = {"classlabels_int64s": list(range(classes))} if last == "ZipMap" else {}
        nodes.append(helper.make_node(last, [now], ["last"], domain="ai.onnx.ml" if own else domain, **own))
        now = "last"
    if row:
        weights["row"] = np.array(row, np.int64)
        nodes.append(helper.make_node("Reshape", [now, "row"], ["shaped"]))
        now = "shaped"
    number = kind if real else TensorProto.FLOAT
    if double:
        nodes.append(helper.make_node("Cast", [now], ["double"], to=TensorProto.DOUBLE))
        now, number = "double", TensorProto.DOUBLE
    outputs = [helper.make_tensor_value_info(now, number, None)]
    if last == "ZipMap":
        share = helper.make_tensor_type_proto(number, None)
        kind_of_map = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, share))
        outputs = [helper.make_value_info(now, kind_of_map)]
    if more:
        outputs.insert(0, helper.make_tensor_value_info("features", number, None))
    graph = helper.make_graph(
        nodes, "own", [helper.make_tensor_value_info("picture", kind, shape)], outputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1)] * bool(domain)
    imports += [helper.make_opsetid("ai.onnx.ml", 3)] * (last == "ZipMap")
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"save_as_external_data": True, "location": separate, "size_threshold": 0}
    onnx.save_model(model, path, **(options if separate else {}))
    return path
