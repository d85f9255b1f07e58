"""What a pair's branches said of the gate's photos: kept, and judged by again at another threshold and fusion."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from detectors import registry
from detectors.base import RunOptions
from detectors.console import Steps
from detectors.errors import ModelError, NotPrepared
from detectors.evaluation.answers import FILE
from detectors.export.export import prepare
from detectors.load import PreparedModel, load_detector
from detectors.models.config import DetectorConfig, read_config
from detectors.models.manifest import Manifest
from detectors.photos.synthetic import many_pictures
from detectors.quantize.ensemble import make_faster_ensemble, word_of_answers
from detectors.quantize.gate import judged_variant, measured_best
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest
from tests.contract.test_precisions import with_recipes

PHOTOS = CalibrationPhotos(many_pictures(12), [number % 2 == 0 for number in range(12)])
MADE = CalibrationPhotos(many_pictures(6), made=True)
DYNAMIC = {"dynamic": registry.BACKENDS["onnx"].recipes["int8"]["dynamic"]}


@pytest.fixture(scope="module")
def models(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the pair's models with an int8 that photos have judged."""
    folder = Path(shutil.copytree(home / "models", tmp_path_factory.mktemp("answers") / "models"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKENDS, "onnx", with_recipes("onnx", DYNAMIC))
        make_faster_ensemble(read_config(str(home / "pair.yaml")), request(folder))
    return folder


@pytest.fixture(autouse=True)
def _one_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BACKENDS, "onnx", with_recipes("onnx", DYNAMIC))


@pytest.fixture
def own(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models, tmp_path / "models"))


@pytest.fixture
def config(home: Path) -> DetectorConfig:
    return read_config(str(home / "pair.yaml"))


def request(models: Path, photos: CalibrationPhotos = PHOTOS, **more: object) -> PrecisionRequest:
    return PrecisionRequest("int8", "onnx", models, RunOptions(), photos, 1.0, **more)  # type: ignore[arg-type]


def said(config: DetectorConfig, folder: Path) -> Mapping[str, np.ndarray]:
    """Return what the branches say together of the judged photos, by variant, as the file has it."""
    branches = json.loads((folder / FILE).read_text())["branches"]
    assert config.fusion is not None
    each = {
        variant: {name: np.array(one[variant]["probabilities"]) for name, one in branches.items()}
        for variant in ("fp32", "int8-onnx")
    }
    return {variant: np.asarray(config.fusion(answers)) for variant, answers in each.items()}


def between(config: DetectorConfig, folder: Path) -> float:
    """Return a threshold that some photo's answers in fp32 and int8 lie on either side of."""
    answers = said(config, folder)
    apart = np.abs(answers["fp32"] - answers["int8-onnx"])
    most = int(apart.argmax())
    return float((answers["fp32"][most] + answers["int8-onnx"][most]) / 2)


def flips(config: DetectorConfig, folder: Path, threshold: float) -> float:
    plain, faster = said(config, folder).values()
    return float(np.mean((plain > threshold) != (faster > threshold)))


def test_a_precision_for_all_branches_is_judged_at_todays_threshold(config: DetectorConfig, own: Path) -> None:
    folder = PreparedModel.find(config, own).folder
    threshold = between(config, folder)
    moved = config.model_copy(update={"threshold": threshold})
    model = PreparedModel.find(moved, own)
    judged, made = judged_variant(model, "int8", "onnx"), model.variants["int8", "onnx"].gate
    assert judged.gate is not None
    assert made is not None
    assert judged.gate.flips == flips(config, folder, threshold) > made.flips
    assert (made.threshold, judged.gate.threshold) == (0.5, threshold)
    assert (judged.gate.recipe, judged.gate.seconds) == (made.recipe, made.seconds)
    assert judged.gate_doubt == ""
    answers = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(answers | {"max_flips": 0.0}))
    assert not model.has("int8", "onnx")
    with pytest.raises(ModelError, match=r"int8 on onnx.*branches are fused.*--precision"):
        load_detector("Ensemble", moved, own, "onnx", RunOptions(), "int8")
    assert PreparedModel.find(config, own).has("int8", "onnx"), "as it was made"


