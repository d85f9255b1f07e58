"""How a miner starts, or says why it does not."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from html import unescape
from pathlib import Path

import httpx
import pytest

from detectors.models import MODEL_FILE
from tests.process.conftest import Settings, StartDaemon, go_on
from tests.process.daemon import PATIENCE, Daemon, clean_environment, eventually, free_port
from tests.process.graphs import write_model
from tests.process.hangup import MOMENTS
from tests.process.inspection import probability_of

PUBLISHED = {"publication": "standalone: nothing to publish"}
READY = {"ready": True, "reason": None, "chain": {"age_seconds": 0, "fault": None} | PUBLISHED}
HEAVY = ("torch", "transformers", "ultralytics", "torchvision")


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    """The folder of a model that a test may damage; its YAML file lies beside it."""
    return write_model(tmp_path / "own").with_suffix("")


def miner_run(folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a miner that is not expected to get far."""
    ports = {"MINER_AXON_PORT": free_port(), "STATUS_PORT": free_port(), "MINER_AXON_HOST": "127.0.0.1"}
    values = {"STATE_DIR": folder / "state", "MODELS_DIR": folder / "models"} | ports | settings
    program = "tests.process.sleeper" if settings.get("IMAGE_DETECTOR_BACKEND") == "sleeping" else "miner"
    return subprocess.run(
        [sys.executable, "-m", program, "run", *arguments], capture_output=True, text=True, timeout=PATIENCE,
        env=clean_environment(**{key: str(value) for key, value in values.items()}),
    )  # fmt: skip


def errors_of(run: subprocess.CompletedProcess[str], code: int) -> list[str]:
    """Return the lines of a refusal to start, without their prefix."""
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    return [line.removeprefix("error: ") for line in run.stderr.splitlines() if line.startswith("error: ")]


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file, in place."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_operators_port_answers_before_the_miner_is_ready(start_daemon: StartDaemon, loading: Settings) -> None:
    daemon = start_daemon(**loading)
    eventually(lambda: daemon.status("/healthz") == 200 or daemon.ended)
    assert daemon.status("/readyz") == 503
    eventually(lambda: daemon.page("/readyz").json() == {"ready": False, "reason": "loading the model"})
    assert daemon.metric("ready") == 0
    with pytest.raises(httpx.ConnectError):
        daemon.http.get("/")
    go_on(loading)
    daemon.ready()
    assert daemon.page("/readyz").json() == READY
    assert daemon.metric("ready") == 1


def test_the_operators_port_has_its_pages(miner: Daemon) -> None:
    assert miner.page("/healthz").json() == {"alive": True}
    assert miner.page("/readyz").json() == READY
    assert miner.page("/metrics").headers["content-type"].startswith("text/plain")
    assert miner.page("/else").status_code == 404
    assert {"requests_total", "queue_depth", "memory_bytes", "pace_seconds"} <= {name for name, _, _ in miner.samples()}


def test_the_log_says_ready_with_port_detector_threads_and_hotkey(miner: Daemon) -> None:
    (line,) = eventually(lambda: [line for line in miner.log.splitlines() if " ready: " in line])
    hotkey = miner.keys.miner.hotkey.ss58_address
    for part in (f":{miner.port}", "ViT ", "1 slot × 1 thread", hotkey, "standalone", str(miner.status_port)):
        assert part in line


def test_which_class_is_roadwork_stands_wherever_the_model_is_shown(miner: Daemon) -> None:
    (line,) = (line for line in miner.log.splitlines() if " ready: " in line)
    (labels,) = (labels for name, labels, _ in miner.samples() if name == "model_info")
    words = labels["roadwork"]
    assert words.startswith("class ")
    assert f"roadwork = {words}" in line
    assert miner.page("/status").json()["model"]["roadwork"] == words
    assert words in unescape(miner.page("/").text)


