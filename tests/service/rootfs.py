"""A small system of this machine's own distribution, and wheels for its Python; both cached."""

import fcntl
import hashlib
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.process.environments import REPOSITORY, cache, run

PACKAGES = ("systemd", "systemd-sysv", "dbus", "make", "python3", "python3-venv")


def unpack_rootfs(root: Path) -> str:
    """Unpack the system, made on first use, and return the version of its Python."""
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    packed = cache() / f"rootfs-{suite}.tar"
    packed.parent.mkdir(parents=True, exist_ok=True)
    with packed.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not packed.is_file():
            mirror, components = _mirror(suite)
            options = ("--variant=minbase", f"--include={','.join(PACKAGES)}", f"--components={components}")
            run("debootstrap", *options, suite, str(root), mirror)
            partial = packed.with_suffix(".partial")
            run("tar", "-cf", str(partial), "-C", str(root), ".")
            partial.replace(packed)
        else:
            root.mkdir()
            run("tar", "-xf", str(packed), "-C", str(root))
    return run("chroot", str(root), "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()


def wheelhouse(python: str) -> Path:
    """Return a folder with all that the installer fetches, so that the machine needs no network."""
    pins = REPOSITORY / "env" / "serve.txt"
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    folder = cache() / f"wheels-{python}-{hashlib.sha256(pins.read_bytes() + repr(build).encode()).hexdigest()[:8]}"
    marker = folder / "complete"
    if not marker.is_file():
        only = ("--only-binary=:all:", "--python-version", python, "-d", str(folder))
        run(sys.executable, "-m", "pip", "download", "-q", *only, "--require-hashes", "-r", str(pins))
        run(sys.executable, "-m", "pip", "download", "-q", *only, *build)
        marker.touch()
    return folder


def _mirror(suite: str) -> tuple[str, str]:
    """Return where this machine's own packages come from, and the components it uses."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    found = [line.split() for line in listed if line.split()[1:2] == [suite]]
    assert found, f"apt knows no source for {suite}"
    mirror = found[0][0]
    known = {component for uri, _, component in found if uri == mirror}
    return mirror, ",".join(sorted(known & {"main", "universe"}))
