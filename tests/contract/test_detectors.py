"""What every detector owes, on every backend."""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detectors.base import Detector, RunOptions
from detectors.errors import DetectorConfigError, ImageError, InferenceError, ModelError, NotPrepared
from detectors.export.export import prepare
from detectors.load import is_prepared, load_detector
from detectors.models import MODEL_FILE
from detectors.models.manifest import Manifest
from detectors.registry import BACKENDS, DETECTORS, backend_class, detector_class, exporter_class
from detectors.remote.endpoints import EngineOptions
from tests.contract.conftest import Prepared
from tests.models import photo
from tests.oip_server import OipServer

PHOTOS = {
    "224 square": photo(224, 224),
    "1920 landscape": photo(1920, 1080),
    "1080 portrait": photo(1080, 1920, seed=5),
    "grey": photo(640, 480, mode="L", seed=7),
    "CMYK": photo(640, 480, mode="CMYK", seed=8),
    "rotated by EXIF": photo(640, 480, orientation=6, seed=9),
    "mirrored by EXIF": photo(301, 225, orientation=5, seed=11),
    "RGBA PNG": photo(320, 200, mode="RGBA", kind="PNG", seed=12),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_as_the_librarys_own_pipeline_does(prepared: Prepared, backend: str) -> None:
    with contextlib.ExitStack() as stack:
        options = RunOptions()
        if backend == "remote" and prepared.config.branches is not None:
            options = RunOptions(engine=EngineOptions(("localhost:1",)))
            with pytest.raises(DetectorConfigError, match="its branches here"):
                load_detector(prepared.detector, prepared.config, prepared.models_dir, backend, options)
            return
        if backend == "remote":
            local = load_detector(prepared.detector, prepared.config, prepared.models_dir, "onnx", options)
            options = RunOptions(engine=EngineOptions((stack.enter_context(OipServer(local)).address,)))
        detector = load_detector(prepared.detector, prepared.config, prepared.models_dir, backend, options)
        stack.callback(detector.close)
        _compare_with_the_library(prepared, detector)


def _compare_with_the_library(prepared: Prepared, detector: Detector) -> None:
    assert detector.verify() > 0
    reference = prepared.reference()
    expected = {name: reference(data) for name, data in PHOTOS.items()}
    # Else a preprocessing that is wrong would pass.
    assert max(expected.values()) - min(expected.values()) > 0.1
    for name, data in PHOTOS.items():
        assert detector.predict(data).probability == pytest.approx(expected[name], abs=1e-3), name


def test_stages_are_measured_and_probabilities_are_probabilities(prepared: Prepared) -> None:
    detector = load_detector(prepared.detector, prepared.config, prepared.models_dir, "onnx", RunOptions())
    prediction = detector.predict(PHOTOS["1920 landscape"])
    assert 0 <= prediction.probability <= 1
    assert min(prediction.decode, prediction.preprocess, prediction.infer) > 0


def test_what_is_no_picture_is_an_image_error(prepared: Prepared) -> None:
    detector = load_detector(prepared.detector, prepared.config, prepared.models_dir, "onnx", RunOptions())
    with pytest.raises(ImageError):
        detector.predict(b"nothing")


@pytest.mark.parametrize(
    "scores", [[[np.nan, 0.0]], [[0.0, np.inf]], [[0.5]], [[0.1, 0.2, 0.7]], [0.5, 0.5], [[-np.inf, -np.inf]]]
)
def test_what_is_no_probability_never_gets_out(network: Prepared, scores: list[object]) -> None:
    detector = load_detector(network.detector, network.config, network.models_dir, "onnx", RunOptions())
    with np.errstate(all="ignore"), pytest.raises(InferenceError):
        detector.probability(np.array(scores, dtype=np.float32))


def test_swapped_labels_are_found_before_ready(network: Prepared, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(network.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("optimized")))
    values = json.loads((folder / "manifest.json").read_text())
    values["output"]["index"] = 1 - values["output"]["index"]
    (folder / "manifest.json").write_text(json.dumps(values))
    config = network.config.model_copy(update={"hf_repo": None, "weights_path": None, "model_folder": folder})
    with pytest.raises(ModelError, match=r"known picture, not 0\.\d+"):
        load_detector(network.detector, config, tmp_path, "onnx", RunOptions()).verify()


def test_a_damaged_graph_is_found_before_it_is_loaded(network: Prepared, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(network.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("optimized")))
    graph = bytearray((folder / MODEL_FILE).read_bytes())
    graph[len(graph) // 2] ^= 1
    (folder / MODEL_FILE).write_bytes(graph)
    config = network.config.model_copy(update={"hf_repo": None, "weights_path": None, "model_folder": folder})
    with pytest.raises(ModelError, match=r"model\.onnx .* sum in "):
        load_detector(network.detector, config, tmp_path, "onnx", RunOptions())


def test_a_model_of_another_kind_is_refused(prepared: Prepared) -> None:
    for other in set(DETECTORS) - {prepared.detector}:
        with pytest.raises(DetectorConfigError, match=f"not for {other}"):
            load_detector(other, prepared.config, prepared.models_dir, "onnx", RunOptions())


def test_the_export_says_what_it_measured(network: Prepared) -> None:
    manifest = Manifest.read(network.folder)
    assert manifest.parity.pictures >= 8
    assert manifest.parity.max_difference <= 1e-3
    assert set(manifest.files) >= {MODEL_FILE, "preprocessor_config.json"}
    assert is_prepared(network.config, network.models_dir)


def test_an_export_whose_answers_differ_is_refused(network: Prepared, tmp_path: Path) -> None:
    """Another image processor beside the same weights, but not for the library that is compared with."""

    class Crooked(exporter_class(network.detector)):  # type: ignore[misc]
        def write(self, folder: Path) -> object:
            output = super().write(folder)
            processor = folder / "preprocessor_config.json"
            values = json.loads(processor.read_text()) | {"image_mean": [0.2] * 3}
            processor.write_text(json.dumps(values))
            return output

    from detectors import registry

    registry.DETECTORS["crooked"] = replace(
        registry.DETECTORS[network.detector], exporter=f"{Crooked.__module__}:Crooked"
    )
    globals()["Crooked"] = Crooked
    try:
        with pytest.raises(ModelError, match=r"at most 0\.001 is allowed"):
            prepare("crooked", network.config, tmp_path)
    finally:
        del registry.DETECTORS["crooked"]
    assert not list(tmp_path.rglob("manifest.json"))
    assert not list(tmp_path.rglob("*.partial"))


def test_a_model_that_is_not_there_yet_says_so(prepared: Prepared, tmp_path: Path) -> None:
    assert not is_prepared(prepared.config, tmp_path)
    with pytest.raises(NotPrepared):
        load_detector(prepared.detector, prepared.config, tmp_path, "onnx", RunOptions())


@pytest.mark.parametrize(("resolve", "kind"), [(detector_class, "detector"), (backend_class, "backend")])
def test_an_unknown_name_lists_the_known_ones(resolve: object, kind: str) -> None:
    with pytest.raises(DetectorConfigError, match=rf"unknown {kind} 'tpu'; known: \w+"):
        resolve("tpu")  # type: ignore[operator]
