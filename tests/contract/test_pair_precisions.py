"""Faster precisions of an ensemble: loaded, verified, and refused when the fused answers change sides."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from detectors import registry
from detectors.base import RunOptions
from detectors.console import Steps
from detectors.ensemble import Ensemble
from detectors.errors import ModelError, NotPrepared
from detectors.evaluation.answers import FILE
from detectors.export.export import prepare
from detectors.load import PreparedModel, load_detector
from detectors.models.config import DetectorConfig, read_config
from detectors.models.manifest import Manifest, Precision, branch_model
from detectors.models.sources import model_folder, variant_folder
from detectors.photos.image import decode
from detectors.photos.synthetic import many_pictures
from detectors.quantize.ensemble import make_faster_ensemble
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest
from detectors.quantize.schedule import LEAST_PHOTOS
from miner.bench.worker import BenchJob, _load
from miner.cli.tune import without_copies
from tests.contract.test_precisions import WAYS, with_recipes

DATA = many_pictures(16)
DYNAMIC = {"dynamic": registry.BACKENDS["onnx"].recipes["int8"]["dynamic"]}  # what it makes depends on no picture


def load(config: DetectorConfig, models: Path, precision: str = "fp32", backend: str = "onnx") -> Ensemble:
    found = load_detector("Ensemble", config, models, backend, RunOptions(), precision)
    assert isinstance(found, Ensemble)
    return found


@pytest.mark.parametrize(("precision", "backend"), {backend: (kind, backend) for kind, backend in WAYS}.values())
def test_a_faster_pair_loads_and_proves_itself(home: Path, precision: Precision, backend: str) -> None:
    config, models = read_config(str(home / "pair.yaml")), home / "models"
    photos = CalibrationPhotos(DATA[:4], [True, False, True, False])
    # Random weights lose much by eight bits; what is asked here is whether what was let through can be served.
    folder = make_faster_ensemble(config, PrecisionRequest(precision, backend, models, RunOptions(), photos, 1.0))
    detector = load(config, models, precision, backend)
    assert detector.verify() > 0
    assert PreparedModel.find(config, models).has(precision, backend)
    judged = Manifest.read(folder).gate
    assert judged is not None
    assert (judged.pictures, judged.max_difference > 0, judged.seconds > 0) == (2, True, True)
    assert judged.labelled is not None
    assert detector.manifest.gate == judged
    answer = detector.predict(DATA[1]).probability  # one of the two that were judged
    assert answer == pytest.approx(load(config, models).predict(DATA[1]).probability, abs=judged.max_difference + 1e-6)


def test_what_the_branches_say_together_passes_the_gate_too(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.BACKENDS, "onnx", with_recipes("onnx", DYNAMIC))
    values = yaml.safe_load((home / "pair.yaml").read_text())
    for branch in values["branches"].values():
        branch["hf_repo"] = str(home / "repository")

    def write(threshold: float) -> DetectorConfig:
        values["fusion"]["threshold"] = threshold
        (tmp_path / "pair.yaml").write_text(yaml.safe_dump(values))
        config = read_config(str(tmp_path / "pair.yaml"))
        prepare("Ensemble", config, models, force=False)
        return config

    models = Path(shutil.copytree(home / "models", tmp_path / "models"))
    config = write(0.5)
    make_faster_ensemble(config, PrecisionRequest("int8", "onnx", models, RunOptions(), CalibrationPhotos(DATA), 1.0))
    plain, faster = load(config, models), load(config, models, "int8")

    def sides(data: bytes) -> list[bool]:
        said = [[one.judge(decode(data)).probability for one in each.branches.values()] for each in (plain, faster)]
        return [(a > 0.5) == (b > 0.5) for a, b in zip(*said, strict=True)]

    # A picture that neither branch puts on another side of 0.5, and a threshold that both together do.
    (data, *_) = [data for data in DATA if all(sides(data))]
    first, second = (one.predict(data).probability for one in (plain, faster))
    assert first != second
    moved = write((first + second) / 2)
    with pytest.raises(ModelError, match=r"100\.0% of .* branches are fused"):
        make_faster_ensemble(
            moved, PrecisionRequest("int8", "onnx", models, RunOptions(), CalibrationPhotos([data]), 0.0)
        )
    assert not PreparedModel.find(moved, models).has("int8", "onnx")
    with pytest.raises(ModelError, match=r"100\.0% of .* branches are fused"):
        load(moved, models, "int8")


def test_a_branch_that_was_made_anew_is_not_what_was_judged(home: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(home / "models", tmp_path / "models"))
    config = read_config(str(home / "pair.yaml"))
    assert config.branches is not None
    fp32 = Manifest.read(model_folder(config, models))
    branches = {name: Manifest.read(model_folder(branch, models)) for name, branch in config.branches.items()}
    sums = {name: branch_model(manifest) for name, manifest in branches.items()}
    for manifest in (*branches.values(), fp32.model_copy(update={"branches": sums})):
        folder = variant_folder(manifest, models, "int8", "openvino")
        folder.mkdir(exist_ok=True)
        manifest.write(folder)
    assert PreparedModel.find(config, models).has("int8", "openvino")
    other = branches["dinov2"].model_copy(update={"files": {"model.xml": "0" * 64}})
    other.write(variant_folder(other, models, "int8", "openvino"))
    assert not PreparedModel.find(config, models).has("int8", "openvino")
    with pytest.raises(NotPrepared, match="was judged with"):
        load(config, models, "int8", "openvino")


def test_the_bench_compares_it_with_its_branches_own_libraries(home: Path) -> None:
    config = read_config(str(home / "pair.yaml"))
    job = BenchJob("reference", "Ensemble", str(config.path), str(home / "models"), "libraries", "fp32", 1, 1, [])
    assert _load(job)(DATA[0]) == pytest.approx(load(config, home / "models").predict(DATA[0]).probability, abs=1e-3)


def test_a_branch_without_tokens_stays_dense_in_a_merged_pair(home: Path, tmp_path: Path) -> None:
    config, models = read_config(str(home / "pair.yaml")), Path(shutil.copytree(home / "models", tmp_path / "models"))
    photos = CalibrationPhotos([*DATA] * (LEAST_PHOTOS // len(DATA) + 1))
    order = PrecisionRequest("merged", "onnx", models, RunOptions(), photos, 1.0, merge=5)
    steps: list[str] = []
    make_faster_ensemble(config, replace(order, progress=Steps(steps.append)))
    gates = {
        name: branch.variant("merged", "onnx")[1].gate
        for name, branch in PreparedModel.find(config, models).branches.items()
    }
    dense = {name for name, gate in gates.items() if gate is not None and gate.merging is None}
    assert dense == {"convnextv2"}
    assert gates.keys() == {"convnextv2", "dinov2"}
    assert any("convnextv2 stays dense" in step for step in steps)
    detector = load(config, models, "merged", "onnx")
    assert detector.verify() > 0
    judged = detector.manifest.gate
    assert judged is not None
    assert "dense" in judged.recipe
    assert "R = 5: 261 → 251 tokens" in judged.recipe
    plain = load(config, models).predict(DATA[1]).probability
    assert 0 < abs(detector.predict(DATA[1]).probability - plain) <= judged.max_difference + 1e-6
    model = PreparedModel.find(config, models)
    both = [("onnx", "fp32"), ("onnx", "merged")]
    found = dict.fromkeys(gates, both)
    assert without_copies(model, found) == {"convnextv2": both[:1], "dinov2": both}
    (model.folder / FILE).unlink()
    assert without_copies(model, found) == found, "the merged branch and the dense one were judged under one name alone"


def test_a_dense_branch_is_copied_where_it_was_judged_on_the_same_photos(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = with_recipes("onnx", DYNAMIC)
    monkeypatch.setitem(registry.BACKENDS, "onnx", replace(entry, recipes={**entry.recipes, "int8-merged": DYNAMIC}))
    config, models = read_config(str(home / "pair.yaml")), Path(shutil.copytree(home / "models", tmp_path / "models"))
    photos = [*DATA] * (LEAST_PHOTOS // len(DATA) + 1)

    def made(precision: Precision, data: list[bytes]) -> int:
        """Make a variant; return how many branches were made anew."""
        steps: list[str] = []
        order = PrecisionRequest(precision, "onnx", models, RunOptions(), CalibrationPhotos(data), 1.0, merge=5)
        if precision == "int8":
            order = replace(order, merge=None)
        make_faster_ensemble(config, replace(order, progress=Steps(steps.append)))
        return sum(step.startswith("fp32 answers to") for step in steps)

    assert made("int8", photos) == 2
    assert made("int8-merged", photos) == 1
    branch = PreparedModel.find(config, models).branches["convnextv2"]
    dense, copied = (branch.variant(precision, "onnx")[1] for precision in ("int8", "int8-merged"))
    assert copied == dense.model_copy(update={"precision": "int8-merged"})
    assert load(config, models, "int8-merged").verify() > 0
    fp32 = Manifest.read(branch.folder)
    fp32.model_copy(update={"threshold": 0.4}).write(branch.folder)
    assert made("int8-merged", photos) == 2, "judged at another threshold"
    fp32.write(branch.folder)
    assert made("int8-merged", photos[1:]) == 2, "judged on other photos"
