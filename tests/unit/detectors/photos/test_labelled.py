"""Labelled photos are read by one rule: damaged ones and those in both classes are named and left out."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from detectors.errors import DetectorConfigError
from detectors.photos.labelled import near_pairs, openable, read_photos
from tests.models import photo
from tests.photos import fill, patches


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(photo(400, 300)[:2000], "decoded", id="truncated"),
        pytest.param(b"", "not a JPEG", id="empty"),
    ],
)
def test_a_damaged_photo_is_named_and_left_out(tmp_path: Path, data: bytes, reason: str) -> None:
    folder = fill(tmp_path / "photos")
    (folder / "roadwork" / "damaged.jpg").write_bytes(data)
    found = read_photos(folder)
    (skipped,) = found.skipped
    assert re.fullmatch(f"roadwork/damaged.jpg: .*{reason}.*", skipped)
    assert len(found.photos) == 20


def test_a_file_in_both_classes_counts_for_neither(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos")
    shutil.copyfile(folder / "roadwork" / "3.jpg", folder / "no_roadwork" / "odd.jpg")
    found = read_photos(folder)
    assert [line.split(": ")[0] for line in sorted(found.skipped)] == ["no_roadwork/odd.jpg", "roadwork/3.jpg"]
    assert all("other class" in line for line in found.skipped)
    assert "3.jpg" not in {one.path.name for one in found.photos if one.label}


def test_progress_counts_every_file(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    folder = fill(tmp_path / "photos", 3)
    (folder / "roadwork" / "damaged.png").write_bytes(b"no photo")
    read_photos(folder, lambda done, total: told.append((done, total)))
    assert told == [(number, 7) for number in range(1, 8)]


def test_files_of_other_formats_are_counted(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 2)
    for name in ("a.heic", "b.HEIC", "notes.txt", ".hidden"):
        (folder / "roadwork" / name).write_bytes(b"something")
    (skipped,) = read_photos(folder).skipped
    assert re.fullmatch(r"roadwork: 3 files .*\(2 \.heic, 1 \.txt\)", skipped)


def test_photos_are_named_by_their_place_and_sorted_by_their_content(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 3)
    (folder / "roadwork" / "deep").mkdir()
    (folder / "roadwork" / "1.jpg").rename(folder / "roadwork" / "deep" / "other.JPG")
    photos = read_photos(folder).photos
    assert {one.name for one in photos if one.label} == {"roadwork/0.jpg", "roadwork/deep/other.JPG", "roadwork/2.jpg"}
    assert [one.digest for one in photos] == sorted(one.digest for one in photos)


def test_a_class_that_is_not_there_or_is_empty_is_refused_by_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 1)
    with pytest.raises(DetectorConfigError, match="elsewhere is not"):
        read_photos(tmp_path / "elsewhere")
    (folder / "roadwork" / "0.jpg").write_bytes(b"")
    with pytest.raises(DetectorConfigError, match=r"roadwork holds .*\(roadwork/0.jpg: the image is"):
        read_photos(folder)
    shutil.rmtree(folder / "roadwork")
    with pytest.raises(DetectorConfigError, match="holds no folder 'roadwork'"):
        read_photos(folder)


def test_photos_without_labels_are_opened_too(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(64, 48))
    (tmp_path / "b.png").write_bytes(b"no photo")
    opened, refused = openable(tmp_path)
    assert opened == tmp_path / "a.jpg"
    assert re.match("b.png: .*not a JPEG", str(refused))


def test_pairs_of_two_classes_come_first_and_a_series_is_no_square_of_itself(tmp_path: Path) -> None:
    photos = {"roadwork": [1, 1, 1, 1, 3], "no_roadwork": [2, 1, 4, 4]}
    for kind, seeds in photos.items():
        (tmp_path / kind).mkdir()
        for number, seed in enumerate(seeds):
            side = 96 + 8 * number + len(kind)  # the same picture at another size, so that it is another file
            patches(seed, cone=True).resize((side, side)).save(tmp_path / kind / f"{number}.png")
    found = read_photos(tmp_path).photos
    pairs = near_pairs([one.thumbnail for one in found], np.array([one.label for one in found]), 0.95)
    assert all(value > 0.95 for _, _, value in pairs)
    named = [{found[one].name, found[other].name} for one, other, _ in pairs]
    assert [len({name.split("/")[0] for name in pair}) for pair in named] == sorted(
        (len({name.split("/")[0] for name in pair}) for pair in named), reverse=True
    )
    contradictory = [pair for pair in named if len({name.split("/")[0] for name in pair}) == 2]
    assert all("no_roadwork/1.png" in pair for pair in contradictory)
    assert len(contradictory) == 4
    assert {"no_roadwork/2.png", "no_roadwork/3.png"} in named
    assert len(named) <= 4 + 4 + 1
    assert not any({"roadwork/4.png", "no_roadwork/0.png"} & pair for pair in named)


def test_a_file_in_both_classes_is_kept_for_who_wants_to_see_it(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos")
    shutil.copyfile(folder / "roadwork" / "3.jpg", folder / "no_roadwork" / "odd.jpg")
    assert {one.name for one in read_photos(folder).contradictory} == {"roadwork/3.jpg", "no_roadwork/odd.jpg"}


def test_where_one_class_will_do_its_folder_is_read_by_itself_or_within_another(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 3)
    both = read_photos(folder, one_will_do=True)
    assert both.photos == read_photos(folder).photos
    alone = read_photos(folder / "no_roadwork", one_will_do=True)
    assert {one.name for one in alone.photos} == {f"no_roadwork/{number}.jpg" for number in range(3)}
    assert not alone.labels.any()
    shutil.rmtree(folder / "no_roadwork")
    with pytest.raises(DetectorConfigError, match="not called so"):
        read_photos(tmp_path, one_will_do=True)
    works = read_photos(folder, one_will_do=True)
    assert works.labels.tolist() == [1, 1, 1]
    for wrong in (tmp_path, folder / "roadwork"):
        with pytest.raises(DetectorConfigError):
            read_photos(wrong)
    (folder / "no_roadwork").mkdir()
    assert read_photos(folder, one_will_do=True).labels.tolist() == [1, 1, 1]
    with pytest.raises(DetectorConfigError):
        read_photos(folder / "no_roadwork", one_will_do=True)
