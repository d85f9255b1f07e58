"""A cascade in a daemon: which stage answered is in the record, the metrics, `/status` and on the page."""

import json
import subprocess
from pathlib import Path

import yaml

from tests.process.conftest import StartDaemon
from tests.process.daemon import Daemon, eventually

EXPORT_SECONDS = 240
STARTER = Path(__file__).resolve().parents[2] / "detectors" / "starter"


def cascade(path: Path, cheap: str, band: tuple[float, float]) -> Path:
    """Write a cascade whose first stage is sure of what lies outside of the band."""
    measured = {"photos": 321, "accuracy": 0.9, "mcc": 0.8, "reward": 0.6, "reward_low": 0.5, "reward_high": 0.7}
    config = {
        "branches": {name: {"model_folder": str(STARTER)} for name in (cheap, "large")},
        "stages": [{"branches": [cheap], "band": list(band), "measured": measured}],
        "fusion": {"branches": [cheap, "large"], "measured": measured | {"reward": 0.8}},
    }
    path.write_text(yaml.safe_dump(config))
    return path


def answers(daemon: Daemon) -> dict[tuple[str, str, str], float]:
    return {
        (labels["stage"], labels["branches"], labels["reason"]): value
        for name, labels, value in daemon.samples()
        if name == "cascade_answers_total" and value
    }


def recorded(daemon: Daemon) -> list[tuple[int, str, list[str]]]:
    """Return of each request that was written down which stage answered, why, and what ran."""
    text = "".join(path.read_text() for path in sorted(daemon.state.glob("recorder/*.jsonl")))
    return [(one["stage"], one["stop"], list(one["spent"])) for one in map(json.loads, text.splitlines())]


def test_which_stage_answered_is_told_wherever_an_operator_looks(
    start_daemon: StartDaemon, tmp_path: Path, street: bytes
) -> None:
    config = cascade(tmp_path / "cascade.yaml", "small", (0.5, 0.5))
    daemon = start_daemon(
        IMAGE_DETECTOR="Ensemble", IMAGE_DETECTOR_CONFIG=config, MODELS_DIR=tmp_path / "models", RECORDER="meta"
    ).ready(EXPORT_SECONDS)
    for _ in range(3):
        assert daemon.ask(street).status_code == 200
    eventually(lambda: answers(daemon) == {("1", "small", "sure"): 3})
    assert daemon.metric("cascade_day_reward", stage="served", branches="") == 0.8

    cascade(config, "small", (0.0, 1.0))  # of nothing is the first stage sure
    daemon.stop()
    daemon.start().ready(EXPORT_SECONDS)
    assert daemon.ask(street).status_code == 200
    eventually(lambda: answers(daemon) == {("2", "small + large", "last"): 1})
    shown = daemon.page("/status").json()
    first, second = shown["cascade"]["stages"]
    assert (first["branches"], first["reasons"]) == ("small", {"sure": 3})
    assert (second["branches"], second["reasons"]) == ("small + large", {"last": 1})
    assert 0 < second["p50"] < second["left"] < 12
    assert shown["recent"][0]["stage"] == 2
    assert "small + large" in daemon.page("/").text
    eventually(lambda: recorded(daemon) == [(1, "sure", ["small"])] * 3 + [(2, "last", ["small", "small + large"])])

    cascade(config, "tiny", (0.5, 0.5))
    done = subprocess.run(
        [*daemon.command, "reload"], env=daemon.environment, capture_output=True, timeout=EXPORT_SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert daemon.ask(street).status_code == 200
    eventually(lambda: answers(daemon) == {("1", "tiny", "sure"): 1})
