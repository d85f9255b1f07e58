"""The graph that is built without torch, against torch and against numpy."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from detectors.builders.architecture import numpy_reference
from detectors.builders.vit import PlainViT
from detectors.errors import ModelError
from detectors.export.export import prepare
from detectors.export.hf import ViTExporter
from detectors.models.config import DetectorConfig
from detectors.models.manifest import PLAIN_VIT_BUILDER, Manifest, is_outdated
from detectors.models.sources import model_folder
from detectors.network import ViT
from detectors.photos.synthetic import parity_pictures
from tests.models import make_vit, photo
from tests.stored_vit import ANSWERS, write_stored_vit


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vit(tmp_path_factory.mktemp("vit"))


def test_numpy_and_torch_agree(vit: Path) -> None:
    config = DetectorConfig(hf_repo=str(vit), path=vit / "x.yaml")
    pipeline, ours = (
        ViTExporter(vit, config).reference(),
        numpy_reference(PlainViT(vit), ViT.read_preprocessing(vit), 1, multiple=False),
    )
    for seed in range(4):
        data = photo(320, 240, seed=seed)
        assert ours(data) == pytest.approx(pipeline(data), abs=1e-5)


def test_the_stored_answers_are_torchs(tmp_path: Path) -> None:
    """Those that an environment without torch is held to, in tests/process/test_pythons.py."""
    folder = write_stored_vit(tmp_path / "vit")
    exporter = ViTExporter(folder, DetectorConfig(hf_repo=str(folder), path=folder / "x.yaml"))
    assert exporter.reference_name == "transformers.pipeline"
    reference = exporter.reference()
    assert [reference(picture) for picture in parity_pictures()] == pytest.approx(ANSWERS, abs=1e-5)


def test_a_box_without_torch_exports_and_compares_with_numpy(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import detectors.export.hf as module

    real = builtins.__import__

    def without_torch(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in {"torch", "transformers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(builtins, "__import__", without_torch)
    config = DetectorConfig(hf_repo=str(vit), path=vit / "x.yaml")
    manifest = Manifest.read(prepare("ViT", config, tmp_path))
    assert manifest.parity.reference == "numpy"
    assert manifest.parity.max_difference < 1e-5
    assert "torch" not in manifest.made_with
    folder = model_folder(config, tmp_path)
    assert not is_outdated(manifest, folder)
    without = {name: version for name, version in manifest.made_with.items() if name != PLAIN_VIT_BUILDER}
    for old in ({}, {PLAIN_VIT_BUILDER: "1"}, {"optimum": "2.1.0"}):  # the first had no versions
        assert is_outdated(manifest.model_copy(update={"made_with": without | old}), folder)
    assert not is_outdated(manifest.model_copy(update={"made_with": without | {"torch": "2.13.0"}}), folder)


def test_a_missing_weight_is_named(vit: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((vit / name).read_bytes())
    weights = load_file(vit / "model.safetensors")
    del weights["vit.layernorm.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"hold no vit\.layernorm\.weight"):
        prepare("ViT", DetectorConfig(hf_repo=str(tmp_path), path=tmp_path / "x.yaml"), tmp_path / "models")


def test_a_size_that_the_positions_do_not_fit_is_refused(vit: Path, tmp_path: Path) -> None:
    for path in vit.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    processor = tmp_path / "preprocessor_config.json"
    processor.write_text(json.dumps(json.loads(processor.read_text()) | {"size": {"height": 256, "width": 256}}))
    with pytest.raises(ModelError, match=r"16×16 patches; .* 196"):
        prepare("ViT", DetectorConfig(hf_repo=str(tmp_path), path=tmp_path / "x.yaml"), tmp_path / "models")
