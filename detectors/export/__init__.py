"""From original weights to an ONNX graph; each exporter also knows its library's own pipeline, to compare with."""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from PIL import Image

from detectors.models.config import DetectorConfig
from detectors.models.labels import is_by_name, refuse_constant, roadwork_index
from detectors.models.manifest import Output
from detectors.photos.image import decode
from detectors.preprocess import Preprocessing, letterboxed


class Exporter(ABC):
    """Turns one kind of original weights into the files of a model folder."""

    def __init__(self, original: Path, config: DetectorConfig) -> None:
        self.original = original
        self.config = config

    def squared(self, data: bytes, preprocessing: Preprocessing) -> Image.Image:
        """Return a photo as the library gets it: whole between black bars if the configuration says so."""
        picture = Image.open(io.BytesIO(data))
        if not self.config.letterbox:
            return picture
        *_, height, width = preprocessing.shape
        return letterboxed(decode(data), width, height, preprocessing.resample)

    def output(self, labels: Mapping[int, str], activation: Literal["softmax", "sigmoid", "none"]) -> Output:
        """Say which output means roadwork, by the configuration and the labels' names.

        Raises:
            DetectorConfigError: they do not say it, or there is only one class, whose share is always 1.
        """
        ordered = [labels[key] for key in sorted(labels)]
        refuse_constant(ordered, activation)
        label = self.config.roadwork_label
        index = roadwork_index(labels, label, self.config.roadwork_class_index)
        return Output(index=index, labels=ordered, activation=activation, named=is_by_name(labels, index, label))

    @property
    def kind(self) -> str:
        """The kind of network, for messages."""
        return "network"

    @property
    @abstractmethod
    def packages(self) -> tuple[str, ...]:
        """Whose versions go into the manifest."""

    @property
    def own_versions(self) -> dict[str, str]:
        """What of our own made the graph, in which version."""
        return {}

    @property
    @abstractmethod
    def reference_name(self) -> str:
        """What the answers are compared with."""

    @abstractmethod
    def write(self, folder: Path) -> Output:
        """Write `model.onnx` (one picture, fp32) and `preprocessor_config.json`; say what the outputs mean.

        Raises:
            ModelError: the weights can't be read.
            DetectorConfigError: they have no such roadwork output as is configured.
        """

    @abstractmethod
    def reference(self) -> Callable[[bytes], float]:
        """Return the library's own pipeline: an encoded photo to the probability of roadwork."""
