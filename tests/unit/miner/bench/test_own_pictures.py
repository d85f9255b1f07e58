"""An operator's photos for `export` and `bench`: labelled ones are known as such, damaged ones are left out by name."""

from pathlib import Path

import pytest

from miner.bench.subject import own_pictures
from miner.cli.preparation import read_photos
from miner.errors import ConfigurationError
from tests.photos import fill


def test_labelled_photos_for_an_export_have_their_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "photos", 3)
    (folder / "roadwork" / "torn.jpg").write_bytes((folder / "roadwork" / "0.jpg").read_bytes()[:500])
    photos = read_photos(folder)
    written = {path.read_bytes(): path.parent.name == "roadwork" for path in folder.rglob("?.jpg")}
    assert photos.labels is not None
    assert dict(zip(photos.data, photos.labels, strict=True)) == written
    assert "left out: roadwork/torn.jpg: " in capsys.readouterr().err


def test_photos_without_labels_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "photos", 2) / "roadwork"
    (folder / "torn.jpg").write_bytes(b"")
    photos = read_photos(folder)
    assert photos.labels is None
    assert list(photos.data) == [(folder / name).read_bytes() for name in ("0.jpg", "1.jpg")]
    assert "left out: torn.jpg: " in capsys.readouterr().err


def test_a_bench_takes_the_first_few_and_none_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 3)
    assert [path.name for path in own_pictures(folder, most=2).paths] == ["0.jpg", "1.jpg"]
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"no \.jpg, .*\(no_roadwork/0\.jpg: .*\)"):
        own_pictures(folder)
