"""An operator's own models, from their original files to an answer: a ViT as wide as ViT-base, and a YOLO11n."""

from pathlib import Path

import pytest

from detectors.errors import ModelError
from detectors.models.config import DetectorConfig
from detectors.registry import exporter_class
from tests.models import make_vit, make_yolo
from tests.process.conftest import StartDaemon

LIBRARIES = ("torch", "transformers", "ultralytics")
EXPORT_SECONDS = 300.0  # a first start exports the model, on a machine with other work

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", params=["ViT", "YOLOClassifier"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Return the detector's name, the original weights and the YAML file that names them."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "ViT":
        weights, source = make_vit(folder / "vit-base", full_size=True, num_hidden_layers=3), "hf_repo: vit-base\n"
    else:
        weights, source = make_yolo(folder / "best.pt"), "weights_path: best.pt\nroadwork_class_index: 1\n"
    (folder / "own.yaml").write_text(source)
    return request.param, weights, folder / "own.yaml"


@pytest.mark.parametrize("backend", ["onnx", "openvino", "torch"])
def test_it_serves_the_answers_of_its_own_library(
    start_daemon: StartDaemon, original: tuple[str, Path, Path], tmp_path_factory: pytest.TempPathFactory,
    street: bytes, backend: str,
) -> None:  # fmt: skip
    name, weights, yaml = original
    daemon = start_daemon(
        IMAGE_DETECTOR=name,
        IMAGE_DETECTOR_CONFIG=yaml,
        IMAGE_DETECTOR_BACKEND=backend,
        MODELS_DIR=yaml.parent / "models",  # prepared by the first of these daemons, found by the others
    ).ready(EXPORT_SECONDS)
    answer = daemon.ask(street)
    assert answer.status_code == 200
    path = weights.relative_to(yaml.parent)
    key = "hf_repo" if name == "ViT" else "weights_path"
    config = DetectorConfig(**{key: str(yaml.parent / path), "path": yaml})  # type: ignore[arg-type]
    expected = exporter_class(name)(weights, config).reference()(street)
    assert answer.json()["prediction"] == pytest.approx(expected, abs=1e-3)
    assert 0.001 < expected < 0.999
    if backend != "torch":
        maps = Path(f"/proc/{daemon.pid}/maps").read_text()
        assert not [library for library in LIBRARIES if f"/site-packages/{library}/" in maps]


def test_a_model_without_the_roadwork_label_ends_the_start(start_daemon: StartDaemon, tmp_path: Path) -> None:
    make_vit(tmp_path / "vit", labels={0: "no", 1: "yes"})
    (tmp_path / "own.yaml").write_text("hf_repo: vit\n")
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG=tmp_path / "own.yaml")
    assert daemon.wait() == 2, "another start would export it again, for ever"
    assert "'Roadwork' (roadwork_label); its labels are 'no', 'yes'" in daemon.log


def test_an_exporter_knows_its_own_files_only(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not an Ultralytics \.pt"):
        exporter_class("YOLOClassifier")(tmp_path, DetectorConfig(path=tmp_path)).write(tmp_path)


def test_an_ensemble_is_prepared_by_its_first_start_and_serves_what_its_branches_say_together(
    start_daemon: StartDaemon, tmp_path: Path, street: bytes
) -> None:
    make_vit(tmp_path / "vit")
    starter = Path(__file__).resolve().parents[2] / "detectors" / "starter"
    branches = f"  starter: {{model_folder: {starter}}}\n  vit: {{hf_repo: vit, letterbox: true}}\n"
    (tmp_path / "starter.yaml").write_text(f"model_folder: {starter}\n")
    (tmp_path / "vit.yaml").write_text("hf_repo: vit\nletterbox: true\n")
    (tmp_path / "both.yaml").write_text(
        f"branches:\n{branches}fusion: {{kind: weighted, branches: [starter, vit], weights: [0.75, 0.25]}}\n"
    )
    said = {}
    for name in ("both", "starter", "vit"):
        daemon = start_daemon(
            IMAGE_DETECTOR="Ensemble" if name == "both" else "ViT",
            IMAGE_DETECTOR_CONFIG=tmp_path / f"{name}.yaml",
            MODELS_DIR=tmp_path / "models",
        ).ready(EXPORT_SECONDS)
        answer = daemon.ask(street)
        assert answer.status_code == 200
        said[name] = answer.json()["prediction"]
        maps = Path(f"/proc/{daemon.pid}/maps").read_text()
        assert not [library for library in LIBRARIES if f"/site-packages/{library}/" in maps]
    assert said["both"] == pytest.approx(0.75 * said["starter"] + 0.25 * said["vit"], abs=1e-4)