def test_settings_may_be_given_as_key_and_value(tmp_path: Path, model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assignments = {"MINER_AXON_PORT": port, "STATUS_PORT": free_port(), "IMAGE_DETECTOR_CONFIG": model}
        flags = [part for key, value in assignments.items() for part in ("--set", f"{key}={value}")]
        (line,) = errors_of(miner_run(tmp_path, *flags), 3)
        assert f"MINER_AXON_PORT={port}" in line


@pytest.mark.parametrize("key", ["MINER_AXON_PORT", "STATUS_PORT"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, model: str, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (line,) = errors_of(miner_run(tmp_path, IMAGE_DETECTOR_CONFIG=model, **{key: port}), 3)
    assert line.startswith(f"{key}={port}: the port is")


def test_all_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    wrong = {
        "MINER_AXON_PORT": "80910",
        "IMAGE_DETECTOR": "VITT",
        "QUEUE_DEPTH": "none",
        "BLACKLIST_FORCE_VALIDATOR_PERMIT": "perhaps",
        "SUBTENSOR_NETWORK": "fineny",
    }
    lines = errors_of(miner_run(tmp_path, **wrong), 2)
    assert len(lines) == len(wrong)
    for key, value in wrong.items():
        (line,) = (line for line in lines if line.startswith(f"{key}={value}: "))
    assert "finney?" in line


def test_a_wallet_that_is_missing_is_one_line_with_the_command_that_makes_it(tmp_path: Path) -> None:
    wallets = tmp_path / "wallets"
    settings = {
        "SUBTENSOR_NETWORK": "ws://127.0.0.1:1",
        "WALLET_PATH": wallets,
        "IMAGE_DETECTOR_CONFIG": "starter.yaml",
    }
    (line,) = errors_of(miner_run(tmp_path, **settings), 2)
    assert line.startswith(f"WALLET_HOTKEY=default: there is no {wallets}/default/hotkeys/default; ")
    assert line.endswith(f": btcli wallet new-hotkey --wallet default --wallet-hotkey default --wallet-path {wallets}")


@pytest.mark.parametrize("name", [MODEL_FILE, "preprocessor_config.json"])
def test_a_damaged_model_is_refused_by_the_name_of_its_file(tmp_path: Path, own_model: Path, name: str) -> None:
    damage(own_model / name)
    (line,) = errors_of(miner_run(tmp_path, IMAGE_DETECTOR_CONFIG=own_model.with_suffix(".yaml")), 3)
    assert str(own_model / name) in line


def test_a_model_with_a_file_missing_is_refused_by_its_name(tmp_path: Path, own_model: Path) -> None:
    (own_model / MODEL_FILE).unlink()
    (line,) = errors_of(miner_run(tmp_path, IMAGE_DETECTOR_CONFIG=own_model.with_suffix(".yaml")), 3)
    assert str(own_model / MODEL_FILE) in line


def test_an_unknown_detector_configuration_is_refused(tmp_path: Path) -> None:
    (line,) = errors_of(miner_run(tmp_path, IMAGE_DETECTOR_CONFIG="nowhere.yaml"), 2)
    assert line.startswith("IMAGE_DETECTOR_CONFIG=nowhere.yaml: ")


def test_a_model_slower_than_the_deadline_is_refused(tmp_path: Path, slowness: Settings) -> None:
    settings = slowness | {"DEADLINE_CAP_SECONDS": 0.55, "DEADLINE_MARGIN_SECONDS": 0.5, "INFERENCE_THREADS": 1}
    (line,) = errors_of(miner_run(tmp_path, **settings), 3)
    assert "one picture takes" in line


def test_a_model_that_hangs_on_the_known_picture_ends_the_start(tmp_path: Path) -> None:
    hanging = write_model(tmp_path / "hanging", rounds=10**12, known_answer=0.5)
    (line,) = errors_of(miner_run(tmp_path, IMAGE_DETECTOR_CONFIG=hanging, INFERENCE_LIMIT_SECONDS=0.5), 3)
    assert re.fullmatch("the model did not .* within 2 s", line)


def test_a_stop_while_starting_is_no_failure(start_daemon: StartDaemon, loading: Settings) -> None:
    daemon = start_daemon(**loading)
    eventually(lambda: daemon.status("/healthz") == 200 or daemon.ended)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


def test_a_stop_at_the_very_beginning_leaves_no_trace(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    assert daemon.stop() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Traceback" not in daemon.log


HANGUP = (sys.executable, "-m", "tests.process.hangup")
IGNORED = "reload ignored"


def test_a_reload_in_the_middle_of_the_imports_is_ignored_with_a_word(
    tmp_path: Path, own_model: Path, street: bytes
) -> None:
    daemon = Daemon(tmp_path, {"IMAGE_DETECTOR_CONFIG": own_model.with_suffix(".yaml")})
    daemon.command = HANGUP
    with closing(daemon):
        daemon.start().ready()
        assert daemon.log.count(IGNORED) > len(MOMENTS) / 2, "some come while another one is told of"
        assert daemon.metric("model_reloads_total") == 0
        assert probability_of(daemon.ask(street)) >= 0
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log


def test_a_reload_at_any_moment_of_the_start_ends_nothing(start_daemon: StartDaemon, street: bytes) -> None:
    daemon = start_daemon()
    maps = Path(f"/proc/{daemon.pid}/maps")  # before our first line Python itself would end: wait for our first import
    eventually(lambda: "pydantic_core" in maps.read_text(encoding="utf-8") or daemon.ended)
    while "ready: port" not in daemon.log and not daemon.ended:
        daemon.signal(signal.SIGHUP)
        time.sleep(0.005)
    daemon.ready()
    assert IGNORED in daemon.log
    assert probability_of(daemon.ask(street)) >= 0


@pytest.mark.parametrize("command", [["query", "nowhere.jpg"], ["models", "list"], ["doctor", "--json"]])
def test_other_commands_end_on_a_hangup_as_any_program_does(command: list[str]) -> None:
    done = subprocess.run([*HANGUP, *command], capture_output=True, timeout=PATIENCE, env=clean_environment())
    assert done.returncode == -signal.SIGHUP


def test_a_reload_keeps_serving(start_daemon: StartDaemon, own_model: Path, street: bytes) -> None:
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG=own_model.with_suffix(".yaml")).ready()
    before = probability_of(daemon.ask(street))
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.metric("model_reloads_total", result="ok") == 1)
    assert probability_of(daemon.ask(street)) == before
    shutil.rmtree(own_model)
    write_model(own_model, bias=2.0)
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.metric("model_reloads_total", result="ok") == 2)
    assert probability_of(daemon.ask(street)) > before
    shutil.rmtree(own_model / "optimized")  # which would be served in its place
    damage(own_model / MODEL_FILE)
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.metric("model_reloads_total", result="failed") == 1)
    assert probability_of(daemon.ask(street)) > before
    eventually(lambda: "reload failed" in daemon.log)
    assert daemon.status("/readyz") == 200


