"""From original weights to an ONNX graph; each exporter also knows its library's own pipeline, to compare with."""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from detectors.config import DetectorConfig
from detectors.image import decode
from detectors.manifest import Output
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
