"""Labelled photos are read by one rule: damaged ones and those in both classes are named and left out."""

import re
import shutil
from pathlib import Path

import pytest

from detectors.errors import DetectorConfigError
from detectors.photos.labelled import openable, read_photos
from tests.models import photo
from tests.photos import fill


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
