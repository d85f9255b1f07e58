"""`serve run` with the shipped configuration, as an operator runs it on one box."""

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import yaml

from tests.process.daemon import PATIENCE, clean_environment, eventually, free_port
from tests.process.environments import REPOSITORY

CONFIGURATION = REPOSITORY / "deploy" / "remote" / "ray" / "serve.yaml"


class RayServe:
    """One box that serves each model folder at `/<name>`, on as many replicas as are given with it."""

    def __init__(self, folder: Path, python: Path, models: Mapping[str, tuple[Path, int]]) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.models = models
        self._command = [python.with_name("serve"), "run", folder / "serve.yaml"]
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "serve.yaml").write_text(yaml.safe_dump(self._configuration()))

    def _configuration(self) -> dict[str, Any]:
        """Return the shipped one, with this box's port, folders and share of the CPU."""
        content: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
        content["http_options"] |= {"host": "127.0.0.1", "port": self.port}
        (shipped,) = content["applications"]
        (deployment,) = shipped["deployments"]
        deployment.pop("autoscaling_config", None)
        content["applications"] = []
        for name, (path, replicas) in self.models.items():
            own = deployment | {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0.2}}
            place = {"name": name, "route_prefix": f"/{name}", "args": {"model_folder": str(path)}}
            content["applications"].append(shipped | place | {"deployments": [own]})
        return content

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        environment = clean_environment(
            PYTHONPATH=str(REPOSITORY), RAY_USAGE_STATS_ENABLED="0", RAY_DISABLE_IMPORT_WARNING="1"
        )
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=REPOSITORY, env=environment
            )
        eventually(self.is_complete)
        return self

    def is_complete(self) -> bool:
        """Whether every replica there should be is there."""
        wanted = self.models.items()
        return all(self.is_ready(name) and len(self.replicas(name)) == count for name, (_, count) in wanted)

    def is_ready(self, name: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log.txt").read_text()[-4000:]
        try:
            return httpx.get(f"{self.address}/{name}/v2/health/ready", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def replicas(self, name: str) -> list[psutil.Process]:
        """Return the processes that hold a model, as Ray titles them."""
        assert self._process is not None
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                if f"ServeReplica:{name}:Model" in " ".join(process.cmdline()):  # and what it does at the moment
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def kill_all(self, name: str) -> None:
        """Kill the replicas of a model, however often Ray starts them again while this is called."""
        for process in self.replicas(name):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def stop(self) -> None:
        """End all of it."""
        if self._process is None:
            return
        own = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._process = None
        _, alive = psutil.wait_procs(own, timeout=30)
        for process in alive:
            process.kill()
