"""The YAML file of a fork's InceptionFusion."""

from pathlib import Path

import pytest

from detectors.errors import DetectorConfigError
from detectors.models.config import SHIPPED, DetectorConfig, read_config
from miner.settings.settings import Settings


def translation(folder: Path, text: str) -> tuple[str, DetectorConfig]:
    """Return the refusal, and what the YAML in it is read as."""
    path = folder / "inception_fusion_roadwork.yaml"
    path.write_text(text)
    with pytest.raises(DetectorConfigError) as caught:
        read_config(str(path))
    words, _, yaml = str(caught.value).partition(f"into {path.name}: ")
    path.write_text(yaml)
    return words, read_config(str(path))


def test_it_is_told_with_our_keys_and_its_values(tmp_path: Path) -> None:
    words, ours = translation(
        tmp_path,
        "vit_config: ViT_roadwork.yaml\nyolo_weights_path: runs/best.pt\ngooglenet_fusion_path: /w/inception_keras\n"
        "use_keras: true\nroadwork_class_index: 1\n",
    )
    assert all(word in words for word in ("Ensemble", "googlenet_fusion_path='/w/inception_keras'", "fuse"))
    assert ours.branches is not None
    vit, yolo = ours.branches["vit"], ours.branches["yolo"]
    assert vit.hf_repo == read_config(str(SHIPPED / "ViT_roadwork.yaml")).hf_repo
    assert (yolo.detector, yolo.weights_path, yolo.roadwork_class_index) == (
        "YOLOClassifier", tmp_path / "runs" / "best.pt", 1,
    )  # fmt: skip
    assert ours.fusion is not None
    assert ours.fusion.words == "mean of vit + yolo"


def test_a_vit_of_ones_own_stays_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("hf_repo: you/vit\nroadwork_label: works\n")
    _, ours = translation(tmp_path, "vit_config: mine.yaml\nyolo_weights_path: /w/best.pt\n")
    assert ours.branches is not None
    assert (ours.branches["vit"].hf_repo, ours.branches["vit"].roadwork_label) == ("you/vit", "works")
    assert ours.branches["yolo"].weights_path == Path("/w/best.pt")


def test_its_name_means_an_ensemble() -> None:
    assert Settings(image_detector="InceptionFusion").image_detector == "Ensemble"
