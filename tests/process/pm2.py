"""pm2 with a home of its own, and the shipped file."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.process.daemon import PATIENCE, Daemon, clean_environment, eventually
from tests.process.environments import REPOSITORY

FILE = REPOSITORY / "deploy" / "pm2" / "ecosystem.config.js"
NAME = "roadwork-miner"


class Pm2:
    """A pm2 of its own, with the miner of a folder under it."""

    def __init__(self, daemon: Daemon, home: Path, environment: Mapping[str, str]) -> None:
        self.daemon = daemon
        self.env_file = daemon.folder / "miner.env"
        self.environment = dict(environment) | {"PM2_HOME": str(home), "ENV_FILE": str(self.env_file)}
        self.log_file = home / "logs" / f"{NAME}-error.log"

    def call(self, *words: str) -> str:
        done = subprocess.run(
            ["pm2", *words], env=self.environment, cwd="/", capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ready(self) -> None:
        eventually(lambda: self.daemon.status("/readyz") == 200)

    @property
    def entry(self) -> dict[str, Any]:
        """What pm2 knows of the miner."""
        (entry,) = json.loads(self.call("jlist").splitlines()[-1])
        return dict(entry)

    @property
    def exit_code(self) -> int:
        return int(self.entry["pm2_env"]["exit_code"])

    @property
    def restarts(self) -> int:
        return int(self.entry["pm2_env"]["restart_time"])


@contextmanager
def under_pm2(daemon: Daemon, environment: Mapping[str, str] | None = None) -> Iterator[Pm2]:
    """Start a folder's miner under pm2, and end both."""
    if shutil.which("pm2") is None:
        pytest.skip("pm2 is missing: npm install -g pm2")
    if not (REPOSITORY / ".venv" / "bin" / NAME).exists():
        pytest.skip("there is no .venv, which the file names: make setup")
    home = Path(tempfile.mkdtemp(prefix="pm2-"))  # its sockets' names must be short
    manager = Pm2(daemon, home, clean_environment() if environment is None else environment)
    try:
        manager.call("start", str(FILE))
        yield manager
    finally:
        print(manager.log_file.read_text() if manager.log_file.exists() else "no log")
        manager.call("kill")
        daemon.close()
        shutil.rmtree(home)
