"""`roadwork-miner simulate`: a subnet's validators against a miner, and what it would earn."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors.base import Detector, RunOptions
from detectors.config import read_config
from detectors.loading import load_detector
from miner.simulate.photos import labelled_photos
from miner.simulate.run import Play
from miner.simulate.schedule import Subnet, plan
from tests.models import photo
from tests.oip_server import OipServer
from tests.process.daemon import PATIENCE, Daemon, clean_environment, eventually, free_port

SEED = 3
SLOW = 1.0  # seconds


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled photos: scenes with cones and without."""
    folder = tmp_path_factory.mktemp("data")
    for seed in range(30):
        kind = folder / ("roadwork" if seed % 5 > 1 else "no_roadwork")
        kind.mkdir(exist_ok=True)
        (kind / f"{seed:02}.jpg").write_bytes(photo(320, 240, seed=seed))
    return folder


@pytest.fixture(scope="module")
def starter() -> Detector:
    return load_detector("ViT", read_config("starter.yaml"), Path(), "onnx", RunOptions())


def simulate(
    *arguments: object, code: int | None = 0, settings: dict[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "miner", "simulate", *map(str, arguments)], capture_output=True, text=True,
        timeout=PATIENCE, env=clean_environment(**{key: str(value) for key, value in (settings or {}).items()}),
    )  # fmt: skip
    assert done.returncode == code or (code is None and done.stdout), done.stderr
    assert "Traceback" not in done.stderr
    return done


