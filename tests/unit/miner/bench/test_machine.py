"""What a CPU can do at most, and how much a picture needs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from miner.bench.machine import least_seconds, measure_rates, multiply_adds
from miner.bench.output import least_words
from miner.errors import CouldNotStart
from tests.process.daemon import clean_environment
from tests.unit.miner.bench.test_report import figures


def weight(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.zeros(shape, dtype=np.float32), name)


def test_multiply_adds_are_those_of_products_and_convolutions(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["picture", "kernel"], ["maps"], group=2, strides=[2, 2]),  # (1, 6, 4, 4)
        helper.make_node("Relu", ["maps"], ["bent"]),
        helper.make_node("Reshape", ["bent", "shape"], ["rows"]),  # (16, 6)
        helper.make_node("MatMul", ["rows", "across"], ["wide"]),  # (16, 10)
        helper.make_node("Gemm", ["wide", "turned"], ["last"], transA=1, transB=1),  # (10, 3)
    ]
    weights = [
        weight("kernel", 6, 1, 2, 2), weight("across", 6, 10), weight("turned", 3, 16),
        numpy_helper.from_array(np.array([16, 6]), "shape"),
    ]  # fmt: skip
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 2, 8, 8])
    last = helper.make_tensor_value_info("last", TensorProto.FLOAT, [10, 3])
    graph = helper.make_graph(nodes, "layers", [picture], [last], weights)
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    assert multiply_adds(tmp_path / "model.onnx") == 6 * 4 * 4 * 4 + 16 * 10 * 6 + 10 * 3 * 16


def test_a_picture_takes_at_least_its_work_at_the_cores_pace() -> None:
    assert least_seconds(10**9, {"fp32": 5e9, "int8": 2e10}, 2) == {"fp32": 0.1, "int8": 0.025}


def test_what_is_possible_is_said_as_a_share_of_the_first() -> None:
    words = least_words([figures("onnx")], {"fp32": 0.08, "int8": 0.02})
    assert words.endswith("(share of onnx fp32): fp32 80.0 ms (0.80), int8 20.0 ms (0.20)")


@pytest.mark.slow
def test_the_pace_is_measured_on_what_is_installed() -> None:
    rates = measure_rates(clean_environment())
    assert {"fp32", "int8"} <= set(rates)
    assert min(rates.values()) > 0


def test_a_library_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('no instruction')")
    with pytest.raises(CouldNotStart, match="yardstick: ImportError: no instruction"):
        measure_rates(clean_environment() | {"PYTHONPATH": str(tmp_path)})
