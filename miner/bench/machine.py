"""The machine's ceiling: its rate of matrix products, and how many of them a photo needs.

A library that multiplies no faster than the best here can't get below a model's multiply-adds over that rate. One core
is measured, and as many as the competitors have are taken to be as fast together: a bound that other programs on the
machine hardly move.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detectors.registry import BACKENDS, bare_run
from miner.errors import CouldNotStart

if TYPE_CHECKING:
    import onnx

# Rows, inner, columns: about as a ViT-base's layers, some so small that a product is done before a busy machine takes
# the core away.
SHAPES = ((64, 1024, 1024), (256, 768, 3072), (256, 1024, 1024))
PRODUCT_SECONDS = 0.3  # for each product

Shape = tuple[int, int, int]
Rates = dict[str, float]  # multiply-adds a second, by precision


def measure_rates(environment: Mapping[str, str]) -> Rates:
    """Return one core's best rate in each precision that a library here has, measured in a process of its own.

    Raises:
        CouldNotStart: a library fails.
    """
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(environment))  # noqa: S603
    if done.returncode != 0:
        raise CouldNotStart(f"the machine's yardstick: {(done.stderr.strip().splitlines() or ['it was killed'])[-1]}")
    return dict(json.loads(done.stdout))


def least_seconds(work: int, rates: Rates, cores: int) -> dict[str, float]:
    """Return the seconds that a picture of `work` multiply-adds takes at least, by precision."""
    return {precision: work / (rate * cores) for precision, rate in rates.items()}


def multiply_adds(graph: Path) -> int:
    """Return the multiply-adds of one picture in a graph's products and convolutions; of unknown shapes, none."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(graph, load_external_data=False))
    shapes = {one.name: list(one.dims) for one in model.graph.initializer}
    for one in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        shapes[one.name] = [axis.dim_value for axis in one.type.tensor_type.shape.dim]
    return sum(_multiply_adds(node, shapes) for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Conv"))


def _multiply_adds(node: "onnx.NodeProto", shapes: Mapping[str, list[int]]) -> int:
    left, right, output = (shapes.get(name, [0]) for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type == "Conv":
        inner = math.prod(right[1:])
    elif any(one.name == "transA" and one.i for one in node.attribute):
        inner = left[0]
    else:
        inner = left[-1]
    return math.prod(output) * inner


def _rates() -> Rates:
    rates: Rates = {}
    for name, entry in BACKENDS.items():
        for precision in entry.products if entry.is_installed else ():
            rates[precision] = max(rates.get(precision, 0.0), _fastest(partial(_prepared, name, precision)))
    return rates


def _fastest(prepare: Callable[[Shape], Callable[[], object]]) -> float:
    """Return the multiply-adds a second of the fastest run of any shape."""
    found = 0.0
    for shape in SHAPES:
        run = prepare(shape)
        run()
        until = time.perf_counter() + PRODUCT_SECONDS
        while (began := time.perf_counter()) < until:
            run()
            found = max(found, math.prod(shape) / (time.perf_counter() - began))
    return found


def _product(precision: str, shape: Shape) -> bytes:
    """Return a graph of one product with constant weights, as a model's layer has."""
    from onnx import TensorProto, helper, numpy_helper

    rows, inner, columns = shape
    generator = np.random.default_rng(0)
    if precision != "int8":
        operation, given, found = "MatMul", TensorProto.FLOAT, TensorProto.FLOAT
        weights = numpy_helper.from_array(generator.standard_normal((inner, columns), dtype=np.float32), "b")
    else:
        operation, given, found = "MatMulInteger", TensorProto.UINT8, TensorProto.INT32
        weights = numpy_helper.from_array(generator.integers(-127, 128, (inner, columns), dtype=np.int8), "b")
    graph = helper.make_graph(
        [helper.make_node(operation, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", given, [rows, inner])],
        [helper.make_tensor_value_info("c", found, [rows, columns])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _prepared(backend: str, precision: str, shape: Shape) -> Callable[[], object]:
    array = np.ones(shape[:2], np.uint8 if precision == "int8" else np.float32)
    return bare_run(backend)(_product(precision, shape), precision, array)


if __name__ == "__main__":
    json.dump(_rates(), sys.stdout)
