"""Labelled photos: read, damaged ones named, split by a seed."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from detectors.errors import DetectorConfigError
from detectors.photos.labelled import CLASSES, Photo
from detectors.training.dataset import DataSet, read_data_set, repeated
from tests.photos import fill


def digests(photos: list[Photo]) -> list[str]:
    return [photo.digest for photo in photos]


def read(folder: Path, seed: int = 0) -> DataSet:
    return read_data_set(folder, val_share=0.2, test_share=0.2, seed=seed)


def test_a_split_keeps_the_shares_of_both_classes_and_every_photo(tmp_path: Path) -> None:
    data = read(fill(tmp_path / "photos"))
    assert data.counts() == {
        "train": {"no_roadwork": 6, "roadwork": 6},
        "val": {"no_roadwork": 2, "roadwork": 2},
        "test": {"no_roadwork": 2, "roadwork": 2},
    }
    assert len({*digests(data.train), *digests(data.val), *digests(data.test)}) == 20


def test_a_split_depends_on_the_photos_and_the_seed_and_on_nothing_else(tmp_path: Path) -> None:
    here = read(fill(tmp_path / "here"))
    there = tmp_path / "there"
    for part in (here.train, here.val, here.test):
        for index, one in enumerate(part):
            target = there / CLASSES[one.label] / f"renamed-{one.digest[:4]}-{index}.jpeg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(one.path, target)
    again = read(there)
    assert [digests(again.train), digests(again.val)] == [digests(here.train), digests(here.val)]
    assert digests(read(there, seed=1).val) != digests(here.val)


def test_copies_of_one_photo_stay_on_one_side(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos")
    originals = sorted((folder / "roadwork").iterdir())
    for path in originals:
        picture = Image.open(path)
        ImageOps.mirror(picture).save(path.with_name(f"{path.stem}-mirrored.jpg"), quality=60)
        picture.resize((picture.width * 2, picture.height * 2)).save(path.with_name(f"{path.stem}-larger.png"))
    data = read(folder)
    for part in (data.train, data.val, data.test):
        stems = [one.path.stem for one in part if one.label]
        assert {stem.partition("-")[0] for stem in stems if "-" in stem} <= set(stems)
    assert data.counts()["val"]["roadwork"] == 6


def test_parts_that_are_given_are_kept_and_missing_ones_come_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test", 3, first_seed=100)
    data = read(tmp_path)
    assert data.counts()["test"] == {"no_roadwork": 3, "roadwork": 3}
    assert {one.path.parents[1].name for one in data.val} == {"train"}
    assert len(data.train) + len(data.val) == 20


def test_an_empty_class_is_refused_by_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos")
    for path in (folder / "roadwork").iterdir():
        path.write_bytes(b"no photo")
    with pytest.raises(DetectorConfigError, match=r"roadwork holds no .*\(roadwork/0.jpg: "):
        read(folder)
    shutil.rmtree(folder / "roadwork")
    with pytest.raises(DetectorConfigError, match="holds no folder 'roadwork'"):
        read(folder)


def test_too_few_photos_to_split_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 2)
    with pytest.raises(DetectorConfigError, match=r"2 photos .*'no_roadwork' are too few"):
        read(folder)


def test_copies_across_given_parts_are_left_out_of_those_that_are_learnt_from(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "val", 3, first_seed=100)
    fill(tmp_path / "test", 3, first_seed=200)
    kept = Image.open(tmp_path / "test" / "roadwork" / "0.jpg")
    ImageOps.mirror(kept).save(tmp_path / "train" / "roadwork" / "copy.jpg", quality=60)
    kept.save(tmp_path / "val" / "roadwork" / "copy.jpg", quality=70)
    shutil.copyfile(tmp_path / "val" / "no_roadwork" / "1.jpg", tmp_path / "train" / "no_roadwork" / "copy.jpg")
    data = read(tmp_path)
    assert [(line.split(": ")[0], line.split()[-1]) for line in sorted(data.alike)] == [
        ("train/no_roadwork/copy.jpg", "val"),
        ("train/roadwork/copy.jpg", "test"),
        ("val/roadwork/copy.jpg", "test"),
    ]
    assert [len(part) for part in (data.train, data.val, data.test)] == [20, 6, 6]


def test_a_part_that_is_nothing_but_copies_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "test", 3)
    shutil.copytree(tmp_path / "test", tmp_path / "train")
    with pytest.raises(DetectorConfigError, match=r"every photo .*'no_roadwork' in train"):
        read_data_set(tmp_path, val_share=0.2, test_share=0.2, seed=0)


def test_photos_of_a_named_subfolder_count_more_often_in_training_alone(tmp_path: Path) -> None:
    fill(tmp_path)
    for kind in CLASSES:
        (tmp_path / kind / "traffic").mkdir()
        for one in sorted((tmp_path / kind).glob("*.*"))[:5]:
            one.rename(one.parent / "traffic" / one.name)
    data = read(tmp_path)
    more = repeated(data, {"traffic": 3, "elsewhere": 9})
    times = Counter(photo.name for photo in more.train)
    assert {("traffic" in name, count) for name, count in times.items()} == {(True, 3), (False, 1)}
    assert (more.val, more.test, more.counts()) == (data.val, data.test, data.counts())
    assert repeated(data, {}) is data
