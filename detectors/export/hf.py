"""The exporter of Hugging Face image classifiers: some are built without torch, the others by optimum's exporter."""

import logging
import shutil
import warnings
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from detectors.builders.architecture import Architecture, find_architecture, numpy_reference
from detectors.errors import DetectorConfigError, ModelError
from detectors.export.export import Exporter
from detectors.models import MODEL_FILE
from detectors.models.checkpoint import inspect, model_type
from detectors.models.hf_config import CONFIG_FILE, PROCESSOR_FILE, PROCESSORS, ModelConfig, ProcessorConfig
from detectors.models.manifest import NUMPY, Output
from detectors.models.store import write_graph
from detectors.preprocess import from_processor_config

log = logging.getLogger(__name__)


class ViTExporter(Exporter):
    """`AutoModelForImageClassification` to an ONNX graph with a fixed input shape."""

    @property
    def kind(self) -> str:
        """The model's type, as config.json has it."""
        return model_type(self.original)

    @property
    def packages(self) -> tuple[str, ...]:
        """A graph that is built needs neither torch nor optimum."""
        return ("onnx",) if self._architecture else ("torch", "transformers", "optimum", "onnx")

    @property
    def own_versions(self) -> dict[str, str]:
        """A graph that is built is ours."""
        return self._architecture.versions() if self._architecture else {}

    @property
    def reference_name(self) -> str:
        """The library's own pipeline, or numpy where there is no torch."""
        return NUMPY if self._architecture is not None and not _has_torch() else "transformers.pipeline"

    def write(self, folder: Path) -> Output:
        """Write `model.onnx`, `config.json` and `preprocessor_config.json`."""
        for name in (CONFIG_FILE, PROCESSOR_FILE):
            if not (self.original / name).is_file():
                raise ModelError(f"{self.original} holds no {name}")
            shutil.copyfile(self.original / name, folder / name)
        for note in inspect(self.original).notes:
            log.warning("%s: %s", self.original, note)
        output = self._output
        *_, height, width = from_processor_config(self._processor).shape
        if self._architecture is not None:
            graph = self._architecture(self.original).build(height, width)
            classes = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value
            if classes != len(output.labels):
                raise ModelError(
                    f"the weights' head has {classes} outputs; config.json has {len(output.labels)} labels"
                )
            write_graph(graph, folder / MODEL_FILE)
        else:
            self._export_with_optimum(folder, height, width)
        # After optimum, which writes one of its own.
        self._processor.write(folder)
        return output

    def reference(self) -> Callable[[bytes], float]:
        """Return `transformers.pipeline("image-classification")`, read as the reference miner reads it."""
        output = self._output
        if self._architecture is not None and not _has_torch():
            network, multiple = self._architecture(self.original), output.activation == "sigmoid"
            return numpy_reference(network, from_processor_config(self._processor), output.index, multiple)
        from detectors.backends.torch import load_model

        model = load_model(self.original)
        from transformers import pipeline

        classify = pipeline(
            "image-classification", model=model, image_processor=self._image_processor() or str(self.original),
            device="cpu", top_k=model.config.num_labels,  # None means five
        )  # fmt: skip
        number = str(output.index)  # labels may not tell the outputs apart
        classify.model.config.id2label = {index: str(index) for index in range(len(output.labels))}
        preprocessing = from_processor_config(self._processor)
        if self.config.letterbox:  # which takes the place of both
            classify.image_processor.do_resize = classify.image_processor.do_center_crop = False

        def probability(data: bytes) -> float:
            scores = {row["label"]: row["score"] for row in classify(self.squared(data, preprocessing))}
            return float(scores[number])

        return probability

    def _image_processor(self) -> Any:
        """Return the slow processor that a name of transformers 5 means; None leaves it to the pipeline."""
        name, variant = self._processor.kind
        if variant != "pil":
            return None
        import transformers

        values = self._processor.values()
        return getattr(transformers, name)(**{key: values[key] for key in PROCESSORS[name]})

    def _export_with_optimum(self, folder: Path, height: int, width: int) -> None:
        from detectors.backends.torch import load_model

        model = load_model(self.original, attn_implementation="eager")  # sdpa's guards cost 9 % of the graph's time
        from optimum.exporters.onnx import onnx_export_from_model

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracer warnings: the shape is fixed on purpose
            configs = fixed_size(model, height, width)
            onnx_export_from_model(
                model, folder, task="image-classification", do_validation=False, no_dynamic_axes=True,
                batch_size=1, height=height, width=width, custom_onnx_configs=configs,
            )  # fmt: skip
        if not (folder / MODEL_FILE).is_file():
            raise ModelError(f"the exporter wrote no {MODEL_FILE}")

    @cached_property
    def _processor(self) -> ProcessorConfig:
        """The published file, with the word for our letterbox if the configuration asks for it."""
        published = ProcessorConfig.read(self.original)
        return published.with_letterbox() if self.config.letterbox else published

    @cached_property
    def _config(self) -> ModelConfig:
        return ModelConfig.read(self.original)

    @cached_property
    def _architecture(self) -> type[Architecture] | None:
        return find_architecture(self._config)

    @property
    def _output(self) -> Output:
        """Which output counts; a sigmoid where transformers' ImageClassificationPipeline takes one.

        Of a single output it takes one whatever that was trained for: a single class is always 1, and a regression's
        value is no logit, so that its sigmoid would lie above 0.5 for every picture.
        """
        problem, is_single = self._config.problem_type, len(self._config.labels) == 1
        if is_single and problem == "regression":
            raise DetectorConfigError(
                "the network has one output and config.json says problem_type='regression': its value is no "
                "probability; 'multi_label_classification' is right for one that was trained with a sigmoid"
            )
        is_sigmoid = problem == "multi_label_classification" or (is_single and problem is None)
        return self.output(self._config.labels, "sigmoid" if is_sigmoid else "softmax")


def _has_torch() -> bool:
    return find_spec("torch") is not None and find_spec("transformers") is not None


def fixed_size(model: Any, height: int, width: int) -> dict[str, Any] | None:
    """Settle a network on pictures of one size, and say how optimum is to export it where it does not know.

    A DINOv2 stretches its learnt positions to the picture at every run, in a way that ONNX can't express for those with
    registers; for one size they are constants.
    """
    if hasattr(model.config, "image_size"):
        model.config.image_size = height if height == width else (height, width)
    if not model.config.model_type.startswith("dinov2"):
        return None
    import torch
    from optimum.exporters.onnx.model_configs import Dinov2OnnxConfig

    embeddings = model.base_model.embeddings
    rows, columns = (side // model.config.patch_size for side in (height, width))
    with torch.no_grad():
        tokens = torch.zeros(1, rows * columns + 1, model.config.hidden_size)
        positions = embeddings.interpolate_pos_encoding(tokens, height, width).clone()
    embeddings.interpolate_pos_encoding = lambda *_: positions
    return {"model": Dinov2OnnxConfig(model.config, task="image-classification")}
