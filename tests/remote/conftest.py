"""Ray Serve with two models on two replicas each, one at two addresses; for `make test-remote` only."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from detectors.export.export import prepare
from detectors.models.config import DetectorConfig
from tests.models import make_yolo
from tests.process.conftest import SHIPPED, StartDaemon, daemons
from tests.process.environments import environment
from tests.remote.ray_serve import RayServe

collect_ignore_glob = [] if os.environ.get("ROADWORK_TEST_REMOTE") else ["test_*.py"]

STEPS = (
    ("install", "-q", "ray[serve]==2.60.0"),
    ("install", "-q", "onnxruntime==1.32.0", "numpy", "pillow", "pydantic", "pyyaml"),
)


@pytest.fixture(scope="session")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML file that names an exported YOLO11n classifier."""
    folder = tmp_path_factory.mktemp("yolo")
    weights = make_yolo(folder / "best.pt")
    out = prepare("YOLOClassifier", DetectorConfig(weights_path=weights, path=folder / "x.yaml"), folder / "models")
    (folder / "yolo.yaml").write_text(f"model_folder: {out}\n")
    return folder / "yolo.yaml"


@pytest.fixture(scope="session")
def ray_serve(yolo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayServe]:
    python = environment("ray-2.60.0", sys.executable, *STEPS)
    folder = Path(yolo.read_text().split()[1])
    models = {"yolo": (folder, 2), "starter-a": (SHIPPED.parent, 1), "starter-b": (SHIPPED.parent, 1)}
    with RayServe(tmp_path_factory.mktemp("ray"), python, models) as engine:
        yield engine


@pytest.fixture
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    with daemons(tmp_path_factory, "starter.yaml") as start:
        yield start
