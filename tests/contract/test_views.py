"""A model that judges a picture in several views: its answers, its proof, what was measured, and shared graphs."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageOps
from typer.testing import CliRunner

from detectors.base import RunOptions, Way
from detectors.ensemble import Ensemble
from detectors.errors import DetectorConfigError, ModelError, OutOfTime
from detectors.evaluation.branch_file import BranchFile, write_ensemble
from detectors.evaluation.reward import measured_reward
from detectors.export.export import prepare
from detectors.load import PreparedModel, load_detector
from detectors.models.calibration import Calibration, Evidence, Fusion
from detectors.models.config import DetectorConfig, read_config
from detectors.models.manifest import Manifest
from detectors.models.sources import model_folder
from detectors.models.store import keep_calibration, store_calibration, store_spread
from detectors.network import Network
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture, many_pictures
from detectors.photos.views import PooledViews, parse
from detectors.quantize.ensemble import make_faster_ensemble
from detectors.quantize.gate import judged_variant
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster
from miner.cli import app
from tests.photos import fill

SHIPPED = Path(__file__).resolve().parents[2] / "detectors" / "starter"
DATA = many_pictures(6)
TILES = "views: [whole, {tiles: 2x3}]\npool: max\n"
VIEWS = PooledViews(parse("whole, tiles 2x3"), "max")
EVIDENCE = Evidence(photos=200, folds=5, reward_before=0.5, reward=0.6, gain_low=0.01, gain_high=0.2)
MAP = Calibration(threshold=0.9, temperature=2.0, evidence=EVIDENCE)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED, tmp_path / "mine", ignore=shutil.ignore_patterns("optimized"))
    return tmp_path


def configured(home: Path, keys: str = "", name: str = "mine.yaml") -> DetectorConfig:
    (home / name).write_text(f"model_folder: mine\n{keys}")
    return read_config(str(home / name))


def opened(home: Path, keys: str = "", precision: str = "fp32") -> Network:
    found = load_detector("ViT", configured(home, keys), home / "models", "onnx", RunOptions(), precision)
    assert isinstance(found, Network)
    return found


def ensemble(home: Path, text: str) -> DetectorConfig:
    configured(home)
    (home / "both.yaml").write_text(text)
    config = read_config(str(home / "both.yaml"))
    prepare("Ensemble", config, home / "models", force=False)
    return config


BOTH = """
branches:
  plain: {config: mine.yaml}
  tiled: {config: mine.yaml, views: [{tiles: 2x2}], pool: max}
  flipped: {config: mine.yaml, views: [whole, flip]}
