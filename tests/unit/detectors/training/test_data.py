"""Photos from a Hugging Face data set."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("datasets")

from detectors.console import Screen
from detectors.errors import DetectorConfigError, ModelError
from detectors.training.config import TrainConfig
from detectors.training.data import fingerprint, open_dataset, parted, pinned
from detectors.training.dataset import PARTS
from tests.photos import fill, patches


@pytest.fixture
def screen() -> Screen:
    return Screen(Console(file=io.StringIO()))


@pytest.fixture(autouse=True)
def _its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")


def config(**values: object) -> TrainConfig:
    return TrainConfig.make({"seed": 0} | values)


def test_a_data_set_becomes_folders_with_the_very_bytes_once(tmp_path: Path, screen: Screen) -> None:
    source = tmp_path / "set"
    fill(source / "train", 6)
    fill(source / "test", 2, first_seed=100)
    data = open_dataset(config(data=f"hf:{source}"), tmp_path / "scratch", screen, workers=1)
    assert data.counts()["test"] == {"no_roadwork": 2, "roadwork": 2}
    assert len(data.train) + len(data.val) == 12
    originals = {path.read_bytes() for path in source.rglob("*.jpg")}
    assert {photo.path.read_bytes() for name in PARTS for photo in getattr(data, name)} == originals
    for path in source.rglob("*.jpg"):
        path.unlink()  # the second time it is not asked for
    again = open_dataset(config(data=f"hf:{source}"), tmp_path / "scratch", screen, workers=1)
    assert fingerprint(again) == fingerprint(data)


def test_classes_of_other_names_are_refused_by_name(tmp_path: Path, screen: Screen) -> None:
    fill(tmp_path / "set" / "train", 2)
    (tmp_path / "set" / "train" / "roadwork").rename(tmp_path / "set" / "train" / "cat")
    with pytest.raises(DetectorConfigError, match=r"the classes \['cat', 'no_roadwork'\]"):
        open_dataset(config(data=f"hf:{tmp_path / 'set'}"), tmp_path / "scratch", screen, workers=1)


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path, screen: Screen) -> None:
    with pytest.raises((ModelError, DetectorConfigError), match="nowhere"):
        open_dataset(config(data=f"hf:{tmp_path / 'nowhere'}"), tmp_path / "scratch", screen, workers=1)


def test_a_quick_training_takes_a_few_photos_of_each_class(
    tmp_path: Path, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detectors.training.data.QUICK_READ", 16)
    monkeypatch.setattr("detectors.training.data.QUICK_PHOTOS", {"train": 8, "val": 2, "test": 2})
    photos = fill(tmp_path / "photos", 40)
    data = open_dataset(config(data=str(photos), quick=True), tmp_path, screen, workers=1)
    assert data.counts() == {
        name: {"no_roadwork": most, "roadwork": most} for name, most in (("train", 8), ("val", 2), ("test", 2))
    }
    numbers = {int(photo.path.stem) for name in PARTS for photo in getattr(data, name)}
    assert min(numbers) < 8
    assert max(numbers) > 32  # from all over the folder
    again = open_dataset(config(data=str(photos), quick=True), tmp_path, screen, workers=1)
    other = open_dataset(config(data=str(photos), quick=True, seed=1), tmp_path, screen, workers=1)
    assert fingerprint(data) == fingerprint(again) != fingerprint(other)


def pictures(folder: Path, feature: object, labels: list[object]) -> str:
    """Write a data set with these labels, in one Parquet file, as the hub has most; return its name."""
    import datasets

    folder.mkdir()
    encoded = []
    for number in range(len(labels)):
        buffer = io.BytesIO()
        patches(number, cone=False).save(buffer, "JPEG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    kinds = datasets.Features({"image": datasets.Image(), "label": feature})
    datasets.Dataset.from_dict({"image": encoded, "label": labels}, kinds).to_parquet(folder / "train.parquet")
    return f"hf:{folder}"


def told(screen: Screen) -> str:
    file = screen._console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_photos_without_a_label_are_left_out_and_counted(tmp_path: Path, screen: Screen) -> None:
    import datasets

    names = datasets.ClassLabel(names=["no_roadwork", "roadwork"])
    name = pictures(tmp_path / "set", names, [0, 1] * 10 + [-1, None, None])
    data = open_dataset(config(data=name), tmp_path / "scratch", screen, workers=1)
    assert sum(len(getattr(data, part)) for part in PARTS) == 20
    assert re.search(r"left out: 3 photos .*\(None: 2, -1: 1\)", told(screen))


def test_numbers_for_labels_need_to_be_told_what_they_mean(tmp_path: Path, screen: Screen) -> None:
    import datasets

    name = pictures(tmp_path / "set", datasets.Value("int64"), [0, 1] * 10 + [7])
    with pytest.raises(DetectorConfigError, match=r"type int64: .*--set 'labels="):
        open_dataset(config(data=name), tmp_path / "scratch", screen, workers=1)
    labels = {0: "roadwork", 1: "no_roadwork"}
    data = open_dataset(config(data=name, labels=labels), tmp_path / "scratch", screen, workers=1)
    assert sum(sum(kinds.values()) for kinds in data.counts().values()) == 20
    assert re.search(r"left out: 1 photos .*\(7: 1\)", told(screen))
    first = min(photo.path for part in PARTS for photo in getattr(data, part) if photo.label)
    assert first.name == "000000.jpg"


def test_classes_of_other_names_may_be_mapped(tmp_path: Path, screen: Screen) -> None:
    import datasets

    names = datasets.ClassLabel(names=["Road Works", "clear", "unclear"])
    name = pictures(tmp_path / "set", names, [0, 1] * 10 + [2])
    labels = {"road works": "roadwork", "1": "no_roadwork"}
    data = open_dataset(config(data=name, labels=labels), tmp_path / "scratch", screen, workers=1)
    assert sum(len(getattr(data, part)) for part in PARTS) == 20


def test_a_commit_stands_behind_the_name() -> None:
    assert parted("me/photos@0123abc") == ("me/photos", "0123abc")
    assert parted("me/photos") == ("me/photos", None)
    assert parted("/some@where/photos") == ("/some@where/photos", None)
    fixed = config(data="hf:me/photos@0123abc")
    assert pinned(fixed) == fixed
