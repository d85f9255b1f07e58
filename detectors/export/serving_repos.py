"""Model repositories of Triton and of OpenVINO Model Server (whose layout KServe takes over).

A model folder becomes one, so that machines with a GPU can serve it.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import onnx

from detectors.errors import ModelError
from detectors.models import IR_FILE, MODEL_FILE
from detectors.models.manifest import Manifest

Layout = Literal["ovms", "triton"]
GRAPH = "model."  # the graph's files, with weights of their own or without
MODEL_VERSION = "1"  # both servers want a folder for each version, and serve the highest
MOUNTED = "/models"  # where the examples in deploy/remote mount the repository

PBTXT = """\
# Written by `roadwork-miner export --layout triton`: {name} {revision}, {precision}
name: "{name}"
backend: "onnxruntime"
max_batch_size: 0
input [ {{ name: "{input}" data_type: TYPE_FP32 dims: {input_shape} }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: {output_shape} label_filename: "labels.txt" }} ]
# Pictures at once; times the threads of each, no more than there are cores.
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}
model_warmup [ {{
  name: "blank" batch_size: 1
  inputs {{ key: "{input}" value: {{ data_type: TYPE_FP32 dims: {input_shape} zero_data: true }} }}
}} ]
"""


def write_layout(layout: Layout, folder: Path, repository: Path, threads: int) -> Path:
    """Copy the graph of a verified model folder into a repository, and say there what it is; return the model's folder.

    Other models in the repository stay; an older copy of the same name is replaced.

    Raises:
        ModelError: the folder is damaged, the server can't run its kind of graph, or the repository can't be written.
    """
    manifest = Manifest.read(folder)
    manifest.verify(folder)
    if manifest.head:
        raise ModelError(
            f"the graph in {folder} gives features of {manifest.head}, which another server can't make an answer of"
        )
    names = [name for name in manifest.files if name.startswith(GRAPH)]
    if not names:
        raise ModelError(f"{folder} holds no graph; of an ensemble, each branch has a folder of its own")
    if layout == "triton" and MODEL_FILE not in names:
        raise ModelError(
            f"{folder} holds {IR_FILE}, which Triton's onnxruntime can't run; the backend onnx can have one"
        )
    target = repository / manifest.name
    try:
        _replace(target, layout, folder, names, manifest, threads)
        if layout == "ovms":
            _list_model(repository / "config.json", manifest, threads)
    except OSError as error:
        raise ModelError(f"{target} can't be written: {error.strerror or error}") from error
    return target


def _replace(
    target: Path, layout: Layout, folder: Path, names: Sequence[str], manifest: Manifest, threads: int
) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / MODEL_VERSION).mkdir(parents=True)
        for name in names:
            shutil.copyfile(folder / name, partial / MODEL_VERSION / name)
        if layout == "triton":
            (partial / "labels.txt").write_text("\n".join(manifest.output.labels) + "\n", encoding="utf-8")
            (partial / "config.pbtxt").write_text(_pbtxt(manifest, folder / MODEL_FILE, threads), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _pbtxt(manifest: Manifest, path: Path, threads: int) -> str:
    graph = onnx.load(path, load_external_data=False).graph
    (picture,) = graph.input
    return PBTXT.format(
        name=manifest.name, revision=manifest.revision, precision=manifest.precision, threads=threads,
        input=picture.name, input_shape=_dimensions(picture),
        output=graph.output[0].name, output_shape=_dimensions(graph.output[0]),
    )  # fmt: skip


def _dimensions(value: Any) -> Sequence[int]:
    """Return a tensor's shape; a dimension that the graph leaves open is the batch, and that is one picture."""
    return [dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim]


def _list_model(path: Path, manifest: Manifest, threads: int) -> None:
    try:
        listed = json.loads(path.read_bytes())["model_config_list"]
        listed = [one for one in listed if one["config"]["name"] != manifest.name]
    except FileNotFoundError:
        listed = []
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is there and is no configuration of OpenVINO Model Server") from error
    own = {
        "name": manifest.name,
        "base_path": f"{MOUNTED}/{manifest.name}",
        "target_device": "CPU",
        "nireq": 2,
        "plugin_config": {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Left to itself it would take bf16 wherever the CPU has it, and its answers would not be the model's.
            "INFERENCE_PRECISION_HINT": "bf16" if manifest.precision == "bf16" else "f32",
        },
    }
    path.write_text(json.dumps({"model_config_list": [*listed, {"config": own}]}, indent=2) + "\n", encoding="utf-8")
