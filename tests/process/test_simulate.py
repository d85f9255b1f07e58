"""`roadwork-miner simulate`: a subnet's validators against a miner, and what it would earn."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors.base import Detector, RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.photos.labelled import read_photos
from detectors.photos.transforms import Era
from miner.simulate.run import SimulationPlan, labelled_photos
from miner.simulate.schedule import SimulatedSubnet, plan
from tests.models import photo
from tests.process.daemon import PATIENCE, Daemon, clean_environment, free_port
from tests.process.simulating import asked_of, simulate, told

SEED = 3
ERA: Era = "letterbox"  # what simulate sends unless told otherwise


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
    subnet, photos = SimulatedSubnet(3, rounds=20, interval=20), labelled_photos(read_photos(data))
    play = SimulationPlan(subnet, photos, era, SEED)
    requests = plan(subnet, [one.is_roadwork for one in photos], SEED)
    assert asked_of(rows) == [
        (one.number, one.at, one.delay, one.validator, photos[one.picture].name, one.is_roadwork, one.is_organic)
        for one in requests
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


def test_a_running_miner_is_told_of_the_validators_and_asked_the_same_for_a_seed_at_any_pace(
    miner: Daemon, data: Path
) -> None:
    """Only how long answers take is not repeated, and how much of it a duration leaves."""
    arguments = (
        "--data", data, "--era", "augmented", "--validators", 4, "--interval", 20, "--organic", 0.6, "--seed", SEED,
        "--address", f"127.0.0.1:{miner.port}",
    )  # fmt: skip
    settings: dict[str, object] = {"STATE_DIR": miner.state}
    before = {wire: miner.metric("requests_total", wire=wire, outcome="ok") for wire in ("dendrite", "btauth")}
    whole = told(*arguments, "--rounds", 10, "--speed", 300, settings=settings)
    assert whole["report"]["outcomes"]["answered"] == len(whole["requests"])
    for wire, count in before.items():
        assert miner.metric("requests_total", wire=wire, outcome="ok") > count
    begun = told(*arguments, "--duration", 1, "--speed", 60, settings=settings)["requests"]
    assert 10 < len(begun) < len(whole["requests"])
    assert any(row["delay"] > 0 for row in begun)
    assert asked_of(begun) == asked_of(whole["requests"])[: len(begun)]
    assert [row["prediction"] for row in begun] == [row["prediction"] for row in whole["requests"]][: len(begun)]
    table = simulate(*arguments, "--rounds", 2, "--speed", 300, "--wire", "dendrite", settings=settings).stdout
    assert "the long run" in table
    assert "95 % interval" in table


def test_answers_are_those_of_evaluate_photo_by_photo_and_the_accuracy_is_its_within_chance(
    miner: Daemon, data: Path
) -> None:
    played = told(
        "--data", data, "--validators", 4, "--rounds", 50, "--interval", 20, "--organic", 0, "--speed", 300,
        "--address", f"127.0.0.1:{miner.port}", settings={"STATE_DIR": miner.state},
    )  # fmt: skip
    command = [sys.executable, "-m", "miner", "evaluate", str(data), "--model", "starter.yaml", "--era", ERA, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=clean_environment())
    assert done.returncode == 0, done.stderr
    judged = json.loads(done.stdout)
    said = {row["picture"]: row["said"][ERA]["starter"] for row in judged["answers"]}
    asked = {row["picture"]: row["prediction"] for row in played["requests"]}
    assert len(asked) > 0.9 * len(said)
    assert asked == pytest.approx({name: said[name] for name in asked}, abs=1e-6)
    right = [(said[row["picture"]] > 0.5) == row["roadwork"] for row in judged["answers"]]
    found, spared = (
        np.mean([one for one, row in zip(right, judged["answers"], strict=True) if row["roadwork"] is label])
        for label in (True, False)
    )
    assert judged["views"][ERA]["starter"]["accuracy"]["value"] == pytest.approx(np.mean(right))
    expected, quality = (found + spared) / 2, played["report"]["quality"]  # labels are drawn half and half
    error = np.sqrt(expected * (1 - expected) / quality["count"])
    assert quality["accuracy"] == pytest.approx(expected, abs=4 * error)


def test_photos_that_can_not_be_opened_or_lie_in_both_classes_are_named_and_not_sent(
    miner: Daemon, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(data, folder)
    twin = next((folder / "roadwork").iterdir())
    shutil.copyfile(twin, folder / "no_roadwork" / "twin.jpg")
    (folder / "roadwork" / "torn.jpg").write_bytes(photo(320, 240)[:2000])
    done = simulate(
        "--data", folder, "--validators", 4, "--rounds", 20, "--speed", 300, "--json",
        "--address", f"127.0.0.1:{miner.port}", settings={"STATE_DIR": miner.state},
    )  # fmt: skip
    left_out = ["roadwork/torn.jpg: ", "no_roadwork/twin.jpg: ", f"roadwork/{twin.name}: "]
    assert [f"left out: {name}" in done.stderr for name in left_out] == [True] * 3
    sent = {row["picture"] for row in json.loads(done.stdout)["requests"]}
    assert sent <= {path.relative_to(data).as_posix() for path in data.rglob("*.jpg")} - {f"roadwork/{twin.name}"}
    for path in (folder / "no_roadwork").iterdir():
        path.write_bytes(b"")
    said = simulate("--data", folder, code=2).stderr
    assert f"--data: {folder / 'no_roadwork'} holds no photo" in said


def test_validators_that_a_miner_does_not_know_are_named(miner: Daemon, data: Path, tmp_path: Path) -> None:
    said = simulate(
        "--data", data, "--validators", 2, "--rounds", 1, "--organic", 0, "--speed", 300,
        "--address", f"127.0.0.1:{miner.port}", "--hotkey", miner.keys.miner.hotkey.ss58_address,
        settings={"STATE_DIR": tmp_path / "elsewhere"}, code=1,
    ).stdout  # fmt: skip
    assert "403" in said
    assert "BLACKLIST_ALLOW_HOTKEYS=5" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hotkey", "5F"), "--hotkey=5F: goes with --address only"),
        (("--address", "host", "--config", "starter.yaml"), "--address=host: without --detector and --config; that"),
        (("--wallet", "a/b"), "--wallet=a/b: goes with --address only"),
        (("--data", "nowhere"), "--data: nowhere is not"),
        (("--replay", "x", "--rounds", "3", "--era", "native"), "--replay=x: without --era, --rounds;"),
        (("--replay", "x" * 300), ": File name too long"),
        (("--address", "host:port"), "--address=host:port: HOST or HOST:PORT"),
    ],
)
def test_what_can_not_be_simulated_is_said_so(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in simulate(*arguments, settings={"STATE_DIR": tmp_path}, code=2).stderr


def test_nobody_at_the_address_is_said_so(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = simulate("--address", address, settings={"STATE_DIR": tmp_path}, code=3).stderr
    assert f" http://{address}" in said