def told(*arguments: object, **how: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(simulate(*arguments, "--json", **how).stdout)
    return result


def asked_of(rows: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    return [(row["number"], row["validator"], row["picture"], row["roadwork"], row["organic"]) for row in rows]


@pytest.mark.parametrize("era", ["letterbox", "augmented"])
def test_a_miner_is_started_asked_and_its_predictions_are_those_of_its_detector(
    data: Path, starter: Detector, era: Any, tmp_path: Path
) -> None:
    plot = tmp_path / "figures.png"
    result = told(
        "--data",
        data,
        "--era",
        era,
        "--validators",
        3,
        "--rounds",
        20,
        "--interval",
        20,
        "--speed",
        300,
        "--seed",
        SEED,
        "--plot",
        plot,
    )
    rows, report = result["requests"], result["report"]
    subnet, photos = Subnet(3, rounds=20, interval=20), labelled_photos(data)
    play = Play(subnet, photos, era, SEED)
    requests = plan(subnet, [one.is_roadwork for one in photos], SEED)
    assert asked_of(rows) == [
        (one.number, one.validator, photos[one.picture].name, one.is_roadwork, one.is_organic) for one in requests
    ]
    expected = [starter.predict(play.picture(one)).probability for one in requests]
    assert [row["prediction"] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert report["outcomes"]["answered"] == report["requests"] == len(requests)
    right = [
        (probability > 0.5) == one.is_roadwork
        for one, probability in zip(requests, expected, strict=True)
        if not one.is_organic
    ]
    assert report["quality"]["accuracy"] == pytest.approx(np.mean(right))
    assert 0 < report["p50"] <= report["p95"] <= report["p99"] <= report["longest"]
    assert plot.stat().st_size > 10_000


def test_its_accuracy_is_that_of_the_photos_within_chance(data: Path, starter: Detector) -> None:
    result = told(
        "--data", data, "--era", "native", "--validators", 4, "--rounds", 50, "--interval", 20, "--speed", 300
    )
    photos = labelled_photos(data)
    right = {
        label: np.mean([
            (starter.predict(one.read()).probability > 0.5) == label for one in photos if one.is_roadwork is label
        ])
        for label in (True, False)
    }  # fmt: skip
    expected, quality = (right[True] + right[False]) / 2, result["report"]["quality"]
    error = np.sqrt(expected * (1 - expected) / quality["count"])
    assert quality["accuracy"] == pytest.approx(expected, abs=4 * error + 0.02)  # + JPEG's own doing


def test_a_running_miner_is_told_of_the_validators_and_asked_on_both_wires(miner: Daemon, data: Path) -> None:
    arguments = ("--data", data, "--validators", 4, "--rounds", 5, "--interval", 20, "--speed", 300, "--seed", SEED)
    where = ("--address", f"127.0.0.1:{miner.port}")
    settings: dict[str, object] = {"STATE_DIR": miner.state}
    before = {wire: miner.metric("requests_total", wire=wire, outcome="ok") for wire in ("dendrite", "btauth")}
    first, second = (told(*arguments, *where, settings=settings) for _ in range(2))
    assert asked_of(first["requests"]) == asked_of(second["requests"])
    assert [row["prediction"] for row in first["requests"]] == [row["prediction"] for row in second["requests"]]
    assert first["report"]["outcomes"]["answered"] == len(first["requests"])
    for wire, count in before.items():
        assert miner.metric("requests_total", wire=wire, outcome="ok") > count
    table = simulate(*arguments, *where, "--wire", "dendrite", settings=settings).stdout
    assert "expected in the long run" in table
    assert "95 % interval" in table


def test_validators_that_a_miner_does_not_know_are_named(miner: Daemon, data: Path, tmp_path: Path) -> None:
    said = simulate(
        "--data", data, "--validators", 2, "--rounds", 1, "--organic", 0, "--speed", 300,
        "--address", f"127.0.0.1:{miner.port}", "--hotkey", miner.keys.miner.hotkey.ss58_address,
        settings={"STATE_DIR": tmp_path / "elsewhere"}, code=1,
    ).stdout  # fmt: skip
    assert "403" in said
    assert "BLACKLIST_ALLOW_HOTKEYS=5" in said


@pytest.fixture
def engine(starter: Detector) -> Iterator[OipServer]:
    """The starter, but it takes a second, by waiting: a busy machine makes that no longer."""
    with OipServer(starter) as server:
        server.seconds = SLOW
        yield server


@pytest.fixture
def blocking() -> Iterator[int]:
    """A miner that is as slow and blocks its event loop."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "tests.process.blocking", str(port), str(SLOW)]) as process:
        try:
            eventually(lambda: listens(port) or process.poll() is not None)
            yield port
        finally:
            process.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_slow_detector_loses_answers_and_one_that_blocks_its_loop_loses_more(
    data: Path, engine: OipServer, blocking: int, tmp_path: Path
) -> None:
    """A detector of a second, validators that wait six, eighteen requests nearly at once."""
    arguments = (
        "--data", data, "--validators", 6, "--rounds", 3, "--interval", 6, "--organic", 0, "--speed", 100,
        "--timeout", 6, "--wire", "dendrite",
    )  # fmt: skip
    remote = {"IMAGE_DETECTOR_BACKEND": "remote", "REMOTE_ENDPOINTS": engine.address, "INFERENCE_SLOTS": 1}
    ours = told(*arguments, settings=remote)
    hotkey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"  # it is not looked at there
    theirs = told(
        *arguments, "--address", f"127.0.0.1:{blocking}", "--hotkey", hotkey,
        settings={"STATE_DIR": tmp_path / "state"}, code=None,
    )  # fmt: skip
    mine, other = ours["report"], theirs["report"]
    assert mine["requests"] == other["requests"] == 18
    assert mine["outcomes"]["answered"] > other["outcomes"]["answered"]
    assert mine["outcomes"]["refused"] > 0  # said at once, not served late
    assert other["outcomes"]["late"] > mine["outcomes"]["late"]
    assert mine["lost"] < other["lost"]
    assert mine["expected"] < mine["expected_unlost"]
    assert mine["reward"] > other["reward"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hotkey", "5F"), "--hotkey=5F: goes with --address only"),
        (("--wallet", "a/b"), "--wallet=a/b: goes with --address only"),
        (("--data", "nowhere"), "--data=nowhere: no .jpeg, .jpg, .png, .webp file in a subfolder 'roadwork'"),
        (("--address", "host:port"), "--address=host:port: HOST or HOST:PORT is allowed"),
    ],
)
def test_what_can_not_be_simulated_is_said_so(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in simulate(*arguments, settings={"STATE_DIR": tmp_path}, code=2).stderr


def test_nobody_at_the_address_is_said_so(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = simulate("--address", address, settings={"STATE_DIR": tmp_path}, code=3).stderr
    assert f"no miner at http://{address}" in said
