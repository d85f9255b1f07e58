"""Thresholds, combinations and the file between them."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from detectors.errors import DetectorConfigError
from detectors.evaluation.branch_file import BranchFile, write_ensemble
from detectors.evaluation.combine import calibrate, folds, judge_ways
from detectors.evaluation.estimates import reward_of
from detectors.evaluation.evaluate import in_words, judge, leads, warnings
from detectors.evaluation.fitters import best_temperature, best_threshold
from detectors.models.calibration import CrossValidation, Fusion, Stage, log_odds, logistic
from detectors.models.config import read_config

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.random(1200) < 0.8
GOOD = logistic(np.where(LABELS, 2.0, -2.0) + RANDOM.normal(0, 2, len(LABELS)))
OTHER = logistic(np.where(LABELS, 2.0, -2.0) + RANDOM.normal(0, 2, len(LABELS)))
OFF = logistic(log_odds(GOOD) + 1.5)  # as sure of works as data with too many of them make it


def test_the_threshold_is_found_where_it_was_moved_to() -> None:
    assert best_threshold(LABELS, GOOD) == pytest.approx(0.5, abs=0.15)
    assert best_threshold(LABELS, OFF) == pytest.approx(float(logistic(np.array(1.5))), abs=0.1)
    best = max(reward_of(LABELS, cut < OFF) for cut in np.linspace(0.01, 0.99, 99))
    assert reward_of(LABELS, best_threshold(LABELS, OFF) < OFF) > best - 0.01


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.3, 0.3]])
def test_a_threshold_is_always_within(values: list[float]) -> None:
    assert 0 < best_threshold(np.array([False, True]), np.array(values)) < 1


def test_the_temperature_undoes_too_sure_a_model() -> None:
    sure = logistic(3 * log_odds(GOOD))
    assert best_temperature(LABELS, sure, 0.5) == pytest.approx(3 * best_temperature(LABELS, GOOD, 0.5), rel=0.1)


@pytest.mark.slow
def test_a_calibration_pays_where_the_threshold_is_off_and_is_noise_where_it_is_not() -> None:
    calibration, gain = calibrate(LABELS, OFF)
    assert gain.low > 0
    assert reward_of(LABELS, calibration(OFF) > 0.5) == pytest.approx(reward_of(LABELS, GOOD > 0.5), abs=0.05)
    evidence = calibration.evidence
    assert evidence is not None
    assert evidence.reward - evidence.reward_before == pytest.approx(gain.value, abs=1e-3)
    assert calibrate(LABELS, GOOD)[1].is_noise


def test_the_file_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "b.npz"
    eras = np.where(np.arange(1200) % 3, "letterbox", "native")
    BranchFile(LABELS, {"a": GOOD}, {"a": {"hf_repo": "x/y"}}, seconds={"a": 0.02}, eras=eras).write(path)
    found = BranchFile.read(path)
    assert (found.labels == LABELS).all()
    assert (found.branches["a"] == GOOD).all()
    assert found.sources == {"a": {"hf_repo": "x/y"}}
    assert found.seconds == {"a": 0.02}
    assert found.eras is not None
    assert found.eras.tolist() == eras.tolist()
    part = found.only(np.flatnonzero(eras == "native"))
    assert part.branches["a"].tolist() == GOOD[::3].tolist()
    assert part.eras is not None
    assert set(part.eras.tolist()) == {"native"}


def test_a_file_of_an_older_version_knows_neither_seconds_nor_eras(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", labels=LABELS.astype(int), seconds=GOOD, eras=OTHER)
    found = BranchFile.read(tmp_path / "b.npz")
    assert list(found.branches) == ["seconds", "eras"]  # which others may have called their models
    assert (found.seconds, found.eras) == ({}, None)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"p_a": GOOD}, "`labels`"),
        ({"labels": np.ones(3), "a": np.ones(3)}, "both of them"),
        ({"labels": LABELS}, "array of probabilities"),
        ({"labels": LABELS, "a": GOOD[1:]}, "a has shape"),
        ({"labels": LABELS, "a": GOOD + 1}, "a holds .* probability"),
        ({"labels": LABELS, "a": GOOD * np.nan}, "not a probability"),
        ({"labels": LABELS, "a": np.array([{}] * 1200)}, "can't be read"),
        ({"labels": LABELS, "a": GOOD, "eras": np.array(["native"])}, "eras has shape"),
        ({"labels": LABELS, "a": GOOD, "seconds": np.array(["0.1", "0.2"])}, "seconds is no JSON"),
        ({"labels": LABELS, "a": GOOD, "seconds": np.array('{"a": 0}')}, "seconds is no JSON .*greater than 0"),
        ({"labels": LABELS, "a": GOOD, "sources": np.array("[]")}, "sources is no JSON"),
    ],
)
def test_a_file_that_is_not_of_its_kind_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], fault: str) -> None:
    np.savez(tmp_path / "b.npz", allow_pickle=True, **arrays)
    with pytest.raises(DetectorConfigError, match=fault):
        BranchFile.read(tmp_path / "b.npz")


def test_others_prefix_is_no_part_of_a_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", labels=LABELS.astype(int), p_vit=GOOD.astype(np.float32))
    assert list(BranchFile.read(tmp_path / "b.npz").branches) == ["vit"]
    (tmp_path / "c.npz").write_bytes(b"nothing")
    with pytest.raises(DetectorConfigError, match="can't be read"):
        BranchFile.read(tmp_path / "c.npz")


def test_an_ensembles_file_is_made_or_its_fusion_replaced(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    fusion = Fusion(kind="logistic", branches=["a", "b"], weights=[1.0, 2.0], bias=-1.0, threshold=0.6)
    sources = {"a": {"detector": "ViT", "hf_repo": "x/y"}, "b": {"detector": "ViT", "hf_repo": "x/z"}}
    write_ensemble(path, fusion, [], sources)
    assert read_config(str(path)).fusion == fusion
    path.write_text(path.read_text() + "more: kept\n")
    write_ensemble(path, Fusion(branches=["a", "b"]), [], {})
    assert yaml.safe_load(path.read_text())["more"] == "kept"
    config = read_config(str(path))
    assert config.fusion == Fusion(branches=["a", "b"])
    assert config.branches is not None
    assert config.branches["b"].hf_repo == "x/z"
    figures = CrossValidation(photos=9, accuracy=0.9, mcc=0.8, reward=0.7, reward_low=0.6, reward_high=0.8)
    stage = Stage(branches=["a"], threshold=0.4, band=(0.1, 0.9), measured=figures)
    write_ensemble(path, Fusion(branches=["a", "b"]), [], {}, [stage])
    assert read_config(str(path)).stages == [stage]
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"stages": [], "threshold": 0.3}))
    assert read_config(str(path)).threshold == 0.3
    write_ensemble(path, Fusion(branches=["a", "b"]), [], {}, [stage])
    assert read_config(str(path)).stages == [stage]
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"stages": [], "threshold": 0.3}))
    write_ensemble(path, Fusion(branches=["a", "b"]), [], {})
    config = read_config(str(path))
    assert (config.stages, config.threshold) == ([], None)
    with pytest.raises(DetectorConfigError, match="the branch 'c'"):
        write_ensemble(path, Fusion(branches=["c"]), [], {})


@pytest.mark.slow
def test_figures_are_those_of_scikit_learn_and_the_better_is_named() -> None:
    seconds = np.full(len(LABELS), 0.02)
    figures = judge(LABELS, GOOD, seconds)
    assert figures.accuracy.value == pytest.approx(((GOOD > 0.5) == LABELS).mean())
    assert (figures.photos, figures.seconds) == (1200, 0.02)
    assert figures.brier == pytest.approx(((GOOD - LABELS) ** 2).mean())
    assert np.isnan(judge(LABELS, GOOD * 0, seconds).precision)
    assert figures.auc == pytest.approx(roc_auc_score(LABELS, GOOD))
    both = {"good": figures, "bad": judge(LABELS, 1 - GOOD, seconds)}
    (warned,) = warnings({"good": "class 1 'works' of clear, works", "bad": "class 0 'clear' of clear, works"}, both)
    assert warned.startswith("bad reversed?")
    assert "class 0 'clear'" in warned
    best, gains = leads(LABELS, {"dice": RANDOM.random(1200), "good": GOOD, "same": GOOD.copy()})
    assert best == "good"
    better, chance = in_words(best, gains)
    assert better.startswith("good is better")
    assert "may be chance" in chance


def test_answers_that_flipped_would_be_better_are_doubted_though_their_order_is_right() -> None:
    # Of each class most lie on the wrong side of a half, and yet works are on top of clear roads more often than not.
    works, clear = [0.9] * 40 + [0.4] * 60, [0.6] * 60 + [0.1] * 40
    labels = np.array([True] * 100 + [False] * 100)
    figures = judge(labels, np.array(works + clear), np.zeros(200))
    assert figures.auc > figures.auc_low
    assert figures.balanced_accuracy == pytest.approx(0.4)
    assert figures.reversed
    assert "40.0%" in figures.doubt
    assert "60.0%" in figures.doubt
    few = judge(labels[::20], np.array(works + clear)[::20], np.zeros(10))  # as far off, but of ten photos
    assert not few.reversed
    assert few.doubt == ""


FEW = np.array([True] * 3 + [False] * 30)


@pytest.mark.parametrize(
    ("labels", "groups", "words"),
    [
        pytest.param(FEW, None, "3 photos of 'roadwork' .*--folds 3, ", id="few"),
        pytest.param(~FEW, None, "the 3 photos of 'no_roadwork' are fewer", id="the other class"),
        pytest.param(FEW[2:], None, "1 photo of 'roadwork' .*: more photos", id="one"),
        pytest.param(FEW[3:], None, "the 0 photos of 'roadwork' are fewer", id="none"),
        pytest.param(
            LABELS, np.where(LABELS, np.arange(1200) % 4, 9 + np.arange(1200)), "the 4 scenes of", id="scenes"
        ),
    ],
)
@pytest.mark.slow
def test_too_few_photos_for_the_folds_are_refused(labels: np.ndarray, groups: np.ndarray | None, words: str) -> None:
    said = RANDOM.random(len(labels))
    for decide in (
        lambda: calibrate(labels, said, groups=groups),
        lambda: judge_ways(labels, {"a": said}, groups=groups),
    ):
        with pytest.raises(DetectorConfigError, match=words):
            decide()


def scenes(*counts: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and groups of scenes with so many photos with and without works."""
    labels = np.concatenate([np.arange(works + clear) < works for works, clear in counts])
    return labels, np.repeat(np.arange(len(counts)), [works + clear for works, clear in counts])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "count"),
    [
        pytest.param([(5, 27), (25, 9), (21, 0), (11, 0)], 2, id="a fold"),
        pytest.param([(16, 1), (14, 1), (52, 15), (8, 0), (36, 0)], 3, id="the rest of two folds"),
    ],
)
@pytest.mark.parametrize(("turned", "kind"), [(False, "'no_roadwork'"), (True, "'roadwork'")])
def test_scenes_that_leave_nothing_to_fit_to_are_refused(
    counts: list[tuple[int, int]], count: int, turned: bool, kind: str
) -> None:
    labels, groups = scenes(*counts)
    labels = labels ^ turned
    said = {"a": np.random.default_rng(0).random(len(labels))}
    with pytest.raises(DetectorConfigError, match=f"of {kind} fill {count - 1} of {count} folds"):
        judge_ways(labels, said, count, groups=groups)
    if count == 2:
        with pytest.raises(DetectorConfigError, match=f"of {kind} fill 1 of 2 folds"):
            calibrate(labels, said["a"], count, groups=groups)
    else:  # whose only rest has both classes
        assert calibrate(labels, said["a"], count, groups=groups)


def test_near_identical_photos_are_in_one_fold() -> None:
    groups = np.arange(1200) // 3  # three of each scene
    labels = np.repeat(LABELS[:400], 3)
    seen_twice = [np.intersect1d(groups[seen], groups[held]).size for seen, held in folds(labels, groups, 5, seed=0)]
    assert seen_twice == [0] * 5
    assert any(np.intersect1d(groups[s], groups[h]).size for s, h in folds(labels, None, 5, seed=0))


def test_the_file_knows_near_identical_photos(tmp_path: Path) -> None:
    path = tmp_path / "b.npz"
    BranchFile(LABELS, {"a": GOOD}, groups=np.arange(1200) // 2).write(path)
    found = BranchFile.read(path)
    assert found.groups is not None
    assert found.groups.tolist() == (np.arange(1200) // 2).tolist()
    assert list(found.branches) == ["a"]
    np.savez(path, labels=LABELS.astype(int), a=GOOD, groups=np.arange(3))
    with pytest.raises(DetectorConfigError, match="groups has shape"):
        BranchFile.read(path)
