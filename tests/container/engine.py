"""Podman and buildah with a store of their own, below one folder; nothing of the machine's own is seen or changed."""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.process.daemon import PATIENCE, clean_environment
from tests.process.environments import REPOSITORY

PROGRAMS = ("buildah", "podman", "podman-compose", "runc", "netavark", "aardvark-dns", "catatonit", "debootstrap")
COMPOSE = REPOSITORY / "deploy" / "docker" / "compose.yaml"
DOCKERFILE = REPOSITORY / "deploy" / "docker" / "Dockerfile"
MOST_FILES, MOST_PROCESSES = 4096, 8192
PLACES = "/usr/lib/podman:/usr/libexec/podman"


class Engine:
    """The two programs, with settings that need neither a systemd nor overlays."""

    def __init__(self, folder: Path) -> None:
        """Write the settings; `folder` has a short name, for podman's sockets lie in it."""
        self.folder = folder
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/store"\nrunroot = "{folder}/run"\n'
        )
        self.limits = {
            "nofile": _allowed(resource.RLIMIT_NOFILE, MOST_FILES),
            "nproc": _allowed(resource.RLIMIT_NPROC, MOST_PROCESSES),
        }
        listed = json.dumps([f"{name}={limit}:{limit}" for name, limit in self.limits.items()])
        (folder / "containers.conf").write_text(
            f"[containers]\ndefault_ulimits = {listed}\n"
            f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
            f'tmp_dir = "{folder}/libpod"\nstatic_dir = "{folder}/store/libpod"\nvolume_path = "{folder}/volumes"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{folder}/networks"\n'
        )
        self.environment = clean_environment(
            CONTAINERS_STORAGE_CONF=str(folder / "storage.conf"), CONTAINERS_CONF=str(folder / "containers.conf")
        )

    def try_run(self, *words: str, given: bytes | None = None, **more: str) -> "subprocess.CompletedProcess[bytes]":
        """Run a program, whatever comes of it."""
        return subprocess.run(
            words, input=given, capture_output=True, env=self.environment | more, timeout=10 * PATIENCE, cwd=REPOSITORY
        )

    def run(self, *words: str, given: bytes | None = None, **more: str) -> str:
        """Run a program and return what it printed."""
        done = self.try_run(*words, given=given, **more)
        assert done.returncode == 0, f"{' '.join(words)}\n{(done.stdout + done.stderr).decode()}"
        return done.stdout.decode().strip()

    def podman(self, *words: str, given: bytes | None = None) -> str:
        return self.run("podman", *words, given=given)

    def build(self, file: Path, tag: str, context: Path, volumes: Sequence[str] = ()) -> None:
        """Build an image of images that are here; no registry is asked."""
        mounts = [word for volume in volumes for word in ("-v", volume)]
        where = ("--isolation", "chroot", "--format", "docker", "--pull-never")
        self.run("buildah", "bud", "-q", *where, *mounts, "-f", str(file), "-t", tag, str(context))

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.podman(kind, "inspect", name))
        return dict(found)

    def exit_code(self, name: str) -> int:
        return int(self.inspect("container", name)["State"]["ExitCode"])

    def close(self) -> None:
        """End and remove all of it."""
        self.try_run("podman", "rm", "-af", "-t", "0")
        self.try_run("podman", "network", "prune", "-f")
        self.try_run("podman", "rmi", "-af")
        shutil.rmtree(self.folder, ignore_errors=True)


def missing_programs() -> list[str]:
    """Return which of the programs this machine lacks."""
    places = f"{os.environ['PATH']}:{PLACES}"
    return [program for program in PROGRAMS if shutil.which(program, path=places) is None]


def _allowed(kind: int, most: int) -> int:
    """Return a limit that needs no right to raise one."""
    hard = resource.getrlimit(kind)[1]
    return most if hard == resource.RLIM_INFINITY else min(hard, most)
