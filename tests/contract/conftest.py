"""Every detector, with a model of its own."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from detectors.config import DetectorConfig
from detectors.export import prepare
from detectors.registry import DETECTORS
from tests.models import make_vit, make_yolo


@dataclass(frozen=True)
class Prepared:
    """A detector's name, its configuration and where its exported model is."""

    detector: str
    config: DetectorConfig
    models_dir: Path

    @property
    def folder(self) -> Path:
        (manifest,) = self.models_dir.rglob("manifest.json")
        return manifest.parent


def make_config(detector: str, folder: Path) -> DetectorConfig:
    if detector == "ViT":
        return DetectorConfig(hf_repo=str(make_vit(folder / "vit")), path=folder / "vit.yaml")
    return DetectorConfig(weights_path=make_yolo(folder / "best.pt"), path=folder / "yolo.yaml")


@pytest.fixture(scope="session", params=DETECTORS)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp(request.param)
    config = make_config(request.param, folder)
    prepare(request.param, config, folder / "models")
    return Prepared(request.param, config, folder / "models")
