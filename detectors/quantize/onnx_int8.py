"""int8 for onnxruntime, by its own quantizer."""

import functools
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from detectors.backends import MODEL_FILE
from detectors.errors import ModelError
from detectors.quantize import WEIGHTED, Inputs, Recipe

LINEAR = ("Gemm", "MatMul")


def _dynamic(fp32: Path, folder: Path, inputs: Inputs, keep: Sequence[str]) -> None:
    """Quantise weights per channel beforehand and activations on the way; nothing to calibrate.

    Weights are signed: unsigned ones take twice the time.
    """
    with _quiet():
        quantize_dynamic(
            fp32 / MODEL_FILE,
            folder / MODEL_FILE,
            op_types_to_quantize=list(LINEAR),  # an integer Conv with dynamic input is slower than fp32
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(keep),
            extra_options={"MatMulConstBOnly": True},
        )


def _static(fp32: Path, folder: Path, inputs: Inputs, keep: Sequence[str], *, weights_only: bool = False) -> None:
    """Quantise weights and activations beforehand, the latter by the ranges that the calibration pictures show.

    Raises:
        ModelError: products of activations were to be spared, and there are none.
    """
    source = fp32 / MODEL_FILE
    spared = _without_weights(source) if weights_only else []
    if weights_only and not spared:
        raise ModelError("every layer has weights, so it is what `static` makes")
    with _quiet():
        quantize_static(
            source,
            folder / MODEL_FILE,
            _Reader(source, inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(WEIGHTED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*keep, *spared],
        )


def _without_weights(path: Path) -> list[str]:
    """Return the names of the products of two activations, which the option MatMulConstBOnly does not spare in QDQ."""
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type in LINEAR and node.input[1] not in constants]


dynamic = Recipe(_dynamic, LINEAR)
static = Recipe(_static)
# Attention multiplies activations with each other, and has no layer that could be kept in fp32. To spare that was 5 to
# 8 % faster as well, for 12 layers of 384.
static_weights = Recipe(functools.partial(_static, weights_only=True))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, graph: Path, inputs: Inputs) -> None:
        name = onnx.load(graph, load_external_data=False).graph.input[0].name
        self._inputs = iter([{name: value} for value in inputs])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._inputs, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the quantizer's advice on preprocessing, which it gives on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
