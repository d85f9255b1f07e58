"""How right a running miner is on real traffic: labelled, measured, shown by it, scraped and alarmed by Prometheus."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from detectors.models.manifest import ExportFigures, Manifest
from detectors.models.store import write_manifest
from miner.feedback.standing import StandingView
from tests.labels import label, record
from tests.process.browser import Browser
from tests.process.conftest import StartDaemon, daemons
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.prometheus import Prometheus
from tests.process.test_evaluating import TORCH, miner
from tests.process.test_monitoring import target_of

STARTER = Path(__file__).resolve().parents[2] / "detectors" / "starter"
HOUR = 3600.0


def promising(folder: Path) -> Path:
    """Return a model that was right of nearly all photos kept back, by its own word."""
    shutil.copytree(STARTER, folder / "mine")
    judged = ExportFigures(photos=80, auc=1.0, reversed=False, sensitivity=1.0, specificity=0.98)
    write_manifest(Manifest.read(folder / "mine").model_copy(update={"judged": judged}), folder / "mine")
    (folder / "mine.yaml").write_text("model_folder: mine\n")
    return folder / "mine.yaml"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[StartDaemon]:
    with daemons(tmp_path_factory, model) as start:
        yield start


@pytest.fixture(scope="module")
def watched(start: StartDaemon, tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    """A miner whose photos somebody has labelled, half of the clear roads wrongly."""
    daemon = start(IMAGE_DETECTOR_CONFIG=promising(tmp_path_factory.mktemp("model"))).ready()
    label(daemon.state, 15, kind="roadwork")
    label(daemon.state, 4, first=100, sampled=False, reason="unsure")
    record(daemon.state, 3, first=200)
    improved = daemon.state / "improvements" / "2026-01-01-0100" / "state.json"
    improved.parent.mkdir(parents=True)
    improved.write_text(json.dumps({"ended": 1_700_000_000.0, "gain": 0.03, "promoted": True}))
    return daemon


@pytest.fixture(scope="module")
def measured(watched: Daemon) -> StandingView:
    """What `standing` leaves beside the labels."""
    assert "accuracy" not in json.dumps(watched.page("/status").json()["traffic"]["model"])
    done = subprocess.run(
        [*watched.command, "standing", "--json"],
        env=watched.environment, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    view = StandingView.read(watched.state)
    assert view is not None
    assert view.model is not None
    assert view.model.accuracy is not None
    assert json.loads(done.stdout)["models"]["mine"]["accuracy"]["value"] == view.model.accuracy.value
    return view


def test_status_and_top_show_what_was_measured(watched: Daemon, measured: StandingView) -> None:
    shown = StandingView.model_validate(watched.page("/status").json()["traffic"])
    assert shown.is_current
    assert shown.model == measured.model
    assert shown.photos == measured.photos
    assert (shown.photos.sampled, shown.photos.outside, shown.photos.waiting) == (30, 8, 3)
    assert shown.improvement is not None
    done = subprocess.run(
        [*watched.command, "top", "--once"],
        env=watched.environment | {"COLUMNS": "80"}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for part in ("Real traffic", "99.0 %", "3 photos"):
        assert part in done.stdout
    assert re.search(r"random tenth\s+30\b", done.stdout)


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_page_has_a_card_of_it(
    watched: Daemon, measured: StandingView, width: int, height: int, tmp_path: Path
) -> None:
    assert measured.model is not None
    with Browser(tmp_path) as browser:
        browser.look(width, height, phone=width < 500)
        browser.open(f"http://127.0.0.1:{watched.status_port}/")
        assert "Real traffic" in browser.text()
        assert re.search(r"random tenth\s+30\b", browser.text(".cards"))
        assert browser.complaints() == []
        if folder := os.environ.get("ROADWORK_SCREENSHOTS"):
            browser.photograph(Path(folder) / f"standing-{width}.png")


def test_prometheus_has_the_figures_and_alarms(watched: Daemon, measured: StandingView, tmp_path: Path) -> None:
    model = measured.model
    assert model is not None
    assert model.accuracy is not None
    target = target_of(watched)
    with Prometheus(tmp_path, (target,)) as prometheus:
        prometheus.scrapes(target)
        expected = {
            'labelled_photos{class="roadwork"}': 34, 'labelled_photos{class="no_roadwork"}': 4, "unlabelled_photos": 3,
            "traffic_photos": 30, "traffic_accuracy_ratio": model.accuracy.value,
            "traffic_accuracy_low_ratio": model.accuracy.low, "traffic_accuracy_high_ratio": model.accuracy.high,
            "promised_accuracy_ratio": 0.99, "last_improvement_timestamp_seconds": 1_700_000_000.0,
        }  # fmt: skip
        for name, value in expected.items():
            assert prometheus.number(f"roadwork_miner_{name}") == pytest.approx(value), name
        alarm = 'ALERTS{alertname="RoadworkMinerWorseThanPromised"}'
        assert eventually(lambda: prometheus.counts(alarm, "alertstate")) == {"pending": 1}  # for a while, first


def test_figures_of_another_model_are_shown_as_such_and_not_exported(watched: Daemon, measured: StandingView) -> None:
    """Last, as it leaves another model's figures."""
    assert measured.model is not None
    other = measured.model_copy(update={"model": measured.model.model_copy(update={"fingerprint": "other"})})
    other.write(watched.state)
    assert watched.page("/status").json()["traffic"]["is_current"] is False
    metrics = watched.page("/metrics").text
    assert "\nroadwork_miner_traffic_accuracy_ratio " not in metrics
    assert "\nroadwork_miner_promised_accuracy_ratio 0.99" in metrics


@pytest.mark.slow
def test_neither_torch_nor_scikit_learn_is_needed_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    label(tmp_path / "state", 10)
    arguments = ("standing", "--no-env-file")
    done = miner(tmp_path, *arguments, "--json", without=(*TORCH, "sklearn"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["models"]["starter"]["accuracy"] is not None
    assert "scikit-learn" in found["threshold"]["left_out"]
    assert "scikit-learn" in miner(tmp_path, *arguments, without=(*TORCH, "sklearn")).stdout
