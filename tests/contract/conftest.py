"""Every detector, with a model of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from detectors.export.export import prepare
from detectors.models.calibration import Fusion
from detectors.models.config import SHIPPED, DetectorConfig, read_config
from detectors.models.sources import find_original, model_folder
from detectors.registry import DETECTORS, exporter_class
from tests.models import make_pair, make_vit, make_yolo


@dataclass(frozen=True)
class Prepared:
    """A detector's name, its configuration and where its exported model is."""

    detector: str
    config: DetectorConfig
    models_dir: Path

    @property
    def folder(self) -> Path:
        return model_folder(self.config, self.models_dir)

    def reference(self) -> Callable[[bytes], float]:
        """Return the library's own pipeline; of an ensemble, the mean of its branches' own."""
        if self.config.branches is None:
            path = find_original(self.config).path
            return exporter_class(self.detector)(path, self.config).reference()
        each = [Prepared(one.detector, one, self.models_dir).reference() for one in self.config.branches.values()]
        return lambda data: sum(one(data) for one in each) / len(each)


def make_config(detector: str, folder: Path) -> DetectorConfig:
    if detector == "ViT":
        return DetectorConfig(hf_repo=str(make_vit(folder / "vit")), path=folder / "vit.yaml")
    if detector == "YOLOClassifier":
        return DetectorConfig(weights_path=make_yolo(folder / "best.pt"), path=folder / "yolo.yaml", detector=detector)
    branches = {"vit": make_config("ViT", folder), "yolo": make_config("YOLOClassifier", folder)}
    return DetectorConfig(branches=branches, fusion=Fusion(branches=list(branches)), path=folder / "both.yaml")


def prepared_once(detector: str, factory: pytest.TempPathFactory, made: dict[str, Prepared] = {}) -> Prepared:  # noqa: B006
    """Prepare a detector for the whole session."""
    if detector not in made:
        folder = factory.mktemp(detector)
        config = make_config(detector, folder)
        prepare(detector, config, folder / "models")
        made[detector] = Prepared(detector, config, folder / "models")
    return made[detector]


@pytest.fixture(scope="session", params=DETECTORS)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_once(request.param, tmp_path_factory)


@pytest.fixture(scope="session", params=[name for name, entry in DETECTORS.items() if entry.exporter])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return a detector with one graph."""
    return prepared_once(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the shipped pair's YAML file, the repository in it being a folder on this disk."""
    folder = tmp_path_factory.mktemp("pair")
    make_pair(folder / "repository")
    text = (SHIPPED / "pair_roadwork.yaml").read_text().replace("you/roadwork-pair", "repository")
    (folder / "pair.yaml").write_text(text)
    prepare("Ensemble", read_config(str(folder / "pair.yaml")), folder / "models")
    return folder
