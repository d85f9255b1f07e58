"""Weights stored in 16 bits: half the disk, the same answers, and whatever is made of the graph is made of it."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from typer.testing import CliRunner

from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.models.manifest import Manifest
from detectors.photos.image import decode
from detectors.photos.synthetic import many_pictures
from miner.cli import app
from miner.errors import ConfigurationError
from tests.models import make_vit


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vit(tmp_path_factory.mktemp("half") / "vit")


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["export", *arguments], catch_exceptions=False)
    return done.exit_code, done.stderr


def answers(config: Path, models: Path, precision: str = "fp32") -> list[float]:
    detector = load_detector("ViT", read_config(str(config)), models, "onnx", RunOptions(), precision=precision)
    return [detector.judge(decode(data)).probability for data in many_pictures(6)]


def test_it_takes_half_the_disk_and_answers_alike(model: Path, tmp_path: Path) -> None:
    sizes, said = {}, {}
    for name, flags in (("whole", ()), ("half", ("--half",))):
        config = tmp_path / f"{name}.yaml"
        config.write_text(f"hf_repo: {model}\n")
        models = tmp_path / name
        settings = ("--set", f"IMAGE_DETECTOR_CONFIG={config}", "--set", f"MODELS_DIR={models}")
        assert run(*settings, *flags)[0] == 0
        (graph,) = models.glob("*/*/model.onnx")
        sizes[name] = sum(path.stat().st_size for path in graph.parent.glob("model.onnx*"))
        said[name] = answers(config, models)
        assert Manifest.read(graph.parent).parity.max_difference < 1e-3
    assert sizes["half"] < 0.6 * sizes["whole"]
    assert said["half"] == pytest.approx(said["whole"], abs=1e-3)
    assert said["half"] != said["whole"]

    assert run(*settings, "--precision", "int8", "--backend", "onnx", "--max-flips", "1")[0] == 0
    assert answers(config, models, "int8") == pytest.approx(said["half"], abs=0.1)


def test_it_is_of_fp32_alone() -> None:
    with pytest.raises(ConfigurationError, match="--half"):
        run("--half", "--precision", "int8")
