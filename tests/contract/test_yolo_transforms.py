"""YOLO checkpoints that bring transforms of their own: as YOLO.predict uses them, or refused by name."""

from pathlib import Path
from typing import Any

import pytest

from detectors.backends.torch import ensure_torchvision, load_yolo
from detectors.base import RunOptions
from detectors.errors import ModelError
from detectors.export.export import prepare
from detectors.load import load_detector
from detectors.models.config import DetectorConfig
from detectors.photos.synthetic import parity_pictures
from tests.models import make_yolo

ensure_torchvision()
from torchvision import transforms as T  # noqa: E402, N812 - beside a CPU torch it needs the above first

BICUBIC = T.InterpolationMode.BICUBIC
KNOWN = {
    "mean and deviation": [T.Resize(224), T.CenterCrop(224), T.ToTensor(), T.Normalize((0.485,) * 3, (0.229,) * 3)],
    "a smaller crop": [T.Resize(224, BICUBIC), T.CenterCrop(192), T.ToTensor(), T.Normalize((0.0,) * 3, (1.0,) * 3)],
    "squeezed": [T.Resize((224, 224)), T.ToTensor()],
    "no deviation": [T.Resize(224), T.CenterCrop((224, 160)), T.ToTensor()],
    "another size than the network's": [T.Resize(256), T.CenterCrop(224), T.ToTensor()],
    "a crop alone": [T.CenterCrop(224), T.ToTensor()],
}
UNKNOWN = {
    "Grayscale": [T.Grayscale(3), T.Resize(224), T.CenterCrop(224), T.ToTensor()],
    "RandomHorizontalFlip": [T.RandomHorizontalFlip(), T.Resize(224), T.CenterCrop(224), T.ToTensor()],
    "CenterCrop, Resize": [T.CenterCrop(224), T.Resize(224), T.ToTensor()],
    "max_size=300": [T.Resize(224, max_size=300), T.CenterCrop(224), T.ToTensor()],
    "200 × 200": [T.Resize(224), T.CenterCrop(200), T.ToTensor()],
}


def make(folder: Path, steps: list[Any]) -> DetectorConfig:
    path = make_yolo(folder / "best.pt")
    yolo = load_yolo(path)
    yolo.model.transforms = T.Compose(steps)
    yolo.save(path)
    return DetectorConfig(weights_path=path, path=folder / "yolo.yaml", detector="YOLOClassifier")


@pytest.mark.parametrize("name", KNOWN)
def test_a_checkpoint_with_transforms_of_its_own_answers_as_yolo_predict(tmp_path: Path, name: str) -> None:
    config = make(tmp_path, KNOWN[name])
    prepare("YOLOClassifier", config, tmp_path / "models")
    detector = load_detector("YOLOClassifier", config, tmp_path / "models", "onnx", RunOptions())
    detector.verify()
    yolo = load_yolo(tmp_path / "best.pt")
    for number, data in enumerate(parity_pictures()[:4]):
        (tmp_path / f"{number}.png").write_bytes(data)
        (result,) = yolo.predict(tmp_path / f"{number}.png", verbose=False, device="cpu")
        assert detector.predict(data).probability == pytest.approx(float(result.probs.data[1]), abs=1e-3)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=name):
        prepare("YOLOClassifier", make(tmp_path, UNKNOWN[name]), tmp_path / "models")
