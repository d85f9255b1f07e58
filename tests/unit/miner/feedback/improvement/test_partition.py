"""A label teaches and judges, but never the same model; the random tenth only judges, doubts of models only teach."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from detectors.photos.labelled import CLASSES
from miner.errors import ConfigurationError
from miner.feedback import BY_ANSWERS, Reason, is_sampled
from miner.feedback.improvement.partition import (
    FINAL,
    FOLDS,
    LEAST_LEARNT,
    MOST_REPEATS,
    PartPhoto,
    Source,
    facts_of,
    folded,
    lay_out,
    learnt_in,
    read_photo_table,
    refuse_too_few,
    repeats_of,
    source_of,
    unlabelled,
)
from miner.feedback.labels import Label, Labels, editing
from miner.feedback.traffic import RecordedPhoto
from tests.photos import fill


def photo(number: int, source: Source = "own", kind: str = "roadwork", fold: int | None = 0) -> PartPhoto:
    return PartPhoto(f"{kind}{number:04}", kind, source, "", fold, number)


def thumbnails(scenes: list[int]) -> list[np.ndarray]:
    return [np.random.default_rng(scene).integers(0, 256, (24, 24, 3), dtype=np.uint8) for scene in scenes]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def labelled(state: Path, photos: Path) -> Labels:
    """Label all photos of a folder as those of the traffic, but the last two, which are imported."""
    with editing(state) as labels:
        paths = sorted(photos.rglob("*.jpg"))
        for number, path in enumerate(paths):
            reason = "import" if number >= len(paths) - 2 else "random" if is_sampled(digest_of(path)) else "unsure"
            labels.put(Label(digest_of(path), path.parent.name, number, reason), path.read_bytes())  # type: ignore[arg-type]
    return Labels(state)


def test_folds_have_as_many_of_each_class_and_place_and_a_scene_is_in_one() -> None:
    photos = [photo(number, "own" if number % 3 else "labelled", CLASSES[number % 2]) for number in range(120)]
    scenes = [number // 5 * 100 + number % 2 for number in range(120)]  # two or three frames of each, of one class
    found = folded(photos, thumbnails(scenes), frozenset())
    by_scene: dict[int, set[int | None]] = {}
    for one in found:
        by_scene.setdefault(one.scene, set()).add(one.fold)
    assert len(by_scene) == 48
    assert all(len(folds) == 1 for folds in by_scene.values())
    counts = Counter((one.fold, one.kind) for one in found)
    assert {fold for fold, _ in counts} == set(range(FOLDS))
    assert max(counts.values()) - min(counts.values()) <= 3
    assert folded(photos[::-1], thumbnails(scenes[::-1]), frozenset()) != []


def test_nothing_learns_from_the_tenth_or_from_a_photo_of_its_scenes() -> None:
    photos = [photo(0, "random"), photo(1), photo(2), photo(3, "labelled")]
    tenth, same, other, traffic = folded(photos, thumbnails([7, 7, 8, 9]), frozenset())
    assert (tenth.fold, same.fold) == (None, None)
    assert None not in (other.fold, traffic.fold)


@pytest.mark.parametrize("reason", get_args(Reason))
def test_who_was_chosen_by_what_models_said_teaches_and_does_not_judge(reason: Reason) -> None:
    plain, sampled = "1" * 64, "0" * 64
    assert source_of(Label(sampled, "roadwork", 0, reason)) == ("own" if reason == "import" else "random")
    source = source_of(Label(plain, "roadwork", 0, reason))
    assert source == ("own" if reason == "import" else "chosen" if reason in BY_ANSWERS else "labelled")
    assert photo(0, source).judges == (reason in {"random", "unlike", "import"})


def test_what_serves_is_not_judged_by_a_scene_that_it_has_learnt() -> None:
    photos = [photo(number) for number in range(4)]
    found = folded(photos, thumbnails([1, 1, 2, 3]), frozenset({photos[0].digest, photos[2].digest}))
    assert [one.is_known for one in found] == [True, True, True, False]


def test_each_photo_judges_once_and_is_learnt_by_all_others(tmp_path: Path) -> None:
    fill(tmp_path / "own", 12, first_seed=500)
    labels = labelled(tmp_path / "labels", fill(tmp_path / "recorded", 20))
    folder = tmp_path / "photos"
    photos = lay_out(folder, labels, [tmp_path / "own"])
    assert read_photo_table(folder) == photos
    assert Counter(one.source == "own" for one in photos) == {False: 38, True: 26}
    for one in photos:
        places = sorted(path.relative_to(folder) for path in folder.rglob(f"{one.digest}.jpg"))
        assert len({path.stat().st_ino for path in folder.rglob(f"{one.digest}.jpg")}) == 1  # it lies there once
        name = FINAL if one.fold is None else str(one.fold)
        learning = [] if one.fold is None else [FINAL, *(str(fold) for fold in range(FOLDS) if fold != one.fold)]
        assert {path.parent.as_posix() for path in places} == {
            "store", f"judge/{one.place}/{name}/{one.kind}",
            *(f"learn/{fold}/{one.kind}/{one.place}" for fold in learning),
        }  # fmt: skip
    assert {one.digest for one in photos if one.source == "random"} <= {one.digest for one in photos if not one.fold}
    assert learnt_in(folder) == {one.digest for one in photos if one.fold is not None}
    assert learnt_in(tmp_path / "nowhere") == frozenset()
    assert lay_out(folder, labels, [tmp_path / "own"]) == photos  # again, as after a kill
    known = lay_out(folder, labels, [tmp_path / "own"], learnt_in(folder))
    assert all(one.is_known or one.fold is None for one in known)
    assert facts_of(known)["known"] >= 50


def test_a_label_goes_before_the_class_of_an_own_folder_and_what_is_in_both_is_nobodys(tmp_path: Path) -> None:
    own = fill(tmp_path / "own", 3, first_seed=500)
    labels = labelled(tmp_path / "labels", fill(tmp_path / "recorded", 3))
    first = labels.decided[0]
    other = next(kind for kind in CLASSES if kind != first.kind)
    (own / other / "mine.jpg").write_bytes(labels.path_of(first.digest).read_bytes())
    both = next((own / "roadwork").glob("*.jpg"))
    (own / "no_roadwork" / "both.jpg").write_bytes(both.read_bytes())
    damaged = own / "roadwork" / "damaged.jpg"
    damaged.write_bytes(b"\xff\xd8\xff")
    photos = {one.digest: one for one in lay_out(tmp_path / "photos", labels, [own])}
    assert photos[first.digest].kind == first.kind
    assert digest_of(both) not in photos
    assert digest_of(damaged) not in photos
    with pytest.raises(ConfigurationError):
        lay_out(tmp_path / "photos", labels, [tmp_path / "nowhere"])


def test_a_teacher_is_shown_nothing_that_has_a_label_or_is_of_the_tenth(tmp_path: Path) -> None:
    photos = sorted(fill(tmp_path / "recorded", 40).rglob("*.jpg"))
    traffic = {digest_of(path): RecordedPhoto(digest_of(path), path) for path in photos}
    free = [digest for digest in traffic if not is_sampled(digest)]
    with editing(tmp_path / "labels") as labels:
        labels.put(Label(free[0], "skip", 0.0, "unsure"), traffic[free[0]].path.read_bytes())
    traffic[free[1]].path.unlink()  # the recorder has removed it
    count = unlabelled(tmp_path / "unlabelled", Labels(tmp_path / "labels"), traffic)
    shown = {digest_of(path) for path in (tmp_path / "unlabelled").iterdir()}
    assert len(shown) == count > 20
    assert shown <= {*free[2:]}


def test_too_few_photos_name_the_class_and_how_many_more() -> None:
    enough = [photo(number) for number in range(LEAST_LEARNT)]
    refuse_too_few([*enough, *(photo(number, kind="no_roadwork") for number in range(LEAST_LEARNT))])
    with pytest.raises(ConfigurationError) as raised:
        refuse_too_few([*enough, *(photo(number, kind="no_roadwork") for number in range(LEAST_LEARNT - 3))])
    (line,) = str(raised.value).splitlines()
    assert "'no_roadwork'" in line
    assert "3 more" in line


def test_the_traffic_counts_as_much_as_the_own_photos_within_reason() -> None:
    def repeats(own: int, traffic: int) -> int:
        return repeats_of(
            [photo(one, "own") for one in range(own)] + [photo(one, "labelled") for one in range(traffic)]
        )

    assert [repeats(*counts) for counts in ((0, 5), (5, 0), (10, 10), (30, 10), (10, 30), (1000, 10))] == [
        1, 1, 1, 3, 1, MOST_REPEATS,
    ]  # fmt: skip
