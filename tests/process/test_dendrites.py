"""Real Dendrites, of the SDK's versions 9 and 10, ask a running miner."""

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from miner.errors import MESSAGES
from tests.models import photo
from tests.process.conftest import StartDaemon
from tests.process.daemon import Daemon, clean_environment, eventually, free_port
from tests.process.environments import environment
from tests.process.inspection import probability_of

SDKS: dict[str, tuple[tuple[str, ...], ...]] = {
    "9.12.2": (
        # A plain install of this version fails at import today.
        ("install", "-q", "bittensor==9.12.2", "async-substrate-interface<2"),
        ("uninstall", "-q", "-y", "cyscale"),
    ),
    "10.5.0": (("install", "-q", "bittensor==10.5.0"),),
}
PICTURES = [photo(224, 224), photo(1920, 1080), photo(360, 640, seed=4), photo(640, 480, mode="L")]
HOUR = 3600.0

pytestmark = pytest.mark.timeout(900)  # the first test makes the environment of its SDK


@dataclass(frozen=True)
class Answer:
    """What the SDK made of an answer."""

    scene: str
    prediction: float
    model_url: str | None
    is_success: bool
    statuses: list[int | None]  # axon's, dendrite's
    message: str


@pytest.fixture(scope="session", params=SDKS)
def sdk(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """The version, and a Python that has it."""
    version: str = request.param
    return version, environment(f"bittensor-{version}", sys.executable, *SDKS[version])


@dataclass(frozen=True)
class Dendrite:
    """Plays scenes in the SDK's environment."""

    python: Path
    version: str
    daemon: Daemon
    home: Path

    def play(
        self, *scenes: dict[str, Any], daemon: Daemon | None = None, pictures: Sequence[bytes] = PICTURES
    ) -> list[Answer]:
        daemon = daemon or self.daemon
        task = {
            "wallets": str(daemon.state / "wallets"),
            "port": daemon.port,
            "images": [base64.b64encode(picture).decode() for picture in pictures],
            "scenes": scenes,
        }
        done = subprocess.run(
            [self.python, Path(__file__).with_name("dendrite_client.py")],
            input=json.dumps(task), capture_output=True, text=True, timeout=240, cwd=self.home,
            env=clean_environment(HOME=str(self.home)),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["version"] == self.version
        return [Answer(**answer) for answer in result["answers"]]


@pytest.fixture(scope="session")
def dendrite(sdk: tuple[str, Path], miner: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Dendrite:
    version, python = sdk
    return Dendrite(python, version, miner, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def refused(dendrite: Dendrite) -> dict[str, Answer]:
    """What it makes of requests that are not answered, by scene."""
    answers = dendrite.play(
        {"scene": "replay", "times": 2},
        {"scene": "bad signature", "signed_by": "stranger"},
        {"scene": "wrong receiver", "receiver": "stranger"},
        {"scene": "stale nonce", "shift": -HOUR},
        {"scene": "stale nonce, long timeout", "shift": -HOUR, "wait": 9999.0},
        {"scene": "nonce ahead", "shift": HOUR},
        {"scene": "not registered", "key": "stranger"},
        {"scene": "no permit", "key": "peer"},
        {"scene": "too short a timeout", "wait": 0.3},
    )
    return {answer.scene: answer for answer in answers}


def test_a_dendrite_gets_predictions_for_real_jpegs(dendrite: Dendrite) -> None:
    answers = dendrite.play(*({"scene": "photo", "image": number} for number in range(len(PICTURES))))
    for answer, picture in zip(answers, PICTURES, strict=True):
        assert answer.is_success
        assert answer.statuses == [200, 200]
        assert answer.message == "Success"
        assert answer.prediction == pytest.approx(probability_of(dendrite.daemon.ask(picture)), abs=1e-6)
    assert len({answer.prediction for answer in answers}) > 1


def test_a_dendrite_that_asks_forty_things_at_once_is_answered_each_time(dendrite: Dendrite) -> None:
    pictures = [photo(224, 224) + bytes([number]) for number in range(40)]  # no two equal ones
    answers = dendrite.play(*({"scene": str(number), "at_once": 40} for number in range(3)), pictures=pictures)
    assert len(answers) == 120
    assert {answer.message for answer in answers} == {"Success"}
    assert all(answer.is_success and 0 <= answer.prediction <= 1 for answer in answers)


def test_a_dendrite_gets_the_models_page_in_an_extended_synapse(dendrite: Dendrite) -> None:
    (answer,) = dendrite.play({"scene": "extended", "synapse": "ExtendedImageSynapse", "image": 1})
    assert answer.is_success
    assert answer.prediction == pytest.approx(probability_of(dendrite.daemon.ask(PICTURES[1])), abs=1e-6)
    assert answer.model_url == dendrite.daemon.settings["MODEL_URL"]


def test_the_page_counts_what_each_hotkey_was_asked_by_dendrites(dendrite: Dendrite, start_daemon: StartDaemon) -> None:
    ports = free_port(), free_port()
    names = f"default:{ports[0]}, second:{ports[1]}"
    daemon = start_daemon(WALLET_HOTKEYS=names, MINER_AXON_PORT=ports[0]).ready()
    asked = [{"scene": str(number), "port": ports[0]} for number in range(2)]
    asked += [{"scene": f"second {number}", "port": ports[1], "receiver": "miner-second"} for number in range(3)]
    answers = dendrite.play(*asked, daemon=daemon)
    assert [answer.statuses for answer in answers] == [[200, 200]] * 5
    status = daemon.page("/status").json()
    counts = {one["hotkey"]: (one["asked"], one["answered"]) for one in status["week"]["hotkeys"]}
    own = [key["hotkey"] for key in status["keys"]]
    assert [counts[hotkey] for hotkey in own] == [(2, 2), (3, 3)]
    assert [one["hotkey"] for one in status["recent"]] == [own[1]] * 3 + [own[0]] * 2
    (caller,) = status["hour"]["callers"]
    assert (caller["asked"], caller["answered"], caller["stake"]) == (5, 5, 1000)
    assert status["hour"]["validators"] == 1


@pytest.mark.parametrize(
    "scene", ["replay", "bad signature", "wrong receiver", "stale nonce", "stale nonce, long timeout", "nonce ahead"]
)
def test_a_request_that_proves_nothing_is_401_for_a_dendrite(refused: dict[str, Answer], scene: str) -> None:
    answer = refused[scene]
    assert answer.statuses == [401, 401]
    assert not answer.is_success
    assert answer.prediction == -1


@pytest.mark.parametrize(("scene", "words"), [("not registered", "not registered"), ("no permit", "validator permit")])
def test_a_dendrite_reads_why_it_is_forbidden(refused: dict[str, Answer], scene: str, words: str) -> None:
    answer = refused[scene]
    assert answer.statuses == [403, 403]
    assert words in answer.message
    assert answer.prediction == -1


def test_a_dendrite_reads_that_there_is_no_answer_in_time(refused: dict[str, Answer]) -> None:
    answer = refused["too short a timeout"]
    assert answer.statuses == [503, 503]
    assert answer.message == MESSAGES["deadline"]
    assert answer.prediction == -1


def test_a_dendrite_that_stops_waiting_is_left_with_nothing(
    dendrite: Dendrite, moody: Daemon, white: bytes, street: bytes
) -> None:
    with moody.settle(street).held():
        (answer,) = dendrite.play({"scene": "impatient", "wait": 1.5}, daemon=moody, pictures=[white])
    assert answer.statuses[1] in (408, 503)  # the miner gives up at that moment too
    assert not answer.is_success
    assert answer.prediction == -1
    eventually(lambda: moody.load() == (0, 0))


def test_a_dendrite_reads_that_its_picture_is_none_or_too_large(dendrite: Dendrite, strict: Daemon) -> None:
    pictures = [b"roadwork", b"\0" * 200_000]
    answers = dendrite.play({"scene": "none"}, {"scene": "large", "image": 1}, daemon=strict, pictures=pictures)
    assert [answer.statuses for answer in answers] == [[422, 422], [413, 413]]
    assert {answer.prediction for answer in answers} == {-1}
