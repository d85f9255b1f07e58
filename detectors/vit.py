"""`ViT`: any image classifier in Hugging Face's format (ViT, DeiT, Swin, ConvNeXt, DINOv2, MobileNet, …)."""

from pathlib import Path

from detectors.errors import DetectorConfigError
from detectors.network import Network
from detectors.preprocess import Preprocessing, from_processor_config
from detectors.processor_config import ProcessorConfig


class ViT(Network):
    """A Hugging Face image classifier with its published image processor."""

    @staticmethod
    def read_preprocessing(folder: Path) -> Preprocessing:
        """Read `preprocessor_config.json`."""
        return from_processor_config(ProcessorConfig.read(folder))


def roadwork_index(id2label: dict[str, str] | dict[int, str], wanted: str) -> int:
    """Return the output whose label is `wanted`, compared to the letter, as the reference miner does.

    Raises:
        DetectorConfigError: no output, or more than one, has that label; the message lists the labels there are.
    """
    found = [int(index) for index, label in id2label.items() if label == wanted]
    if len(found) != 1:
        labels = ", ".join(repr(label) for label in list(id2label.values())[:10])
        raise DetectorConfigError(
            f"{len(found)} of the model's outputs have the label {wanted!r} (roadwork_label); its labels are {labels}"
        )
    return found[0]