def test_without_answers_it_is_served_and_said_to_be_judged_at_another_threshold(
    config: DetectorConfig, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (PreparedModel.find(config, own).folder / FILE).write_text("of another version")
    with caplog.at_level(logging.WARNING):
        load_detector("Ensemble", config, own, "onnx", RunOptions(), "int8")
        assert not caplog.messages
        load_detector("Ensemble", config.model_copy(update={"threshold": 0.3}), own, "onnx", RunOptions(), "int8")
    (line,) = caplog.messages
    assert "judged at the threshold 0.500, and 0.300 counts now" in line
    assert "`roadwork-miner export --precision int8 --pictures FOLDER`" in line


def test_another_fusion_is_judged_by_the_answers_that_are_there(config: DetectorConfig, own: Path) -> None:
    before = PreparedModel.find(config, own).folder
    assert config.fusion is not None
    other = config.model_copy(update={"fusion": config.fusion.model_copy(update={"threshold": 0.45})})
    with pytest.raises(NotPrepared):
        PreparedModel.find(other, own)
    prepare("Ensemble", other, own, force=False)
    model = PreparedModel.find(other, own)
    assert model.folder != before
    assert not model.variants
    assert measured_best(model, "int8") == "onnx"
    detector = load_detector("Ensemble", other, own, "onnx", RunOptions(), "int8")
    assert detector.verify() > 0
    assert detector.manifest.gate is not None
    assert detector.manifest.gate.flips == flips(other, before, 0.5)


def test_made_pictures_take_the_place_of_nothing_that_photos_have_judged(config: DetectorConfig, own: Path) -> None:
    model = PreparedModel.find(config, own)
    kept = (model.folder / FILE).read_bytes()
    files = {folder: (folder / "manifest.json").read_bytes() for folder, _ in model.folders()}
    steps: list[str] = []
    make_faster_ensemble(config, request(own, MADE, progress=Steps(steps.append)))
    assert {folder: (folder / "manifest.json").read_bytes() for folder in files} == files
    assert any("--pictures FOLDER" in step for step in steps)
    prepare("Ensemble", config, own)  # all branches anew, as `models download --force` does
    assert (model.folder / FILE).read_bytes() == kept
    folder = model.branches["dinov2"].variant_folder("int8", "onnx")
    shutil.rmtree(folder)
    make_faster_ensemble(config, request(own, MADE))
    assert Manifest.read(folder).gate is not None
    assert (model.folder / FILE).read_bytes() == kept
    assert "no photos" in word_of_answers(config, own, MADE, "int8", ["openvino"])


def test_other_photos_are_said_to_replace_the_answers_and_what_is_judged_again_is_named(
    config: DetectorConfig, own: Path
) -> None:
    path = PreparedModel.find(config, own).folder / FILE
    answers = json.loads(path.read_text())
    for each in answers["branches"].values():
        each["int8-merged-openvino"] = each["int8-onnx"]
    path.write_text(json.dumps(answers))
    others = CalibrationPhotos(PHOTOS.data[:9])
    assert word_of_answers(config, own, PHOTOS, "int8", ["onnx"]) == ""
    said = word_of_answers(config, own, others, "int8", ["onnx", "openvino"])
    assert "other photos than before" in said
    assert "`roadwork-miner export --precision int8-merged --backend openvino --pictures FOLDER`" in said
    assert "--precision int8 " not in said, "it is made now"
    for_all = word_of_answers(config, own, CalibrationPhotos(PHOTOS.data), "int8-merged", ["openvino"])
    assert "--precision int8 --backend onnx" in for_all, "other labels are other photos"
    make_faster_ensemble(config, request(own, others))
    assert word_of_answers(config, own, others, "int8", ["onnx"]) == ""
    path.unlink()
    assert word_of_answers(config, own, PHOTOS, "int8", ["onnx"]) == ""
