"""Another model in a running miner: taken if it is fit, named if it is not, and nobody notices."""

import json
import re
import signal
import statistics
import subprocess
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from detectors.models import MODEL_FILE
from tests.process.conftest import StartDaemon, daemons
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.graphs import write_model
from tests.process.inspection import probability_of
from tests.process.wire import DOORS

FOREVER = 10**12  # rounds
BRIGHTER = 2.0  # added to the logit


def reload(daemon: Daemon, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*daemon.command, "reload", *options], env=daemon.environment, capture_output=True, text=True, timeout=PATIENCE
    )


def reload_of(daemon: Daemon) -> dict[str, Any]:
    """Return what the daemon says of its reloads."""
    view: dict[str, Any] = daemon.page("/status").json()["reload"]
    return view


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the model that serves."""
    write_model(tmp_path / "first")
    return tmp_path


def choose(models: Path, yaml: Path | str, *more: str) -> None:
    """Change the settings file."""
    (models / "miner.env").write_text("\n".join([f"IMAGE_DETECTOR_CONFIG={yaml}", *more]) + "\n")


class Asking:
    """Validators who ask without pause in threads of their own, until the end of the context."""

    def __init__(self, daemon: Daemon, image: bytes, callers: int = 3) -> None:
        self.answers: Counter[int] = Counter()
        self.probabilities: set[float] = set()
        self._daemon, self._image = daemon, image
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(callers)]

    def _ask(self, number: int) -> None:
        while not self._ended.is_set():
            answer = self._daemon.ask(self._image, DOORS[number % 4], timeout="12")
            self.answers[answer.status_code] += 1
            if answer.status_code == 200:
                self.probabilities.add(round(answer.json()["prediction"], 6))

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_a_changed_setting_is_taken_and_no_request_is_lost_meanwhile(
    start_daemon: StartDaemon, models: Path, street: bytes
) -> None:
    env = models / "miner.env"
    choose(models, models / "first.yaml")
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG="", env_file=env).ready()
    before = probability_of(daemon.ask(street))
    second = write_model(models / "second", bias=BRIGHTER)
    with Asking(daemon, street) as asking:
        eventually(lambda: asking.answers[200] > 20)
        for yaml in (second, models / "first.yaml", second):
            choose(models, yaml, "QUEUE_DEPTH=7")
            done = reload(daemon, "--env-file", str(env), "--json")
            assert done.returncode == 0, done.stdout + done.stderr
            assert yaml.stem in json.loads(done.stdout)["text"]
        told = asking.answers[200]
        eventually(lambda: asking.answers[200] > told + 20)
    assert set(asking.answers) == {200}
    after = probability_of(daemon.ask(street))
    assert after > before
    assert asking.probabilities == {round(before, 6), round(after, 6)}
    eventually(lambda: "on 8 pictures: probabilities differ" in daemon.log)
    eventually(lambda: "a restart: QUEUE_DEPTH" in daemon.log)
    assert daemon.metric("model_reloads_total", result="ok") == 3
    assert daemon.metric("model_info", name="second") == 1


def test_a_shadow_that_is_promoted_serves_and_is_no_longer_its_own_shadow(
    start_daemon: StartDaemon, models: Path, street: bytes
) -> None:
    env, second = models / "miner.env", write_model(models / "second", bias=BRIGHTER)
    choose(models, models / "first.yaml", f"SHADOW_DETECTOR_CONFIG={second}", "SHADOW_SAMPLE=1")
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG="", env_file=env).ready()
    eventually(lambda: daemon.metric("shadow_up") == 1)
    before = probability_of(daemon.ask(street))
    eventually(lambda: daemon.page("/status").json()["shadow"]["compared"] == 1)
    with Asking(daemon, street, callers=1) as asking:
        choose(models, second, f"SHADOW_DETECTOR_CONFIG={second}", "SHADOW_SAMPLE=1")
        done = reload(daemon, "--env-file", str(env))
        assert done.returncode == 0, done.stdout + done.stderr
        assert daemon.metric("shadow_up") == 0
        assert daemon.page("/status").json()["shadow"] is None
        told = asking.answers[200]
        eventually(lambda: asking.answers[200] > told + 5)
    assert set(asking.answers) == {200}
    assert probability_of(daemon.ask(street)) > before
    eventually(lambda: "shadow is stopped" in daemon.log)
    # The model of before comes to watch the new one: a reload begins a shadow too, with a count of its own.
    choose(models, second, f"SHADOW_DETECTOR_CONFIG={models / 'first.yaml'}", "SHADOW_SAMPLE=1")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: reload_of(daemon)["done"] == 2)
    assert daemon.page("/status").json()["shadow"]["compared"] == 0
    eventually(lambda: daemon.metric("shadow_up") == 1)


def test_an_unfit_model_changes_nothing_and_the_reason_is_told(
    start_daemon: StartDaemon, models: Path, street: bytes
) -> None:
    env = models / "miner.env"
    choose(models, models / "first.yaml")
    # To validators an answer has to be on its way after 1 s; those who ask here wait for as long as it takes.
    limits = {"DEADLINE_CAP_SECONDS": PATIENCE, "DEADLINE_MARGIN_SECONDS": 8}
    more = {"IMAGE_DETECTOR_BACKEND": "sleeping", **limits}
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG="", env_file=env, **more).ready()
    before = probability_of(daemon.ask_patiently(street))
    damaged = write_model(models / "damaged")
    graph = damaged.with_suffix("") / MODEL_FILE
    graph.write_bytes(graph.read_bytes()[:-1])
    slow = str(write_model(models / "slow", seconds=1.2))
    unfit = {
        str(write_model(models / "nan", bias=float("nan"), known_answer=0.5)): "not finite",
        str(write_model(models / "swapped", known_answer=0.0001)): "not 0.0001",
        str(damaged): str(graph),
        slow: "one picture takes",
        str(models / "nowhere.yaml"): "IMAGE_DETECTOR_CONFIG=",
    }
    for number, (yaml, reason) in enumerate(unfit.items(), start=1):
        choose(models, yaml)
        daemon.signal(signal.SIGHUP)
        eventually(lambda number=number: reload_of(daemon)["done"] == number)
        assert not reload_of(daemon)["ok"]
        assert reason in reload_of(daemon)["text"]
        assert daemon.metric("model_reloads_total", result="failed") == number
        assert probability_of(daemon.ask_patiently(street)) == before
    choose(models, models / "first.yaml", "IMAGE_DETECTOR=VITT")
    done = reload(daemon, "--env-file", str(env), "--set", "IMAGE_DETECTOR=ViT")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("not reloaded, ")
    view = reload_of(daemon)
    assert (view["asked"], view["done"], view["ok"]) == (len(unfit) + 1, len(unfit) + 1, False)
    assert "IMAGE_DETECTOR=VITT: allowed: " in view["text"]
    assert daemon.status("/readyz") == 200
    assert probability_of(daemon.ask_patiently(street)) == before


def test_why_a_model_can_not_be_prepared_is_told_by_the_reload_and_by_whoever_is_asked_later(
    start_daemon: StartDaemon, models: Path, street: bytes
) -> None:
    env, gone = models / "miner.env", models / "gone.yaml"
    gone.write_text(f"hf_repo: you/gone\nrevision: {'a' * 40}\n", encoding="utf-8")
    choose(models, models / "first.yaml")
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG="", env_file=env, HF_HUB_OFFLINE=1).ready()
    choose(models, gone)
    done = reload(daemon, "--env-file", str(env))
    reason = f"you/gone at revision {'a' * 40} can't be fetched"
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("not reloaded, ")
    assert reason in done.stdout
    assert reason in reload_of(daemon)["text"]
    assert "· finding you/gone" in daemon.log, "its output"
    assert any("reload failed" in line and reason in line for line in daemon.log.splitlines())
    told = subprocess.run(
        [*daemon.command, "doctor", "--json"], env=daemon.environment, capture_output=True, text=True, timeout=PATIENCE
    )
    (finding,) = (one for one in json.loads(told.stdout)["findings"] if one["name"] == "miner")
    assert finding["level"] == "warning"
    assert reason in finding["words"]
    assert probability_of(daemon.ask(street)) >= 0


def test_a_model_that_hangs_is_given_up_and_stands_in_the_way_of_neither_the_next_one_nor_the_end(
    start_daemon: StartDaemon, models: Path, street: bytes
) -> None:
    env = models / "miner.env"
    choose(models, models / "first.yaml")
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG="", env_file=env, INFERENCE_LIMIT_SECONDS=1).ready()
    before = probability_of(daemon.ask(street))
    choose(models, write_model(models / "hanging", rounds=FOREVER, known_answer=0.5))
    daemon.signal(signal.SIGHUP)
    eventually(lambda: reload_of(daemon)["done"] == 1)
    assert re.fullmatch("the model did not .* within 4 s", reload_of(daemon)["text"])
    assert probability_of(daemon.ask(street)) == before
    choose(models, write_model(models / "second", bias=BRIGHTER))
    daemon.signal(signal.SIGHUP)
    eventually(lambda: reload_of(daemon)["done"] == 2)
    assert reload_of(daemon)["ok"], daemon.log
    assert probability_of(daemon.ask(street)) > before
    assert daemon.stop() == 0  # although a thread runs still


def test_a_model_without_an_answer_to_a_validators_last_picture_is_not_taken(
    start_daemon: StartDaemon, models: Path, model: str, black: bytes
) -> None:
    env = models / "miner.env"
    choose(models, model)
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG="", env_file=env).ready()
    before = probability_of(daemon.ask(black))  # which the starter has no trouble with
    choose(models, models / "first.yaml")
    done = reload(daemon, "--env-file", str(env))
    assert done.returncode == 1
    assert "output is not finite" in done.stdout
    assert probability_of(daemon.ask(black)) == before


def test_a_settings_file_that_is_gone_is_named_and_stands_in_the_way_of_no_later_reload(
    start_daemon: StartDaemon, models: Path, street: bytes
) -> None:
    env = models / "miner.env"
    choose(models, models / "first.yaml")
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG="", env_file=env).ready()
    env.rename(models / "away.env")
    daemon.process.send_signal(signal.SIGHUP)
    view = eventually(lambda: (found := reload_of(daemon))["done"] == 1 and found)
    assert (view["ok"], str(env) in view["text"]) == (False, True)
    (models / "away.env").rename(env)
    assert reload(daemon, "--env-file", str(env)).returncode == 0
    assert daemon.ask(street).status_code == 200


def test_the_old_models_memory_is_given_back(
    tmp_path_factory: pytest.TempPathFactory, model: str, street: bytes
) -> None:
    with daemons(tmp_path_factory, model) as start:
        daemon = start().ready()
        sizes = []
        for _ in range(8):
            probability_of(daemon.ask(street))
            done = reload(daemon)
            assert done.returncode == 0, done.stdout + done.stderr
            sizes.append(daemon.metric("memory_bytes", kind="resident") / 2**20)
    # A model that stays adds 3 MiB at each reload. The heap itself grows by 12 MiB once, at any of them.
    assert statistics.median(after - before for before, after in pairwise(sizes)) < 1, sizes
