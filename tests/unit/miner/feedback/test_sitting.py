"""A sitting: what is shown, what is said, and what is taken back; on real files."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from miner.feedback import is_sampled
from miner.feedback.labels import TABLE, Label, Labels, editing
from miner.feedback.sitting import AHEAD, Sitting
from miner.feedback.traffic import read_traffic, state_of
from miner.recorder.records import IMAGES
from tests.feedback import BEGAN, digest_of, jpeg, photos, record


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """Return a recorder's folder with twelve photos, of which three are of the random tenth."""
    plain, sampled = photos(sampled=False), photos(sampled=True)
    said: dict[bytes, float | None] = {next(plain): 0.05 + number / 10 for number in range(9)}
    record(tmp_path / "recorder", said | {next(sampled): 0.9 for _ in range(3)})
    return tmp_path / "recorder"


def begin(recorder: Path) -> Sitting:
    sitting = Sitting(Labels(recorder.parent / "labels"), clock=lambda: BEGAN)
    sitting.take_in(read_traffic(recorder))
    return sitting


def shown(sitting: Sitting) -> str:
    photo = sitting.view().photo
    assert photo is not None
    return photo.digest


def test_the_next_photos_are_told_and_stay_so_whatever_comes(recorder: Path) -> None:
    sitting = begin(recorder)
    view = sitting.view()
    assert view.photo is not None
    coming = [view.photo.digest, *view.following]
    assert len(set(coming)) == AHEAD + 1
    sitting.know({digest: np.array([1, number], dtype=np.float32) for number, digest in enumerate(coming)})
    record(recorder, dict.fromkeys((jpeg(700), jpeg(701)), 0.5))
    for expected in coming:
        sitting.take_in(read_traffic(recorder))
        assert shown(sitting) == expected
        sitting.label(expected, "roadwork")


def test_all_are_shown_once_and_told_apart(recorder: Path) -> None:
    sitting, seen = begin(recorder), list[str]()
    while (photo := sitting.view().photo) is not None:
        assert photo.label is None
        assert (photo.reason == "random") == is_sampled(photo.digest)
        seen.append(photo.digest)
        sitting.label(photo.digest, "skip" if len(seen) == 5 else "roadwork" if len(seen) % 2 else "no_roadwork")
    assert Counter(seen) == Counter(path.stem for path in (recorder / IMAGES).iterdir())
    tally = sitting.tally()
    assert (tally.labelled, tally.waiting, tally.skipped, tally.sampled) == (11, 0, 1, 3)
    assert tally.surprises == sum(label.is_surprise for label in Labels(recorder.parent / "labels"))
    again = begin(recorder)
    assert again.view().photo is None
    assert again.tally() == tally


def test_a_label_says_why_when_and_what_the_miner_had_said_also_after_it_was_changed(recorder: Path) -> None:
    sitting = begin(recorder)
    photo = sitting.view().photo
    assert photo is not None
    sitting.label(photo.digest, "roadwork")
    first = sitting.labels.get(photo.digest)
    assert first == Label(photo.digest, "roadwork", BEGAN, first.reason, photo.prediction)  # type: ignore[union-attr]
    later = Sitting(Labels(recorder.parent / "labels"), clock=lambda: BEGAN + 100)
    later.label(photo.digest, "no_roadwork")
    with (recorder.parent / "labels" / TABLE).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["kind"] == "no_roadwork"
    assert (float(row["at"]), float(row["prediction"])) == (BEGAN, photo.prediction)


def test_undo_goes_back_step_by_step_and_ends(recorder: Path) -> None:
    sitting = begin(recorder)
    states = []
    for kind in ("roadwork", "skip", "no_roadwork"):
        states.append((shown(sitting), [(label.digest, label.kind) for label in sitting.labels]))
        sitting.label(shown(sitting), kind)  # type: ignore[arg-type]
    first = states[0][0]
    sitting.label(first, "no_roadwork")  # changed
    assert sitting.view().undoable == 4
    assert sitting.undo() == first
    assert sitting.labels.get(first).kind == "roadwork"  # type: ignore[union-attr]
    for expected, labels in reversed(states):
        assert sitting.undo() == expected
        assert shown(sitting) == expected
        assert [(label.digest, label.kind) for label in Labels(recorder.parent / "labels")] == labels
    assert sitting.undo() is None
    assert sitting.tally().waiting == 12


