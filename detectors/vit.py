"""`ViT`: any image classifier in Hugging Face's format (ViT, DeiT, Swin, ConvNeXt, DINOv2, MobileNet, …)."""

import json
from pathlib import Path

from detectors.errors import ModelError
from detectors.network import Network
from detectors.preprocess import Preprocessing, from_processor_config

PROCESSOR_FILE = "preprocessor_config.json"


class ViT(Network):
    """A Hugging Face image classifier with its published image processor."""

    @staticmethod
    def read_preprocessing(folder: Path) -> Preprocessing:
        """Read `preprocessor_config.json`."""
        try:
            values = json.loads((folder / PROCESSOR_FILE).read_bytes())
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder / PROCESSOR_FILE} can't be read: {error}") from error
        return from_processor_config(values)
