"""A container with a systemd of its own, booted, without a network."""

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.process.daemon import PATIENCE, eventually
from tests.process.environments import REPOSITORY, run

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
SOURCES = ("Makefile", "pyproject.toml", "README.md", "LICENSE", "miner", "detectors", "env", "deploy")


class Machine:
    """The container: boots with the context, is powered off at its end."""

    def __init__(self, root: Path, shared: Path, wheels: Path) -> None:
        self.root = root
        source = root.with_suffix(".source")  # as it is now, whatever is edited meanwhile
        source.mkdir()
        run("cp", "-r", *(str(REPOSITORY / part) for part in SOURCES), str(source))
        binds = [f"--bind-ro={wheels}:/wheels", f"--bind={shared}:/shared", f"--bind-ro={source}:/source"]
        # Neither registered with a systemd of the host nor in a unit of its own: there need be none.
        self.command = ["systemd-nspawn", "-q", "-D", str(root), "--register=no", "--keep-unit", "--private-network",
                        *binds, "-b"]  # fmt: skip
        self.console = root.with_suffix(".console")

    def __enter__(self) -> Self:
        # As on today's distributions. With version 1, systemd may take a service that starts for one that has ended.
        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with self.console.open("wb") as console:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment,
                start_new_session=True,
            )  # fmt: skip
        self.init = eventually(self._find_init)
        eventually(lambda: self.try_run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"))
        self.run("systemctl", "mask", "--now", "systemd-tmpfiles-clean.timer")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.try_run("systemctl", "poweroff", "--no-block")
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait(PATIENCE)

    def _find_init(self) -> int | None:
        """Return the process that is number 1 inside."""
        assert self.process.poll() is None, self.console.read_text(errors="replace")
        for child in psutil.Process(self.process.pid).children(recursive=True):
            lines = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii").splitlines()
            if any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in lines):
                return int(child.pid)
        return None

    def enter(self, *command: str, **environment: str) -> list[str]:
        """Return the command that runs inside."""
        given = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"} | OFFLINE | environment
        inside = ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", "env", "-i"]
        return [*inside, *(f"{key}={value}" for key, value in given.items()), *command]

    def try_run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.enter(*command, **environment), capture_output=True, text=True, timeout=5 * PATIENCE
        )  # fmt: skip

    def run(self, *command: str, **environment: str) -> str:
        """Run it inside and return what it printed."""
        done = self.try_run(*command, **environment)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def copy_source(self, name: str) -> str:
        """Return a checkout of its own, to be changed."""
        folder = f"/shared/{name}"
        self.run("mkdir", "-p", folder)
        self.run("cp", "-r", *(f"/source/{part}" for part in SOURCES), folder)
        return folder

    def files(self) -> set[str]:
        """Return all that is on its disk and stays there, but for what Python compiles and journald writes."""
        listed = self.run("find", "/", "-xdev", "-not", "-path", "*/__pycache__*").splitlines()
        passing = ("/proc", "/sys", "/run", "/tmp", "/var/tmp", "/var/log", "/dev", "/shared", "/source", "/wheels")
        return {path for path in listed if not path.startswith(passing)}


class Unit:
    """One service on the machine."""

    def __init__(self, machine: Machine, env: str) -> None:
        self.machine = machine
        self.env = env
        self.name = f"roadwork-miner@{env}.service"

    def make(self, target: str, source: str = "/source", **variables: str) -> subprocess.CompletedProcess[str]:
        """Call the Makefile as an operator does."""
        given = [f"{key}={value}" for key, value in ({"ENV": self.env} | variables).items()]
        return self.machine.try_run("make", "-s", "-C", source, target, *given)

    def systemctl(self, verb: str, *more: str) -> str:
        return self.machine.run("systemctl", verb, *more, self.name)

    def show(self, name: str) -> str:
        return self.systemctl("show", "-P", name).strip()

    @property
    def status(self) -> str:
        return self.show("StatusText")

    def is_ready(self) -> bool:
        return self.show("ActiveState") == "active" and self.status.startswith("ready: ")

    @property
    def release(self) -> str:
        return self.machine.run("readlink", f"/opt/roadwork-miner/current-{self.env}").strip()

    @property
    def previous(self) -> str:
        return self.machine.run("readlink", f"/opt/roadwork-miner/previous-{self.env}").strip()

    def journal(self) -> str:
        return self.machine.run("journalctl", "-u", self.name, "--no-pager", "-o", "cat")

    def set(self, **settings: str) -> None:
        """Write into the env file what an operator would."""
        lines = "".join(f"{key}={value}\n" for key, value in settings.items())
        with (self.machine.root / f"etc/roadwork-miner/{self.env}.env").open("a") as file:
            file.write(lines)

    def drop_in(self, text: str) -> None:
        """Change the unit as `systemctl edit` does."""
        folder = self.machine.root / f"etc/systemd/system/{self.name}.d"
        folder.mkdir(exist_ok=True)
        (folder / "override.conf").write_text(f"[Service]\n{text}\n")
        self.machine.run("systemctl", "daemon-reload")

    @property
    def program(self) -> str:
        return f"/opt/roadwork-miner/current-{self.env}/bin/roadwork-miner"

    def command(self, *words: str) -> str:
        """Run one of the miner's own commands as an operator does, and return what it printed."""
        return self.machine.run(self.program, *words, "--service", self.env)

    def query(self, photo: str, timeout: float = 9.0) -> list[str]:
        """Return the command of a validator who asks about a shared photo."""
        return [self.program, "query", f"/shared/{photo}", "--service", self.env, "--json", "--timeout", str(timeout)]

    def ask(self, photo: str, timeout: float = 9.0) -> dict[str, Any]:
        """Ask about a shared photo and return the reply."""
        done = self.machine.try_run(*self.query(photo, timeout))
        assert done.returncode in (0, 1), done.stderr
        reply: dict[str, Any] = json.loads(done.stdout)["replies"][0]
        return reply
