"""Hugging Face image classifiers, by way of optimum's ONNX exporter."""

import io
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from detectors.backends import MODEL_FILE
from detectors.errors import ModelError
from detectors.exporters import Exporter
from detectors.exporters.torchvision_cpu import ensure_torchvision
from detectors.manifest import Output
from detectors.vit import PROCESSOR_FILE, ViT, roadwork_index

UNNAMED = {"0": "LABEL_0", "1": "LABEL_1"}  # what transformers makes of a config.json without labels


class ViTExporter(Exporter):
    """`AutoModelForImageClassification` to one ONNX file with a fixed input shape."""

    packages = ("torch", "transformers", "optimum", "onnx")
    reference_name = "transformers.pipeline"

    def write(self, folder: Path) -> Output:
        """Write `model.onnx`, `config.json` and `preprocessor_config.json`."""
        for name in ("config.json", PROCESSOR_FILE):
            if not (self.original / name).is_file():
                raise ModelError(f"{self.original} holds no {name}")
            shutil.copyfile(self.original / name, folder / name)
        if not any(self.original.glob("*.safetensors")):
            raise ModelError(f"{self.original} holds no .safetensors file (pickled weights are not opened)")
        config = json.loads((folder / "config.json").read_bytes())
        labels = {int(index): label for index, label in (config.get("id2label") or UNNAMED).items()}
        index = roadwork_index(labels, self.config.roadwork_label)
        *_, height, width = ViT.read_preprocessing(folder).shape

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
        # The rule of transformers' ImageClassificationPipeline.
        multiple = config.get("problem_type") == "multi_label_classification" or len(labels) == 1
        ordered = [labels[key] for key in sorted(labels)]
        return Output(index=index, labels=ordered, activation="sigmoid" if multiple else "softmax")

    def reference(self) -> Callable[[bytes], float]:
        """Return `transformers.pipeline("image-classification")`, read as the reference miner reads it."""
        ensure_torchvision()
        from transformers import pipeline

        classify = pipeline("image-classification", model=str(self.original), device="cpu", top_k=None)
        label = self.config.roadwork_label

        def probability(data: bytes) -> float:
            scores = {row["label"]: row["score"] for row in classify(Image.open(io.BytesIO(data)))}
            return float(scores[label])

        return probability
