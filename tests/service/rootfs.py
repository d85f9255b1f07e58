"""A small system of this machine's own distribution, and wheels for its Python; both cached."""

import fcntl
import hashlib
import platform
import subprocess
import sys
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
            address, components = mirror(suite)
            options = ("--variant=minbase", f"--include={','.join(PACKAGES)}", f"--components={components}")
            run("debootstrap", *options, suite, str(root), address)
            partial = packed.with_suffix(".partial")
            run("tar", "-cf", str(partial), "-C", str(root), ".")
            partial.replace(packed)
        else:
            root.mkdir()
            run("tar", "-xf", str(packed), "-C", str(root))
    return run("chroot", str(root), "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()


def wheelhouse(python: str) -> Path:
    """Return a folder with all that the installer fetches, so that the machine needs no network."""
    pins = [REPOSITORY / "env" / name for name in ("serve.txt", "build.txt")]
    folder = cache() / f"wheels-{python}-{hashlib.sha256(b''.join(pin.read_bytes() for pin in pins)).hexdigest()[:8]}"
    marker = folder / "complete"
    if not marker.is_file():
        only = ("--only-binary=:all:", "--python-version", python, "-d", str(folder))
        for pin in pins:
            run(sys.executable, "-m", "pip", "download", "-q", *only, "--require-hashes", "-r", str(pin))
        marker.touch()
    return folder


def mirror(suite: str) -> tuple[str, str]:
    """Return where this machine's own packages come from, and the components it uses."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    found = [line.split() for line in listed if line.split()[1:2] == [suite]]
    assert found, f"apt knows no source for {suite}"
    address = found[0][0]
    known = {component for uri, _, component in found if uri == address}
    return address, ",".join(sorted(known & {"main", "universe"}))
