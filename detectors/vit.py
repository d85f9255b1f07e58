"""`ViT`: any image classifier in Hugging Face's format (ViT, DeiT, Swin, ConvNeXt, DINOv2, MobileNet, …)."""

from pathlib import Path

from detectors.models.processor_config import ProcessorConfig
from detectors.network import Network
from detectors.preprocess import Preprocessing, from_processor_config


class ViT(Network):
    """A Hugging Face image classifier with its published image processor."""

    @staticmethod
    def read_preprocessing(folder: Path) -> Preprocessing:
        """Read `preprocessor_config.json`."""
        return from_processor_config(ProcessorConfig.read(folder))
