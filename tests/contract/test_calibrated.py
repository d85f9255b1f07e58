"""A calibration in a manifest: what it changes, what it leaves, and who takes it over."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detectors.base import RunOptions
from detectors.errors import DetectorConfigError
from detectors.load import load_detector
from detectors.models.calibration import Calibration
from detectors.models.config import DetectorConfig
from detectors.models.manifest import BranchModel, ExportFigures, Manifest
from detectors.models.store import keep_calibration, store_calibration
from detectors.photos.synthetic import known_picture, many_pictures
from detectors.photos.transforms import VIEWS
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster
from miner.cli import app
from miner.cli.training import find_models
from miner.settings.settings import Settings
from tests.photos import fill

SHIPPED = Path(__file__).resolve().parents[2] / "detectors" / "starter"
MAP = Calibration(threshold=0.7, temperature=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "mine", ignore=shutil.ignore_patterns("optimized")))


def answer(folder: Path, models_dir: Path, precision: str = "fp32") -> float:
    config = DetectorConfig(model_folder=folder, path=folder / "mine.yaml")
    detector = load_detector("ViT", config, models_dir, "onnx", RunOptions(), precision)
    detector.verify()
    return detector.predict(known_picture()).probability


def test_the_answer_moves_and_the_self_test_stays(folder: Path, tmp_path: Path) -> None:
    before = answer(folder, tmp_path)
    store_calibration(folder, MAP)
    assert answer(folder, tmp_path) == pytest.approx(MAP(before), abs=1e-6)
    assert Manifest.read(folder).known_answer == pytest.approx(before, abs=1e-3)
    store_calibration(folder, None)
    assert answer(folder, tmp_path) == before


def test_a_faster_variant_takes_over_what_its_model_has_now(folder: Path, tmp_path: Path) -> None:
    order = PrecisionRequest("int8", "onnx", tmp_path, RunOptions(), CalibrationPhotos(many_pictures(8)), 1.0)
    make_faster(folder, order)
    plain = answer(folder, tmp_path, "int8")
    spread = [0.5, *[0.0] * 8, 0.5]
    store_calibration(folder, MAP, spread)
    assert answer(folder, tmp_path, "int8") == pytest.approx(MAP(plain), abs=1e-6)
    config = DetectorConfig(model_folder=folder, path=folder / "mine.yaml")
    loaded = load_detector("ViT", config, tmp_path, "onnx", RunOptions(), "int8")
    assert loaded.manifest.predictions == spread, "drift is told by the spread of the mapped answers"
    again = Manifest.read(make_faster(folder, order))
    assert again.calibration is None
    # Which recipe is the faster one is measured, so this may be another graph than the one before.
    assert answer(folder, tmp_path, "int8") == pytest.approx(MAP(again.known_answer), abs=1e-6)


def test_a_model_that_is_made_again_keeps_it_and_another_one_does_not(folder: Path, tmp_path: Path) -> None:
    store_calibration(folder, MAP)
    judged = ExportFigures(photos=20, auc=0.2, reversed=True)
    Manifest.read(folder).model_copy(update={"judged": judged}).write(folder)
    one = Manifest.read(folder)
    named, other = (one.output.model_copy(update=change) for change in ({"named": True}, {"index": 0}))
    branch = {"a": BranchModel(detector="ViT", name="a", revision="r", sums="s", index=1)}
    cases: list[tuple[dict[str, object], bool]] = [
        ({"revision": "again"}, False), ({}, True), ({"output": named}, True), ({"output": other}, False),
        ({"branches": branch}, False),
    ]  # fmt: skip
    for number, (change, is_same) in enumerate(cases):
        ignored = shutil.ignore_patterns("optimized")
        fresh = Path(shutil.copytree(SHIPPED, tmp_path / f"fresh{number}", ignore=ignored))
        Manifest.read(fresh).model_copy(update={"revision": one.revision} | change).write(fresh)
        before = Manifest.read(fresh)
        keep_calibration(folder, fresh)
        kept = Manifest.read(fresh)
        assert (kept.calibration, kept.judged) == ((MAP, judged) if is_same else (before.calibration, before.judged))


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    code = getattr(result.exception, "exit_code", result.exit_code)
    return code, f"{result.output}{result.exception or ''}"


def test_a_gain_that_is_noise_is_refused_and_the_shipped_model_left_alone(folder: Path, tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 8)
    before = (folder / "manifest.json").read_bytes()
    code, said = run("calibrate", photos, "--model", folder, "--folds", 2)
    assert (code, "refused" in said) == (1, True)
    assert (folder / "manifest.json").read_bytes() == before
    code, said = run("calibrate", photos)
    assert (code, "ships with" in said) == (2, True)
    assert run("calibrate")[0] == 2


def test_a_dry_run_measures_the_shipped_model_and_writes_nothing(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 8)
    before = {path: path.stat().st_mtime_ns for path in SHIPPED.iterdir() if path.is_file()}
    code, said = run("calibrate", photos, "--folds", 2, "--dry-run", "--json")
    assert code in (0, 1), said  # the gain of eight made photos may be chance
    assert '"written": false' in said
    assert {path: path.stat().st_mtime_ns for path in SHIPPED.iterdir() if path.is_file()} == before


def test_a_sure_gain_is_written_and_can_be_taken_back(folder: Path, tmp_path: Path) -> None:
    import numpy as np

    random = np.random.default_rng(0)
    labels = random.random(900) < 0.5
    odds = np.where(labels, 2.0, -2.0) + random.normal(0, 1.5, 900) + 2
    np.savez(tmp_path / "said.npz", labels=labels.astype(int), p_mine=1 / (1 + np.exp(-odds)))
    assert run("calibrate", tmp_path / "said.npz", "--dry-run")[0] == 0
    assert Manifest.read(folder).calibration is None
    code, said = run("calibrate", tmp_path / "said.npz", "--model", folder, "--json")
    assert code == 0, said
    manifest = Manifest.read(folder)
    assert manifest.calibration is not None
    assert manifest.calibration.threshold == pytest.approx(0.88, abs=0.06)
    assert manifest.predictions is not None
    assert run("calibrate", "--undo", "--model", folder)[0] == 0
    assert Manifest.read(folder).calibration is None
    assert run("calibrate", tmp_path / "said.npz", "--branch", "other")[0] == 2


def test_an_exported_folder_takes_what_photos_say_of_it_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    photos, yaml = fill(tmp_path / "photos", 6), tmp_path / "mine.yaml"
    yaml.write_text("model_folder: mine\n")
    store_calibration(folder, MAP)
    before = Manifest.read(folder)
    assert before.predictions is None

    code, said = run("export", "--config", yaml, "--pictures", photos)
    assert code == 0, said
    after = Manifest.read(folder)
    assert after.predictions is not None
    assert sum(after.predictions) == pytest.approx(1, abs=0.01)
    assert after.judged is not None
    assert after.judged.photos == 12
    assert after == before.model_copy(update={"predictions": after.predictions, "judged": after.judged})

    shipped = tmp_path / "shipped.yaml"
    shipped.write_text(f"model_folder: {SHIPPED}\n")
    for arguments, words in (
        ((yaml,), "needs no export"),
        ((yaml, "--pictures", photos / "roadwork"), "needs no export"),  # of one class alone
        ((yaml, "--pictures", photos, "--out", tmp_path / "other"), "--out="),
        ((shipped, "--pictures", photos), "ships with"),
    ):
        code, said = run("export", "--config", *arguments)
        assert (code, words in said) == (2, True), said
    assert Manifest.read(folder) == after
    assert not (tmp_path / "other").exists()


def test_models_of_one_name_are_told_apart_by_their_folders(folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / run / "detector.yaml" for run in ("first", "second")]
    for file in files:
        file.parent.mkdir()
        file.write_text("model_folder: ../mine\n")
    settings, models = Settings.load(None), [str(path) for path in (*files, folder)]
    assert list(find_models(settings, models)) == ["first-detector", "second-detector", "mine"]
    with pytest.raises(DetectorConfigError, match="name 'first-detector'"):
        find_models(settings, [models[0], models[0]])


def test_models_are_measured_side_by_side_and_their_answers_fused(folder: Path, tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 6)
    (photos / "roadwork" / "broken.jpg").write_bytes(b"nothing")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    plot = tmp_path / "plot.png"
    code, said = run("evaluate", photos, "--model", folder, "--model", other, "--augment", "--plot", plot, "--json")
    assert code == 0, said
    told = json.loads(said[said.index("{") :])
    assert (told["photos"], list(told["views"])) == (12, ["as it is", *VIEWS])
    (left_out,) = told["left_out"]
    assert left_out.startswith("roadwork/broken.jpg: ")
    assert told["gains"]["other"]["noise"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    file, ensemble = tmp_path / "b.npz", tmp_path / "both.yaml"
    models = ("--model", folder, "--model", other)
    assert run("precompute", "branches", photos, "--out", file, *models)[0] == 0
    code, said = run("fuse", file, "--folds", 2, "--out", ensemble)
    assert code == 0, said
    assert "chosen on 12 photos" in said
    assert run("evaluate", photos, "--model", ensemble, "--set", f"MODELS_DIR={tmp_path / 'models'}")[0] == 0
    code, said = run("evaluate", photos, "--model", folder, "--era", "augmented", "--json")
    assert (code, list(json.loads(said[said.index("{") :])["views"])) == (0, ["augmented"])
    assert run("evaluate", tmp_path / "none")[0] == 2
    shutil.rmtree(photos / "no_roadwork")
    code, said = run("evaluate", photos, "--model", folder)
    assert code == 0, said
    assert "missed" in said
