"""The graph of a classifier of transformers: torch runs the network once and writes down what it computes.

The tracer of TorchScript needs nothing beside torch, and knows shapes as numbers: everything that follows from the
picture's size becomes a constant.
"""

import contextlib
import ctypes
import io
import os
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from detectors.errors import ModelError
from detectors.models import MODEL_FILE

STDOUT = 1  # its file descriptor
OPSET = 20  # the newest of this tracer, and the first with Gelu

# Of `AutoModelForImageClassification`, by model_type: what no graph of one picture can be made of, and why.
REFUSED = {
    "dinat": "its attention to neighbours is natten's, which ONNX has no operator for",
    "imagegpt": "its input is a sequence of colour clusters and no picture",
    "nat": "its attention to neighbours is natten's, which ONNX has no operator for",
    "shieldgemma2": "it is a language model, asked by a sentence beside the picture",
    "siglip2": "its input is any number of patches and no picture; a SigLIP 2 of one size has the type siglip",
}


def refuse_type(model_type: str) -> None:
    """Refuse a network that has no graph, before torch is asked for one.

    Raises:
        ModelError: it is one of those.
    """
    if model_type in REFUSED:
        raise ModelError(f"a {model_type} can't become a graph: {REFUSED[model_type]}")


def export_graph(model: Any, folder: Path, height: int, width: int) -> None:
    """Write `model.onnx`: `pixel_values` (1, 3, height, width) to `logits` (1, classes).

    Args:
        model: a classifier of transformers, as it is to answer.
        folder: to write into.
        height: pixels of the picture.
        width: pixels of the picture.
    """
    settle(model, height, width)
    trace(_Logits(model), folder, height, width)


def trace(network: torch.nn.Module, folder: Path, height: int, width: int) -> None:
    """Write `model.onnx` of any network from pixels to logits."""
    pixels = torch.zeros(1, 3, height, width)
    with torch.no_grad():
        classes = network.eval()(pixels).shape[-1]
    # The tracer warns of shapes that are fixed on purpose.
    with warnings.catch_warnings(), silent():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,  # in the mode in which the tracer leaves the model
            (pixels,),
            folder / MODEL_FILE,
            input_names=["pixel_values"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load(folder / MODEL_FILE)
    part_padding(graph.graph)
    # What is flattened leaves the tracer with a batch of any size.
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, classes])
    graph.graph.output[0].CopyFrom(logits)
    onnx.save_model(graph, folder / MODEL_FILE)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep the terminal clean: before an error the tracer prints the whole network, from C++, past `sys.stdout`."""
    flush = ctypes.CDLL(None).fflush  # of what C and C++ have yet to write
    sys.stdout.flush()
    flush(None)
    with contextlib.redirect_stdout(io.StringIO()), Path(os.devnull).open("wb") as nowhere:
        terminal = os.dup(STDOUT)
        os.dup2(nowhere.fileno(), STDOUT)
        try:
            yield
        finally:
            flush(None)
            os.dup2(terminal, STDOUT)
            os.close(terminal)


class _Logits(torch.nn.Module):  # type: ignore[misc]
    """A classifier as a function of the picture alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=pixels).logits
        return logits


def settle(model: Any, height: int, width: int) -> None:
    """Settle a network on pictures of one size, where ONNX can't express how it takes any.

    A DINOv2 stretches its learnt positions to the picture at every run; for one size they are constants. A MobileViTV2
    lays its patches together by an operator whose size has to be known; they are side by side, so a transpose does it.
    """
    kind = model.config.model_type
    if kind == "mobilevitv2":
        for layer in model.modules():
            if hasattr(layer, "folding"):
                layer.folding = partial(_fold, layer.patch_height, layer.patch_width)
    elif kind.startswith("dinov2"):
        embeddings = model.base_model.embeddings
        rows, columns = (side // model.config.patch_size for side in (height, width))
        with torch.no_grad():
            tokens = torch.zeros(1, rows * columns + 1, model.config.hidden_size)
            positions = embeddings.interpolate_pos_encoding(tokens, height, width).clone()
        embeddings.interpolate_pos_encoding = lambda *_: positions


def _fold(height: int, width: int, patches: torch.Tensor, size: tuple[Any, Any]) -> torch.Tensor:
    """Lay patches of (height, width), shape (1, channels, height * width, patches), together to pictures of a size."""
    rows, columns = (int(side) // patch for side, patch in zip(size, (height, width), strict=True))
    apart = patches.reshape(1, -1, height, width, rows, columns)
    return apart.permute(0, 1, 4, 2, 5, 3).reshape(1, -1, rows * height, columns * width)


def part_padding(graph: onnx.GraphProto) -> None:
    """Keep onnxruntime from fusing a Pad into the MaxPool behind it.

    Fused, the border counts as minus infinity and no longer as the Pad's zeros, so that a BiT's answers are off by
    0.002 (onnxruntime 1.31). A Pad that names its axes, even all of them, stays.
    """
    pooled = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    pads = [node for node in graph.node if node.op_type == "Pad" and node.output[0] in pooled]
    for node in pads:
        name = f"{node.output[0]} axes"
        graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4, dtype=np.int64), name))
        given = list(node.input[:3])  # what is padded, by how much, with what
        del node.input[:]
        node.input.extend([*given, *[""] * (3 - len(given)), name])
