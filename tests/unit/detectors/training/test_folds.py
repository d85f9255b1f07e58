"""Folds of photos, and what was measured on each of them as one figure."""

import json
from pathlib import Path

import pytest

from detectors.photos.labelled import read_photos
from detectors.training.dataset import read_data_set
from detectors.training.folds import folds, pooled, write
from tests.photos import fill, patches


def test_every_photo_is_judged_once_by_what_has_not_seen_it(tmp_path: Path) -> None:
    photos = read_photos(fill(tmp_path, 10)).photos
    judged = []
    for learnt, held in folds(photos, 5, seed=0):
        assert {photo.label for photo in held} == {0, 1}
        assert {photo.digest for photo in learnt} | {photo.digest for photo in held} == {p.digest for p in photos}
        assert not {photo.digest for photo in learnt} & {photo.digest for photo in held}
        judged += [photo.digest for photo in held]
    assert sorted(judged) == sorted(photo.digest for photo in photos)


def test_a_fold_is_a_folder_to_train_in_and_a_copy_of_a_photo_stays_with_it(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 6)
    (photos / "roadwork" / "more").mkdir()
    patches(1, cone=True).save(photos / "roadwork" / "more" / "0.png")  # which is 0.jpg once more
    write(photos, tmp_path / "folds", count=3)
    for number in ("1", "2", "3"):
        data = read_data_set(tmp_path / "folds" / number, 0.3, 0.3, 0)
        assert len(data.test) in (4, 5)
        assert len(data.train) + len(data.val) + len(data.test) == 13
        suffixes = {photo.path.suffix for photo in data.test if photo.label}
        assert (".png" in suffixes) == (len(data.test) == 5)


def test_the_folds_figures_are_counted_together(tmp_path: Path) -> None:
    for name, right, of in (("1", 38, 40), ("2", 39, 39)):
        figures = {"served": {"photos": of, "accuracy": {"value": right / of, "low": 0, "high": 1}}}
        (tmp_path / name).write_text(json.dumps({"views": {"as it is": figures, "blur": figures}}))
    told = pooled([tmp_path / "1", tmp_path / "2"])
    assert list(told) == ["as it is", "blur"]
    assert told["blur"].startswith("77 of 79, 0.975 (0.9")


@pytest.mark.parametrize("count", [2, 5])
def test_the_same_photos_are_split_the_same_again(tmp_path: Path, count: int) -> None:
    photos = read_photos(fill(tmp_path, 10)).photos
    assert list(folds(photos, count, seed=1)) == list(folds(photos, count, seed=1))
