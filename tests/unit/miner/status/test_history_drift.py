"""The population stability index, and the window over the last predictions."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from detectors.models.calibration import spread, stability_index, tenth_of
from detectors.models.config import read_config
from detectors.models.manifest import Manifest
from miner.cli.preparation import open_folder, record_spread
from miner.recorder.records import RequestRecord
from miner.settings.settings import Settings
from miner.status.history import DRIFT_WINDOW, MIN_DRIFT_PREDICTIONS, Drift
from tests.models import photo

EVEN = [0.1] * 10
STARTER = Path(__file__).resolve().parents[4] / "detectors" / "starter"


@pytest.mark.parametrize(("probability", "tenth"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.5, 5), (0.999, 9), (1.0, 9)])
def test_a_probability_has_a_tenth(probability: float, tenth: int) -> None:
    assert tenth_of(probability) == tenth


def predicted(probability: float) -> RequestRecord:
    return RequestRecord(0.0, 7, "dendrite", "ok", "", 0.1, prediction=probability)


def test_the_spread_weighs_both_labels_alike() -> None:
    shares = spread([0.95, 0.95, 0.95, 0.05], [True, True, True, False])
    assert shares[9] == shares[0] == pytest.approx(0.5)
    assert sum(shares) == pytest.approx(1)


def test_the_index_of_the_same_spread_is_zero() -> None:
    assert stability_index([50] * 10, EVEN) == pytest.approx(0)


def test_the_index_is_that_of_the_formula() -> None:
    """By hand: 1000 predictions, 300 and 100 of them where 200 each were expected; the rest as expected."""
    seen = [300, 100, *[75] * 8]
    expected = [0.2, 0.2, *[0.075] * 8]
    by_hand = 0.1 * math.log(0.3 / 0.2) + -0.1 * math.log(0.1 / 0.2)
    assert stability_index(seen, expected) == pytest.approx(by_hand, rel=0.02)


def test_empty_tenths_are_no_division_by_zero() -> None:
    assert 2 < stability_index([500, *[0] * 9], EVEN) < 10
    assert math.isfinite(stability_index([0] * 9 + [500], [1.0, *[0.0] * 9]))
    assert stability_index([0] * 10, EVEN) == 0


def test_chance_alone_stays_far_below_the_alert() -> None:
    random = np.random.default_rng(0)
    shares = Manifest.read(STARTER).predictions
    assert shares is not None
    found = [
        stability_index(random.multinomial(MIN_DRIFT_PREDICTIONS, np.array(shares) / sum(shares)).tolist(), shares)
        for _ in range(2000)
    ]
    assert np.mean(found) < 0.06
    assert max(found) < 0.25


def drifted(window: Drift, probability: float, count: int) -> float:
    for _ in range(count):
        window.request_ended(predicted(probability))
    return window.index


def test_nothing_is_said_of_few_predictions_or_without_a_record() -> None:
    assert math.isnan(drifted(Drift(lambda: EVEN), 0.95, MIN_DRIFT_PREDICTIONS - 1))
    assert math.isnan(drifted(Drift(lambda: None), 0.95, MIN_DRIFT_PREDICTIONS))
    assert drifted(Drift(lambda: EVEN), 0.95, MIN_DRIFT_PREDICTIONS) > 1


def test_only_the_last_predictions_count() -> None:
    window = Drift(lambda: EVEN)
    drifted(window, 0.95, DRIFT_WINDOW)
    for number in range(DRIFT_WINDOW):
        window.request_ended(predicted(number % 10 / 10 + 0.05))
    assert window.index == pytest.approx(0, abs=0.01)


def test_another_model_begins_anew() -> None:
    serving = [EVEN]
    window = Drift(lambda: serving[0])
    assert drifted(window, 0.95, MIN_DRIFT_PREDICTIONS) > 1
    serving[0] = [*[0.0] * 9, 1.0]
    assert math.isnan(window.index)
    assert math.isnan(drifted(window, 0.95, MIN_DRIFT_PREDICTIONS - 1))
    assert drifted(window, 0.95, 1) == pytest.approx(0, abs=0.01)


def test_the_starters_manifest_records_its_spread() -> None:
    shares = Manifest.read(STARTER).predictions
    assert shares is not None
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert sum(shares[5:]) == pytest.approx(0.5, abs=0.02)


def test_an_export_with_labelled_photos_records_the_spread(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(STARTER, folder)
    Manifest.read(folder).model_copy(update={"predictions": None}).write(folder)
    photos, labels = [photo(200, 150, seed=seed) for seed in range(4)], [False, True, True, True]
    settings = Settings(models_dir=tmp_path)
    record_spread(settings, read_config(settings.detector_config), folder, photos, labels)
    found = Manifest.read(folder)
    assert found.predictions is not None
    assert sum(found.predictions) == pytest.approx(1, abs=1e-3)
    assert found.judged is not None
    detector = open_folder(settings, read_config(settings.detector_config), folder)
    said = [detector.predict(one).probability > 0.5 for one in photos]
    assert found.judged.sensitivity == pytest.approx(sum(said[1:]) / 3, abs=1e-4)
    assert found.judged.specificity == (0.0 if said[0] else 1.0)
    found.verify(folder)
