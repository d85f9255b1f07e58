"""The recipes of int8, bf16 and merged tokens, for onnxruntime and OpenVINO.

One precision has several of them, as none is the best for every network.
"""

import contextlib
import functools
import io
import logging
import shutil
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

from detectors.errors import ModelError
from detectors.machine import read_cpu
from detectors.models import IR_FILE, MODEL_FILE
from detectors.quantize import WEIGHTED, Inputs, Recipe
from detectors.quantize.token_merge import PREFIX

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}

LINEAR = ("Gemm", "MatMul")


def _int8(fp32: Path, folder: Path, inputs: Inputs, keep: Sequence[str]) -> None:
    """Quantise weights and activations with NNCF, calibrated on the inputs."""
    import nncf
    import openvino  # onnxruntime's recipes do without

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino.Core().read_model(fp32 / MODEL_FILE)
    attention = any(operation.get_type_name() == "Softmax" for operation in model.get_ops()[:-3])
    # A layer with a bias is two operations to OpenVINO, and the first of them has a name of its own.
    names = [name + suffix for name in keep for suffix in ("", "/WithoutBiases")]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantised = nncf.quantize(
            model,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if attention else None,
            # Sums between layers are quantised too; once layers have to be kept, they are the next to suffer.
            ignored_scope=nncf.IgnoredScope(
                names=names, patterns=[f"{PREFIX}.*"], types=["Add"] if keep else [], validate=False
            ),
        )
    openvino.save_model(quantised, folder / IR_FILE, compress_to_fp16=False)


def _bf16(fp32: Path, folder: Path, inputs: Inputs, keep: Sequence[str]) -> None:
    """Store the weights in 16 bits and let the CPU compute in bfloat16.

    Raises:
        ModelError: this CPU can't, or layers were to be kept, which the format has no place for.
    """
    if keep:
        raise ModelError("bf16 has no way to keep single layers in fp32")
    if not cpu_has_bf16():
        raise ModelError("this CPU computes no bfloat16 (neither AVX512-BF16 nor AMX)")
    import openvino

    openvino.save_model(openvino.Core().read_model(fp32 / MODEL_FILE), folder / IR_FILE, compress_to_fp16=True)


int8, bf16 = Recipe(_int8), Recipe(_bf16)


def cpu_has_bf16(root: Path = Path("/")) -> bool:
    """Return whether the CPU multiplies bfloat16."""
    return bool(BF16_FLAGS & read_cpu(root)[1])


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
            nodes_to_exclude=[*keep, *spared, *_of_merges(source)],
        )


def _as_it_is(fp32: Path, folder: Path, inputs: Inputs, keep: Sequence[str]) -> None:
    """Copy the graph: its tokens have been merged, and that was all."""
    for path in fp32.glob(f"{MODEL_FILE}*"):
        shutil.copyfile(path, folder / path.name)


def _of_merges(path: Path) -> list[str]:
    """Return the names of the nodes that merge tokens: eight bits would tell similar pairs no longer apart."""
    graph = onnx.load(path, load_external_data=False).graph
    return [node.name for node in graph.node if node.name.startswith(PREFIX)]


def _without_weights(path: Path) -> list[str]:
    """Return the names of the products of two activations, which the option MatMulConstBOnly does not spare in QDQ."""
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type in LINEAR and node.input[1] not in constants]


as_it_is = Recipe(_as_it_is, ())
dynamic = Recipe(_dynamic, LINEAR)
static = Recipe(_static)
# Attention multiplies activations with each other, and has no layer that could be kept in fp32. To spare that was 5 to
# 8 % faster as well, for 12 layers of 384.
static_weights = Recipe(functools.partial(_static, weights_only=True))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, graph: Path, inputs: Inputs) -> None:
        name = onnx.load(graph, load_external_data=False).graph.input[0].name
        self._inputs = ({name: value} for value in inputs)

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
