"""A small system of this machine's own distribution or another, and wheels for its Python; both cached."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from tests.process.environments import REPOSITORY, cache, run

PACKAGES = ("systemd", "systemd-sysv", "dbus", "make", "python3", "python3-venv")
NEWER = "3.11"  # installed beside a system's Python that is too old, as an operator would


def _suite() -> str:
    return os.environ.get("ROADWORK_TEST_SUITE") or platform.freedesktop_os_release()["VERSION_CODENAME"]


def unpack_rootfs(root: Path) -> str:
    """Unpack the system, made on first use, and return the version of its Python."""
    suite = _suite()
    packed = cache() / f"rootfs-{suite}.tar"
    packed.parent.mkdir(parents=True, exist_ok=True)
    with packed.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not packed.is_file():
            address, components = mirror(suite)
            options = ("--variant=minbase", f"--include={','.join(PACKAGES)}", f"--components={components}")
            run("debootstrap", *options, suite, str(root), address)
            if _python_of(root) < (3, 11):
                _install_newer_python(root, f"{address} {suite}-updates {components.replace(',', ' ')}")
            partial = packed.with_suffix(".partial")
            run("tar", "-cf", str(partial), "-C", str(root), ".")
            partial.replace(packed)
        else:
            root.mkdir()
            run("tar", "-xf", str(packed), "-C", str(root))
    version = _python_of(root)
    return NEWER if version < (3, 11) else ".".join(map(str, version))


def _python_of(root: Path) -> tuple[int, ...]:
    told = run("chroot", str(root), "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    return tuple(map(int, told.split(".")))


def _install_newer_python(root: Path, source: str) -> None:
    with (root / "etc" / "apt" / "sources.list").open("a") as sources:
        sources.write(f"deb {source}\n")
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    run("chroot", str(root), "apt-get", "update")
    wanted = (f"python{NEWER}", f"python{NEWER}-venv")
    run("chroot", str(root), "apt-get", "install", "-y", "--no-install-recommends", *wanted)


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
    """Return where packages come from, and the components: this machine's own, unless it is told another's."""
    if given := os.environ.get("ROADWORK_TEST_MIRROR"):
        return given, "main,universe"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    found = [line.split() for line in listed if line.split()[1:2] == [suite]]
    assert found, f"apt knows no source for {suite}"
    address = found[0][0]
    known = {component for uri, _, component in found if uri == address}
    return address, ",".join(sorted(known & {"main", "universe"}))
