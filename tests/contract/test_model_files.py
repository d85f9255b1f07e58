"""What a published model's own files say, from the files to a model that serves: as transformers has it, or refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detectors.backends.torch import ensure_torchvision
from detectors.errors import DetectorConfigError
from detectors.export.export import prepare
from detectors.models.config import DetectorConfig, read_config
from detectors.models.hf_config import ProcessorConfig
from detectors.models.manifest import Manifest
from detectors.network import ViT
from detectors.photos.synthetic import scene
from miner.cli import main
from tests.models import make_vit

PROCESSOR, CONFIG = "preprocessor_config.json", "config.json"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture
def vit(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "vit"))


def change(path: Path, **values: Any) -> None:
    """Change some keys of a file; None removes one."""
    known = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))


@pytest.mark.parametrize(
    "processor",
    [
        {"image_processor_type": "ViTImageProcessorFast"},
        {"image_processor_type": "ViTImageProcessorPil"},
        {"image_processor_type": None, "processor_class": "ViTProcessor", "size": 224},
        {"image_processor_type": "BeitImageProcessor", "size": [256, 256], "crop_size": [224, 224], "image_mean": 0.5},
    ],
)
def test_a_published_processor_answers_as_the_pipeline_does(vit: Path, tmp_path: Path, processor: Any) -> None:
    change(vit / PROCESSOR, **processor)
    folder = prepare("ViT", DetectorConfig(hf_repo=str(vit), path=vit / "x.yaml"), tmp_path / "models")
    assert Manifest.read(folder).parity.max_difference <= 1e-3
    assert ProcessorConfig.read(folder).kind == ProcessorConfig.read(vit).kind


@pytest.mark.parametrize("labels", [{0: 0, 1: 1}, {0: False, 1: True}])
def test_labels_that_are_no_text_are_served(vit: Path, tmp_path: Path, labels: dict[int, Any]) -> None:
    change(vit / CONFIG, id2label=labels, label2id={})
    written = "true" if labels[1] is True else "1"
    (tmp_path / "mine.yaml").write_text(f"hf_repo: vit\nroadwork_label: {written}\n")
    folder = prepare("ViT", read_config(str(tmp_path / "mine.yaml")), tmp_path / "models")
    output = Manifest.read(folder).output
    assert (output.index, output.labels) == (1, [str(label) for label in labels.values()])


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (PROCESSOR, "size", {"longest_edge": 224}),
        (PROCESSOR, "image_std", 0),
        (PROCESSOR, "resample", "bicubic"),
        (CONFIG, "id2label", ["None", "Roadwork"]),
        (CONFIG, "patch_size", "16"),
    ],
)
def test_a_wrong_value_ends_the_command_as_a_wrong_configuration(
    vit: Path, name: str, key: str, value: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(vit / name, **{key: value})
    (vit / "mine.yaml").write_text("hf_repo: .\n")
    places = {"IMAGE_DETECTOR_CONFIG": vit / "mine.yaml", "MODELS_DIR": vit.parent / "models", "IMAGE_DETECTOR": "ViT"}
    settings = [f"--set={key}={place}" for key, place in places.items()]
    monkeypatch.setattr(sys, "argv", ["roadwork-miner", "models", "download", *settings])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert f"{vit / name}: {key}={value!r}: " in line


@pytest.mark.parametrize("name", [PROCESSOR, CONFIG])
@pytest.mark.parametrize("text", ["[]", "null", "", "version https://git-lfs.github.com/spec/v1", '{"a": NaN}'])
def test_a_file_that_is_no_object_is_a_wrong_configuration(vit: Path, tmp_path: Path, name: str, text: str) -> None:
    (vit / name).write_text(text)
    with pytest.raises(DetectorConfigError, match=name):
        prepare("ViT", DetectorConfig(hf_repo=str(vit), path=vit / "x.yaml"), tmp_path / "models")


def test_a_fast_convnext_crops_to_even_as_its_class_does(tmp_path: Path) -> None:
    """16:9 pictures end a pixel apart from the slow class's, which the published pair's network sees."""
    ensure_torchvision()
    from transformers import ConvNextImageProcessorFast

    original = ConvNextImageProcessorFast(size={"shortest_edge": 224}, crop_pct=0.875)
    original.save_pretrained(tmp_path)
    ours = ViT.read_preprocessing(tmp_path)
    for width, height in ((1280, 720), (720, 1280), (641, 361), (803, 451)):
        picture = Image.fromarray(scene(width, height, seed=3))
        expected = original(picture, return_tensors="pt")["pixel_values"].numpy()
        assert np.abs(ours(picture) - expected).max() <= 2.01 * ours.scale[0]
