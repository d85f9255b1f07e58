"""Hugging Face image classifiers: plain ViTs built here, every other architecture by optimum's ONNX exporter."""

import io
import json
import shutil
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from PIL import Image

from detectors.backends import MODEL_FILE
from detectors.errors import ModelError
from detectors.exporters import Exporter
from detectors.exporters.torchvision_cpu import ensure_torchvision
from detectors.manifest import Output
from detectors.vit import PROCESSOR_FILE, ViT, roadwork_index

UNNAMED = {"0": "LABEL_0", "1": "LABEL_1"}  # what transformers makes of a config.json without labels


class ViTExporter(Exporter):
    """`AutoModelForImageClassification` to an ONNX graph with a fixed input shape."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The plain graph needs neither torch nor optimum."""
        return ("onnx",) if self._is_plain else ("torch", "transformers", "optimum", "onnx")

    @property
    def reference_name(self) -> str:
        """The library's own pipeline, or numpy where there is no torch."""
        return "numpy" if self._without_torch else "transformers.pipeline"

    def write(self, folder: Path) -> Output:
        """Write `model.onnx`, `config.json` and `preprocessor_config.json`."""
        for name in ("config.json", PROCESSOR_FILE):
            if not (self.original / name).is_file():
                raise ModelError(f"{self.original} holds no {name}")
            shutil.copyfile(self.original / name, folder / name)
        if not any(self.original.glob("*.safetensors")):
            raise ModelError(f"{self.original} holds no .safetensors file (pickled weights are not opened)")
        labels = self._labels
        index = roadwork_index(labels, self.config.roadwork_label)
        *_, height, width = ViT.read_preprocessing(folder).shape
        if self._is_plain:
            import onnx

            from detectors.exporters.vit_graph import build_graph

            onnx.save_model(build_graph(self.original, height, width), folder / MODEL_FILE)
        else:
            self._export_with_optimum(folder, height, width)
        ordered = [labels[key] for key in sorted(labels)]
        return Output(index=index, labels=ordered, activation="sigmoid" if self._is_multiple else "softmax")

    def reference(self) -> Callable[[bytes], float]:
        """Return `transformers.pipeline("image-classification")`, read as the reference miner reads it."""
        label = self.config.roadwork_label
        if self._without_torch:
            from detectors.exporters.vit_numpy import numpy_reference

            return numpy_reference(self.original, roadwork_index(self._labels, label), self._is_multiple)
        ensure_torchvision()
        from transformers import pipeline

        classify = pipeline("image-classification", model=str(self.original), device="cpu", top_k=None)

        def probability(data: bytes) -> float:
            scores = {row["label"]: row["score"] for row in classify(Image.open(io.BytesIO(data)))}
            return float(scores[label])

        return probability

    def _export_with_optimum(self, folder: Path, height: int, width: int) -> None:
        ensure_torchvision()
        from optimum.exporters.onnx import onnx_export_from_model
        from transformers import AutoModelForImageClassification

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracer warnings: the shape is fixed on purpose
            model = AutoModelForImageClassification.from_pretrained(
                self.original, attn_implementation="eager", local_files_only=True, use_safetensors=True
            )  # sdpa's guards cost 9 % of the graph's time
            if hasattr(model.config, "image_size"):
                model.config.image_size = height if height == width else (height, width)
            onnx_export_from_model(
                model.eval(), folder, task="image-classification", do_validation=False, no_dynamic_axes=True,
                batch_size=1, height=height, width=width,
            )  # fmt: skip
        if not (folder / MODEL_FILE).is_file():
            raise ModelError(f"the exporter wrote no {MODEL_FILE}")

    @property
    def _config(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads((self.original / "config.json").read_bytes()))

    @property
    def _labels(self) -> dict[int, str]:
        return {int(index): label for index, label in (self._config.get("id2label") or UNNAMED).items()}

    @property
    def _is_plain(self) -> bool:
        return (
            self._config.get("architectures") == ["ViTForImageClassification"]
            and self._config.get("hidden_act", "gelu") == "gelu"
        )

    @property
    def _is_multiple(self) -> bool:
        # The rule of transformers' ImageClassificationPipeline.
        return self._config.get("problem_type") == "multi_label_classification" or len(self._labels) == 1

    @property
    def _without_torch(self) -> bool:
        return self._is_plain and (find_spec("torch") is None or find_spec("transformers") is None)
