"""Weights stored in 16 bits: half the disk, the same answers, and whatever is made of the graph is made of it."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

pytest.importorskip("transformers")

from typer.testing import CliRunner

from detectors.base import RunOptions
from detectors.builders.half import widened
from detectors.load import load_detector
from detectors.models import MODEL_FILE, store
from detectors.models.config import read_config
from detectors.models.hf_config import NOTICE_FILE
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


def test_a_graph_whose_weights_become_few_enough_leaves_no_file_of_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sum(path.stat().st_size for path in model.glob("model.safetensors"))
    monkeypatch.setattr(store, "LARGE_GRAPH_BYTES", 0.7 * whole)
    config = tmp_path / "vit.yaml"
    config.write_text(f"hf_repo: {model}\n")
    for flags, files in (((), ["model.onnx", "model.onnx.data"]), (("--half",), ["model.onnx"])):
        out = tmp_path / f"out{len(flags)}"
        assert run("--set", f"IMAGE_DETECTOR_CONFIG={config}", "--out", str(out), *flags)[0] == 0
        assert sorted(path.name for path in out.glob("model.onnx*")) == files
        assert {name for name in Manifest.read(out).files if name.startswith("model.onnx")} == set(files)


def test_a_large_graph_is_widened_with_all_of_its_weights(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LARGE_GRAPH_BYTES", 1000)
    monkeypatch.setattr(store, "OUTSIDE_BYTES", 100)  # smaller than what is stored in 16 bits
    config, out = tmp_path / "vit.yaml", tmp_path / "out"
    config.write_text(f"hf_repo: {model}\n")
    assert run("--set", f"IMAGE_DETECTOR_CONFIG={config}", "--out", str(out), "--half")[0] == 0
    wide = widened(out, MODEL_FILE, tmp_path / "wide")
    answers = []
    for folder in (out, wide):
        session = onnxruntime.InferenceSession(folder / MODEL_FILE)
        (entry,) = session.get_inputs()
        answers.append(session.run(None, {entry.name: np.ones((1, 3, 224, 224), np.float32)})[0])
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)
    stored = {tensor.data_type for tensor in onnx.load(wide / MODEL_FILE).graph.initializer if len(tensor.dims) > 1}
    assert stored == {TensorProto.FLOAT}


def test_the_notice_of_the_weights_goes_with_them(model: Path, tmp_path: Path) -> None:
    noted = Path(shutil.copytree(model, tmp_path / "noted"))
    (noted / NOTICE_FILE).write_text("of others")
    config, out = tmp_path / "vit.yaml", tmp_path / "out"
    config.write_text(f"hf_repo: {noted}\n")
    assert run("--set", f"IMAGE_DETECTOR_CONFIG={config}", "--out", str(out))[0] == 0
    assert (out / NOTICE_FILE).read_text() == "of others"


def test_it_is_of_fp32_alone() -> None:
    with pytest.raises(ConfigurationError, match="--half"):
        run("--half", "--precision", "int8")
    with pytest.raises(ConfigurationError, match="--layout=ovms"):
        run("--half", "--layout", "ovms", "--out", "there")