def test_undo_goes_on_past_a_photo_that_somebody_has_removed(recorder: Path) -> None:
    sitting = begin(recorder)
    given = []
    for _ in range(2):
        given.append(shown(sitting))
        sitting.label(given[-1], "roadwork")
    sitting.labels.path_of(given[1]).unlink()
    assert [sitting.undo(), sitting.undo()] == given[::-1]
    assert len(Labels(recorder.parent / "labels")) == 0


def test_a_photo_that_is_looked_at_can_be_labelled_though_the_recorder_has_deleted_it(recorder: Path) -> None:
    sitting = begin(recorder)
    digest = shown(sitting)
    data = sitting.photo(digest)
    (recorder / IMAGES / f"{digest}.jpg").unlink()
    sitting.take_in(read_traffic(recorder))
    assert shown(sitting) == digest
    sitting.label(digest, "roadwork")
    assert sitting.labels.path_of(digest).read_bytes() == data
    assert sitting.undo() == digest
    sitting.take_in(read_traffic(recorder))
    assert digest in sitting.wanted()
    assert sitting.photo(digest) == data


def test_a_photo_that_is_gone_gives_its_place_up(recorder: Path) -> None:
    sitting = begin(recorder)
    digest = shown(sitting)
    (recorder / IMAGES / f"{digest}.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        sitting.photo(digest)
    assert shown(sitting) != digest
    with pytest.raises(FileNotFoundError):
        sitting.label(digest, "roadwork")
    assert len(Labels(recorder.parent / "labels")) == 0


def test_a_photo_that_is_not_what_its_name_says_is_none(recorder: Path) -> None:
    sitting = begin(recorder)
    digest = shown(sitting)
    (recorder / IMAGES / f"{digest}.jpg").write_bytes(jpeg(999))
    with pytest.raises(FileNotFoundError):
        sitting.photo(digest)


@pytest.mark.parametrize("name", ["", "..", "../recorder/requests-1", "0" * 64, digest_of(b"x")])
def test_nothing_else_can_be_read(name: str, recorder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        begin(recorder).photo(name)


def test_one_walks_through_labelled_photos_of_all_sittings(recorder: Path) -> None:
    order = []
    for _ in range(2):
        sitting = begin(recorder)
        for _ in range(2):
            order.append(shown(sitting))
            sitting.label(order[-1], "roadwork")
    order = [label.digest for label in sitting.labels]
    back, at = [], None
    while (photo := sitting.beside(at, "before")) is not None:
        assert photo.label == "roadwork"
        at = photo.digest
        back.append(at)
    assert back == order[::-1]
    on = [back[-1]]
    while (photo := sitting.beside(on[-1], "after")) is not None:
        on.append(photo.digest)
    assert on == order
    assert sitting.beside(shown(sitting), "before").digest == order[-1]  # type: ignore[union-attr]
    assert sitting.beside(None, "after") is None


def test_what_was_undone_waits_in_the_next_sitting_without_a_recorder(recorder: Path) -> None:
    sitting = begin(recorder)
    digest = shown(sitting)
    sitting.label(digest, "roadwork")
    sitting.undo()
    with editing(recorder.parent / "labels") as labels:
        alone = Sitting(labels)
        alone.take_in({})
        assert shown(alone) == digest
        alone.label(digest, "no_roadwork")
        assert alone.view().photo is None


def test_the_traffic_tells_when_there_is_news(recorder: Path, tmp_path: Path) -> None:
    before = state_of(recorder)
    assert state_of(recorder) == before
    record(recorder, {jpeg(500): 0.5})
    assert state_of(recorder) != before
    assert state_of(tmp_path / "none") == state_of(tmp_path / "none")
    assert read_traffic(tmp_path / "none") == {}
