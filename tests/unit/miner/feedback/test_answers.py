"""The random tenth's photos, what models are told apart by, and the answers that are kept."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from detectors.base import Detector, RunOptions
from detectors.load import PreparedModel, load_detector
from detectors.models.calibration import Calibration
from detectors.models.config import read_config
from detectors.models.sources import named_model
from detectors.models.store import store_calibration
from miner.feedback import FOLDER
from miner.feedback.answers import (
    AnswerCache,
    TrafficSample,
    answers_to,
    detector_fingerprint,
    fingerprint_of,
    prepared_fingerprint,
)
from miner.feedback.labels import Labels, editing
from tests.labels import label

STARTER = Path(__file__).parents[4] / "detectors" / "starter"


@pytest.fixture(scope="module")
def starter() -> Detector:
    return load_detector("ViT", read_config("starter.yaml"), Path("unused"), "onnx", RunOptions())


def read(state: Path) -> TrafficSample:
    return TrafficSample.read(Labels(state / FOLDER))


def test_only_the_random_tenth_is_judged_and_nothing_that_was_imported_or_skipped(tmp_path: Path) -> None:
    counted = label(tmp_path, 2)
    label(tmp_path, 1, first=10, sampled=False)
    label(tmp_path, 1, first=20, reason="import")
    label(tmp_path, 1, first=30, kind="skip")
    sample = read(tmp_path)
    assert [photo.digest for photo in sample.photos] == sorted(counted)
    assert sample.labels.sum() == 2
    assert len(set(sample.groups.tolist())) == 4


def test_an_instructive_photo_of_the_random_tenth_counts_as_well(tmp_path: Path) -> None:
    assert [photo.digest for photo in read(tmp_path).photos] == []
    counted = label(tmp_path, 1, reason="unsure")
    assert [photo.digest for photo in read(tmp_path).photos] == sorted(counted)


def test_thumbnails_are_remembered_and_a_damaged_memory_is_none(tmp_path: Path) -> None:
    label(tmp_path, 2)
    first = read(tmp_path)
    assert first.is_new
    first.keep()
    again = read(tmp_path)
    assert not again.is_new
    assert again.photos == first.photos
    assert all(np.array_equal(a.thumbnail, b.thumbnail) for a, b in zip(again.photos, first.photos, strict=True))
    (memory,) = (tmp_path / FOLDER / "answers").iterdir()
    memory.write_bytes(memory.read_bytes()[:100])
    assert read(tmp_path).photos == first.photos


def test_a_file_that_is_not_the_photo_of_its_name_is_left_out(tmp_path: Path) -> None:
    digest, other, *_ = label(tmp_path, 1)
    labels = Labels(tmp_path / FOLDER)
    labels.path_of(digest).write_bytes(labels.path_of(other).read_bytes())
    sample = read(tmp_path)
    assert [photo.digest for photo in sample.photos] == [other]
    assert digest in sample.left_out[0]


def test_answers_are_kept_by_model_and_photo(tmp_path: Path, starter: Detector) -> None:
    label(tmp_path, 2)
    sample = read(tmp_path)
    cache = AnswerCache(tmp_path / FOLDER, "starter", "f", "fp32")
    assert cache.missing(sample.photos) == sample.photos
    cache.ask(starter, sample.photos)
    again = AnswerCache(tmp_path / FOLDER, "starter", "f", "fp32")
    assert again.missing(sample.photos) == []
    expected = [starter.predict(photo.path.read_bytes()).probability for photo in sample.photos]
    assert answers_to(again.said, sample.photos).tolist() == pytest.approx(expected)
    assert AnswerCache(tmp_path / FOLDER, "starter", "g", "fp32").said == {}
    assert AnswerCache(tmp_path / FOLDER, "starter", "f", "int8").said == {}
    again.path.write_text("{")
    assert AnswerCache(tmp_path / FOLDER, "starter", "f", "fp32").said == {}


def test_what_was_answered_before_a_stop_is_kept(tmp_path: Path, starter: Detector) -> None:
    label(tmp_path, 2)
    sample, done = read(tmp_path), iter((None, None))

    def tell() -> None:
        if next(done, "over") == "over":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        AnswerCache(tmp_path / FOLDER, "s", "f", "fp32").ask(starter, sample.photos, tell)
    assert len(AnswerCache(tmp_path / FOLDER, "s", "f", "fp32").missing(sample.photos)) == 1


def test_one_who_labels_does_not_keep_others_from_reading(tmp_path: Path) -> None:
    label(tmp_path, 1)
    with editing(tmp_path / FOLDER):
        assert len(read(tmp_path).photos) == 2


def test_a_model_on_the_disk_and_the_one_that_is_loaded_have_one_fingerprint(starter: Detector, tmp_path: Path) -> None:
    prepared = PreparedModel.find(read_config("starter.yaml"), tmp_path, ())
    assert prepared_fingerprint(prepared) == detector_fingerprint(starter)


def test_another_threshold_class_or_revision_is_another_model_and_another_measurement_is_not(starter: Detector) -> None:
    manifest = starter.manifest
    moved = manifest.model_copy(update={"calibration": Calibration(threshold=0.4, temperature=1.0)})
    others = [manifest.model_copy(update={"revision": "x"}), moved,
              manifest.model_copy(update={"output": manifest.output.model_copy(update={"index": 0})})]  # fmt: skip
    assert len({fingerprint_of(one) for one in (manifest, *others)}) == 4
    faster = manifest.model_copy(update={"precision": "int8", "backend": "onnx", "predictions": [0.1] * 10})
    assert fingerprint_of(faster) == fingerprint_of(manifest)


def test_a_calibration_that_is_stored_makes_another_fingerprint(tmp_path: Path) -> None:
    shutil.copytree(STARTER, tmp_path / "mine")
    before = prepared_fingerprint(PreparedModel.find(named_model(str(tmp_path / "mine")), tmp_path, ()))
    store_calibration(tmp_path / "mine", Calibration(threshold=0.4, temperature=1.0))
    assert prepared_fingerprint(PreparedModel.find(named_model(str(tmp_path / "mine")), tmp_path, ())) != before
