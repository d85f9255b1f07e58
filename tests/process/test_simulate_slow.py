"""`roadwork-miner simulate` says what a slow detector loses: of this miner, and of one that blocks its event loop."""

import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from detectors.base import Detector, RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.photos.labelled import CLASSES
from detectors.photos.transforms import prepare
from tests.oip_server import OipServer
from tests.photos import patches
from tests.process.daemon import eventually, free_port
from tests.process.simulating import told

SLOW = 2.0  # seconds that a picture takes


@pytest.fixture
def starter() -> Detector:
    return load_detector("ViT", read_config("starter.yaml"), Path(), "onnx", RunOptions())


@pytest.fixture
def judged(starter: Detector, tmp_path: Path) -> Path:
    """Photos labelled as the starter judges them: with no mistakes, what is lost is the answers' doing alone."""
    for seed in range(30):
        picture = io.BytesIO()
        patches(seed, cone=seed % 2 == 1).save(picture, "JPEG")
        sent = prepare(picture.getvalue(), "letterbox", np.random.default_rng(0))
        kind = tmp_path / "judged" / CLASSES[starter.predict(sent).probability > 0.5]
        kind.mkdir(parents=True, exist_ok=True)
        (kind / f"{seed}.jpg").write_bytes(picture.getvalue())
    return tmp_path / "judged"


@pytest.fixture
def engine(starter: Detector) -> Iterator[OipServer]:
    """The starter, but it takes two seconds, by waiting: a busy machine makes that no longer."""
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


def test_a_detector_of_two_seconds_loses_answers_and_one_that_blocks_its_loop_loses_more(
    judged: Path, engine: OipServer, blocking: int, tmp_path: Path
) -> None:
    """Validators that wait nine seconds, fifteen requests within ten, six of them organic and in bursts."""
    arguments = (
        "--data", judged, "--validators", 3, "--rounds", 3, "--interval", 20, "--organic", 0.3, "--speed", 7,
        "--wire", "dendrite", "--seed", 5,
    )  # fmt: skip
    remote = {"IMAGE_DETECTOR_BACKEND": "remote", "REMOTE_ENDPOINTS": engine.address, "INFERENCE_SLOTS": 1}
    hotkey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"  # it is not looked at there
    there = ("--address", f"127.0.0.1:{blocking}", "--hotkey", hotkey)
    with ThreadPoolExecutor(2) as pool:  # side by side: neither computes
        ours = pool.submit(told, *arguments, settings=remote)
        theirs = pool.submit(told, *arguments, *there, settings={"STATE_DIR": tmp_path / "state"}, code=None)
    mine, other = (future.result()["report"] for future in (ours, theirs))
    assert mine["requests"] == other["requests"] == 15
    assert mine["organic"] == other["organic"] == 6
    for who, report in (("this miner", mine), ("blocking", other)):
        counts = ", ".join(f"{count} {outcome}" for outcome, count in report["outcomes"].items() if count)
        print(
            f"{who}: {counts} of {report['requests']}; reward {report['reward']:.3f}, in the long run "
            f"{report['expected'] or 0:.3f} of {report['expected_unlost'] or 0:.3f} without losses"
        )
    assert mine["outcomes"]["answered"] > other["outcomes"]["answered"]
    assert mine["outcomes"]["refused"] > 0  # said at once, not served late
    assert other["outcomes"]["late"] > mine["outcomes"]["late"]
    assert mine["lost"] < other["lost"]
    assert mine["expected"] < mine["expected_unlost"]
    assert mine["reward"] > other["reward"]
