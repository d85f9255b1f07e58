"""The exporter of Hugging Face image classifiers: some graphs are built without torch, the others traced by it.

A checkpoint of timm counts as one of them, in its own form or as transformers' TimmWrapper saves it.
"""

import logging
import shutil
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from detectors.builders.architecture import Architecture, find_architecture, numpy_reference
from detectors.errors import DetectorConfigError, ModelError, ModelFileError
from detectors.export.export import Exporter
from detectors.export.timm import export_timm, timm_reference
from detectors.models import MODEL_FILE
from detectors.models.checkpoint import inspect, model_type
from detectors.models.documents import read_json, shown
from detectors.models.hf_config import CONFIG_FILE, PROCESSOR_FILE, ModelConfig, ProcessorConfig, processor_file
from detectors.models.manifest import NUMPY, Output
from detectors.models.processors import CLIP, PROCESSORS
from detectors.models.store import write_graph
from detectors.photos.view_head import ViewHead
from detectors.preprocess import UNCROPPED, from_processor_config

log = logging.getLogger(__name__)


class ViTExporter(Exporter):
    """`AutoModelForImageClassification` to an ONNX graph with a fixed input shape."""

    @property
    def kind(self) -> str:
        """The model's type, as config.json has it."""
        return model_type(self.original)

    @property
    def packages(self) -> tuple[str, ...]:
        """A graph that is built needs no torch."""
        if self._is_timm:
            return ("torch", "timm", "onnx")
        return ("onnx",) if self._architecture else ("torch", "transformers", "onnx")

    @property
    def own_versions(self) -> dict[str, str]:
        """A graph that is built is ours."""
        return self._architecture.versions() if self._architecture else {}

    @cached_property
    def head(self) -> ViewHead | None:
        """The head that `roadwork-miner train --views` has written beside the weights.

        Raises:
            ModelFileError: it is damaged.
            DetectorConfigError: it has learned from pictures that were prepared in another way.
        """
        found = ViewHead.read(self.original)
        if found is not None and self.config.letterbox:
            raise DetectorConfigError(f"letterbox: true: the head was learned on {found.views}, without it: remove it")
        return found

    @property
    def reference_name(self) -> str:
        """The library's own pipeline, or numpy where there is no torch."""
        if self._is_timm:
            return "timm's own transform and network"
        return NUMPY if self._architecture is not None and not _has_torch() else "transformers.pipeline"

    def write(self, folder: Path) -> Output:
        """Write `model.onnx`, `config.json` and `preprocessor_config.json`."""
        if not self._is_timm and not processor_file(self.original).is_file():
            path = self.original / CONFIG_FILE
            if (network := read_json(path).get("architecture")) is not None:
                raise ModelFileError(
                    f"{path}: architecture={shown(network)}: a network of timm needs pretrained_cfg beside it, which "
                    "says how pictures are prepared, as timm's save_for_hf writes it"
                )
            raise ModelError(f"{self.original} holds no {PROCESSOR_FILE}")
        shutil.copyfile(self.original / CONFIG_FILE, folder / CONFIG_FILE)
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
        elif self._is_timm:
            export_timm(self.original, folder, height, width)
        else:
            self._trace(folder, height, width)
        self._processor.write(folder)
        return output

    def reference(self) -> Callable[[bytes], float]:
        """Return `transformers.pipeline("image-classification")`, read as the reference miner reads it."""
        output = self._output
        if self._architecture is not None and not _has_torch():
            network, multiple = self._architecture(self.original), output.activation == "sigmoid"
            return numpy_reference(network, from_processor_config(self._processor), output.index, multiple)
        if self._is_timm:
            return self._timm_reference(output)
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
        alike = CLIP if name in UNCROPPED else name  # does the same steps, and crops where it is asked to
        return getattr(transformers, alike)(**{key: values[key] for key in PROCESSORS[name]})

    def _trace(self, folder: Path, height: int, width: int) -> None:
        from detectors.backends.torch import load_model
        from detectors.export.hf_graph import export_graph, refuse_type

        refuse_type(self._config.model_type or "")
        # sdpa's guards cost 9 % of the graph's time.
        export_graph(load_model(self.original, attn_implementation="eager"), folder, height, width)

    def _timm_reference(self, output: Output) -> Callable[[bytes], float]:
        preprocessing = from_processor_config(self._processor)
        transforms, is_sigmoid = not self.config.letterbox, output.activation == "sigmoid"
        score = timm_reference(self.original, output.index, transforms=transforms, sigmoid=is_sigmoid)
        return lambda data: score(self.squared(data, preprocessing))

    @property
    def _is_timm(self) -> bool:
        return self._config.pretrained_cfg is not None

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
