"""Two daemons that share a state folder, and what may run beside one."""

import signal
import subprocess
from pathlib import Path

from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, Daemon, free_port
from tests.process.inspection import probability_of


def second(daemon: Daemon, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with the settings of a daemon."""
    return subprocess.run(
        [*daemon.command, *command], env=daemon.environment, capture_output=True, text=True, timeout=PATIENCE
    )


def test_a_second_miner_on_the_same_state_folder_is_refused_and_told_the_pid_of_the_first(
    start_daemon: StartDaemon, street: bytes
) -> None:
    first = start_daemon().ready()
    ports = [f"MINER_AXON_PORT={free_port()}", f"STATUS_PORT={free_port()}"]
    done = second(first, "run", "--set", ports[0], "--set", ports[1])
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: STATE_DIR={first.state}: ")
    assert f"pid {first.pid};" in line
    probability_of(first.ask(street))


def test_a_killed_miner_leaves_its_folder_free_and_commands_run_beside_a_running_one(
    start_doomed: StartDaemon, street: bytes, tmp_path: Path
) -> None:
    daemon = start_doomed().ready()
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    daemon.start().ready()
    photo = tmp_path / "street.jpg"
    photo.write_bytes(street)
    wallets = f"WALLET_PATH={daemon.state / 'wallets'}"
    for command in (["query", str(photo), "--set", wallets], ["top", "--once"]):
        done = second(daemon, *command)
        assert done.returncode == 0, done.stderr
    assert daemon.stop() == 0


def test_without_a_running_miner_there_is_nothing_to_reload(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, {})
    done = second(daemon, "reload")
    daemon.close()
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: STATE_DIR={daemon.state}: no miner runs")