"""


def test_its_answer_is_pooled_from_what_it_says_of_each_view(home: Path) -> None:
    plain, tiled = opened(home), opened(home, "views: [whole, {tiles: 2x2}, flip]\npool: max\n")
    mean = opened(home, "views: [whole, {tiles: 2x2}, flip]\n")
    for data in DATA:
        picture = decode(data)
        width, height = picture.size
        parts = [
            picture.crop((left, top, left + (width + 1) // 2, top + (height + 1) // 2))
            for top in (0, height // 2)
            for left in (0, width // 2)
        ]
        each = [plain.judge(one).probability for one in (picture, *parts, ImageOps.mirror(picture))]
        assert tiled.judge(picture).probability == pytest.approx(max(each), abs=5e-3)
        assert mean.judge(picture).probability == pytest.approx(np.mean(each), abs=5e-3)


def test_letterbox_is_what_the_key_of_that_name_does(home: Path) -> None:
    config = json.loads((home / "mine" / "preprocessor_config.json").read_text())
    boxed, both = opened(home, "views: [letterbox]\n"), home / "boxed"
    shutil.copytree(home / "mine", both)
    (both / "preprocessor_config.json").write_text(json.dumps(config | {"letterbox": True}))
    other = Network.viewed(opened(home), Manifest.read(both), None)
    other.preprocessing = other.read_preprocessing(both)
    for data in DATA:
        assert boxed.judge(decode(data)).probability == other.judge(decode(data)).probability


def test_the_graph_is_proved_on_the_whole_and_all_views_count_as_time(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, asked = opened(home, TILES), list[int]()
    run = detector.backend.run

    def counted(*given: Any) -> Any:
        asked.append(1)
        return run(*given)

    monkeypatch.setattr(detector.backend, "run", counted)
    assert detector.verify() > 0
    assert len(asked) == 1 + VIEWS.count
    assert detector.known(decode(known_picture())) == pytest.approx(detector.manifest.known_answer, abs=1e-3)
    assert detector.judge(decode(known_picture())).probability != pytest.approx(detector.manifest.known_answer)
    path = home / "mine" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"known_answer": 0.123}))
    with pytest.raises(ModelError, match=r"not 0\.1230"):
        opened(home, TILES).verify()


def test_no_view_is_begun_behind_the_deadline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, begun = opened(home, TILES), list[int]()
    run = detector.backend.run

    def slow(*given: Any) -> Any:
        begun.append(1)
        time.sleep(0.02)
        return run(*given)

    monkeypatch.setattr(detector.backend, "run", slow)
    with pytest.raises(OutOfTime):
        detector.predict(DATA[0], time.monotonic() + 0.02)
    assert 1 <= len(begun) < VIEWS.count


def test_a_calibration_belongs_to_its_views(home: Path) -> None:
    folder = home / "mine"
    store_calibration(folder, MAP, [0.1] * 10, VIEWS)
    plain, tiled = opened(home), opened(home, TILES)
    assert plain.manifest.calibration is None
    assert plain.manifest.predictions == Manifest.read(SHIPPED).predictions
    assert (tiled.manifest.calibration, tiled.manifest.predictions) == (MAP, [0.1] * 10)
    other = opened(home, TILES.replace("max", "mean"))
    assert (other.manifest.calibration, other.manifest.predictions) == (None, None)
    raw = tiled.judge(decode(DATA[0])).probability
    assert tiled.predict(DATA[0]).probability == MAP(raw)
    reward = measured_reward(tiled.manifest)
    assert reward is not None
    assert (reward.value, measured_reward(other.manifest)) == (0.6, None)
    threshold = opened(home, TILES + "threshold: 0.3\n").manifest
    assert (threshold.calibration, threshold.predictions) == (Calibration(threshold=0.3), None)
    store_calibration(folder, Calibration(threshold=0.7))
    assert opened(home).manifest.decides_at == 0.7
    assert opened(home, TILES).manifest.calibration == MAP
    store_calibration(folder, None, None, VIEWS)
    assert opened(home, TILES).manifest.calibration is None
    assert Manifest.read(folder).views == {}
    assert opened(home).manifest.decides_at == 0.7


def test_what_photos_said_belongs_to_its_views_and_outlives_an_export(home: Path) -> None:
    folder, labels = home / "mine", [True, True, True, False, False, False]
    store_spread(folder, [0.9, 0.9, 0.2, 0.1, 0.1, 0.8], labels)
    store_spread(folder, [0.9, 0.9, 0.9, 0.1, 0.7, 0.8], labels, VIEWS)
    plain, tiled, other = (opened(home, keys).manifest for keys in ("", TILES, TILES.replace("max", "mean")))
    assert plain.judged is not None
    assert other.judged is not None
    assert [one.judged.sensitivity for one in (plain, tiled, other) if one.judged] == [0.6667, 1.0, None]
    assert other.judged.auc == plain.judged.auc, "which way round it sorts is the same in all views"
    assert other.predictions is None
    shutil.copytree(SHIPPED, home / "new", ignore=shutil.ignore_patterns("optimized"))
    keep_calibration(folder, home / "new")
    assert Manifest.read(home / "new").views == Manifest.read(folder).views != {}


def test_a_faster_precision_is_judged_in_the_views_that_are_served(home: Path) -> None:
    config = configured(home, TILES)
    order = PrecisionRequest("int8", "onnx", home / "models", RunOptions(), CalibrationPhotos(DATA), 1.0, views=VIEWS)
    gate = Manifest.read(make_faster(model_folder(config, home / "models"), order)).gate
    assert gate is not None
    assert gate.views == str(VIEWS)
    store_calibration(home / "mine", MAP, [0.1] * 10, VIEWS)
    detector = opened(home, TILES, "int8")
    assert detector.verify() > 0
    assert (detector.manifest.calibration, detector.view_words) == (MAP, str(VIEWS))
    assert "judged at" in judged_variant(PreparedModel.find(config, home / "models"), "int8", "onnx").gate_doubt
    plain = judged_variant(PreparedModel.find(configured(home), home / "models"), "int8", "onnx")
    assert plain.gate is not None
    assert plain.gate.labelled is None
    assert "judged in whole + tiles 2x3, max" in plain.gate_doubt
    assert opened(home, "", "int8").verify() > 0


def test_branches_of_one_model_share_its_graph_and_answer_as_they_do_alone(home: Path) -> None:
    config = ensemble(home, BOTH)
    detector = load_detector("Ensemble", config, home / "models", "onnx", RunOptions(1, 2))
    assert isinstance(detector, Ensemble)
    assert detector.verify() > 0
    plain, tiled, flipped = (one for one in detector.branches.values() if isinstance(one, Network))
    assert plain.backend is tiled.backend is flipped.backend
    assert detector.view_words == "tiled: tiles 2x2, max; flipped: whole + flip, mean"
    keys = ("", "views: [{tiles: 2x2}]\npool: max\n", "views: [whole, flip]\n")
    each = [opened(home, one).predict(DATA[0]).probability for one in keys]
    assert detector.predict(DATA[0]).probability == pytest.approx(np.mean(each))
    detector.close()


def test_branches_side_by_side_or_in_other_precisions_have_graphs_of_their_own(home: Path) -> None:
    config = ensemble(home, BOTH)
    ways = dict.fromkeys(("plain", "tiled", "flipped"), Way("fp32", "onnx", 1))
    detector = load_detector("Ensemble", config, home / "models", "onnx", RunOptions(1, 3), ways=ways)
    assert isinstance(detector, Ensemble)
    assert len({id(one.backend) for one in detector.branches.values() if isinstance(one, Network)}) == 3
    assert detector.verify() > 0
    detector.close()


def test_an_ensemble_of_views_has_faster_precisions_and_is_another_with_other_views(home: Path) -> None:
    config, models = ensemble(home, BOTH), home / "models"
    order = PrecisionRequest("int8", "onnx", models, RunOptions(), CalibrationPhotos(DATA), 1.0)
    make_faster_ensemble(config, order)
    detector = load_detector("Ensemble", config, models, "onnx", RunOptions(), "int8")
    assert isinstance(detector, Ensemble)
    assert detector.verify() > 0
    assert len({id(one.backend) for one in detector.branches.values() if isinstance(one, Network)}) == 1
    ways = {"plain": Way("fp32", "onnx"), "tiled": Way("int8", "onnx"), "flipped": Way("int8", "onnx")}
    mixed = load_detector("Ensemble", config, models, "onnx", RunOptions(), ways=ways)
    assert isinstance(mixed, Ensemble)
    assert mixed.verify() > 0
    assert len({id(one.backend) for one in mixed.branches.values() if isinstance(one, Network)}) == 2
    other = ensemble(home, BOTH.replace("2x2", "2x3"))
    assert model_folder(other, models) != model_folder(config, models)
    assert not PreparedModel.find(other, models).has("int8", "onnx"), "what other views said judges nothing"
    assert load_detector("Ensemble", other, models, "onnx", RunOptions()).verify() > 0


def test_a_head_is_learned_or_refused(home: Path) -> None:
    with pytest.raises(DetectorConfigError, match=r"pool=head.*train --views"):
        opened(home, TILES.replace("max", "head"))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("views: [half]\n", "views=.*tiles: ROWSxCOLUMNS"),
        ("views: [{tiles: 8x8}]\n", "views=.*at most 24"),
        ("pool: max\n", "pool=max.*`views`"),
        ("views: [whole, flip]\npool: median\n", "pool='median'.*mean"),
        ("letterbox: true\n", "exported folder"),
        ("view: [whole, flip]\n", "unknown key view: views"),
    ],
)
def test_a_wrong_key_is_named(home: Path, keys: str, told: str) -> None:
    with pytest.raises(DetectorConfigError, match=told):
        configured(home, keys)


def test_an_ensemble_has_no_views_of_its_own(home: Path) -> None:
    with pytest.raises(DetectorConfigError, match=r"views=.*each of the branches"):
        ensemble(home, f"{BOTH}views: [whole, flip]\n")


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    return getattr(result.exception, "exit_code", result.exit_code), f"{result.output}{result.exception or ''}"


def test_evaluate_compares_sets_of_views(home: Path) -> None:
    photos, models = fill(home / "photos", 12), home / "models"
    configured(home, TILES)
    given = ("evaluate", photos, "--model", home / "mine.yaml", "--set", f"MODELS_DIR={models}")
    code, said = run(*given, "--views", "whole", "--views", "tiles 2x3, whole; max", "--views", "whole, flip", "--json")
    assert code == 0, said
    sets = json.loads(said[said.index("{") :])["models"]["mine"]["sets"]
    assert [(one["views"], one["pool"]) for one in sets] == [
        (["whole"], "mean"), (["whole", "tiles 2x3"], "max"), (["whole", "flip"], "mean"),
    ]  # fmt: skip
    assert sets[0]["times"] == 1 < sets[2]["times"] < sets[1]["times"]
    code, said = run(*given, "--views", "whole, flip")
    assert code == 0
    assert "whole + flip, mean" in said
    for wrong in ("half", "whole, flip; median", "whole, flip; head", ""):
        code, said = run(*given, "--views", wrong)
        assert (code, f"--views={wrong}" in said) == (2, True)
    assert run(*given, "--views", "whole", "--augment")[0] == 2


def test_a_calibration_and_an_ensembles_file_are_of_the_views(home: Path) -> None:
    photos, models = fill(home / "photos", 6), home / "models"
    configured(home, f"{TILES}threshold: 0.7\n", "tiled.yaml")
    configured(home)
    named = ("--model", home / "mine.yaml", "--model", home / "tiled.yaml", "--set", f"MODELS_DIR={models}")
    code, said = run("precompute", "branches", photos, "--out", home / "said.npz", *named)
    assert code == 0, said
    found = BranchFile.read(home / "said.npz")
    assert (found.branches["tiled"] >= found.branches["mine"]).all(), "the largest of all views"
    write_ensemble(home / "fused.yaml", Fusion(branches=["mine", "tiled"]), [], found.sources)
    fused = read_config(str(home / "fused.yaml")).branches
    assert fused is not None
    assert [one.pooled_views for one in fused.values()] == [None, VIEWS]

    random = np.random.default_rng(0)
    labels = random.random(900) < 0.5
    odds = np.where(labels, 2.0, -2.0) + random.normal(0, 1.5, 900) + 2
    BranchFile(labels, {"tiled": 1 / (1 + np.exp(-odds))}, {"tiled": found.sources["tiled"]}).write(home / "many.npz")
    code, said = run("calibrate", home / "many.npz", "--model", home / "mine.yaml")
    assert (code, "whole + tiles 2x3, max" in said) == (2, True)
    assert run("calibrate", home / "many.npz", "--model", home / "tiled.yaml")[0] == 0
    manifest = Manifest.read(home / "mine")
    assert manifest.calibration is None
    stored = manifest.views[str(VIEWS)].calibration
    assert stored is not None
    assert stored.threshold == pytest.approx(0.88, abs=0.06)
    assert run("calibrate", "--undo", "--model", home / "tiled.yaml")[0] == 0
    assert Manifest.read(home / "mine").views == {}
