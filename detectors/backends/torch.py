"""PyTorch: the reference path, on the original weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.base import ModelFiles, RunOptions
from detectors.errors import ModelError
from detectors.export.transformers_model import load_model

Network = Callable[[Any], Any]


class TorchBackend:
    """The original network in eager fp32, as the reference miner runs it."""

    name = "torch"

    def __init__(self, files: ModelFiles, shape: tuple[int, int, int, int], options: RunOptions) -> None:
        if files.original is None:
            raise ModelError(f"the torch backend needs the original weights of {files.manifest.name}")
        self._network = LOADERS[files.manifest.detector](files.original)
        # After loading: Ultralytics sets a thread count of its own.
        torch.set_num_threads(options.cores)

    def run(self, array: NDArray[np.float32], deadline: float | None = None) -> NDArray[np.float32]:
        """Run the network once."""
        with torch.inference_mode():
            scores: NDArray[np.float32] = self._network(torch.from_numpy(array)).numpy()
        return scores


def load_transformers(folder: Path) -> Network:
    """Load an image classifier that returns logits of shape (1, classes)."""
    model = load_model(folder)
    return lambda pixels: model(pixel_values=pixels).logits


def load_ultralytics(path: Path) -> Network:
    """Load a `-cls` network that returns probabilities of shape (1, classes)."""
    from detectors.export.yolo import load_yolo

    model = load_yolo(path).model.eval().float()
    return lambda pixels: model(pixels)[0]


LOADERS: dict[str, Callable[[Path], Network]] = {"ViT": load_transformers, "YOLOClassifier": load_ultralytics}
