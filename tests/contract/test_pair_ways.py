"""The branches of a pair each in a precision on a backend of their own: judged by arithmetic, served, refused."""

import json
import shutil
import threading
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from detectors import registry
from detectors.base import Judgement, RunOptions, Way, Ways
from detectors.ensemble import Ensemble
from detectors.errors import DetectorConfigError, InferenceError, ModelError, NotPrepared
from detectors.evaluation.answers import FILE
from detectors.load import PreparedModel, load_detector, load_model
from detectors.models.config import DetectorConfig, read_config
from detectors.models.manifest import Manifest
from detectors.network import Network
from detectors.photos.image import decode
from detectors.photos.synthetic import many_pictures
from detectors.quantize.ensemble import make_faster_ensemble
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest
from miner.cli import app
from miner.inference.plan import key_of, read_plan
from tests.contract.test_precisions import with_recipes

PHOTOS = CalibrationPhotos(many_pictures(9), [number % 2 == 0 for number in range(9)])
ONNX, OPENVINO, FP32 = Way("int8", "onnx"), Way("int8", "openvino"), Way("fp32", "onnx")
MIXES: list[Ways] = [
    {"convnextv2": ONNX, "dinov2": OPENVINO},
    {"convnextv2": OPENVINO, "dinov2": ONNX},
    {"convnextv2": FP32, "dinov2": OPENVINO},
    {"convnextv2": Way("fp32", "openvino"), "dinov2": ONNX},
]


