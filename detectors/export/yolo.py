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
from detectors.models.documents import shown, some
from detectors.models.hf_config import FILTERS, PROCESSOR_FILE
from detectors.models.manifest import Output
from detectors.models.processors import ULTRALYTICS
from detectors.preprocess import from_processor_config

ORDER = ("Resize", "CenterCrop", "ToTensor", "Normalize")  # of the transforms
NEEDED, EDGE = "ToTensor", "shortest_edge"
STRIDE = 32  # pixels; Ultralytics exports multiples of it alone


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
        *_, height, width = from_processor_config(processor).shape
        if height % STRIDE or width % STRIDE:
            raise ModelError(
                f"the network's transforms end at {height} × {width} pixels: Ultralytics exports multiples of {STRIDE}"
            )
        (folder / PROCESSOR_FILE).write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
            # The exporter writes beside the checkpoint, whose folder may not be ours.
            copy = Path(shutil.copyfile(self.original, Path(scratch) / "weights.pt"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracer warnings: the shape is fixed on purpose
                written = load_yolo(copy).export(
                    format="onnx", imgsz=[height, width], dynamic=False, simplify=False, device="cpu"
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
    """Put torchvision's Resize, CenterCrop, ToTensor and Normalize into the words of transformers.

    A checkpoint may bring its own, which YOLO.predict uses where their size is the network's; any but the tensor's may
    be left out.
    """
    steps = {type(step).__name__: step for step in transforms}
    if [type(step).__name__ for step in transforms] != [kind for kind in ORDER if kind in steps] or NEEDED not in steps:
        kinds = some([shown(type(step).__name__)[1:-1] for step in transforms], len(transforms))
        raise ModelError(
            f"the network brings transforms of its own that are not known here: {kinds}; {', '.join(ORDER)} are, in "
            "this order: train it with these, or take them out of the checkpoint (model.transforms)"
        )
    values: dict[str, Any] = {"image_processor_type": ULTRALYTICS, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    values |= {"do_resize": "Resize" in steps, "do_center_crop": "CenterCrop" in steps}
    if (resize := steps.get("Resize")) is not None:
        if resize.max_size is not None:
            raise ModelError(f"the network's Resize has max_size={resize.max_size}, which leaves the size open")
        sides = [resize.size] if isinstance(resize.size, int) else list(resize.size)
        values["size"] = dict(zip(("height", "width"), sides, strict=True)) if len(sides) == 2 else {EDGE: sides[0]}
        values["resample"] = FILTERS[resize.interpolation.value]
    if (crop := steps.get("CenterCrop")) is not None:
        height, width = crop.size if not isinstance(crop.size, int) else (crop.size, crop.size)
        values["crop_size"] = {"height": int(height), "width": int(width)}
    if (normalize := steps.get("Normalize")) is not None:
        for key, numbers in (("image_mean", normalize.mean), ("image_std", normalize.std)):
            given = [float(value) for value in numbers]
            values[key] = given * 3 if len(given) == 1 else given
    return values
