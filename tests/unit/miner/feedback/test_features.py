"""Features by the shipped starter: made beside whatever else goes on, kept by digest, waited for by nobody."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from detectors.errors import DetectorError, ImageError
from detectors.models import MODEL_FILE
from miner.feedback.features import CACHE, SHIPPED, FeatureThread, KeptFeatures, StarterFeatures
from miner.feedback.selection import REPEAT, Features, Novelty
from tests.feedback import digest_of, jpeg
from tests.models import photo
from tests.process.daemon import PATIENCE, eventually
from tests.process.limits import fill, small_disk


@pytest.fixture(scope="module")
def starter() -> StarterFeatures:
    return StarterFeatures()


class Few:
    """Two numbers of a photo, so that a test need not wait for a network."""

    def __init__(self, key: str = "few") -> None:
        self.key = key
        self.asked: list[bytes] = []

    def __call__(self, photo: bytes) -> Features:
        self.asked.append(photo)
        if photo == b"no photo":
            raise ImageError("it is none")
        return np.array([len(photo), photo[-3]], dtype=np.float32)


class Taken:
    """What was handed on."""

    def __init__(self) -> None:
        self.features: dict[str, Features] = {}
        self.priorities: set[int] = set()

    def __call__(self, features: Mapping[str, Features]) -> None:
        self.features |= features


def write(folder: Path, *photos: bytes) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    paths = {digest_of(one): folder / f"{digest_of(one)}.jpg" for one in photos}
    for one, path in zip(photos, paths.values(), strict=True):
        path.write_bytes(one)
    return paths


def run(folder: Path, wanted: Mapping[str, Path], extractor: Few) -> dict[str, Features]:
    """Have a thread make all features that can be made, and end it."""
    taken = Taken()
    thread = FeatureThread(folder, lambda: wanted, taken, lambda: extractor)
    thread.start()
    readable = [digest for digest, path in wanted.items() if path.is_file() and path.read_bytes() != b"no photo"]
    eventually(lambda: len(taken.features) >= len(readable))
    thread.close()
    return taken.features


def test_the_starter_tells_a_scene_again_and_other_scenes_apart(starter: StarterFeatures) -> None:
    street, same, other = photo(640, 360), photo(640, 360, kind="WEBP"), jpeg(3)
    novelty = Novelty()
    novelty.add({"street": starter(street), "same": starter(same), "other": starter(other)})
    novelty.see("street")
    assert (novelty.distance("same") or 0.0) < REPEAT < (novelty.distance("other") or 0.0)


def test_features_are_few_finite_and_the_same_each_time(starter: StarterFeatures) -> None:
    one, again = starter(jpeg(1)), StarterFeatures()(jpeg(1))
    assert one.ndim == 1
    assert len(one) < 1000
    assert np.isfinite(one).all()
    assert np.array_equal(one, again)


def test_what_is_no_photo_or_no_such_graph_is_an_error(starter: StarterFeatures, tmp_path: Path) -> None:
    with pytest.raises(DetectorError):
        starter(b"no photo")
    with pytest.raises(OSError, match=MODEL_FILE):
        StarterFeatures(tmp_path)
    assert (SHIPPED / MODEL_FILE).is_file()


def test_photos_are_looked_at_once_ever(tmp_path: Path) -> None:
    paths = write(tmp_path / "photos", jpeg(1), jpeg(2), b"no photo")
    paths["0" * 64] = tmp_path / "gone.jpg"
    first = Few()
    found = run(tmp_path, paths, first)
    assert set(found) == {digest_of(jpeg(1)), digest_of(jpeg(2))}
    assert len(first.asked) == 3
    second = Few()
    more = write(tmp_path / "photos", jpeg(3))
    again = run(tmp_path, paths | more, second)
    assert {digest: list(vector) for digest, vector in found.items()}.items() <= {
        digest: pytest.approx(list(vector), rel=1e-3) for digest, vector in again.items()
    }.items()
    assert [one for one in second.asked if one != b"no photo"] == [jpeg(3)]
    assert (tmp_path / CACHE).stat().st_mode & 0o077 == 0


def test_features_of_photos_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    run(tmp_path, write(tmp_path / "photos", jpeg(1), jpeg(2)), Few())
    run(tmp_path, write(tmp_path / "photos", jpeg(2), jpeg(3)), Few())
    assert set(KeptFeatures(tmp_path / CACHE, "few").read()) == {digest_of(jpeg(2)), digest_of(jpeg(3))}


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more", b"\x93NUMPY", "another"])
def test_a_cache_that_is_damaged_or_of_another_network_is_made_anew(damage: bytes | str, tmp_path: Path) -> None:
    paths = write(tmp_path / "photos", jpeg(1))
    run(tmp_path, paths, Few(key=damage if isinstance(damage, str) else "few"))
    if isinstance(damage, bytes):
        (tmp_path / CACHE).write_bytes(damage)
    again = Few()
    run(tmp_path, paths, again)
    assert again.asked == [jpeg(1)]
    assert set(KeptFeatures(tmp_path / CACHE, "few").read()) == set(paths)


def test_a_full_disk_costs_the_cache_alone(tmp_path: Path) -> None:
    paths = write(tmp_path / "photos", jpeg(1), jpeg(2))
    with small_disk(tmp_path / "disk", 64) as disk:
        fill(disk)
        assert set(run(disk, paths, Few())) == set(paths)
        assert not (disk / CACHE).exists()


def test_new_photos_are_looked_at_when_somebody_says_so_and_at_the_lowest_priority(tmp_path: Path) -> None:
    wanted, taken = write(tmp_path / "photos", jpeg(1)), Taken()
    few = Few()
    thread = FeatureThread(tmp_path, lambda: wanted, taken, lambda: few)
    thread.start()
    eventually(lambda: taken.features)
    (own,) = [one for one in threading.enumerate() if one.name == "features"]
    stat = Path(f"/proc/self/task/{own.native_id}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[16]) == 19  # nice, of that thread alone
    assert int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[16]) < 19
    wanted |= write(tmp_path / "photos", jpeg(2))
    thread.look()
    eventually(lambda: len(taken.features) == 2)
    thread.close()
    own.join(PATIENCE)
    assert not own.is_alive()


def test_a_close_waits_for_a_thread_that_is_still_loading(tmp_path: Path) -> None:
    def load() -> Few:
        time.sleep(6)  # as on a busy machine; the interpreter's end in the middle of it aborts the process
        return Few()

    thread = FeatureThread(tmp_path, dict, lambda _: None, load)
    thread.start()
    thread.close()
    assert "features" not in {one.name for one in threading.enumerate()}


def test_without_the_starter_nothing_is_lost_but_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def missing() -> Few:
        raise FileNotFoundError(MODEL_FILE)

    thread = FeatureThread(tmp_path, dict, lambda _: None, missing)
    thread.start()
    thread.close()
    assert MODEL_FILE in caplog.text
