"""Who takes part in a bench, and how that is drawn."""

from dataclasses import replace
from pathlib import Path

import pytest

from detectors.load import PreparedModel
from detectors.models import MANIFEST_FILE
from detectors.models.config import DetectorConfig, read_config
from detectors.models.manifest import Manifest
from detectors.registry import BACKENDS
from miner.bench import output, subject
from miner.bench.subject import made_jpeg, own_pictures, variants
from miner.errors import ConfigurationError
from tests.plots import look_through
from tests.unit.miner.bench.test_report import figures

STARTER = read_config("starter.yaml")
assert STARTER.model_folder is not None
MANIFEST = Manifest.read(STARTER.model_folder)


def prepare_variant(models_dir: Path, precision: str, backend: str) -> None:
    folder = models_dir / MANIFEST.name / f"{MANIFEST.revision}.{precision}-{backend}"
    folder.mkdir(parents=True)
    MANIFEST.model_copy(update={"precision": precision, "backend": backend}).write(folder)
    assert (folder / MANIFEST_FILE).is_file()


def find(models_dir: Path, backends: list[str] | None = None, precisions: list[str] | None = None) -> object:
    return variants("ViT", PreparedModel.find(STARTER, models_dir), backends, precisions)


def test_fp32_and_what_is_prepared_take_part(tmp_path: Path) -> None:
    assert find(tmp_path, ["onnx"]) == [("onnx", "fp32")]
    prepare_variant(tmp_path, "int8", "onnx")
    assert find(tmp_path, ["onnx"]) == [("onnx", "fp32"), ("onnx", "int8")]
    assert find(tmp_path, ["onnx"], ["int8"]) == [("onnx", "int8")]


def test_an_exported_model_alone_has_no_torch_backend(tmp_path: Path) -> None:
    found = find(tmp_path)
    assert isinstance(found, list)
    assert ("onnx", "fp32") in found
    assert not [backend for backend, _ in found if backend == "torch"]


@pytest.mark.parametrize(
    ("backends", "precisions", "message"),
    [
        (["tpu"], None, r"--backends=tpu: .*: onnx, openvino, torch"),
        (None, ["int4"], r"--precisions=int4: known: fp32, bf16, int8"),
        (["onnx"], ["int8"], r"--precisions=int8: not prepared for .*`roadwork-miner export --precision int8`"),
        (["torch"], None, r"--backends=torch: needs "),
    ],
)
def test_what_is_asked_for_and_not_there_is_a_clear_error(
    tmp_path: Path, backends: list[str] | None, precisions: list[str] | None, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        find(tmp_path, backends, precisions)


def test_a_backend_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = replace(BACKENDS["openvino"], packages=("no_such_package",))
    monkeypatch.setitem(BACKENDS, "openvino", lacking)
    assert subject.missing("openvino", "ViT", STARTER) == (
        "needs the package 'no_such_package' (extra `openvino`; `make setup-all` installs it)"
    )
    assert subject.missing("onnx", "ViT", STARTER) is None


def test_the_reference_needs_the_original_weights() -> None:
    with pytest.raises(ConfigurationError, match="--reference: needs "):
        subject.reference_name("ViT", DetectorConfig(model_folder=Path("/nowhere"), path=Path("own.yaml")), "main")


def test_a_plot_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--plot="):
        output.check_plot(tmp_path / "none" / "x.png")
    with pytest.raises(ConfigurationError, match=r"--plot="):
        output.check_plot(tmp_path / "x.txt")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"needs the package 'matplotlib' \(extra `eval`"):
        output.check_plot(tmp_path / "x.png")


@pytest.mark.slow
def test_a_plot_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "x.png"
    competitors = [figures("pytorch, transformers' pipeline"), figures("onnx"), figures("onnx", "int8")]
    output.draw(competitors, 8.5, "a model", path)
    assert path.read_bytes().startswith(b"\x89PNG")
    look_through(output.plot_of(competitors, 8.5, "a model"))


def test_photos_are_found_below_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--pictures="):
        own_pictures(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.JPG").write_bytes(made_jpeg(32, 24))
    assert own_pictures(tmp_path).kinds == ["photo"]