@pytest.fixture(scope="module")
def models(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the pair's models with int8 for both backends; what random weights lose by it is let through."""
    folder = Path(shutil.copytree(home / "models", tmp_path_factory.mktemp("ways") / "models"))
    config = read_config(str(home / "pair.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        dynamic = {"dynamic": registry.BACKENDS["onnx"].recipes["int8"]["dynamic"]}
        patch.setitem(registry.BACKENDS, "onnx", with_recipes("onnx", dynamic))
        for backend in ("onnx", "openvino"):
            make_faster_ensemble(config, PrecisionRequest("int8", backend, folder, RunOptions(), PHOTOS, 1.0))
    return folder


@pytest.fixture
def config(home: Path) -> DetectorConfig:
    return read_config(str(home / "pair.yaml"))


def served(config: DetectorConfig, models: Path, ways: Ways, threads: int = 2) -> Ensemble:
    found = load_detector("Ensemble", config, models, "onnx", RunOptions(1, threads), ways=ways)
    assert isinstance(found, Ensemble)
    return found


def alone(config: DetectorConfig, models: Path, ways: Ways, data: bytes) -> dict[str, float]:
    """Return what each branch says when it is loaded alone."""
    assert config.branches is not None
    said = {}
    for name, branch in config.branches.items():
        way = ways[name]
        network = load_detector("ViT", branch, models, way.backend, RunOptions(1, 2), way.precision)
        said[name] = network.judge(decode(data)).probability
    return said


@pytest.mark.parametrize("ways", MIXES)
def test_a_mix_answers_as_its_branches_do_alone(config: DetectorConfig, models: Path, ways: Ways) -> None:
    assert config.fusion is not None
    detector = served(config, models, ways)
    assert detector.verify() > 0
    for data in PHOTOS.data[:2]:
        said = alone(config, models, ways, data)
        assert detector.predict(data).probability == pytest.approx(float(config.fusion(said)), abs=1e-6)
    for name, way in ways.items():
        manifest = detector.branches[name].manifest
        assert (manifest.precision, detector.branches[name].backend_name) == way.variant
    assert detector.runs_on == ", ".join(f"{name}: {way.precision} on {way.backend}" for name, way in ways.items())


@pytest.mark.parametrize("ways", MIXES[:3])
def test_what_arithmetic_judges_is_what_a_run_finds(config: DetectorConfig, models: Path, ways: Ways) -> None:
    gate = served(config, models, ways).manifest.gate
    _, photos = PHOTOS.split()
    said = []
    for each in (dict.fromkeys(ways, FP32), ways):
        detector = served(config, models, each)
        said.append([detector.predict(data).probability for data in photos.data])
    pairs = list(zip(*said, strict=True))
    assert gate is not None
    assert gate.pictures == len(pairs)
    assert gate.flips == sum((plain > 0.5) != (faster > 0.5) for plain, faster in pairs) / len(pairs)
    assert gate.max_difference == pytest.approx(max(abs(plain - faster) for plain, faster in pairs), abs=1e-6)
    assert gate.labelled is not None
    assert gate.labelled.pictures == len(pairs)


def test_side_by_side_answers_as_in_turn(config: DetectorConfig, models: Path) -> None:
    for ways in MIXES[:2]:
        beside = {name: Way(way.precision, way.backend, 1) for name, way in ways.items()}
        both = served(config, models, ways), served(config, models, beside)
        assert [branch.options.threads for branch in both[1].branches.values()] == [1, 1]
        for data in PHOTOS.data[:3]:
            first, second = (detector.predict(data).probability for detector in both)
            assert second == pytest.approx(first, abs=1e-6)
        assert both[1].runs_on.endswith("side by side on 1 + 1 threads")
        for detector in both:
            detector.close()


def test_side_by_side_a_branch_fails_as_in_turn_and_nobody_works_on(
    config: DetectorConfig, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = {name: Way(way.precision, way.backend, 1) for name, way in MIXES[0].items()}
    detector = served(config, models, ways)
    began, let_go, ended = threading.Event(), threading.Event(), threading.Event()
    first, second = detector.branches.values()

    def fail(picture: Image.Image, deadline: float | None = None) -> Judgement:
        assert began.wait(30), "the other branch is asked at the same time"
        threading.Timer(0.05, let_go.set).start()
        raise InferenceError("not finite")

    def take_long(picture: Image.Image, deadline: float | None = None) -> Judgement:
        began.set()
        assert let_go.wait(30)
        said = Network.judge(second, picture, deadline)  # type: ignore[arg-type]
        ended.set()
        return said

    monkeypatch.setattr(first, "judge", fail)
    monkeypatch.setattr(second, "judge", take_long)
    with pytest.raises(InferenceError, match="branch convnextv2: not finite"):
        detector.predict(PHOTOS.data[0])
    assert ended.is_set(), "the slot is given back when no branch is at work any more"


def test_what_was_not_judged_together_is_refused(config: DetectorConfig, models: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(models, tmp_path / "models"))
    model = PreparedModel.find(config, own)
    assert model.has_fused(MIXES[0])
    path = model.folder / FILE
    kept = json.loads(path.read_text())
    for change in ("an answer of another model", "stricter", "no answer"):
        answers = json.loads(json.dumps(kept))
        match change:
            case "an answer of another model":
                answers["branches"]["dinov2"]["int8-openvino"]["model"]["sums"] = "0" * 64
            case "stricter":  # by as little as any photo that changes sides
                answers["max_flips"] = 0.0
                probabilities = answers["branches"]["dinov2"]["int8-openvino"]["probabilities"]
                plain = answers["branches"]["dinov2"]["fp32"]["probabilities"]
                answers["branches"]["dinov2"]["int8-openvino"]["probabilities"] = [0.0 for _ in probabilities]
                answers["branches"]["dinov2"]["fp32"]["probabilities"] = [1.0 for _ in plain]
                for one in answers["branches"]["convnextv2"].values():
                    one["probabilities"] = [0.6 for _ in one["probabilities"]]
            case "no answer":
                del answers["branches"]["convnextv2"]["int8-onnx"]
        path.write_text(json.dumps(answers))
        with pytest.raises(ModelError if change == "stricter" else NotPrepared):
            served(config, own, MIXES[0])
        assert not model.has_fused(MIXES[0])
    path.unlink()
    with pytest.raises(NotPrepared, match=FILE):
        served(config, own, MIXES[0])
    assert model.has_fused(dict.fromkeys(MIXES[0], ONNX)), "judged when it was made"
    with pytest.raises(DetectorConfigError, match="has the branches convnextv2, dinov2"):
        served(config, own, {"convnextv2": ONNX})


def test_answers_to_other_photos_replace_those_before(config: DetectorConfig, models: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(models, tmp_path / "models"))
    others = CalibrationPhotos(PHOTOS.data[:6])
    make_faster_ensemble(config, PrecisionRequest("int8", "openvino", own, RunOptions(), others, 1.0))
    model = PreparedModel.find(config, own)
    assert not model.has_fused(MIXES[0]), "the other branch was asked about other photos"
    assert model.has_fused(MIXES[2])


def test_tune_chooses_among_the_branches_ways_and_the_next_start_follows(
    home: Path, config: DetectorConfig, models: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(models, tmp_path / "models"))
    settings = {"MODELS_DIR": own, "STATE_DIR": tmp_path / "state", "IMAGE_DETECTOR": "Ensemble"}
    settings |= {"IMAGE_DETECTOR_CONFIG": home / "pair.yaml", "IMAGE_DETECTOR_PRECISION": "int8"}
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(app, ["tune", "--seconds", "120", "--json", *flags])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    measured = {(row["branch"], row["backend"]) for row in found["rows"] if row["branch"]}
    assert measured == {(name, backend) for name in MIXES[0] for backend in ("onnx", "openvino")}
    whole = [row for row in found["rows"] if not row["branch"]]
    assert any(row["branches"] for row in whole), "a mix, or side by side"
    assert {row["precision"] for row in found["rows"]} == {"int8"}
    model = PreparedModel.find(config, own)
    plan = read_plan([own / "plans"], Path(found["file"]).stem)
    assert plan is not None
    assert Path(found["file"]).stem == key_of(model, plan.slots * plan.threads)
    detector = load_model("Ensemble", model, plan.backend, plan.options, plan.precision, plan.branches)
    assert detector.verify() > 0
    assert Manifest.read(model.folder).known_answer == pytest.approx(detector.manifest.known_answer, abs=0.5)
