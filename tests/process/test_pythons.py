"""What serving needs installs, starts and answers on every Python that is promised."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests import stored_dinov2, stored_vit
from tests.process.daemon import Daemon
from tests.process.environments import REPOSITORY, environment, find_python, pip, run
from tests.process.inspection import probability_of
from tests.process.wire import DOORS

PINS = REPOSITORY / "env" / "serve.txt"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of what a build reads, copied so that it leaves nothing in the tree."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("miner", "detectors"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder / "dist"), str(folder))
    (made,) = (folder / "dist").iterdir()
    return made


ASK = """
import json, sys
from pathlib import Path
from detectors.base import RunOptions
from detectors.models.config import read_config
from detectors.load import load_detector
from detectors.photos.synthetic import parity_pictures

detector = load_detector("ViT", read_config(sys.argv[1]), Path(sys.argv[2]), "onnx", RunOptions())
print(json.dumps([detector.predict(picture).probability for picture in parity_pictures()]))
"""


STORED = {
    "vit": (stored_vit.write_stored_vit, stored_vit.ANSWERS),
    "dinov2": (stored_dinov2.write_stored_dinov2, stored_dinov2.ANSWERS),
}


def assert_export_without_torch(python: Path, folder: Path, name: str) -> None:
    """A network is built and judged where there is no torch, and says what torch said elsewhere."""
    write, expected = STORED[name]
    write(folder / name)
    config, models = folder / f"{name}.yaml", folder / f"{name}-models"
    config.write_text(f"hf_repo: {name}\n")
    command = python.with_name("roadwork-miner")
    run(str(command), "export", "--set", f"IMAGE_DETECTOR_CONFIG={config}", "--set", f"MODELS_DIR={models}")
    (manifest,) = models.rglob("manifest.json")
    assert json.loads(manifest.read_text())["parity"]["reference"] == "numpy"
    answers = json.loads(run(str(python), "-c", ASK, str(config), str(models)))
    assert answers == pytest.approx(expected, abs=1e-4)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_serving_set_installs_starts_and_answers(
    version: str, wheel: Path, tmp_path: Path, street: bytes, miner: Daemon
) -> None:
    interpreter = find_python(version)
    if interpreter is None:
        pytest.skip(f"there is no Python {version} on this machine")
    pins = ("install", "-q", "--require-hashes", "-r", str(PINS))
    python = environment(f"serve-{version}", interpreter, pins, salt=PINS.read_bytes())
    pip(python, "install", "-q", "--no-deps", "--force-reinstall", str(wheel))
    for name in STORED:
        assert_export_without_torch(python, tmp_path, name)
    daemon = Daemon(tmp_path, {"INFERENCE_THREADS": 1})
    daemon.command = (str(python.with_name("roadwork-miner")),)
    try:
        daemon.start().ready()
        for door in DOORS:
            assert probability_of(daemon.ask(street, door)) == pytest.approx(
                probability_of(miner.ask(street)), abs=1e-3
            )
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log
    finally:
        daemon.close()
