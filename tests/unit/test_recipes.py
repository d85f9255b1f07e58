"""The recipes of CONTRIBUTING, followed as they stand there, in a copy of the repository."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.house import ROOT, modules
from tests.models import make_vit
from tests.photos import fill
from tests.tables import CONTRIBUTING

BLOCK = re.compile(r"`([\w./]+\.py)`(?:,\s+after\s+`([^`\n]+)`)?:\n\n```python\n(.*?)```", re.DOTALL)
COPIED = ("miner", "detectors", "tests", "env", ".github", "pyproject.toml")
STARTER = ROOT / "detectors" / "starter"
IGNORED = shutil.ignore_patterns("__pycache__", "optimized")
MOST_FILES = 2  # one that is new, or changed, and the one that has the line


def follow(title: str, folder: Path) -> Path:
    """Copy the repository, do there what a recipe says, and return the copy."""
    section = (ROOT / CONTRIBUTING).read_text(encoding="utf-8").partition(f"### {title}\n")[2].partition("\n### ")[0]
    steps = BLOCK.findall(section)
    assert steps
    assert len({file for file, _, _ in steps}) <= MOST_FILES
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=IGNORED)
        else:
            shutil.copyfile(source, folder / name)
    for file, anchor, code in steps:
        path = folder / file
        if not anchor:
            assert not path.exists(), file
            path.write_text(code, encoding="utf-8")
            continue
        assert code.count("\n") == 1, "one line"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (place,) = (number for number, line in enumerate(lines, start=1) if anchor in line)
        path.write_text("".join([*lines[:place], code, *lines[place:]]), encoding="utf-8")
    files = sorted({file for file, _, _ in steps})
    for tool in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *tool, *files], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    return folder


def run(folder: Path, code: str, **environment: str) -> str:
    """Run code in a copy, and return what it prints."""
    values = {"PATH": "", "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=values, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_backend_answers_as_the_others_do(tmp_path: Path) -> None:
    folder = follow("A backend", tmp_path)
    code = """if True:
        from detectors.base import RunOptions
        from detectors.load import load_detector
        from detectors.models.config import read_config
        from miner.bench.subject import missing
        from miner.settings.settings import Settings
        settings = Settings.load()
        described = Settings.model_fields["image_detector_backend"].description
        config = read_config(settings.detector_config)
        detector = load_detector(
            settings.image_detector, config, settings.models_dir, settings.image_detector_backend, RunOptions()
        )
        detector.verify()
        print(detector.backend_name, missing("reference", "ViT", config), "`reference`" in described)
    """
    assert run(folder, code, IMAGE_DETECTOR_BACKEND="reference").split() == ["reference", "None", "True"]


def test_a_new_detector_is_exported_compared_and_served(tmp_path: Path) -> None:
    folder = follow("A detector", tmp_path / "copy")
    random = np.random.default_rng(3)
    weights, bias = (random.normal(0, 0.05, shape).astype(np.float32) for shape in ((768, 2), 2))
    np.savez(tmp_path / "mine.npz", weights=weights, bias=bias)
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("weights_path: mine.npz\n")
    code = """if True:
        from detectors.base import RunOptions
        from detectors.export.export import prepare
        from detectors.load import load_detector
        from detectors.models.config import read_config
        from detectors.photos.synthetic import known_picture
        from miner.settings.settings import Settings
        settings = Settings.load()
        name, config = settings.image_detector, read_config(settings.detector_config)
        prepare(name, config, settings.models_dir)
        detector = load_detector(name, config, settings.models_dir, "onnx", RunOptions())
        detector.verify()
        answer = detector.predict(known_picture()).probability
        print(detector.manifest.detector, detector.manifest.parity.reference, 0.001 < answer < 0.999)
    """
    models = str(tmp_path / "models")
    said = run(folder, code, IMAGE_DETECTOR="Thumbnail", IMAGE_DETECTOR_CONFIG=str(yaml), MODELS_DIR=models)
    assert said.split() == ["Thumbnail", "numpy", "True"]


def test_a_new_metric_is_exported_and_counts(tmp_path: Path) -> None:
    folder = follow("A metric", tmp_path)
    code = """if True:
        from prometheus_client import generate_latest
        from miner.metrics import Metrics
        from miner.recorder.records import RequestRecord
        metrics = Metrics()
        for size in (1000, 234):
            metrics.request_ended(RequestRecord(0.0, None, "dendrite", "ok", "", 0.1, image_bytes=size))
        lines = generate_latest(metrics.registry).decode().splitlines()
        print(next(line for line in lines if line.startswith("roadwork_miner_photo_bytes_total")))
    """
    assert run(folder, code).split() == ["roadwork_miner_photo_bytes_total", "1234.0"]


def test_all_that_others_know_of_a_backend_stands_in_its_row(tmp_path: Path) -> None:
    """The new backend with a row that says everything: others do with it what they do with those that are there."""
    folder = follow("A backend", tmp_path / "copy")
    registry = folder / "detectors" / "registry.py"
    line = next(line for line in registry.read_text(encoding="utf-8").splitlines() if "backends.reference:" in line)
    row = f"""{line.removesuffix("),")}, stands_in=True, layouts=("triton",), onnxruntime=True,
        recipes={{"int8": {{"dynamic": "detectors.quantize.recipes:dynamic"}}}},
        products=("fp32",), bare_run="detectors.backends.reference:bare_run"),"""
    registry.write_text(registry.read_text(encoding="utf-8").replace(line, row), encoding="utf-8")
    backend = folder / "detectors" / "backends" / "reference.py"
    backend.write_text(backend.read_text(encoding="utf-8") + "\n\ndef bare_run(graph, precision, array): return int\n")
    code = """if True:
        from pathlib import Path
        from detectors.base import RunOptions
        from detectors.load import PreparedModel, load_model
        from detectors.models.config import read_config
        from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster
        from detectors.photos.synthetic import many_pictures
        from miner.bench import machine, tuning
        from miner.bench.subject import variants
        from miner.bench.worker import BenchJob
        from miner.inference.plan import library_versions, plan_of
        from miner.settings.settings import Settings
        settings = Settings.load()
        config = read_config(settings.detector_config)
        found = PreparedModel.find(config, settings.models_dir)
        make_faster(found.folder, PrecisionRequest("int8", "reference", settings.models_dir, RunOptions(),
                    CalibrationPhotos(many_pictures(6)), 1.0))
        model = PreparedModel.find(config, settings.models_dir)
        assert not found.has("int8", "reference") and model.has("int8", "reference")
        assert ("reference", "int8") in variants("ViT", model, None, None)
        plan = plan_of(settings, model, 2)
        assert (plan.backend, plan.precision) == ("reference", "int8"), plan
        detector = load_model("ViT", model, plan.backend, plan.options, plan.precision)
        detector.verify()
        job = BenchJob("ours", "ViT", "", "", "reference", "int8", 1, 1, [])
        assert {way.arena for way in tuning.ways(job, job, 1)} >= {True, False}
        assert machine.bare_run("reference")(b"", "fp32", None) is int
        assert any(line.startswith("onnx ") for line in library_versions())
        assert Settings.load(image_detector_backend="remote", remote_endpoints="http://a:1",
                             remote_fallback="reference").remote_fallback == "reference"
        print(detector.backend_name, detector.manifest.gate.recipe)
    """
    values = {"MODELS_DIR": str(tmp_path / "models"), "IMAGE_DETECTOR_PRECISION": "int8"}
    assert run(folder, code, **values).split() == ["reference", "dynamic"]


def test_no_backend_is_named_outside_its_row() -> None:
    """What is told apart by a backend's name would be another file that a new one has to change."""
    known = {"onnx", "openvino", "torch", "remote"}
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules().values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        for part in (node.left, *node.comparators)
        if isinstance(part, ast.Constant) and part.value in known
        if "backend" in ast.unparse(node)
    }
    assert not found


