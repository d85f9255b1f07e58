"""`roadwork-miner simulate --compare`: three miners with one cascade of two models, quiet and in bursts."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from PIL import Image

from miner.simulate.scenes import MODES
from tests.process.daemon import PATIENCE, clean_environment
from tests.process.graphs import write_model
from tests.process.simulating import asked_of, simulate

# How bright photos are: the first stage is sure of the darkest and the brightest, and wrong about those between.
SURE_CLEAR, UNSURE_CLEAR, WORKS = range(14, 22), range(70, 86, 2), range(200, 232, 2)
BURST = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for kind, levels in (("no_roadwork", [*SURE_CLEAR, *UNSURE_CLEAR]), ("roadwork", WORKS)):
        (folder / kind).mkdir()
        for level in levels:
            Image.new("L", (64, 64), level).save(folder / kind / f"{level:03}.png")
    return folder


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cascade")
    write_model(folder / "small", bias=2.0)
    write_model(folder / "large", bias=1.0)
    measured = {"photos": 50, "accuracy": 0.8, "mcc": 0.6, "reward": 0.4, "reward_low": 0.3, "reward_high": 0.5}
    config = {
        "branches": {name: {"model_folder": name} for name in ("small", "large")},
        "stages": [{"branches": ["small"], "band": [0.35, 0.75], "measured": measured}],
        "fusion": {"kind": "weighted", "branches": ["small", "large"], "weights": [0.0, 1.0], "measured": measured},
    }
    (folder / "both.yaml").write_text(yaml.safe_dump(config))
    return folder / "both.yaml"


def test_the_adaptive_miner_is_as_right_as_the_dear_one_and_the_same_is_asked_of_all(
    data: Path, cascade: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "figures.png"
    done = simulate(
        "--compare", "--data", data, "--validators", 3, "--rounds", 12, "--interval", 20, "--speed", 40, "--seed", 3,
        "--burst", BURST, "--every", 1, "--json", "--plot", plot, "--detector", "Ensemble", "--config", cascade,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["stages"] == ["small", "small + large"]
    quiet, crowded = found["scenes"]
    assert (quiet["scene"], crowded["scene"]) == ("quiet", "crowded")
    assert len(crowded["requests"]) >= len(quiet["requests"])
    assert len(crowded["requests"]) % BURST == 0
    assert len(asked_of(quiet["requests"])) == len(set(asked_of(quiet["requests"])))
    for scene in (quiet, crowded):
        numbers = [one["number"] for one in scene["requests"]]
        said = {mode: scene["modes"][mode]["answers"] for mode in MODES}
        assert [[one["number"] for one in said[mode]] for mode in MODES] == [numbers] * 3
        outcomes = [scene["modes"][mode]["report"]["outcomes"] for mode in MODES]
        assert [one["late"] for one in outcomes] == [0, 0, 0]
        stages = [scene["modes"][mode]["stages"] for mode in MODES]
        assert [sum(one) for one in stages] == [one["answered"] for one in outcomes]
        assert stages[0][1] == stages[1][0] == 0
    accuracy = {mode: quiet["modes"][mode]["report"]["quality"]["accuracy"] for mode in MODES}
    assert accuracy["cheapest"] < accuracy["adaptive"] <= accuracy["all"] == 1
    unsure = {f"no_roadwork/{level:03}.png" for level in UNSURE_CLEAR}
    first, last, both = (quiet["modes"][mode]["answers"] for mode in MODES)
    cut = 0  # where a busy machine has no time left for the second stage
    for row, request in enumerate(quiet["requests"]):
        wanted = last if request["picture"] in unsure else first
        if both[row]["prediction"] != pytest.approx(wanted[row]["prediction"], abs=1e-6):
            assert request["picture"] in unsure
            assert both[row]["prediction"] == pytest.approx(first[row]["prediction"], abs=1e-6)
            cut += 1
    expected = sum(one["picture"] in unsure for one in quiet["requests"]) - cut
    assert quiet["modes"]["adaptive"]["stages"] == [len(quiet["requests"]) - expected, expected]
    assert expected >= 2 * cut
    assert cut or quiet["best"] == "adaptive"
    assert plot.stat().st_size > 10_000


def test_ctrl_c_while_a_miner_starts_leaves_what_was_played(data: Path, cascade: Path) -> None:
    command = (
        "simulate", "--compare", "--data", data, "--validators", 2, "--rounds", 6, "--interval", 20, "--speed", 40,
        "--burst", BURST, "--every", 1, "--json", "--detector", "Ensemble", "--config", cascade,
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "miner", *map(str, command)], env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as player:
        miners = set[int]()
        while len(miners) < 5:  # all three have played the first part, and the fourth a second one
            miners |= {child.pid for child in psutil.Process(player.pid).children()}
            time.sleep(0.01)
        player.send_signal(signal.SIGINT)
        output, _ = player.communicate(timeout=PATIENCE)
    assert player.returncode == 0
    quiet = json.loads(output)["scenes"][0]
    assert 0 < len(quiet["modes"]["adaptive"]["answers"]) < len(quiet["requests"])


def test_bursts_without_a_comparison_are_asked_of_the_miner_as_it_is(data: Path, cascade: Path) -> None:
    said = simulate(
        "--data", data, "--validators", 2, "--rounds", 2, "--organic", 0, "--speed", 60, "--burst", 20, "--every", 60,
        "--json", "--detector", "Ensemble", "--config", cascade,
    ).stdout  # fmt: skip
    result = json.loads(said)
    assert len(result["requests"]) == 2 * 2 + 2 * 20
    assert result["report"]["outcomes"]["answered"] == 44
    assert len(result["report"]["scores"]) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare",), "--compare: IMAGE_DETECTOR_CONFIG=starter.yaml: "),
        (("--compare", "--address", "host"), "--address=host: without --compare"),
        (("--compare", "--replay", "x"), "--replay=x: without --compare"),
        (("--every", "5"), "--every=5: goes with --burst or --compare"),
        (("--replay", "x", "--burst", "5"), "--replay=x: without --burst"),
        (("--burst", "300"), "--burst"),
    ],
)
def test_what_can_not_be_compared_is_said_so(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in simulate(*arguments, settings={"STATE_DIR": tmp_path}, code=2).stderr
