"""Model folders whose graph is made by hand: quick, slow, slow on white pictures, without an answer to black ones.

A slow graph works; one that only takes its time, exactly, is the sleeper's (`tests.process.sleeper`).
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from detectors.models import MODEL_FILE
from detectors.models.hf_config import PROCESSOR_FILE
from detectors.models.manifest import Manifest, Output, Parity, Source, sha256
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture
from detectors.preprocess import from_processor_config
from tests.process.sleeper import PICTURE_SECONDS

OnBlack = Literal["nan", "error", "shape"]

SIDE = 32  # pixels
SQUARE = 256  # of the matrix that the graph multiplies to pass the time
SQUEEZED = {"image_processor_type": "ViTImageProcessor", "size": {"height": SIDE, "width": SIDE}}
CUT_FROM_THE_MIDDLE = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
}


def write_model(
    folder: Path,
    *,
    rounds: int = 0,
    rounds_on_white: int | None = None,
    bias: float = 0.0,
    shape: Mapping[str, Any] = SQUEEZED,
    on_black: OnBlack = "nan",
    known_answer: float | None = None,
    seconds: float = 0.0,
) -> Path:
    """Write a model folder and return the YAML file beside it.

    The probability grows with the brightness. `rounds` of a matrix product pass the time, and `bias` is added to the
    logit; `shape` says how a picture gets to its size. Black is answered with NaN, with an error of the runtime, or
    with an output of another shape. `known_answer` stands in the manifest in place of the right one.
    `seconds` is what the sleeping backend takes for a picture.
    """
    folder.mkdir(parents=True)
    white = rounds if rounds_on_white is None else rounds_on_white
    (folder / PICTURE_SECONDS).write_text(str(seconds), encoding="ascii")
    onnx.save(_graph(rounds, white, bias, on_black), folder / MODEL_FILE)
    (folder / PROCESSOR_FILE).write_text(json.dumps(shape | {"do_normalize": False}), encoding="utf-8")
    draft = Manifest(
        name=folder.name,
        revision="by-hand",
        detector="ViT",
        source=Source(origin="tests", revision="by-hand"),
        output=Output(index=1, labels=["None", "Roadwork"], activation="softmax"),
        files={name: sha256(folder / name) for name in (MODEL_FILE, PROCESSOR_FILE)},
        known_answer=0.0,
        parity=Parity(reference="none", pictures=0, max_difference=0.0, mean_difference=0.0),
        made_with={},
    )
    known = _probability(folder, shape) if known_answer is None else known_answer
    draft.model_copy(update={"known_answer": known}).write(folder)
    yaml = folder.with_suffix(".yaml")
    yaml.write_text(f"model_folder: {folder.name}\n", encoding="utf-8")
    return yaml


def rounds_a_second(folder: Path, few: int = 50, many: int = 550) -> float:
    """Measure this machine at its best, so that a slow model takes at least about as long everywhere.

    Loading takes the same time with few rounds and with many, so it drops out of the difference.
    """

    def seconds(rounds: int) -> float:
        started = time.perf_counter()
        _probability(folder / str(rounds), SQUEEZED)
        return time.perf_counter() - started

    for rounds in (few, many):
        write_model(folder / str(rounds), rounds=rounds)
    least = {rounds: min(seconds(rounds) for _ in range(4)) for rounds in (few, many)}
    return (many - few) / max(1e-3, least[many] - least[few])


def _probability(folder: Path, shape: Mapping[str, Any]) -> float:
    """Return the answer to the known picture, by onnxruntime itself."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / MODEL_FILE, options, providers=["CPUExecutionProvider"])
    pixels = from_processor_config({**shape, "do_normalize": False})(decode(known_picture()))
    ((none, roadwork),) = session.run(None, {"pixel_values": pixels})[0]
    return float(1 / (1 + np.exp(none - roadwork)))


def _constant(name: str, value: object, kind: type) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, kind), name)


def _round() -> onnx.GraphProto:
    """Return the body of the loop that passes the time."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("MatMul", ["square_in", "unit"], ["square_out"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("square_in", TensorProto.FLOAT, [SQUARE, SQUARE]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("square_out", TensorProto.FLOAT, [SQUARE, SQUARE]),
        ],
        [_constant("unit", np.eye(SQUARE), np.float32)],
    )


def _graph(rounds: int, rounds_on_white: int, bias: float, on_black: OnBlack) -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values"], ["brightness"], keepdims=0),
        helper.make_node("Greater", ["brightness", "nearly_white"], ["is_white"]),
        helper.make_node("Where", ["is_white", "rounds_on_white", "rounds"], ["trips"]),
        helper.make_node("Loop", ["trips", "go", "square"], ["passed"], body=_round()),
        helper.make_node("ReduceMean", ["passed"], ["bias"], keepdims=0),  # as it went in
        helper.make_node("Sub", ["brightness", "nearly_black"], ["above_black"]),
        helper.make_node("Log", ["above_black"], ["logarithm"]),  # of a negative number: NaN
        helper.make_node("Add", ["logarithm", "bias"], ["logit"]),
        helper.make_node("Reshape", ["logit", "one_by_one"], ["roadwork"]),
        helper.make_node("Less", ["brightness", "nearly_black"], ["is_black"]),
        helper.make_node("Cast", ["is_black"], ["black"], to=TensorProto.INT64),
        helper.make_node("Mul", ["black", "far_out"], ["place"]),
        helper.make_node("Gather", ["one_by_one", "place"], ["one"]),  # far out there is nothing: an error
        helper.make_node("Mul", ["black", "one_more"], ["more"]),
        helper.make_node("Add", ["one", "more"], ["columns"]),
        helper.make_node("Reshape", ["columns", "one_long"], ["repeats"]),
        helper.make_node("Concat", ["single", "repeats"], ["tiles"], axis=0),
        helper.make_node("Tile", ["zero", "tiles"], ["none"]),
        helper.make_node("Concat", ["none", "roadwork"], ["logits"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch_size", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "classes"])],
        [
            _constant("nearly_white", 0.98, np.float32),
            _constant("nearly_black", 0.02, np.float32),
            _constant("rounds", rounds, np.int64),
            _constant("rounds_on_white", rounds_on_white, np.int64),
            _constant("go", True, np.bool_),
            _constant("square", np.full((SQUARE, SQUARE), bias), np.float32),
            _constant("one_by_one", [1, 1], np.int64),
            _constant("zero", [[0.0]], np.float32),
            _constant("far_out", 10**6 if on_black == "error" else 0, np.int64),
            _constant("one_more", 1 if on_black == "shape" else 0, np.int64),
            _constant("one_long", [1], np.int64),
            _constant("single", [1], np.int64),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
