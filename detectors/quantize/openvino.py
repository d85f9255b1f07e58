"""int8 and bf16 for OpenVINO."""

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import openvino

from detectors.backends import IR_FILE, MODEL_FILE
from detectors.errors import ModelError
from detectors.quantize import Inputs, Recipe

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def _int8(fp32: Path, folder: Path, inputs: Inputs, keep: Sequence[str]) -> None:
    """Quantise weights and activations with NNCF, calibrated on the inputs."""
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino.Core().read_model(fp32 / MODEL_FILE)
    attention = any(operation.get_type_name() == "Softmax" for operation in model.get_ops()[:-3])
    # A layer with a bias is two operations to OpenVINO, and the first of them has a name of its own.
    names = [name + suffix for name in keep for suffix in ("", "/WithoutBiases")]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantised = nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if attention else None,
            # Sums between layers are quantised too; once layers have to be kept, they are the next to suffer.
            ignored_scope=nncf.IgnoredScope(names=names, types=["Add"], validate=False) if keep else None,
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
    openvino.save_model(openvino.Core().read_model(fp32 / MODEL_FILE), folder / IR_FILE, compress_to_fp16=True)


int8, bf16 = Recipe(_int8), Recipe(_bf16)


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the CPU multiplies bfloat16."""
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(BF16_FLAGS & set(line.split()) for line in text.splitlines() if line.startswith("flags"))
