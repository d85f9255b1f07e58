"""The exporter of Ultralytics classification networks, by way of their own ONNX export."""

import contextlib
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from detectors.errors import ModelError
from detectors.export.export import Exporter
from detectors.models import MODEL_FILE
from detectors.models.hf_config import PROCESSOR_FILE
from detectors.models.manifest import Output
from detectors.preprocess import from_processor_config


class YOLOExporter(Exporter):
    """A `-cls` checkpoint to ONNX, with its transforms written down as a preprocessor_config.json."""

    @property
    def kind(self) -> str:
        """What Ultralytics calls these."""
        return "YOLO classifier"

    @property
    def packages(self) -> tuple[str, ...]:
        """Ultralytics brings its own exporter."""
        return ("torch", "ultralytics", "onnx")

    @property
    def reference_name(self) -> str:
        """The library's own prediction."""
        return "YOLO.predict"

    def write(self, folder: Path) -> Output:
        """Write `model.onnx` and `preprocessor_config.json`."""
        from detectors.backends.torch import load_yolo  # torch may not be there to be asked for its name

        model = load_yolo(self.original)
        output = self._output(model)
        # Ultralytics decides on size and transforms at the first prediction, so ask it rather than guess.
        model.predict(Image.new("RGB", (64, 64)), verbose=False, device="cpu")
        processor = _processor_config(model.predictor.transforms.transforms) | (
            {"letterbox": True} if self.config.letterbox else {}
        )
        (folder / PROCESSOR_FILE).write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
            # The exporter writes beside the checkpoint, whose folder may not be ours.
            copy = Path(shutil.copyfile(self.original, Path(scratch) / "weights.pt"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracer warnings: the shape is fixed on purpose
                written = load_yolo(copy).export(
                    format="onnx", imgsz=list(model.predictor.imgsz), dynamic=False, simplify=False, device="cpu"
                )
            shutil.move(written, folder / MODEL_FILE)
        return output

    def reference(self) -> Callable[[bytes], float]:
        """Return `YOLO.predict`, read as the reference miner reads it."""
        from detectors.backends.torch import load_yolo

        model = load_yolo(self.original)
        index = self._output(model).index
        model.predict(Image.new("RGB", (64, 64)), verbose=False, device="cpu")
        preprocessing = from_processor_config(_processor_config(model.predictor.transforms.transforms))

        def probability(data: bytes) -> float:
            (result,) = model.predict(self.squared(data, preprocessing), verbose=False, device="cpu")
            return float(result.probs.data[index])

        return probability

    def _output(self, model: Any) -> Output:
        """The graph's last node is a softmax already."""
        return self.output({int(index): str(label) for index, label in model.names.items()}, "none")


def _processor_config(transforms: list[Any]) -> dict[str, Any]:
    """Put torchvision's Resize, CenterCrop, ToTensor, Normalize into the words of transformers."""
    kinds = [type(step).__name__ for step in transforms]
    if kinds != ["Resize", "CenterCrop", "ToTensor", "Normalize"]:
        raise ModelError(f"the network brings transforms of its own, which are not supported: {', '.join(kinds)}")
    resize, crop, _, normalize = transforms
    size = resize.size
    filters = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
    height, width = crop.size if not isinstance(crop.size, int) else (crop.size, crop.size)
    exact = not isinstance(size, int) and len(size) == 2
    return {
        "image_processor_type": "UltralyticsClassify",
        "size": {"height": size[0], "width": size[1]}
        if exact
        else {"shortest_edge": size if isinstance(size, int) else size[0]},
        "resample": filters[resize.interpolation.value],
        "crop_size": {"height": int(height), "width": int(width)},
        "image_mean": [float(value) for value in normalize.mean],
        "image_std": [float(value) for value in normalize.std],
    }
