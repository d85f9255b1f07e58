"""The image, run as an operator runs it: nobody but root could write to it, and root is not there."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from miner import __version__
from tests.container.engine import Engine
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.graphs import rounds_a_second, write_model
from tests.process.inspection import probability_of

pytestmark = pytest.mark.timeout(1800)  # the first of them makes the systems and the image
MOST_BYTES = 450e6
USER = 10001
SECONDS_OF_WHITE = 3.0
NAME = "miner"
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges")
NO_SERVING = ("torch", "pip", "setuptools", "sklearn", "pytest", "tests")


class Box:
    """A container, and the daemon in it as seen from outside."""

    def __init__(self, engine: Engine, image: str, folder: Path, user: int, *options: str) -> None:
        self.engine = engine
        self.daemon = Daemon(folder, {})
        BOXES.append(self)
        _ = self.daemon.keys
        for path in (self.daemon.state, *self.daemon.state.rglob("*")):
            os.chown(path, user, user)
        ports = ((self.daemon.port, 8091), (self.daemon.status_port, 9464))
        published = [word for outside, inside in ports for word in ("-p", f"127.0.0.1:{outside}:{inside}")]
        state = ("-v", f"{self.daemon.state}:/state")
        engine.podman("run", "-d", "--name", NAME, *CONFINED, *state, *published, *options, image)

    def ready(self) -> Daemon:
        eventually(lambda: self.daemon.status("/readyz") == 200)
        return self.daemon

    def execute(self, *words: str) -> str:
        return self.engine.podman("exec", NAME, *words)


BOXES: list[Box] = []  # of the test that runs


@pytest.fixture(autouse=True)
def _none_left(engine: Engine) -> Iterator[None]:
    yield
    while BOXES:
        BOXES.pop().daemon.close()
    print(engine.try_run("podman", "logs", NAME).stderr.decode())
    engine.try_run("podman", "rm", "-f", "-t", "0", NAME)


def test_the_image_is_small_and_says_what_it_is(engine: Engine, image: str) -> None:
    found = engine.inspect("image", image)
    print(f"{image}: {found['Size'] / 1e6:.0f} MB")
    assert found["Size"] <= MOST_BYTES
    config = found["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert (config["StopSignal"], config["Entrypoint"], config["Cmd"]) == ("SIGTERM", ["roadwork-miner"], ["run"])
    assert config["Labels"]["org.opencontainers.image.version"] == __version__


def test_the_image_holds_what_serving_needs_and_nothing_else(engine: Engine, image: str) -> None:
    script = f"import importlib.util as u; print([n for n in {NO_SERVING} if u.find_spec(n)])"
    assert engine.podman("run", "--rm", "--entrypoint", "python", image, "-c", script) == "[]"
    names = (
        r"find / -xdev \( -name '*.env' -o -name hotkeys -o -name 'coldkey*' -not -name '*.py*' \) 2>/dev/null || true"
    )
    assert engine.podman("run", "--rm", "--entrypoint", "sh", image, "-c", names) == ""


def test_without_settings_it_serves_as_nobody_on_a_root_that_is_read_only(
    engine: Engine, image: str, tmp_path: Path, street: bytes
) -> None:
    box = Box(engine, image, tmp_path, USER, "--cpus", "1.5", "--memory", "1g")
    daemon = box.ready()
    probability_of(daemon.ask_patiently(street))
    assert box.execute("id", "-u") == str(USER)
    capabilities = box.execute("grep", "-E", "^(CapEff|NoNewPrivs)", "/proc/1/status").split()
    assert capabilities == ["CapEff:", "0" * 16, "NoNewPrivs:", "1"]
    for folder in ("/", "/opt/roadwork-miner", "/etc/roadwork-miner"):
        assert engine.try_run("podman", "exec", NAME, "touch", f"{folder}/x").returncode != 0
    engine.podman("healthcheck", "run", NAME)
    # The plan sees the container's limits, not the machine's.
    assert (daemon.metric("cpu_quota_cores"), daemon.metric("slots"), daemon.metric("threads_per_slot")) == (1.5, 1, 1)
    assert daemon.metric("memory_bytes", kind="cgroup_limit") == 2**30
    # Its own commands find the same settings inside.
    answer = engine.podman("exec", "-i", NAME, "roadwork-miner", "query", "/dev/stdin", "--json", given=street)
    assert '"status": 200' in answer


def test_whoever_owns_the_hotkey_may_run_it(engine: Engine, image: str, tmp_path: Path, street: bytes) -> None:
    box = Box(engine, image, tmp_path, 4321, "--user", "4321:4321")
    probability_of(box.ready().ask_patiently(street))
    assert box.execute("id", "-u") == "4321"


def test_a_stop_finishes_what_runs(engine: Engine, image: str, tmp_path: Path, white: bytes) -> None:
    models = tmp_path / "shared"
    models.mkdir()
    config = write_model(models / "slow", rounds_on_white=int(rounds_a_second(tmp_path / "pace") * SECONDS_OF_WHITE))
    settings = tmp_path / "miner.env"
    settings.write_text(
        f"IMAGE_DETECTOR_CONFIG={config}   # as StreetVision writes them\n"
        f"DEADLINE_CAP_SECONDS={PATIENCE}\nDRAIN_SECONDS=45\n"
    )
    mounts = ("-v", f"{models}:{models}:ro", "-v", f"{settings}:/etc/roadwork-miner/miner.env:ro")
    daemon = Box(engine, image, tmp_path, USER, *mounts).ready()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(daemon.ask_patiently, white)
        eventually(lambda: daemon.metric("running"))
        engine.podman("stop", "-t", "60", NAME)
        probability_of(running.result())
    assert engine.exit_code(NAME) == 0


def test_a_settings_file_that_an_editor_replaced_is_not_reloaded_as_it_was(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    settings = tmp_path / "miner.env"
    settings.write_text("IMAGE_DETECTOR_CONFIG=starter.yaml\n")
    Box(engine, image, tmp_path, USER, "-v", f"{settings}:/etc/roadwork-miner/miner.env:ro").ready()
    box = ("podman", "exec", NAME, "roadwork-miner", "reload")
    assert engine.try_run(*box).returncode == 0
    settings.with_suffix(".new").write_text("IMAGE_DETECTOR_CONFIG=mine.yaml\n")
    settings.with_suffix(".new").rename(settings)
    done = engine.try_run(*box)
    assert done.returncode == 1
    assert b"/etc/roadwork-miner/miner.env: " in done.stdout + done.stderr


def test_wrong_settings_are_exit_code_2(engine: Engine, image: str) -> None:
    done = engine.try_run("podman", "run", "--name", NAME, *CONFINED, "-e", "NETUID=hello", image)
    assert done.returncode == 2
    assert "NETUID=hello" in done.stderr.decode()
