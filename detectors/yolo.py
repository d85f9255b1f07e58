"""`YOLOClassifier`: an Ultralytics classification network (`-cls`)."""

from detectors.vit import ViT


class YOLOClassifier(ViT):
    """An Ultralytics `-cls` network; its export writes the preprocessing in a Hugging Face model's words."""