def test_a_serving_process_has_loaded_no_torch(miner: Daemon, street: bytes) -> None:
    probability_of(miner.ask(street))
    maps = Path(f"/proc/{miner.pid}/maps").read_text(encoding="utf-8")
    for name in HEAVY:
        assert f"/{name}/" not in maps


def test_a_miner_leaves_nothing_in_the_home_folder(
    start_daemon: StartDaemon, street: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As onnxruntime does, which keeps there what it is going to tell its makers; on CI it would not."""
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    daemon = start_daemon().ready()
    probability_of(daemon.ask(street))
    assert daemon.stop() == 0
    assert list(home.rglob("*")) == []


def test_help_loads_nothing_heavy() -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "miner", "--help"],
        capture_output=True, text=True, timeout=PATIENCE, env=clean_environment(),
    )  # fmt: skip
    assert run.returncode == 0
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert "miner" in loaded
    assert not loaded & {*HEAVY, "onnxruntime", "bittensor"}


def test_a_serving_process_imports_nothing_heavy(tmp_path: Path, model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends by itself, behind the model and the chain
        port = taken.getsockname()[1]
        settings = {"IMAGE_DETECTOR_CONFIG": model, "MINER_AXON_PORT": port, "PYTHONPROFILEIMPORTTIME": "1"}
        miner_run(tmp_path, **settings)  # which makes the keys, with the SDK
        run = miner_run(tmp_path, **settings)
    assert run.returncode == 3
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert {"miner", "onnxruntime", "uvicorn", "bittensor_core"} <= loaded
    assert not loaded & {*HEAVY, "bittensor", "eth_account", "jinja2", "textual", "huggingface_hub", "onnx"}


# What a miner is when it begins to serve, which is as far as this one gets.
COLLECTOR = """
import gc, sys
import miner.app
from miner.__main__ import main

class Daemon:
    hung = False
    def __init__(self, *_):
        print(gc.isenabled(), gc.get_freeze_count() > 0)
    async def run(self): ...

miner.app.Daemon = Daemon
sys.argv = ["roadwork-miner", "run"]
main()
"""


def test_garbage_is_collected_again_when_everything_is_imported(tmp_path: Path) -> None:
    environment = clean_environment(STATE_DIR=str(tmp_path), MODELS_DIR=str(tmp_path))
    run = subprocess.run(
        [sys.executable, "-c", COLLECTOR], capture_output=True, text=True, timeout=PATIENCE, env=environment
    )
    assert run.stdout.split() == ["True", "True"], run.stderr