@pytest.mark.export
def test_a_new_training_method_trains_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = follow("A training method", tmp_path / "copy")
    photos = fill(tmp_path / "photos")
    vit = make_vit(tmp_path / "vit", hidden_size=16, num_hidden_layers=1)
    options = [photos, "--model", vit, "--method", "bias", "--epochs", 3, "--out", tmp_path / "run"]
    run(folder, f"import sys; from miner.cli import main; sys.argv[1:] = {['train', *map(str, options)]}; main()")
    before, after = (load_file(path / "model.safetensors") for path in (vit, tmp_path / "run" / "model"))
    changed = {name for name, value in after.items() if name in before and (value != before[name]).any()}
    assert changed
    assert all(name.endswith("bias") for name in changed)


@pytest.mark.parametrize(("value", "said"), [("0.5", "0.5"), ("", "1.0"), ("2", "RECORDER_SAMPLE=2: ")])
def test_a_new_setting_is_read_checked_and_listed(tmp_path: Path, value: str, said: str) -> None:
    folder = follow("A setting", tmp_path)
    code = """if True:
        from miner.errors import ConfigurationError
        from miner.settings.settings import Settings
        from tests import tables
        tables.main()
        try:
            print(Settings.load().recorder_sample)
        except ConfigurationError as error:
            print(error)
    """
    assert run(folder, code, RECORDER_SAMPLE=value).startswith(said)
    assert "| `RECORDER_SAMPLE` | `1.0` | " in (folder / "env" / "README.md").read_text()
