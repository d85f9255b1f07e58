"""A miner in places that offer less than usual: no home, closed streams, ASCII, a pipe for a file, few open files."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, Daemon, clean_environment, eventually, free_port
from tests.process.inspection import probability_of

NOBODY = ("unshare", "--user", "--map-user=12345", "--map-group=12345", "env", "-u", "HOME")  # without a passwd entry
CLOSED = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
FILES = 64


@pytest.fixture
def homeless() -> tuple[str, ...]:
    if shutil.which("unshare") is None or subprocess.run([*NOBODY, "true"], capture_output=True).returncode != 0:
        pytest.skip("may not be another user here")
    return NOBODY


def prepared(start_doomed: StartDaemon, *prefix: str, **settings: object) -> Daemon:
    """Return a daemon that was ready once and has stopped, to be started anew behind a prefix."""
    daemon = start_doomed(**settings).ready()
    assert daemon.stop() == 0
    daemon.prefix = prefix
    return daemon


def test_without_a_home_paths_of_ones_own_do(
    start_doomed: StartDaemon, street: bytes, homeless: tuple[str, ...], tmp_path: Path
) -> None:
    daemon = prepared(start_doomed, *homeless, WALLET_PATH=tmp_path / "wallets")
    daemon.start().ready()
    probability_of(daemon.ask(street))
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (["run"], ["WALLET_PATH", "STATE_DIR", "MODELS_DIR"]),
        (["models", "list"], ["WALLET_PATH", "STATE_DIR", "MODELS_DIR"]),
        (["train", ".", "--out", "run"], ["--cache"]),
    ],
)
def test_without_a_home_each_path_that_wants_one_is_named(
    homeless: tuple[str, ...], tmp_path: Path, command: list[str], keys: list[str]
) -> None:
    run = subprocess.run(
        [*homeless, sys.executable, "-m", "miner", *command], capture_output=True, text=True, timeout=PATIENCE,
        env=clean_environment(PYTHONPATH=str(Path.cwd())), cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    assert [line.removeprefix("error: ").partition("=")[0] for line in run.stderr.splitlines()] == keys
    assert list(tmp_path.iterdir()) == []


def test_with_every_stream_closed_it_serves_and_ends(start_doomed: StartDaemon, street: bytes) -> None:
    daemon = prepared(start_doomed, *CLOSED)
    daemon.start().ready()
    probability_of(daemon.ask(street))
    places = [Path(f"/proc/{daemon.pid}/fd/{number}").readlink() for number in range(3)]
    assert places == [Path(os.devnull)] * 3, "what is printed must not reach a socket"
    assert daemon.stop() == 0


@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_a_command_keeps_its_exit_code_with_closed_streams(closed: str) -> None:
    script = f'exec "{sys.executable}" -m miner top --no-env-file {closed}'
    run = subprocess.run(
        ["sh", "-c", script], timeout=PATIENCE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        env=clean_environment(STATUS_PORT=str(free_port())), check=False,
    )  # fmt: skip
    assert run.returncode == 3, "nobody answers"


def test_a_stream_that_knows_ascii_alone_ends_nothing(miner: Daemon, street: bytes, tmp_path: Path) -> None:
    photo = tmp_path / "straße.jpg"
    photo.write_bytes(street)
    run = subprocess.run(
        [*miner.command, "query", str(photo), "--count", "2"], capture_output=True, timeout=PATIENCE,
        env=miner.environment | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert b"2 of 2 answered" in run.stdout
    assert run.stdout.isascii()


def test_settings_from_a_pipe_are_read_once_and_last_for_a_reload(
    start_doomed: StartDaemon, street: bytes, tmp_path: Path
) -> None:
    pipe = tmp_path / "settings"
    os.mkfifo(pipe)
    writer = threading.Thread(
        target=pipe.write_text, args=["QUEUE_DEPTH=7\nNO_SUCH_KEY=1\nHF_HOME=/nowhere\n"], daemon=True
    )
    writer.start()
    daemon = start_doomed(env_file=pipe).ready()
    assert daemon.metric("queue_limit") == 7
    assert daemon.log.count("NO_SUCH_KEY") == 1
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.metric("model_reloads_total") == 1)
    assert daemon.metric("model_reloads_total", result="ok") == 1, daemon.log
    probability_of(daemon.ask(street))
    assert daemon.stop() == 0


def test_where_few_files_may_be_open_validators_still_share_connections(
    start_doomed: StartDaemon, street: bytes
) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is missing")
    daemon = prepared(start_doomed, "prlimit", f"--nofile={FILES}:{FILES}", DEADLINE_CAP_SECONDS=PATIENCE)
    daemon.start().ready()
    assert f"held at {FILES // 2}, as only {FILES} files" in daemon.log
    with ThreadPoolExecutor(FILES // 4) as pool:
        for answer in pool.map(lambda _: daemon.ask_patiently(street), range(FILES // 4)):
            probability_of(answer)
    with ExitStack() as strangers:
        for _ in range(2 * FILES):  # more than there are files
            strangers.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        probability_of(daemon.ask_patiently(street))
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log
