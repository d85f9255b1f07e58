"""The file of the standing: who writes it, what it counts, and what a daemon makes of it."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from detectors.evaluation.estimates import wilson
from detectors.evaluation.reward import PromisedAccuracy
from miner.feedback import FOLDER, IMPROVEMENTS
from miner.feedback.answers import AnswerCache, TrafficSample
from miner.feedback.labels import TABLE, Labels, editing
from miner.feedback.standing import (
    FILE,
    IntervalView,
    ModelStanding,
    PhotoCounts,
    StandingView,
    StandingWatch,
    count_photos,
    last_improvement,
    renew_standing,
    standing_now,
)
from tests.labels import AT, label, record

MODEL = ModelStanding(
    name="starter", fingerprint="f", precision="fp32", photos=84, right=78,
    accuracy=IntervalView(value=0.929, low=0.853, high=0.967), promised=0.95, promised_photos=78,
)  # fmt: skip


def ended(state: Path, name: str, content: object) -> None:
    path = state / IMPROVEMENTS / name / "state.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_photos_are_counted_by_class_and_by_what_waits(tmp_path: Path) -> None:
    label(tmp_path, 2, prediction=0.9)
    label(tmp_path, 1, first=10, sampled=False, reason="unsure", prediction=0.9)
    label(tmp_path, 1, first=20, kind="skip")
    record(tmp_path, 3, first=40)
    record(tmp_path, 2, first=50, sampled=True)
    with editing(tmp_path / FOLDER) as labels:
        back = label_of_works = next(one for one in labels if one.is_roadwork)
        labels.take_back(back.digest)
    found = count_photos(tmp_path)
    assert found.labelled == {"roadwork": 2, "no_roadwork": 3}
    assert (found.skipped, found.sampled, found.outside) == (2, 3, 2)
    assert (found.surprises, found.surprises_outside) == (3, 1)
    assert (found.waiting, found.waiting_sampled) == (6, 3)
    assert label_of_works.digest in Labels(tmp_path / FOLDER).undecided()


def test_nothing_is_there_to_be_counted(tmp_path: Path) -> None:
    assert count_photos(tmp_path) == PhotoCounts(labelled={"roadwork": 0, "no_roadwork": 0})


def test_files_of_other_names_are_nobodys_photos(tmp_path: Path) -> None:
    label(tmp_path, 1)
    record(tmp_path, 1, first=10)
    for name in ("notes.jpg", f"{'z' * 64}.jpg", f"{'A' * 64}.png"):
        for folder in (tmp_path / FOLDER / "roadwork", tmp_path / "recorder" / "images"):
            (folder / name).write_bytes(b"x")
    found = count_photos(tmp_path)
    assert (found.decided, found.waiting) == (2, 1)


def test_the_last_improvement_is_the_one_that_ended_last(tmp_path: Path) -> None:
    assert last_improvement(tmp_path) is None
    ended(tmp_path, "2026-01-01-0100", {"ended": 100.0, "gain": 0.03, "promoted": True})
    ended(tmp_path, "2026-01-02-0100", {"ended": 300, "gain": {"value": -0.01, "low": -0.1}, "promoted": False})
    ended(tmp_path, "2026-01-03-0100", {"step": "training"})
    for number, strange in enumerate(("{", "[]", '"x"', {"ended": "noon"}, {"ended": None}, {"ended": float("inf")})):
        ended(tmp_path, f"strange{number}", strange)
    found = last_improvement(tmp_path)
    assert found is not None
    assert (found.at, found.gain, found.promoted) == (300.0, -0.01, False)


def test_an_improvement_that_says_little_is_shown_all_the_same(tmp_path: Path) -> None:
    ended(tmp_path, "one", {"ended": 5, "gain": "much", "promoted": "yes"})
    found = last_improvement(tmp_path)
    assert found is not None
    assert (found.at, found.gain, found.promoted) == (5.0, None, None)


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    label(tmp_path, 1)
    view = standing_now(tmp_path, Labels(tmp_path / FOLDER), MODEL, AT)
    view.write(tmp_path)
    assert StandingView.read(tmp_path) == view
    assert list((tmp_path / FOLDER).glob("*.partial")) == []
    (tmp_path / FOLDER / FILE).write_text('{"at": -1}')
    assert StandingView.read(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_writes_as_the_owner_of_the_folder() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        state = Path(name)
        label(state, 1)
        state.chmod(0o755)
        for path in (state, *state.rglob("*")):
            os.chown(path, 4321, 4321)
        sample = TrafficSample.read(Labels(state / FOLDER))
        sample.keep()
        AnswerCache(state / FOLDER, "starter", "f", "fp32").keep()
        standing_now(state, Labels(state / FOLDER), MODEL, AT).write(state)
        assert {path.stat().st_uid for path in state.rglob("*")} == {4321}


@pytest.mark.parametrize(
    ("high", "promised", "below"), [(0.967, 0.95, False), (0.9, 0.95, True), (0.9, None, False), (0.95, 0.95, False)]
)
def test_it_is_below_the_promise_where_that_is_beyond_chance(high: float, promised: float | None, below: bool) -> None:
    accuracy = IntervalView(value=0.85, low=0.8, high=high)
    assert MODEL.model_copy(update={"accuracy": accuracy, "promised": promised}).is_below_promise is below
    assert not MODEL.model_copy(update={"accuracy": None, "promised": promised}).is_below_promise


@pytest.mark.parametrize(("photos", "below"), [(40, False), (4000, True)])
def test_a_promise_that_rests_on_few_photos_is_contradicted_by_more(photos: int, below: bool) -> None:
    accuracy = IntervalView(value=0.92, low=0.893, high=0.941)  # of 500 labels
    assert MODEL.model_copy(update={"accuracy": accuracy, "promised_photos": photos}).is_below_promise is below


def test_a_model_as_good_as_promised_is_seldom_called_worse() -> None:
    random, count, promising, share, called = np.random.default_rng(0), 500, 100, 0.9, 0
    for _ in range(2000):
        seen = wilson(random.binomial(count, share) / count, count)
        model = MODEL.model_copy(
            update={
                "accuracy": IntervalView.of(seen),
                "promised": random.binomial(promising, share) / promising,
                "promised_photos": promising,
            }
        )
        called += model.is_below_promise
    assert called <= 2000 * 0.035


def test_labelling_renews_the_figures_by_the_answers_that_were_kept(tmp_path: Path) -> None:
    digests = label(tmp_path, 6)
    labels = Labels(tmp_path / FOLDER)
    cache = AnswerCache(tmp_path / FOLDER, "starter", "f", "fp32")
    cache.said.update({digest: 0.9 if number % 2 else 0.1 for number, digest in enumerate(digests)})
    cache.keep()
    standing_now(tmp_path, labels, MODEL, AT).write(tmp_path)
    renewed = renew_standing(tmp_path, labels, AT + 1)
    assert renewed.model is not None
    assert (renewed.model.photos, renewed.model.right) == (12, 12)
    assert renewed.model.accuracy is not None
    assert renewed.model.accuracy.value == 1.0
    assert renewed.model.promised == 0.95

    label(tmp_path, 1, first=100)  # nobody was asked about these
    with editing(tmp_path / FOLDER) as labels:
        first = labels.get(digests[0])
        assert first is not None
        data = labels.path_of(first.digest).read_bytes()
        labels.put(type(first)(first.digest, "roadwork", AT, first.reason, first.prediction), data)
        renewed = renew_standing(tmp_path, labels, AT + 2)
    assert renewed.model is not None
    assert (renewed.model.photos, renewed.model.right, renewed.photos.sampled) == (12, 11, 14)
    assert StandingView.read(tmp_path) == renewed


def test_labelling_before_anything_was_measured_counts(tmp_path: Path) -> None:
    label(tmp_path, 1)
    renewed = renew_standing(tmp_path, Labels(tmp_path / FOLDER), AT)
    assert (renewed.model, renewed.photos.sampled) == (None, 2)
    assert StandingView.read(tmp_path) == renewed


def test_a_daemon_shows_what_is_there_and_counts_what_comes(tmp_path: Path) -> None:
    watch = StandingWatch(tmp_path)
    watch.read()
    assert watch.view is None
    record(tmp_path, 2, first=0)
    watch.read()
    assert watch.view is not None
    assert (watch.view.photos.waiting, watch.view.model) == (2, None)
    label(tmp_path, 1, first=10)
    standing_now(tmp_path, Labels(tmp_path / FOLDER), MODEL, AT).write(tmp_path)
    record(tmp_path, 1, first=20)
    ended(tmp_path, "one", {"ended": 7})
    watch.read()
    assert watch.view.photos.waiting == 3
    assert watch.view.photos.sampled == 2
    assert watch.view.model == MODEL
    assert watch.view.improvement is not None


def test_a_table_that_is_damaged_ends_no_daemon(tmp_path: Path) -> None:
    label(tmp_path, 1)
    standing_now(tmp_path, Labels(tmp_path / FOLDER), MODEL, AT).write(tmp_path)
    (tmp_path / FOLDER / TABLE).write_text("digest,kind\nx,what\n")
    watch = StandingWatch(tmp_path)
    watch.read()
    assert watch.view is not None
    assert watch.view.photos.sampled == 2  # as the file has it


def test_figures_of_another_model_are_not_of_the_one_that_serves(tmp_path: Path) -> None:
    label(tmp_path, 1)
    standing_now(tmp_path, Labels(tmp_path / FOLDER), MODEL, AT).write(tmp_path)
    watch = StandingWatch(tmp_path)
    watch.read()
    other, own = watch.of("g", PromisedAccuracy(0.9, 50)), watch.of("f", PromisedAccuracy(0.9, 50))
    assert other is not None
    assert own is not None
    assert (other.is_current, own.is_current) == (False, True)
    assert own.model is not None
    assert (own.model.promised, own.model.promised_photos) == (0.9, 50)
