"""Endpoints that fall ill, die, lie and come back, and what becomes of the pictures meanwhile."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from detectors.base import Detector, RunOptions
from detectors.errors import DetectorConfigError, ModelError, NoEndpoint, OutOfTime
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.photos.synthetic import known_picture
from detectors.remote.channel import ReadLimits
from detectors.remote.endpoints import EngineOptions, State
from tests.models import photo
from tests.oip_server import Mood, OipServer

pytestmark = pytest.mark.slow  # real servers, waited for

PATIENCE = 60.0  # seconds
PICTURE = photo(320, 240)
LABELS = ("None", "Roadwork")


class Tally:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: Counter[int] = Counter()
        self.changes: Counter[tuple[int, State]] = Counter()
        self.local = 0

    def answered(self, index: int, seconds: float) -> None:
        assert seconds > 0
        self.answers[index] += 1

    def failed(self, index: int) -> None:
        self.failures[index] += 1

    def changed(self, index: int, state: State) -> None:
        self.changes[index, state] += 1

    def served_locally(self) -> None:
        self.local += 1


class Scene:
    """The starter behind some servers, and a detector that asks them."""

    def __init__(self, local: Detector, servers: list[OipServer]) -> None:
        self.local = local
        self.servers = servers
        self.tally = Tally()
        self.opened: list[Detector] = []

    def open(self, fallback: str | None = None, model: str = "") -> Detector:
        addresses = tuple(server.address for server in self.servers)
        engine = EngineOptions(addresses, model, fallback, observer=self.tally)
        detector = load_starter("remote", RunOptions(slots=4, engine=engine))
        self.opened.append(detector)
        return detector

    @property
    def expected(self) -> float:
        return self.local.predict(PICTURE).probability


def load_starter(backend: str, options: RunOptions) -> Detector:
    return load_detector("ViT", read_config("starter.yaml"), Path("unused"), backend, options)


@pytest.fixture(scope="module")
def local() -> Detector:
    return load_starter("onnx", RunOptions())


@pytest.fixture
def scene(local: Detector) -> Iterator[Scene]:
    scene = Scene(local, [OipServer(local).start(), OipServer(local).start()])
    yield scene
    for detector in scene.opened:
        detector.close()
    for server in scene.servers:
        server.stop()


def soon(seconds: float = PATIENCE) -> float:
    return time.monotonic() + seconds


def until(detector: Detector, words: str) -> None:
    """Wait for a state of the endpoints."""
    deadline = time.monotonic() + PATIENCE
    while detector.backend_words != words:
        assert time.monotonic() < deadline, detector.backend_words
        time.sleep(0.01)


def test_answers_equal_the_local_ones_and_come_from_all(scene: Scene) -> None:
    detector = scene.open()
    for _ in range(6):
        assert detector.predict(PICTURE, soon()).probability == pytest.approx(scene.expected, abs=1e-5)
    assert detector.backend_words == "remote: 2 of 2 endpoints"
    assert scene.tally.answers == {0: 3, 1: 3}
    assert not scene.tally.failures


@pytest.mark.parametrize("mood", ["hangs", "fails", "busy", "rubbish", "drips"])
def test_a_picture_that_one_endpoint_loses_is_answered_by_another_in_time(scene: Scene, mood: Mood) -> None:
    detector = scene.open()
    scene.servers[0].mood = mood
    for _ in range(3):
        assert detector.predict(PICTURE, soon(2.0)).probability == pytest.approx(scene.expected, abs=1e-5)
    assert scene.tally.answers[1] == 3
    assert scene.tally.failures[0] >= 1


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("rubbish", "can't be read"),
        ("a list", "can't be read"),
        ("nested", "can't be read"),
        ("compressed", "compressed (gzip)"),
        ("endless", f"more than the {ReadLimits.of(LABELS).scores:,} bytes"),
        ("not finite", "not finite"),
    ],
)
def test_an_endpoint_whose_answers_are_none_is_unfit_until_they_are(scene: Scene, mood: Mood, reason: str) -> None:
    detector = scene.open()
    scene.servers[0].mood = mood
    while not scene.tally.failures[0]:
        assert detector.predict(PICTURE, soon()).probability == pytest.approx(scene.expected, abs=1e-5)
    until(detector, "remote: 1 of 2 endpoints")
    assert reason in detector.elsewhere.endpoints[0].reason  # type: ignore[union-attr]
    scene.servers[0].mood = "well"
    until(detector, "remote: 2 of 2 endpoints")


def test_a_dead_endpoint_is_left_alone_and_used_again_once_it_is_back(scene: Scene) -> None:
    detector = scene.open()
    scene.servers[0].stop()
    for _ in range(4):
        detector.predict(PICTURE, soon())
    until(detector, "remote: 1 of 2 endpoints")
    assert scene.tally.failures[0] == 1  # the first picture found it dead, no other was sent there
    scene.servers[0].start()
    until(detector, "remote: 2 of 2 endpoints")
    for _ in range(4):
        detector.predict(PICTURE, soon())
    assert scene.tally.answers[0] == 2
    assert scene.tally.changes[0, "down"] == 1
    assert [scene.tally.changes[index, "up"] for index in (0, 1)] == [2, 1]


def test_a_full_queue_is_no_illness(scene: Scene) -> None:
    detector = scene.open()
    for server in scene.servers:
        server.mood = "busy"
    with pytest.raises(OutOfTime):
        detector.predict(PICTURE, soon())
    assert detector.backend_words == "remote: 2 of 2 endpoints"
    for server in scene.servers:
        server.mood = "well"
    assert detector.predict(PICTURE, soon()).probability == pytest.approx(scene.expected, abs=1e-5)


def test_an_answer_that_does_not_come_is_given_up_at_the_deadline(scene: Scene) -> None:
    detector = scene.open()
    for server in scene.servers:
        server.mood = "hangs"
    started = time.monotonic()
    with pytest.raises(OutOfTime):
        detector.predict(PICTURE, started + 1.0)
    assert 0.9 < time.monotonic() - started < 60  # the server would hang for longer
    with pytest.raises(OutOfTime):
        detector.predict(PICTURE, time.monotonic())


def test_a_request_with_little_time_left_casts_no_doubt_on_a_healthy_endpoint(scene: Scene) -> None:
    for server in scene.servers:
        server.seconds = 0.5
    detector = scene.open()  # the proofs show what is usual
    with pytest.raises(OutOfTime):
        detector.predict(PICTURE, time.monotonic() + 0.3)
    states = [endpoint.state for endpoint in detector.elsewhere.endpoints]  # type: ignore[union-attr]
    assert states == ["up", "up"]
    assert not scene.tally.failures


def test_a_server_without_binary_arrays_gets_them_as_json(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    scene.servers[0].mood = "JSON only"
    detector = scene.open()
    for _ in range(4):
        assert detector.predict(PICTURE, soon()).probability == pytest.approx(scene.expected, abs=1e-5)
    assert scene.tally.answers == {0: 2, 1: 2}
    assert caplog.text.count("arrays as JSON") == 1
    assert "Traceback" not in caplog.text


def test_an_endpoint_that_serves_another_model_is_never_asked_for_a_picture(scene: Scene) -> None:
    scene.servers[0].mood = "another model"
    detector = scene.open()
    assert detector.backend_words == "remote: 1 of 2 endpoints"
    proofs = scene.servers[0].asked
    assert detector.predict(PICTURE, soon()).probability == pytest.approx(scene.expected, abs=1e-5)
    assert scene.tally.answers == {1: 1}
    assert proofs >= 1


def test_an_endpoint_that_comes_back_with_another_model_stays_out(scene: Scene) -> None:
    detector = scene.open()
    scene.servers[0].mood = "fails"
    while not scene.tally.failures[0]:
        detector.predict(PICTURE, soon())
    scene.servers[0].mood = "another model"
    until(detector, "remote: 1 of 2 endpoints")
    asked = scene.servers[0].asked
    while scene.servers[0].asked == asked:  # it was given the chance to prove itself
        time.sleep(0.01)
    assert detector.backend_words == "remote: 1 of 2 endpoints"


def test_without_any_endpoint_nothing_is_attempted(scene: Scene) -> None:
    detector = scene.open()
    for server in scene.servers:
        server.stop()
    with pytest.raises(NoEndpoint):
        detector.predict(PICTURE, soon())
    assert detector.obstacle is not None
    assert "no remote endpoint" in detector.obstacle
    assert "endpoint 0 (http://127.0.0.1:" in detector.obstacle
    assert "Connection refused" in detector.obstacle
    scene.servers[1].start()
    until(detector, "remote: 1 of 2 endpoints")
    assert detector.obstacle is None
    assert detector.predict(PICTURE, soon()).probability == pytest.approx(scene.expected, abs=1e-5)


def test_a_local_graph_stands_in_and_says_so(scene: Scene) -> None:
    detector = scene.open(fallback="onnx")
    for server in scene.servers:
        server.stop()
    for _ in range(2):
        assert detector.predict(PICTURE, soon()).probability == pytest.approx(scene.expected, abs=1e-6)
    assert scene.tally.local == 2
    assert detector.obstacle is None
    assert detector.backend_words.startswith("remote: 0 of 2 endpoints")
    assert detector.backend_words.endswith(" onnx")
    scene.servers[0].start()
    until(detector, "remote: 1 of 2 endpoints")
    detector.predict(PICTURE, soon())
    assert scene.tally.local == 2


def test_a_start_without_an_engine_says_what_is_wrong_with_each_endpoint(scene: Scene) -> None:
    scene.servers[0].stop()
    scene.servers[1].mood = "not ready"
    with pytest.raises(ModelError, match=r"endpoint 0 .*Connection refused; endpoint 1 .*server is not ready"):
        scene.open()
    scene.servers[1].mood = "well"
    with pytest.raises(ModelError, match=r"endpoint 1 .*'other' is not ready"):
        scene.open(model="other")
    standing_in = scene.open(fallback="onnx", model="other")
    assert standing_in.predict(PICTURE, soon()).probability == pytest.approx(scene.expected, abs=1e-6)


def test_pictures_of_many_threads_are_spread(scene: Scene) -> None:
    detector = scene.open()
    answers: list[float] = []

    def ask() -> None:
        answers.extend(detector.predict(PICTURE, soon()).probability for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [pytest.approx(scene.expected, abs=1e-5)] * 80
    assert min(scene.tally.answers[0], scene.tally.answers[1]) > 20
    assert [endpoint.busy for endpoint in detector.elsewhere.endpoints] == [0, 0]  # type: ignore[union-attr]


def test_closing_ends_what_is_under_way(scene: Scene) -> None:
    detector = scene.open()
    for server in scene.servers:
        server.mood = "hangs"
    caught: list[Exception] = []

    def ask() -> None:
        try:
            detector.predict(known_picture(), soon())
        except NoEndpoint as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not any(endpoint.busy for endpoint in detector.elsewhere.endpoints):  # type: ignore[union-attr]
        time.sleep(0.01)
    detector.close()
    thread.join(PATIENCE)
    assert caught


def test_there_are_no_faster_precisions_and_no_backend_without_endpoints() -> None:
    with pytest.raises(ModelError, match="REMOTE_ENDPOINTS"):
        load_starter("remote", RunOptions())
    with pytest.raises(DetectorConfigError, match="'remote' has no int8"):
        load_detector("ViT", read_config("starter.yaml"), Path("unused"), "remote", RunOptions(), "int8")
